//! `docker-daemon:` against the Docker-compatible service of podman.

use std::process::Command;
use std::time::Duration;

use images::ImageError;
use images::docker::Daemon;

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
