//! Volumes in real sandboxes: what they show, to whom, and what is left of them; and an app's last words.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, SandboxId};
use manifests::text::Fact;
use manifests::units::Bytes;
use manifests::workload::{
    FileContent, HostAlias, HostPathKind, Image, Mount, TerminationMessage, Volume, VolumeFile, VolumeSource, Workload,
};
use sandbox::driver::{Driver, Event, Exit, StartError};
use support::{TESTAPP, spec, workload};

/// A root directory with Debian's busybox-static; `None`, with the reason printed, without it or without root.
fn image(dir: &Path) -> Option<PathBuf> {
    if !support::is_root() {
        return None;
    }
    let found = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(busybox) = found else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs busybox-static");
        eprintln!("skipped: needs busybox-static");
        return None;
    };
    let root = dir.join("image");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc/app")).unwrap();
    fs::create_dir_all(root.join("elsewhere")).unwrap();
    // A mount point that leads out of the root, if anybody followed it.
    symlink("/../../../elsewhere", root.join("link")).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for tool in [
        "sh", "cat", "id", "ls", "stat", "touch", "mkdir", "ln", "dd", "sleep", "grep", "rm", "mv",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    Some(root)
}

fn shell(image: Image, script: &str) -> Workload {
    let script = format!("exec 2>&1; {script}");
    let mut workload = Workload::new(image);
    workload.serving.command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    workload.stop_grace = Duration::ZERO;
    workload
}

fn add(workload: &mut Workload, source: VolumeSource, path: &str, sub_path: Option<&str>) {
    let name: Arc<str> = format!("v{}", workload.volumes.len()).into();
    workload.serving.mounts.push(Mount {
        volume: Arc::clone(&name),
        path: path.into(),
        sub_path: sub_path.map(Into::into),
        read_only: false,
    });
    workload.volumes.push(Volume { name, source });
}

fn empty(memory: bool, size: Option<u64>) -> VolumeSource {
    VolumeSource::Empty {
        memory,
        size: size.map(Bytes),
    }
}

fn files() -> VolumeSource {
    let file = |path: &str, content, mode| VolumeFile {
        path: path.into(),
        content,
        mode,
    };
    VolumeSource::Files(vec![
        file("conf/a", FileContent::Bytes(Arc::from(*b"from a map\n")), 0o444),
        file("key", FileContent::Bytes(Arc::from(*b"secret\n")), 0o400),
        file("name", FileContent::Text(Fact::PodName.into()), 0o644),
    ])
}

fn claim() -> VolumeSource {
    VolumeSource::Claim {
        claim: ObjectId::new("team", "notes"),
        read_only: false,
        shared: false,
    }
}

/// Runs it to its end.
async fn run(driver: &dyn Driver, id: &str, workload: Workload) -> Exit {
    match driver.start(spec(id, workload)).await {
        Err(StartError::Exited(exit)) => exit,
        other => panic!("it ends: {other:?}"),
    }
}

/// Nothing of any sandbox is left where its volumes were.
fn assert_nothing_left(data: &Path) {
    let left: Vec<_> = fs::read_dir(data.join("sandboxes"))
        .unwrap()
        .flatten()
        .map(|it| it.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_there_for_the_user_inside() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let data = dir.path().join("data");
    let host = dir.path().join("host");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("told"), "by the host\n").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let driver = support::driver(&data);
    let script = "id -u; cat /files/conf/a /files/name; echo; cat /files/key; touch /files/x; stat -c '%u:%g %a' /files/key /claim
        echo scratch > /a/b/scratch/x && cat /a/b/scratch/x; touch /claim/sub/mine && stat -c %u /claim/sub/mine
        cat /etc/app/one.conf; cat /host/told; ls /link; grep -c db.local /etc/hosts; echo last words > /dev/termination-log";
    let mut app = shell(Image::Dir(root.clone()), script);
    app.serving.security.user = Some(1000);
    app.fs_group = Some(2000);
    app.host_aliases.push(HostAlias {
        address: [10, 0, 0, 1].into(),
        names: vec!["db.local".into()],
    });
    add(&mut app, files(), "/files", None);
    add(&mut app, empty(false, None), "/a/b/scratch", None);
    add(&mut app, claim(), "/claim", None);
    add(&mut app, files(), "/etc/app/one.conf", Some("conf/a"));
    let path = host.clone();
    let kind = HostPathKind::Directory;
    add(&mut app, VolumeSource::HostPath { path, kind }, "/host", None);
    add(&mut app, empty(true, None), "/link", None);
    // The same claim again, a part of it that is not there yet.
    let sub = Mount {
        volume: "v2".into(),
        path: "/claim/sub".into(),
        sub_path: Some("deep/er".into()),
        read_only: false,
    };
    app.serving.mounts.push(sub);
    let mut spoken = app.clone();
    spoken.serving.termination.path = "/said".into();
    let exit = run(&*driver, "one", spoken).await;
    let wanted = "1000\nfrom a map\none\nsecret\ntouch: /files/x: Read-only file system\n0:2000 440\n0:2000 2777\nscratch\n1000\nfrom a \
                  map\nby the host\n1\n";
    // Its last words go elsewhere: there is no such file, and `/dev` is root's.
    let said = exit
        .last_output
        .replace("/bin/sh: can't create /dev/termination-log: Permission denied\n", "");
    assert_eq!(said, wanted);
    // Ids on disk are those inside.
    let kept = data.join("volumes/team/notes/deep/er/mine");
    assert_eq!(
        (fs::metadata(&kept).unwrap().uid(), fs::metadata(&kept).unwrap().gid()),
        (1000, 2000)
    );
    assert!(!root.join("elsewhere").join("x").exists());
    assert_nothing_left(&data);
    // What was claimed is there for the next one.
    let mut next = shell(
        Image::Dir(root),
        "ls /notes/deep/er; echo last words > /dev/termination-log; exit 3",
    );
    add(&mut next, claim(), "/notes", None);
    let exit = run(&*driver, "two", next).await;
    assert_eq!((exit.last_output.as_str(), exit.status.code()), ("last words\n", 3));
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_this_host_has_volumes_too() {
    let dir = tempfile::tempdir().unwrap();
    if !support::is_root() {
        return;
    }
    let driver = support::driver(&dir.path().join("data"));
    let script =
        "cat /conf/conf/a /conf/name; echo; echo x > /scratch/x && cat /scratch/x; cat /claim/none; touch /claim/some";
    let mut app = shell(Image::Host("/bin/sh".into()), script);
    add(&mut app, files(), "/conf", None);
    add(&mut app, empty(true, None), "/scratch", None);
    add(&mut app, claim(), "/claim", None);
    let exit = run(&*driver, "host", app).await;
    assert_eq!(
        exit.last_output,
        "from a map\nhost\nx\ncat: /claim/none: No such file or directory\n"
    );
    assert!(dir.path().join("data/volumes/team/notes/some").exists());
    assert_nothing_left(&dir.path().join("data"));
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_a_volume_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let data = dir.path().join("data");
    let driver = support::driver(&data);
    let mut first = shell(
        Image::Dir(root.clone()),
        "ln -s /etc /claim/out; ln -s ../../.. /claim/up; mkdir /claim/in; ln -s in /claim/ok",
    );
    add(&mut first, claim(), "/claim", None);
    run(&*driver, "first", first).await;
    for (link, fine) in [("out", false), ("up", false), ("out/ssl", false), ("ok", true)] {
        let mut next = shell(Image::Dir(root.clone()), "ls /part");
        add(&mut next, claim(), "/part", Some(link));
        match driver.start(spec("next", next)).await {
            Err(StartError::Refused(text)) if !fine => assert!(text.contains("subPath"), "{text}"),
            Err(StartError::Exited(exit)) if fine => assert_eq!(exit.last_output, ""),
            other => panic!("{link}: {other:?}"),
        }
    }
    assert_nothing_left(&data);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_full_a_volume_evicts() {
    let dir = tempfile::tempdir().unwrap();
    if !support::is_root() {
        return;
    }
    let data = dir.path().join("data");
    let driver = support::driver(&data);
    let mut events = driver.events();
    let mut app = workload(TESTAPP, &["serve"]);
    app.serving.image = Image::Host("/bin/sh".into());
    let script = format!("dd if=/dev/zero of=/small/x bs=1024 count=256 2>/dev/null; exec {TESTAPP} serve");
    app.serving.args = vec!["-c".into(), script.into()];
    // Shown, so that it can be executed.
    let path = Path::new(TESTAPP).parent().unwrap().to_owned();
    let kind = HostPathKind::Directory;
    add(
        &mut app,
        VolumeSource::HostPath {
            path: path.clone(),
            kind,
        },
        path.to_str().unwrap(),
        None,
    );
    add(&mut app, empty(false, Some(64 * 1024)), "/small", None);
    driver.start(spec("full", app)).await.unwrap();
    let why = "Evicted: Usage of EmptyDir volume \"v1\" exceeds the limit 65536.";
    let mut told = false;
    loop {
        match events.recv().await.unwrap() {
            Event::Unhealthy { why: said, .. } => told |= &*said == why,
            Event::Exited { exit, .. } => {
                assert_eq!(exit.unhealthy.as_deref(), Some(why));
                break;
            }
            _ => {}
        }
    }
    assert!(told);
    assert_nothing_left(&data);
    driver.shutdown(Duration::ZERO).await;
}

/// One container's `ephemeral-storage` limit is the whole pod's, over all its volumes on disk.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_together_hold_more_than_the_limit_evict() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    let mut events = driver.events();
    let fill = "dd if=/dev/zero of=/one/x bs=1024 count=600 && dd if=/dev/zero of=/two/x bs=1024 count=600; sleep 1000";
    let mut app = shell(Image::Dir(root), fill);
    app.serving.probes = manifests::workload::Probes::default();
    app.serving.resources.ephemeral_limit = Some(Bytes(1 << 20));
    add(&mut app, empty(false, None), "/one", None);
    add(&mut app, empty(false, None), "/two", None);
    driver.start(spec("full", app)).await.unwrap();
    let why = "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1048576.";
    let exit = loop {
        if let Event::Exited { exit, .. } = events.recv().await.unwrap() {
            break exit;
        }
    };
    assert_eq!(exit.unhealthy.as_deref(), Some(why));
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_the_file_or_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    let long = "i=0; while [ $i -lt 1000 ]; do echo 123456789; i=$((i+1)); done > /last";
    let cases = [
        (
            "/dev/termination-log",
            true,
            "echo out; echo bye > /dev/termination-log".to_owned(),
            "bye\n".to_owned(),
        ),
        ("/dev/termination-log", true, "echo out".to_owned(), "out\n".to_owned()),
        ("/dev/termination-log", false, "echo out".to_owned(), String::new()),
        (
            "/var/log/new/last",
            true,
            "echo bye > /var/log/new/last; rm /var/log/new/last 2>/dev/null".to_owned(),
            "bye\n".to_owned(),
        ),
        (
            "/last",
            true,
            long.to_owned(),
            "123456789\n".repeat(410)[..4096].to_owned(),
        ),
    ];
    for (nth, (path, fall_back_to_logs, script, wanted)) in cases.into_iter().enumerate() {
        let mut app = shell(Image::Dir(root.clone()), &script);
        app.serving.security.user = Some(7);
        app.serving.termination = TerminationMessage {
            path: path.into(),
            fall_back_to_logs,
        };
        let exit = run(&*driver, &format!("words-{nth}"), app).await;
        assert_eq!(exit.last_output, wanted, "{script}");
    }
    let app = shell(
        Image::Host("/bin/sh".into()),
        "echo out; echo bye > /dev/termination-log",
    );
    assert_eq!(run(&*driver, "host", app).await.last_output, "bye\n");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_claim_waits_for_the_one_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    if !support::is_root() {
        return;
    }
    let driver = support::driver(&dir.path().join("data"));
    let holder = |id: &str| {
        let mut app = workload(TESTAPP, &["serve"]);
        add(&mut app, claim(), "/claim", None);
        spec(id, app)
    };
    driver.start(holder("one")).await.unwrap();
    match driver.start(holder("two")).await {
        Err(StartError::Exhausted(text)) => assert!(text.contains("team/notes is in use by one"), "{text}"),
        other => panic!("{other:?}"),
    }
    driver.stop(&SandboxId::new("one"), Duration::ZERO).await.unwrap();
    driver.start(holder("two")).await.unwrap();
    driver.shutdown(Duration::ZERO).await;
}

/// The spawner outlives a Knarr that was killed, and removes what it has left.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_knarr_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    if !support::is_root() {
        return;
    }
    let data = dir.path().join("data");
    let driver = support::driver(&data);
    let mut app = workload(TESTAPP, &["serve"]);
    add(&mut app, empty(false, None), "/disk", None);
    add(&mut app, files(), "/files", None);
    add(&mut app, claim(), "/claim", None);
    add(&mut app, empty(true, Some(1 << 20)), "/memory", None);
    driver.start(spec("left", app)).await.unwrap();
    let mounted = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts
            .lines()
            .filter(|line| line.contains(data.to_str().unwrap()))
            .count()
    };
    assert_eq!(mounted(), 1);
    assert!(data.join("sandboxes/left/v0").exists());
    let in_memory = || {
        let found = fs::read_dir("/dev/shm")
            .unwrap()
            .flatten()
            .map(|it| it.path().join("left/v1"));
        found.filter(|path| path.exists()).count()
    };
    assert_eq!(in_memory(), 1);
    // Its end of the socket closes, as at a kill -9.
    drop(driver);
    let gone = async {
        while data.join("sandboxes").exists() || in_memory() > 0 || mounted() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("something is left");
    assert!(data.join("volumes/team/notes").exists());
}
