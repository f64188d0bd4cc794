//! Images that real tools have made, and what real tools make of the same.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use images::Silent;
use manifests::workload::{Image, PullPolicy};

use crate::support::{Compression, Layer, Picture, is_root, names, oci, skip, store};

fn has(tool: &str) -> bool {
    Command::new(tool)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A layer like those of distributions: busybox with its links, when it is installed.
fn busybox() -> Picture {
    let program = std::fs::read("/bin/busybox").unwrap_or_else(|_| b"#!/bin/sh\n".to_vec());
    let base = Layer::new()
        .directory("bin")
        .raw(tar::EntryType::Regular, b"bin/busybox", b"", 0o4755, &program);
    let base = ["sh", "ls", "cat"]
        .iter()
        .fold(base, |layer, name| layer.symlink(&format!("bin/{name}"), "busybox"));
    let base = base
        .hardlink("bin/again", "bin/busybox")
        .directory("etc")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    let base = base
        .raw(tar::EntryType::Directory, b"tmp", b"", 0o1777, b"")
        .file("var/old", b"old")
        .file("var/log/x", b"x");
    let top = Layer::new()
        .directory("etc")
        .file("etc/motd", b"hi\n")
        .file("var/.wh.old", b"")
        .file("etc/.wh.passwd", b"");
    Picture::new(vec![
        (base.finish(), Compression::Gzip),
        (top.finish(), Compression::Gzip),
    ])
}

#[tokio::test]
async fn whatever_skopeo_writes_is_read() {
    if !has("skopeo") {
        return skip("skopeo is not installed");
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let digest = busybox().layout(&at("layout"), Some("v1"));
    let from = format!("oci:{}:v1", at("layout").display());
    let path = |name: &str| at(name);
    let table = [
        (format!("dir:{}", at("dir").display()), Image::Dir(path("dir"))),
        (
            format!("oci-archive:{}:v1", at("oci.tar").display()),
            Image::OciArchive {
                path: path("oci.tar"),
                tag: Some("v1".to_owned()),
            },
        ),
        (
            format!("docker-archive:{}:app:v1", at("docker.tar").display()),
            Image::DockerArchive {
                path: path("docker.tar"),
                tag: Some("app:v1".to_owned()),
            },
        ),
        (
            format!("oci:{}:zstd", at("zstd").display()),
            oci(&at("zstd"), Some("zstd")),
        ),
        (format!("dir:{}", at("schema2").display()), Image::Dir(path("schema2"))),
    ];
    let store = store(&at("store"));
    for (to, image) in table {
        let more: &[&str] = match &to {
            to if to.ends_with("zstd") => &["--dest-compress", "--dest-compress-format", "zstd"],
            to if to.ends_with("schema2") => &["--format", "v2s2"],
            _ => &[],
        };
        run(
            "skopeo",
            &[&["--insecure-policy", "copy", "--quiet"], more, &[&from, &to]].concat(),
        );
        let root = store.ensure(&image, PullPolicy::Always, &[], &Silent).await.unwrap();
        assert_eq!(root.layers.len(), 2, "{to}");
        assert!(
            root.layers[1].join("bin/busybox").exists() && root.layers[0].join("etc/motd").exists(),
            "{to}"
        );
        assert_eq!(root.config.entrypoint, ["/bin/app"], "{to}");
    }
    // However it was packed, each layer is there once.
    assert_eq!(store.usage().unwrap().layers, 2);
    let same = store
        .ensure(&oci(&at("layout"), None), PullPolicy::Always, &[], &Silent)
        .await
        .unwrap();
    assert_eq!(same.digest, digest);
}

#[tokio::test]
async fn the_same_files_as_umoci_unpacks() {
    if !is_root() || !has("umoci") {
        return skip("umoci is not installed, or not root");
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).display().to_string();
    // One layer: what umoci leaves is what an overlay of several shows.
    let mut picture = busybox();
    picture.layers.truncate(1);
    picture.layout(&temp.path().join("layout"), Some("v1"));
    run(
        "umoci",
        &["unpack", "--image", &format!("{}:v1", at("layout")), &at("bundle")],
    );
    let store = store(&temp.path().join("store"));
    let root = store
        .ensure(
            &oci(&temp.path().join("layout"), None),
            PullPolicy::Always,
            &[],
            &Silent,
        )
        .await
        .unwrap();
    let theirs = temp.path().join("bundle/rootfs");
    assert_eq!(listing(&root.layers[0]), listing(&theirs));
}

/// Every name with its mode, owner, size, time and target. Directories that no entry names have no time of their own.
fn listing(root: &Path) -> Vec<String> {
    let describe = |name: String| {
        let path = root.join(&name);
        let stat = path.symlink_metadata().unwrap();
        let target = std::fs::read_link(&path).unwrap_or_default();
        let (size, time) = if stat.is_dir() {
            (0, 0)
        } else {
            (stat.size(), stat.mtime())
        };
        format!(
            "{name} {:o} {}:{} {} {size} {time} {}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            if stat.is_dir() { 0 } else { stat.nlink() },
            target.display()
        )
    };
    names(root).into_iter().map(describe).collect()
}
