//! What overlayfs makes of the layers: removed files are gone, opaque directories hide.

use std::process::Command;

use images::Silent;
use manifests::workload::PullPolicy;

use crate::support::{Compression, Layer, Picture, is_root, oci, skip, store};

#[tokio::test]
async fn overlayfs_shows_the_image() {
    if !is_root() {
        return skip("not root");
    }
    let lower = Layer::new()
        .file("a/gone", b"1")
        .file("a/stays", b"1")
        .file("b/hidden", b"1")
        .file("tree/x", b"1");
    let lower = lower
        .file("again/old", b"1")
        .file("changed", b"old")
        .symlink("link", "a");
    let upper = Layer::new()
        .file("a/.wh.gone", b"")
        .directory("b")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"2");
    let upper = upper
        .file(".wh.tree", b"")
        .file(".wh.again", b"")
        .file("again/new", b"2")
        .file("changed", b"new");
    let temp = tempfile::tempdir().unwrap();
    let layout = temp.path().join("layout");
    let layers = [lower, upper].map(|layer| (layer.finish(), Compression::Gzip)).to_vec();
    Picture::new(layers).layout(&layout, None);
    let store = store(&temp.path().join("store"));
    let root = store
        .ensure(&oci(&layout, None), PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    assert!(!root.userxattr && root.owners);
    let shown = shown(&root.layers, root.userxattr);
    assert_eq!(shown, "a a/stays again again/new b b/new changed link ");

    // A layer that hides everything hides it without a mark at the root, which overlayfs would not see.
    let whole = Layer::new().file(".wh..wh..opq", b"").file("only", b"3").finish();
    let mut layers = Picture::new(vec![]).layers;
    layers.push((Layer::new().file("below", b"1").finish(), Compression::Gzip));
    layers.push((whole, Compression::Gzip));
    layers.push((Layer::new().file("above", b"4").finish(), Compression::Gzip));
    let layout = temp.path().join("whole");
    Picture::new(layers).layout(&layout, None);
    let root = store
        .ensure(&oci(&layout, None), PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    assert_eq!(root.layers.len(), 2);
    assert_eq!(self::shown(&root.layers, false), "above only ");
}

/// Names in the overlay of these layers, mounted in a mount namespace that ends with the command.
fn shown(layers: &[std::path::PathBuf], userxattr: bool) -> String {
    let lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let temp = tempfile::tempdir().unwrap();
    let options = format!(
        "lowerdir={}:{}{}",
        lower.join(":"),
        temp.path().display(),
        if userxattr { ",userxattr" } else { "" }
    );
    let script = "mount -t tmpfs none /mnt && mkdir /mnt/m && mount -t overlay -o \"$1\" none /mnt/m && cd /mnt/m && find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort | tr '\\n' ' '";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", &options])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
