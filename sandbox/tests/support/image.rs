//! An OCI image made from Debian's busybox-static: its tools, and the test's own app with the libraries it needs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use images::StoreConfig;
use manifests::workload::Image;
use sandbox::LocalConfig;

/// Where the app is in the image.
pub const TESTAPP: &str = "/app/testapp";

/// A driver's settings, with images that can be unpacked.
pub fn config(data_dir: &Path) -> LocalConfig {
    fs::create_dir_all(data_dir).unwrap();
    let worker = StoreConfig::default().with_worker(super::TESTAPP);
    LocalConfig {
        images: Some(images::Store::open(&data_dir.join("images"), worker).unwrap()),
        ..super::config(data_dir)
    }
}

/// Debian's busybox-static; `None`, with the reason printed, without it.
pub fn busybox() -> Option<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs busybox-static");
        eprintln!("skipped: needs busybox-static");
    }
    found
}

/// An OCI image layout of one layer below `dir`.
pub fn oci(dir: &Path) -> Option<Image> {
    let busybox = busybox()?;
    let root = dir.join("root");
    for sub in ["app", "bin", "etc", "lib64", "tmp"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for tool in [
        "cat", "echo", "env", "id", "ls", "rm", "sh", "sleep", "stty", "test", "touch", "true",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(super::TESTAPP, root.join(TESTAPP.trim_start_matches('/'))).unwrap();
    for library in libraries() {
        let to = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&library, to).unwrap();
    }
    let layout = dir.join("layout");
    pack(&root, &layout);
    fs::remove_dir_all(root).unwrap();
    Some(Image::Oci {
        path: layout,
        tag: None,
    })
}

/// What the app is linked with, as the loader finds it.
fn libraries() -> Vec<PathBuf> {
    let told = said("ldd", &[super::TESTAPP]);
    let paths = told.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

/// A layout of one image with one layer (OCI image specification 1.0, image-layout.md).
fn pack(root: &Path, layout: &Path) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let layer = layout.join("layer");
    let (from, to) = (root.to_str().unwrap(), layer.to_str().unwrap());
    said(
        "tar",
        &["--numeric-owner", "--owner=0", "--group=0", "-C", from, "-cf", to, "."],
    );
    let layer = add(&blobs, fs::read(&layer).unwrap());
    fs::remove_file(to).unwrap();
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["FROM_IMAGE=yes"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.0
    );
    let config = add(&blobs, config.into_bytes());
    let descriptor = |kind: &str, (digest, size): &(String, usize)| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        descriptor("config.v1+json", &config),
        descriptor("layer.v1.tar", &layer)
    );
    let manifest = add(&blobs, manifest.into_bytes());
    let manifests = descriptor("manifest.v1+json", &manifest);
    fs::write(
        layout.join("index.json"),
        format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#),
    )
    .unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Digest and size.
fn add(blobs: &Path, content: Vec<u8>) -> (String, usize) {
    let path = blobs.join("new");
    fs::write(&path, &content).unwrap();
    let told = said("sha256sum", &[path.to_str().unwrap()]);
    let hex = told.split_whitespace().next().unwrap();
    fs::rename(&path, blobs.join(hex)).unwrap();
    (format!("sha256:{hex}"), content.len())
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
