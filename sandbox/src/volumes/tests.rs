use std::os::unix::fs::{PermissionsExt, symlink};

use manifests::units::Millicores;
use manifests::workload::{FileContent, Image, VolumeFile};

use super::*;

fn facts() -> Facts {
    Facts {
        pod_name: "a-1".to_owned(),
        pod_uid: String::new(),
        node_name: String::new(),
        port: 1,
        node_cpu: Millicores(1),
        node_memory: Bytes(1),
    }
}

fn workload(sources: Vec<VolumeSource>) -> Workload {
    let mut workload = Workload::new(Image::Host("x".into()));
    for (nth, source) in sources.into_iter().enumerate() {
        let name: Arc<str> = format!("v{nth}").into();
        workload.serving.mounts.push(mount(&name, &format!("/mnt/{nth}"), None));
        workload.volumes.push(Volume { name, source });
    }
    workload
}

fn mount(volume: &str, path: &str, sub_path: Option<&str>) -> Mount {
    Mount {
        volume: volume.into(),
        path: path.into(),
        sub_path: sub_path.map(Into::into),
        read_only: false,
    }
}

fn claim(shared: bool) -> VolumeSource {
    VolumeSource::Claim {
        claim: ObjectId::new("ns", "data"),
        read_only: false,
        shared,
    }
}

const EMPTY: VolumeSource = VolumeSource::Empty {
    memory: false,
    size: None,
};

fn id(name: &str) -> SandboxId {
    SandboxId::new(name)
}

/// The driver's, in a directory of the test's own; what is in memory goes with it.
struct Open(Arc<Volumes>);

impl std::ops::Deref for Open {
    type Target = Arc<Volumes>;

    fn deref(&self) -> &Arc<Volumes> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for root in self.0.temporary() {
            let _ = fs::remove_dir_all(root);
        }
    }
}

fn open(dir: &Path) -> Open {
    // Of the whole path: every test has a name of its own.
    let group = format!("test{}", dir.display()).replace(['/', '.'], "-");
    Open(Arc::new(Volumes::open(dir, &group).unwrap()))
}

fn source<'a>(made: &'a Made, name: &str) -> &'a Path {
    &made.sources[name].path
}

#[test]
fn what_a_sandbox_had_is_gone_and_what_it_claimed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path());
    let files = vec![
        VolumeFile {
            path: "a/b".into(),
            content: FileContent::Bytes(Arc::from(*b"\0secret")),
            mode: 0o400,
        },
        VolumeFile {
            path: "name".into(),
            content: FileContent::Text(manifests::text::Fact::PodName.into()),
            mode: 0o644,
        },
    ];
    let memory = VolumeSource::Empty {
        memory: true,
        size: None,
    };
    let workload = workload(vec![EMPTY, memory, VolumeSource::Files(files), claim(false)]);
    let made = volumes.make(&id("one"), &workload, &facts()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(source(&made, "v0")), 0o777);
    let files = source(&made, "v2");
    assert_eq!(fs::read(files.join("a/b")).unwrap(), b"\0secret");
    assert_eq!(fs::read_to_string(files.join("name")).unwrap(), "a-1");
    assert_eq!((mode(&files.join("a/b")), mode(&files.join("name"))), (0o400, 0o644));
    for kept in ["v0", "v1", "v3"] {
        fs::write(source(&made, kept).join("x"), "x").unwrap();
    }
    let (gone, claimed) = (source(&made, "v1").to_owned(), source(&made, "v3").to_owned());
    assert_eq!(claimed, dir.path().join("volumes/ns/data"));
    made.remove().unwrap();
    assert!(!gone.exists() && claimed.join("x").exists());
    for root in volumes.temporary() {
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "{}", root.display());
    }
}

#[test]
fn what_a_crash_has_left_is_gone_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path());
    let memory = VolumeSource::Empty {
        memory: true,
        size: None,
    };
    let made = volumes
        .make(&id("one"), &workload(vec![EMPTY, memory, claim(true)]), &facts())
        .unwrap();
    // Hostile leftovers: a link to somewhere that must stay.
    fs::write(dir.path().join("stays"), "").unwrap();
    symlink(dir.path(), source(&made, "v0").join("link")).unwrap();
    fs::write(source(&made, "v2").join("kept"), "").unwrap();
    let _again = open(dir.path());
    assert!(!source(&made, "v0").exists() && !source(&made, "v1").exists());
    assert!(dir.path().join("stays").exists() && source(&made, "v2").join("kept").exists());
}

#[test]
fn an_exclusive_claim_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path());
    let first = volumes
        .make(&id("one"), &workload(vec![claim(false)]), &facts())
        .unwrap();
    let error = volumes
        .make(&id("two"), &workload(vec![EMPTY, claim(false)]), &facts())
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "PersistentVolumeClaim ns/data is in use by one, and one sandbox may have it"
    );
    assert!(matches!(error, StartError::Exhausted(_)));
    first.remove().unwrap();
    let second = volumes
        .make(&id("two"), &workload(vec![claim(false)]), &facts())
        .unwrap();
    second.remove().unwrap();
    let shared = [1, 2].map(|nth| {
        volumes
            .make(&id(&format!("s{nth}")), &workload(vec![claim(true)]), &facts())
            .unwrap()
    });
    for made in &shared {
        made.remove().unwrap();
    }
}

#[test]
fn paths_of_the_host_are_what_they_must_be() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let volumes = open(&data);
    fs::write(dir.path().join("file"), "").unwrap();
    let run = |path: &Path, kind| {
        let source = VolumeSource::HostPath {
            path: path.to_owned(),
            kind,
        };
        let made = volumes.make(&id("one"), &workload(vec![source]), &facts());
        made.map(drop)
            .map_err(|error| error.to_string().rsplit(": ").next().unwrap().to_owned())
    };
    let file = dir.path().join("file");
    assert_eq!(run(&file, HostPathKind::Any), Ok(()));
    assert_eq!(run(&file, HostPathKind::File), Ok(()));
    assert_eq!(
        run(&file, HostPathKind::Directory),
        Err("is not a directory".to_owned())
    );
    assert_eq!(run(&file, HostPathKind::Socket), Err("is not a socket".to_owned()));
    let none = dir.path().join("none");
    assert_eq!(
        run(&none, HostPathKind::Any),
        Err("there is no such file or directory".to_owned())
    );
    assert_eq!(run(&none, HostPathKind::DirectoryOrCreate), Ok(()));
    assert!(none.is_dir());
    for ours in [data.as_path(), &data.join("volumes"), dir.path(), Path::new("/")] {
        let error = run(ours, HostPathKind::Any);
        assert_eq!(
            error,
            Err("Knarr's own data directory is in the way".to_owned()),
            "{ours:?}"
        );
    }
}

#[test]
fn mounts_become_steps_and_a_link_out_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path());
    let mut workload = workload(vec![EMPTY]);
    let made = volumes.make(&id("one"), &workload, &facts()).unwrap();
    let root = source(&made, "v0").to_owned();
    fs::write(root.join("conf"), "").unwrap();
    symlink("/etc", root.join("out")).unwrap();
    workload.serving.mounts = vec![
        mount("v0", "/a/b/c", Some("new/dir")),
        mount("v0", "/a", None),
        mount("v0", "/etc/app.conf", Some("conf")),
    ];
    let steps = made.steps(&workload.serving).unwrap();
    let dirs = ["/a", "/etc"].map(|path| FsStep::Dir { path: path.into() });
    let found = steps.iter().filter(|step| matches!(step, FsStep::Dir { .. }));
    assert!(found.eq(&dirs), "{steps:?}");
    let volume = |path: &str, sub_path: Option<&str>| FsStep::Volume {
        source: root.clone(),
        sub_path: sub_path.map(Into::into),
        path: path.into(),
        read_only: false,
    };
    let wanted = [
        volume("/a", None),
        volume("/etc/app.conf", Some("conf")),
        volume("/a/b/c", Some("new/dir")),
    ];
    assert!(
        steps
            .iter()
            .filter(|step| matches!(step, FsStep::Volume { .. }))
            .eq(&wanted)
    );
    assert!(root.join("new/dir").is_dir());
    // What is mounted in a volume is made there, on the host.
    assert!(root.join("b/c").is_dir());
    workload.serving.mounts = vec![mount("v0", "/a", Some("out/ssl"))];
    let error = made.steps(&workload.serving).unwrap_err();
    assert!(error.starts_with("subPath out/ssl of volume \"v0\": "), "{error}");
    made.remove().unwrap();
}

#[test]
fn a_volume_that_is_too_full_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path());
    let small = VolumeSource::Empty {
        memory: false,
        size: Some(Bytes(64 * 1024)),
    };
    let made = volumes
        .make(&id("one"), &workload(vec![EMPTY, small]), &facts())
        .unwrap();
    assert!(made.is_limited());
    fs::write(source(&made, "v0").join("x"), vec![1; 1 << 20]).unwrap();
    assert_eq!(made.over_limit(), None);
    fs::write(source(&made, "v1").join("x"), vec![1; 128 * 1024]).unwrap();
    assert_eq!(
        made.over_limit().as_deref(),
        Some("Usage of EmptyDir volume \"v1\" exceeds the limit 65536.")
    );
    made.remove().unwrap();
}
