//! Every local transport, with real archives and the real worker.

use crate::support::{Compression, Layer, Picture, oci, pack, read, store};
use images::{ImageError, Silent};
use manifests::workload::{Image, PullPolicy};

fn picture() -> Picture {
    let lower = Layer::new()
        .directory("etc")
        .file("etc/a", b"lower")
        .file("etc/b", b"stays")
        .symlink("bin", "usr/bin")
        .finish();
    let upper = Layer::new()
        .directory("etc")
        .file("etc/a", b"upper")
        .file("usr/bin/app", b"#!")
        .hardlink("usr/bin/same", "usr/bin/app")
        .finish();
    Picture::new(vec![(lower, Compression::Gzip), (upper, Compression::Zstd)])
}

#[tokio::test]
async fn each_transport_gives_the_same_root() {
    let temp = tempfile::tempdir().unwrap();
    let store = store(&temp.path().join("store"));
    let picture = picture();
    let (layout, archive) = (temp.path().join("layout"), temp.path().join("oci.tar"));
    let digest = picture.layout(&layout, Some("v1"));
    pack(&layout, &archive);
    let docker = temp.path().join("docker.tar");
    picture.docker_archive(&docker, &["app:v1"]);
    let skopeo = temp.path().join("skopeo");
    picture.skopeo(&skopeo);

    let tag = || Some("v1".to_owned());
    let images = [
        (oci(&layout, None), true),
        (oci(&layout, Some("v1")), true),
        (
            Image::OciArchive {
                path: archive,
                tag: tag(),
            },
            true,
        ),
        (
            Image::DockerArchive {
                path: docker.clone(),
                tag: None,
            },
            false,
        ),
        (
            Image::DockerArchive {
                path: docker,
                tag: Some("app:v1".to_owned()),
            },
            false,
        ),
        (Image::Dir(skopeo), true),
    ];
    for (image, has_manifest) in images {
        assert!(store.ready(&image).is_none(), "{image}");
        let root = store
            .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
            .await
            .unwrap();
        if has_manifest {
            assert_eq!(root.digest, digest, "{image}");
        }
        assert_eq!(store.resolve(&image, &[]).await.unwrap(), root.digest, "{image}");
        let [upper, lower] = root.layers.as_slice() else {
            panic!("{image}: {:?}", root.layers)
        };
        assert_eq!(read(upper, "etc/a"), "upper", "{image}");
        assert_eq!(read(lower, "etc/a"), "lower", "{image}");
        assert_eq!(read(lower, "etc/b"), "stays", "{image}");
        assert_eq!(std::fs::read_link(lower.join("bin")).unwrap().to_str(), Some("usr/bin"));
        assert_eq!(read(upper, "usr/bin/same"), "#!");
        assert_eq!(root.config.entrypoint, ["/bin/app"]);
        assert_eq!(root.config.env, ["A=b"]);
        assert_eq!(root.config.working_dir, "/srv");
        assert_eq!(root.config.user, "7:8");
        assert_eq!(root.config.exposed_ports, ["8080/tcp"]);
        assert!(store.ready(&image).is_some(), "{image}");
    }
    // Six names, two layers.
    let usage = store.usage().unwrap();
    assert_eq!((usage.images, usage.layers), (6, 2));
}

#[tokio::test]
async fn a_plain_directory_is_used_in_place() {
    let temp = tempfile::tempdir().unwrap();
    let store = store(&temp.path().join("store"));
    let root = temp.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let image = Image::Dir(root.clone());
    let ensured = store.ensure(&image, PullPolicy::Never, &[], &Silent).await.unwrap();
    assert_eq!(ensured.layers, [root.canonicalize().unwrap()]);
    assert!(ensured.config.entrypoint.is_empty() && ensured.is_plain());
    assert!(
        store.pin(&image, &ensured).await.unwrap().is_none(),
        "nothing holds it as it is"
    );
    assert_eq!(store.usage().unwrap().layers, 0);
    let absent = Image::Dir(temp.path().join("absent"));
    let error = store
        .ensure(&absent, PullPolicy::Never, &[], &Silent)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ImageError::NotFound(reason) if reason.contains("does not exist")),
        "{error}"
    );
}
