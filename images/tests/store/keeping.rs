//! The store: what is shared, merged, verified, kept and collected.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{
    Compression, Layer, Picture, add_to_index, count, counting, names, noise, oci, put_blob, simple, store, store_with,
    unfinished,
};
use images::{Digest, ImageError, Progress, Silent, Stage, Store, StoreConfig};
use manifests::units::Bytes;
use manifests::workload::{Image, PullPolicy};

async fn ensure(store: &Store, image: &Image) -> Result<std::sync::Arc<images::Root>, ImageError> {
    store.ensure(image, PullPolicy::IfNotPresent, &[], &Silent).await
}

#[tokio::test]
async fn many_who_want_the_same_layers_cause_one_unpacking_each() {
    let temp = tempfile::tempdir().unwrap();
    let (log, dir) = (temp.path().join("log"), temp.path().join("store"));
    let shared = Layer::new().file("shared", &noise(1, 3 << 20)).finish();
    let picture = |seed| {
        let own = Layer::new().file("own", &noise(seed, 1 << 20)).finish();
        Picture::new(vec![(shared.clone(), Compression::Gzip), (own, Compression::None)])
    };
    let layout = temp.path().join("layout");
    picture(2).layout(&layout, Some("a"));
    picture(3).layout(&layout, Some("b"));
    // A second store on the same directory is to the first what another process is.
    let stores = [
        counting(&dir, &log, StoreConfig::default()),
        counting(&dir, &log, StoreConfig::default()),
    ];
    let images = [oci(&layout, Some("a")), oci(&layout, Some("b"))];
    let all = (0..24).map(|number| {
        let (store, image) = (stores[number % 2].clone(), images[number / 2 % 2].clone());
        async move { ensure(&store, &image).await.unwrap() }
    });
    let roots = futures_util::future::join_all(all).await;
    assert_eq!(count(&log), 3);
    assert!(
        roots
            .iter()
            .all(|root| fs::metadata(root.layers[1].join("shared")).unwrap().len() == 3 << 20)
    );
    assert_eq!(stores[0].usage().unwrap().layers, 3);
    assert!(unfinished(&dir).is_empty(), "{:?}", unfinished(&dir));
}

#[tokio::test]
async fn pull_policies() {
    let temp = tempfile::tempdir().unwrap();
    let (log, dir) = (temp.path().join("log"), temp.path().join("store"));
    let layout = temp.path().join("layout");
    let image = oci(&layout, Some("v"));
    let store = counting(&dir, &log, StoreConfig::default());
    let with = |policy| store.ensure(&image, policy, &[], &Silent);

    let error = with(PullPolicy::Never).await.unwrap_err().to_string();
    assert!(error.contains("imagePullPolicy is Never"), "{error}");
    assert!(matches!(
        with(PullPolicy::IfNotPresent).await,
        Err(ImageError::NotFound(_))
    ));

    let first = simple(1, 1000).layout(&layout, Some("v"));
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Always, PullPolicy::Never] {
        assert_eq!(with(policy).await.unwrap().digest, first, "{policy:?}");
    }
    assert_eq!(count(&log), 1);

    // The name stands for something else now; a local file is looked at even when the image is present.
    fs::remove_file(layout.join("index.json")).unwrap();
    let second = simple(2, 1000).layout(&layout, Some("v"));
    assert_eq!(with(PullPolicy::Never).await.unwrap().digest, first);
    assert_eq!(with(PullPolicy::Always).await.unwrap().digest, second);
    assert_eq!(count(&log), 2);

    // Gone: what is in the store is used unless it must be asked for.
    fs::remove_dir_all(&layout).unwrap();
    assert_eq!(with(PullPolicy::IfNotPresent).await.unwrap().digest, second);
    assert!(with(PullPolicy::Always).await.is_err());
    // And it is there for the next Knarr.
    drop(store);
    let store = crate::support::store(&dir);
    assert!(store.ready(&image).is_none());
    let root = store.ensure(&image, PullPolicy::Never, &[], &Silent).await.unwrap();
    assert_eq!((root.digest, store.ready(&image).unwrap().digest), (second, second));
}

/// Two revisions of one local name: each has what the name held when it was made, also for the next Knarr.
#[tokio::test]
async fn a_pinned_image_stays_what_it_was_whatever_its_source_holds() {
    let temp = tempfile::tempdir().unwrap();
    let (layout, dir) = (temp.path().join("layout"), temp.path().join("store"));
    let image = oci(&layout, Some("v"));
    let store = crate::support::store(&dir);
    let ensure = async |store: &Store, image: &Image, policy| store.ensure(image, policy, &[], &Silent).await;
    let first = simple(1, 1000).layout(&layout, Some("v"));
    let root = ensure(&store, &image, PullPolicy::Always).await.unwrap();
    let pinned = store.pin(&image, &root).await.unwrap().expect("an image");
    assert_eq!(pinned.to_string(), format!("{image}@{first}"));
    assert_eq!(store.ready(&pinned).unwrap().digest, first);
    assert_eq!(Arc::strong_count(&root), 2, "the store's own, and this");

    fs::remove_file(layout.join("index.json")).unwrap();
    let second = simple(2, 1000).layout(&layout, Some("v"));
    assert_eq!(ensure(&store, &image, PullPolicy::Always).await.unwrap().digest, second);
    assert!(
        store.pin(&image, &root).await.unwrap().is_none(),
        "that root is not what the name stands for"
    );
    for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
        assert_eq!(
            ensure(&store, &pinned, policy).await.unwrap().digest,
            first,
            "{policy:?}"
        );
    }
    // For the next Knarr too, and without its source.
    drop((root, store));
    let store = crate::support::store(&dir);
    fs::rename(&layout, temp.path().join("away")).unwrap();
    assert_eq!(ensure(&store, &pinned, PullPolicy::Always).await.unwrap().digest, first);
    let names: Vec<String> = store.list().unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, [image.to_string(), pinned.to_string()]);

    // Removed from the store it is fetched again, if it is still there; something else is not taken for it.
    fs::rename(temp.path().join("away"), &layout).unwrap();
    store.remove(&pinned.to_string()).unwrap();
    let error = ensure(&store, &pinned, PullPolicy::IfNotPresent).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::NotFound(text) if text.contains(&format!("another image by now ({second})"))),
        "{error}"
    );
    fs::remove_file(layout.join("index.json")).unwrap();
    simple(1, 1000).layout(&layout, Some("v"));
    assert_eq!(
        ensure(&store, &pinned, PullPolicy::IfNotPresent).await.unwrap().digest,
        first
    );
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused_and_leaves_nothing() {
    type Spoil = fn(&Path, &mut serde_json::Value, &mut serde_json::Value);
    let table: [(&str, Spoil, &str); 8] = [
        (
            "a layer's bytes",
            |dir, manifest, _| spoil(dir, &manifest["layers"][0]["digest"]),
            "has the digest",
        ),
        (
            "a layer's length",
            |dir, manifest, _| lengthen(dir, &manifest["layers"][0]["digest"]),
            "longer than",
        ),
        (
            "a layer's size",
            |_, manifest, _| manifest["layers"][0]["size"] = 1_000_000.into(),
            "the manifest says 1000000",
        ),
        (
            "a layer's other name",
            |_, _, config| config["rootfs"]["diff_ids"][0] = Digest::of(b"x").to_string().into(),
            "the configuration says",
        ),
        (
            "too few names",
            |_, _, config| config["rootfs"]["diff_ids"] = serde_json::json!([]),
            "1 layers, its configuration 0",
        ),
        (
            "no file system",
            |_, _, config| config["rootfs"] = serde_json::json!({"type": "squashfs"}),
            "rootfs.type",
        ),
        (
            "a layer that is not there",
            |_, manifest, _| manifest["layers"][0]["digest"] = Digest::of(b"y").to_string().into(),
            "is missing",
        ),
        (
            "another digest's algorithm",
            |_, manifest, _| manifest["layers"][0]["digest"] = "sha512:00".into(),
            "is not a digest",
        ),
    ];
    for (what, change, wanted) in table {
        let temp = tempfile::tempdir().unwrap();
        let (layout, dir) = (temp.path().join("layout"), temp.path().join("store"));
        let picture = simple(1, 100_000);
        picture.layout(&layout, None);
        fs::remove_file(layout.join("index.json")).unwrap();
        let (_, mut manifest) = picture.manifest();
        let mut config = serde_json::from_slice(&picture.config_bytes()).unwrap();
        change(&layout, &mut manifest, &mut config);
        let config = serde_json::to_vec(&config).unwrap();
        manifest["config"]["digest"] = put_blob(&layout, &config).to_string().into();
        manifest["config"]["size"] = config.len().into();
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = put_blob(&layout, &manifest);
        add_to_index(
            &layout,
            serde_json::json!({"digest": digest.to_string(), "size": manifest.len()}),
        );
        let store = store(&dir);
        let error = ensure(&store, &oci(&layout, None)).await.unwrap_err();
        assert!(matches!(&error, ImageError::Invalid { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains(wanted), "{what}: {error}");
        assert!(unfinished(&dir).is_empty(), "{what}: {:?}", unfinished(&dir));
        let usage = store.usage().unwrap();
        assert_eq!((usage.images, usage.layers, usage.total), (0, 0, Bytes(0)), "{what}");
    }
}

fn blob(dir: &Path, digest: &serde_json::Value) -> std::path::PathBuf {
    let digest: Digest = digest.as_str().unwrap().parse().unwrap();
    dir.join("blobs/sha256").join(digest.hex())
}

/// Other bytes that are as good an archive: only the hash tells.
fn spoil(dir: &Path, digest: &serde_json::Value) {
    let file = blob(dir, digest);
    let mut bytes = fs::read(&file).unwrap();
    // In gzip's header: the time.
    bytes[4] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn lengthen(dir: &Path, digest: &serde_json::Value) {
    let file = blob(dir, digest);
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(&[0; 100]);
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn hostile_archives_are_refused_by_the_real_worker() {
    let table = [
        (
            Layer::new().raw(tar::EntryType::Regular, b"../../escape", b"", 0o644, b"x"),
            "leads upwards",
        ),
        (Layer::new().hardlink("h", "etc/passwd"), "not in the same layer"),
        (
            Layer::new().raw(tar::EntryType::new(b'Z'), b"a", b"", 0, b""),
            "not known",
        ),
    ];
    for (layer, wanted) in table {
        let temp = tempfile::tempdir().unwrap();
        let (layout, dir) = (temp.path().join("layout"), temp.path().join("store"));
        Picture::new(vec![(layer.finish(), Compression::Gzip)]).layout(&layout, None);
        let store = store(&dir);
        let error = ensure(&store, &oci(&layout, None)).await.unwrap_err();
        assert!(
            matches!(&error, ImageError::Invalid { reason, .. } if reason.contains(wanted)),
            "{error:?}"
        );
        assert!(unfinished(&dir).is_empty());
        assert!(!temp.path().join("escape").exists());
    }
}

#[tokio::test]
async fn an_index_gives_the_image_of_this_platform() {
    let temp = tempfile::tempdir().unwrap();
    let (layout, dir) = (temp.path().join("layout"), temp.path().join("store"));
    let host = images::Platform::host();
    let mut manifests = Vec::new();
    let mut digests = Vec::new();
    for (seed, architecture) in [(1, "s390x"), (2, host.architecture.as_str()), (3, "unknown")] {
        let digest = simple(seed, 100).layout(&layout, None);
        let size = fs::metadata(layout.join("blobs/sha256").join(digest.hex()))
            .unwrap()
            .len();
        digests.push(digest);
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": size,
            "platform": {"os": if architecture == "unknown" { "unknown" } else { "linux" }, "architecture": architecture},
        }));
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    let digest = put_blob(&layout, &index);
    let entry = |tag: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.to_string(), "size": index.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        })
    };
    fs::remove_file(layout.join("index.json")).unwrap();
    add_to_index(&layout, entry("v1"));
    let here = store(&dir);
    assert_eq!(
        ensure(&here, &oci(&layout, Some("v1"))).await.unwrap().digest,
        digests[1]
    );
    assert_eq!(here.resolve(&oci(&layout, None), &[]).await.unwrap(), digests[1]);

    // The index as the layout's own.
    fs::write(layout.join("index.json"), &index).unwrap();
    assert_eq!(ensure(&here, &oci(&layout, None)).await.unwrap().digest, digests[1]);

    let platform = images::Platform {
        os: "linux".to_owned(),
        architecture: "riscv64".to_owned(),
        variant: None,
    };
    let there = store_with(
        &temp.path().join("riscv"),
        StoreConfig {
            platform,
            ..StoreConfig::default()
        },
    );
    let error = ensure(&there, &oci(&layout, None)).await.unwrap_err();
    let wanted = format!(
        "no image for linux/riscv64, only for linux/{}, linux/s390x",
        host.architecture
    );
    assert!(
        matches!(&error, ImageError::NotFound(reason) if reason.contains(&wanted)),
        "{error}"
    );

    // A single image of another platform is none for this one.
    let foreign = temp.path().join("foreign");
    let mut picture = simple(4, 100);
    picture.config["architecture"] = "s390x".into();
    picture.layout(&foreign, None);
    let error = ensure(&here, &oci(&foreign, None)).await.unwrap_err().to_string();
    assert!(error.contains("is for linux/s390x, this machine is linux/"), "{error}");
}

#[tokio::test]
async fn names_that_a_layout_does_not_have_get_those_it_has() {
    let temp = tempfile::tempdir().unwrap();
    let layout = temp.path().join("layout");
    simple(1, 10).layout(&layout, Some("v1"));
    simple(2, 10).layout(&layout, Some("v2"));
    let docker = temp.path().join("docker.tar");
    simple(1, 10).docker_archive(&docker, &["app:v1", "app:latest"]);
    let store = store(&temp.path().join("store"));
    let archive = |tag: &str| Image::DockerArchive {
        path: docker.clone(),
        tag: Some(tag.to_owned()),
    };
    let table = [
        (oci(&layout, Some("v3")), "no image is named v3: there are v1, v2"),
        (
            oci(&layout, None),
            "it has 2 images: say which one by its tag; there are v1, v2",
        ),
        (oci(&temp.path().join("absent"), None), "absent does not exist"),
        (
            archive("app:v2"),
            "no image is named app:v2: there are app:v1, app:latest",
        ),
        (
            Image::OciArchive {
                path: docker.clone(),
                tag: None,
            },
            "the file oci-layout is missing",
        ),
        (
            Image::DockerArchive {
                path: layout.join("oci-layout"),
                tag: None,
            },
            "not a tar archive",
        ),
        (
            Image::DockerArchive {
                path: temp.path().join("absent.tar"),
                tag: None,
            },
            "absent.tar does not exist",
        ),
    ];
    for (image, wanted) in table {
        let error = ensure(&store, &image).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{image}: {error}");
    }
    assert!(ensure(&store, &archive("app")).await.is_ok(), "latest is meant");
}

#[tokio::test]
async fn least_recently_used_images_make_room_and_those_in_use_stay() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let layout = |number: u64| temp.path().join(number.to_string());
    for number in 0..6 {
        simple(number, 1 << 20).layout(&layout(number), None);
    }
    let image = |number: u64| oci(&layout(number), None);
    // Three fit, and a little.
    let store = store_with(
        &dir,
        StoreConfig {
            quota: Some(Bytes((3 << 20) + (200 << 10))),
            ..StoreConfig::default()
        },
    );
    let held = ensure(&store, &image(0)).await.unwrap();
    for number in [1, 2] {
        drop(ensure(&store, &image(number)).await.unwrap());
    }
    assert_eq!(store.list().unwrap().len(), 3);
    assert!(store.list().unwrap().iter().filter(|info| info.in_use).count() == 1);
    drop(ensure(&store, &image(3)).await.unwrap());
    // The oldest is in use; the next one goes, and no more.
    assert_eq!(fs::metadata(held.layers[0].join("file")).unwrap().len(), 1 << 20);
    assert!(store.ready(&image(0)).is_some() && store.ready(&image(2)).is_some());
    assert!(store.ready(&image(3)).is_some());
    assert!(store.ready(&image(1)).is_none());
    assert!(store.usage().unwrap().total <= Bytes((3 << 20) + (200 << 10)));

    // All of them in use: nothing can go.
    let second = ensure(&store, &image(3)).await.unwrap();
    let third = ensure(&store, &image(4)).await.unwrap();
    let error = ensure(&store, &image(5)).await.unwrap_err();
    assert!(matches!(&error, ImageError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("quota"), "{error}");
    assert!(unfinished(&dir).is_empty());
    for root in [&held, &second, &third] {
        assert_eq!(fs::metadata(root.layers[0].join("file")).unwrap().len(), 1 << 20);
    }
    drop((second, third));
    ensure(&store, &image(5)).await.unwrap();
}

#[tokio::test]
async fn removal_and_pruning() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, layout) = (temp.path().join("store"), temp.path().join("layout"));
    let shared = Layer::new().file("shared", &noise(1, 100_000)).finish();
    for (tag, seed) in [("a", 2), ("b", 3)] {
        let own = Layer::new().file("own", &noise(seed, 100_000)).finish();
        Picture::new(vec![(shared.clone(), Compression::Gzip), (own, Compression::Gzip)]).layout(&layout, Some(tag));
    }
    let store = store(&dir);
    let (a, b) = (oci(&layout, Some("a")), oci(&layout, Some("b")));
    drop((ensure(&store, &a).await.unwrap(), ensure(&store, &b).await.unwrap()));
    let listed = store.list().unwrap();
    assert_eq!(
        listed.iter().map(|info| info.name.clone()).collect::<Vec<_>>(),
        [a.to_string(), b.to_string()]
    );
    assert!(
        listed
            .iter()
            .all(|info| info.complete && info.layers == 2 && info.size.0 > 200_000)
    );

    let removed = store.remove(&a.to_string()).unwrap();
    assert!(
        removed.freed.0 > 100_000 && removed.freed.0 < 150_000 && removed.in_use == 0,
        "{removed:?}"
    );
    assert!(store.ready(&a).is_none() && store.ready(&b).is_some());
    assert_eq!(store.usage().unwrap().layers, 2);
    assert!(matches!(store.remove(&a.to_string()), Err(ImageError::NotFound(_))));

    // In use here or elsewhere: the name goes, the layers stay until they are free.
    let held = ensure(&store, &b).await.unwrap();
    let other = crate::support::store(&dir);
    let removed = other.remove(&b.to_string()).unwrap();
    assert_eq!((removed.freed.0, removed.in_use), (0, 2));
    assert!(held.layers[0].join("own").exists());
    assert_eq!(other.prune(false).unwrap().layers, 0);
    drop(held);
    assert_eq!(
        other.prune(true).unwrap().layers,
        0,
        "the first store still has it at hand"
    );
    drop(store);
    let pruned = other.prune(false).unwrap();
    assert_eq!(pruned.layers, 2);
    assert_eq!(other.usage().unwrap(), images::Usage::default());
    assert_eq!(
        names(&dir.join("layers")).len() + names(&dir.join("blobs/sha256")).len() + names(&dir.join("trash")).len(),
        0
    );
}

#[tokio::test]
async fn prune_takes_unused_images_only_when_asked() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, layout) = (temp.path().join("store"), temp.path().join("layout"));
    simple(1, 1000).layout(&layout, Some("a"));
    simple(2, 1000).layout(&layout, Some("b"));
    let store = store(&dir);
    let held = ensure(&store, &oci(&layout, Some("a"))).await.unwrap();
    drop(ensure(&store, &oci(&layout, Some("b"))).await.unwrap());
    assert_eq!(store.prune(false).unwrap(), images::Pruned::default());
    let pruned = store.prune(true).unwrap();
    assert_eq!(
        (pruned.images, pruned.layers),
        (vec![oci(&layout, Some("b")).to_string()], 1)
    );
    assert!(held.layers[0].join("file").exists());
    // What was pruned comes back.
    ensure(&store, &oci(&layout, Some("b"))).await.unwrap();
}

/// Remembers the last stage of each layer.
#[derive(Default)]
struct Seen(Mutex<Vec<(Digest, Stage)>>);

impl Progress for Seen {
    fn stage(&self, layer: &Digest, stage: Stage) {
        self.0.lock().unwrap().push((*layer, stage));
    }
}

#[tokio::test]
async fn progress_ends_with_every_layer_done_or_present() {
    let temp = tempfile::tempdir().unwrap();
    let layout = temp.path().join("layout");
    simple(1, 4 << 20).layout(&layout, None);
    let store = store(&temp.path().join("store"));
    for last in [Stage::Done, Stage::Present] {
        let seen = Seen::default();
        // Again at its source, with the layer there already.
        let _ = store.remove(&oci(&layout, None).to_string());
        let held = store
            .ensure(&oci(&layout, None), PullPolicy::Always, &[], &seen)
            .await
            .unwrap();
        let seen = seen.0.into_inner().unwrap();
        if last == Stage::Done {
            assert_eq!(seen.last().map(|(_, stage)| *stage), Some(last), "{seen:?}");
        }
        drop(held);
    }
}

#[tokio::test]
async fn nobody_waits_any_more() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, layout) = (temp.path().join("store"), temp.path().join("layout"));
    simple(1, 1000).layout(&layout, None);
    // A worker that never ends.
    let worker = (
        "/bin/sh".into(),
        ["-c", "exec sleep 1000", "sh"].map(Into::into).to_vec(),
    );
    let store = Store::open(
        &dir,
        StoreConfig {
            worker,
            ..StoreConfig::default()
        },
    )
    .unwrap();
    let image = oci(&layout, None);
    let first = tokio::time::timeout(Duration::from_millis(300), ensure(&store, &image)).await;
    assert!(first.is_err());
    // The claim is given back, so that another can have it: by a worker that works.
    let working = crate::support::store(&dir);
    tokio::time::timeout(Duration::from_secs(20), ensure(&working, &image))
        .await
        .expect("the layer is still claimed")
        .unwrap();
    assert!(unfinished(&dir).is_empty());
}

#[tokio::test]
async fn what_was_damaged_on_the_disk_is_fetched_again() {
    let temp = tempfile::tempdir().unwrap();
    let (log, dir, layout) = (
        temp.path().join("log"),
        temp.path().join("store"),
        temp.path().join("layout"),
    );
    simple(1, 1000).layout(&layout, None);
    let image = oci(&layout, None);
    type Damage = fn(&Path);
    let table: [(&str, usize, Damage); 4] = [
        ("a record", 0, |dir| fs::write(one(&dir.join("images")), "{").unwrap()),
        ("a configuration or manifest", 0, |dir| {
            fs::write(one(&dir.join("blobs/sha256")), "").unwrap()
        }),
        ("a layer's facts", 1, |dir| {
            fs::write(one(&dir.join("layers")).join("layer.json"), "").unwrap()
        }),
        ("a layer", 1, |dir| {
            fs::remove_dir_all(one(&dir.join("layers"))).unwrap()
        }),
    ];
    for (what, unpacked, damage) in table {
        drop(
            ensure(&counting(&dir, &log, StoreConfig::default()), &image)
                .await
                .unwrap(),
        );
        let before = count(&log);
        damage(&dir);
        let root = ensure(&counting(&dir, &log, StoreConfig::default()), &image)
            .await
            .unwrap();
        assert_eq!(fs::metadata(root.layers[0].join("file")).unwrap().len(), 1000, "{what}");
        assert_eq!(count(&log) - before, unpacked, "{what}");
    }
}

/// The first entry.
fn one(dir: &Path) -> std::path::PathBuf {
    fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
}
