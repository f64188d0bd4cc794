//! `docker-daemon:` against the Docker-compatible service of podman.

use std::process::Command;
use std::time::Duration;

use images::docker::Daemon;
use images::{Digest, ImageError, Progress, Silent, Stage};
use manifests::workload::{Image, PullPolicy};

use crate::pictures;
use crate::support::{Program, have, run};

/// An image of podman's with one file, in storage of its own.
fn podman(storage: &std::path::Path) -> Vec<String> {
    let dir = |name: &str| storage.join(name).display().to_string();
    [
        "--storage-driver",
        "vfs",
        "--root",
        &dir("root"),
        "--runroot",
        &dir("run"),
        "--cgroup-manager",
        "cgroupfs",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn podmans_service_gives_an_archive() {
    if !have(&["podman", "tar"]) {
        return;
    }
    let storage = tempfile::tempdir().unwrap();
    let podman = podman(storage.path());
    let global: Vec<&str> = podman.iter().map(String::as_str).collect();
    std::fs::create_dir(storage.path().join("content")).unwrap();
    std::fs::write(storage.path().join("content/hello"), "hello").unwrap();
    let tar = storage.path().join("content.tar").display().to_string();
    run(
        "tar",
        &[
            "-C",
            &storage.path().join("content").display().to_string(),
            "-cf",
            &tar,
            "hello",
        ],
    );
    run(
        "podman",
        &[&global[..], &["import", "-q", &tar, "localhost/knarr-test:v1"]].concat(),
    );
    let socket = format!("unix://{}", storage.path().join("docker.sock").display());
    let mut command = Command::new("podman");
    command.args(&global).args(["system", "service", "--time=0", &socket]);
    let _service = Program::start(&mut command);
    let daemon = Daemon::at(&socket).unwrap();
    let mut tries = 0;
    let found = loop {
        match daemon.inspect("localhost/knarr-test:v1").await {
            Ok(found) => break found,
            Err(error) if tries == 500 => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tries += 1;
    };
    assert!(found.unwrap().id.len() >= 64);
    assert_eq!(daemon.inspect("localhost/other:v1").await.unwrap(), None);

    let mut saved = daemon.save("localhost/knarr-test:v1").await.unwrap();
    let mut archive = Vec::new();
    while let Some(bytes) = saved.chunk().await.unwrap() {
        archive.extend_from_slice(&bytes);
    }
    let file = storage.path().join("saved.tar");
    std::fs::write(&file, archive).unwrap();
    let members = run("tar", &["-tf", &file.display().to_string()]);
    assert!(members.lines().any(|it| it == "manifest.json"), "{members}");

    // Through the store, in a process whose environment names the daemon; then again after the image has changed.
    let pull = |wanted: &str| {
        let this = std::env::current_exe().unwrap();
        let output = Command::new(this)
            .args(["--exact", "docker::as_a_user_with_a_daemon", "--nocapture", "--ignored"])
            .env("DOCKER_HOST", &socket)
            .env("KNARR_TEST_STORE", storage.path().join("store"))
            .env("KNARR_TEST_HELLO", wanted)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}");
        words
    };
    pull("hello");
    assert!(pull("hello").contains("layers fetched: 0"), "it is there");
    std::fs::write(storage.path().join("content/hello"), "changed").unwrap();
    run(
        "tar",
        &[
            "-C",
            &storage.path().join("content").display().to_string(),
            "-cf",
            &tar,
            "hello",
        ],
    );
    run(
        "podman",
        &[&global[..], &["import", "-q", &tar, "localhost/knarr-test:v1"]].concat(),
    );
    pull("changed");

    let error = daemon.save("localhost/other:v1").await.unwrap_err();
    assert!(matches!(error, ImageError::NotFound(_)), "{error:?}");
}

#[tokio::test]
async fn no_daemon() {
    let error = Daemon::at("unix:///nonexistent/docker.sock")
        .unwrap()
        .save("app")
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("unix:///nonexistent/docker.sock"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test that sets the user's environment"]
async fn as_a_user_with_a_daemon() {
    #[derive(Default)]
    struct Fetched(std::sync::atomic::AtomicUsize);
    impl Progress for Fetched {
        fn layers(&self, layers: &[(Digest, manifests::units::Bytes)]) {
            self.0.store(layers.len(), std::sync::atomic::Ordering::Relaxed);
        }
        fn stage(&self, _: &Digest, _: Stage) {}
    }
    let store = pictures::store(std::env::var("KNARR_TEST_STORE").unwrap().as_ref());
    let image = Image::DockerDaemon("localhost/knarr-test:v1".into());
    let fetched = Fetched::default();
    let root = store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &fetched)
        .await
        .unwrap();
    assert_eq!(
        pictures::read(&root.layers[0], "hello"),
        std::env::var("KNARR_TEST_HELLO").unwrap()
    );
    eprintln!("layers fetched: {}", fetched.0.into_inner());

    // A bare name that only the daemon has.
    let image = Image::Registry("localhost/knarr-test:v1".parse().unwrap());
    let error = store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("the local Docker has it: write docker-daemon:knarr-test:v1"),
        "{error}"
    );
}
