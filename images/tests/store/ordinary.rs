//! The store of an ordinary user.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use images::{Silent, Store, StoreConfig};
use manifests::workload::PullPolicy;

use crate::support::{Compression, Layer, Picture, is_root, names, oci, skip};

const NOBODY: u32 = 65534;

#[test]
fn as_an_ordinary_user() {
    if !is_root() {
        return skip("this user is ordinary already, and all other tests are this one");
    }
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The build directory may be closed to others.
    for (from, to) in [
        (std::env::current_exe().unwrap(), "test"),
        (env!("CARGO_BIN_EXE_knarr-images-worker").into(), "worker"),
    ] {
        fs::copy(from, temp.path().join(to)).unwrap();
    }
    let home = temp.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(temp.path().join("test"))
        .args([
            "--exact",
            "ordinary::child_of_an_ordinary_user",
            "--ignored",
            "--nocapture",
        ])
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .env("WORKER", temp.path().join("worker"))
        .current_dir("/")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Not a test by itself: what [`as_an_ordinary_user`] starts as one.
#[tokio::test]
#[ignore = "started by as_an_ordinary_user"]
async fn child_of_an_ordinary_user() {
    let Some(worker) = std::env::var_os("WORKER") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let lower = Layer::new().file("d/a", b"1").file("gone", b"1");
    let mut header = tar::Header::new_gnu();
    header.set_path("owned").unwrap();
    header.set_mode(0o6755);
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_size(0);
    header.set_cksum();
    let upper = Layer::new()
        .raw(tar::EntryType::Directory, b"closed", b"", 0o500, b"")
        .file("closed/in", b"in")
        .raw(tar::EntryType::Directory, b"locked", b"", 0o000, b"")
        .file("locked/in", b"in")
        .entry(&header, b"")
        .file("d/.wh..wh..opq", b"")
        .file(".wh.gone", b"");
    let layout = temp.path().join("layout");
    let layers = [lower, upper].map(|layer| (layer.finish(), Compression::Gzip)).to_vec();
    Picture::new(layers).layout(&layout, None);
    let store = Store::open(&dir, StoreConfig::default().with_worker(worker)).unwrap();
    let image = oci(&layout, None);
    let root = store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    assert!(!root.owners && root.userxattr);
    let stat = |name: &str| fs::symlink_metadata(root.layers[0].join(name)).unwrap();
    assert_eq!((stat("owned").uid(), stat("owned").mode() & 0o7777), (NOBODY, 0o755));
    assert_eq!(stat("closed").mode() & 0o7777, 0o500);
    assert_eq!(stat("locked").mode() & 0o7777, 0);
    assert_eq!(stat("gone").rdev(), 0);
    let mut mark = [0; 1];
    rustix::fs::getxattr(root.layers[0].join("d"), "user.overlay.opaque", mark.as_mut_slice()).unwrap();
    assert_eq!(mark, *b"y");
    assert_eq!(mode(&dir), 0o700);
    // What forbids it to its owner goes too.
    drop(root);
    store.prune(true).unwrap();
    assert!(names(&dir.join("layers")).is_empty() && names(&dir.join("trash")).is_empty());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}
