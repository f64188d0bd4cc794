//! A disk that is really full.

use std::path::Path;

use images::{ImageError, Silent, StoreConfig};
use manifests::units::Bytes;
use manifests::workload::PullPolicy;

use crate::support::{Compression, Layer, Picture, is_root, noise, oci, simple, skip, store, store_with, unfinished};

/// A small file system of its own, gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Option<Self> {
        let temp = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=700")).unwrap();
        let flags = rustix::mount::MountFlags::NOSUID;
        match rustix::mount::mount("none", temp.path(), "tmpfs", flags, options.as_c_str()) {
            Ok(()) => Some(Self(temp)),
            Err(error) => {
                skip(&format!("a tmpfs cannot be mounted: {error}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_with_a_name() {
    if !is_root() {
        return skip("not root");
    }
    let Some(small) = Small::new("8m") else { return };
    let temp = tempfile::tempdir().unwrap();
    let layout = temp.path().join("layout");
    simple(1, 2 << 20).layout(&layout, Some("fits"));
    simple(2, 20 << 20).layout(&layout, Some("never"));
    let files = (0..3000).fold(Layer::new(), |layer, file| {
        layer.file(&format!("{file}"), &noise(file, 4000))
    });
    Picture::new(vec![(files.finish(), Compression::Gzip)]).layout(&layout, Some("many"));
    let dir = small.path().join("store");
    let ensure = |store: &images::Store, tag: &str| {
        let (store, image) = (store.clone(), oci(&layout, Some(tag)));
        async move { store.ensure(&image, PullPolicy::Always, &[], &Silent).await }
    };
    let here = store(&dir);
    let held = ensure(&here, "fits").await.unwrap();
    for tag in ["never", "many", "never"] {
        let error = ensure(&here, tag).await.unwrap_err();
        assert!(
            matches!(&error, ImageError::Full { what, .. } if what.contains(tag)),
            "{error:?}"
        );
        assert!(unfinished(&dir).is_empty(), "{:?}", unfinished(&dir));
        assert!(held.layers[0].join("file").exists());
        let list = here.list().unwrap();
        assert!(list.len() == 1 && list[0].complete, "{list:?}");
    }
    // What nobody uses makes room, and what is full opens.
    drop(held);
    drop(here);
    let filler = small.path().join("filler");
    std::fs::write(&filler, vec![1; 4 << 20]).unwrap();
    let here = store(&dir);
    simple(3, 3 << 20).layout(&layout, Some("other"));
    ensure(&here, "other").await.unwrap();
    assert_eq!(here.list().unwrap().len(), 1, "the first image has gone for it");
    let rest = vec![1; 8 << 20];
    let _ = std::fs::write(&filler, rest);
    drop(here);
    let here = store(&dir);
    assert!(here.list().unwrap()[0].complete);
    let _ = here.remove(&here.list().unwrap()[0].name).unwrap();
    assert_eq!(here.usage().unwrap().layers, 0);
}

#[tokio::test]
async fn an_image_larger_than_the_quota() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, layout) = (temp.path().join("store"), temp.path().join("layout"));
    simple(1, 100_000).layout(&layout, Some("small"));
    // Small when compressed: nobody can know before.
    let zeros = Layer::new().file("zeros", &vec![0; 8 << 20]).finish();
    Picture::new(vec![(zeros, Compression::Gzip)]).layout(&layout, Some("bomb"));
    let store = store_with(
        &dir,
        StoreConfig {
            quota: Some(Bytes(4 << 20)),
            ..StoreConfig::default()
        },
    );
    let ensure = |tag: &str| {
        let (store, image) = (store.clone(), oci(&layout, Some(tag)));
        async move { store.ensure(&image, PullPolicy::Always, &[], &Silent).await }
    };
    drop(ensure("small").await.unwrap());
    let error = ensure("bomb").await.unwrap_err();
    assert!(matches!(&error, ImageError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("quota of 4194304 bytes"), "{error}");
    assert!(store.ready(&oci(&layout, Some("small"))).is_some(), "for nothing");
    assert!(unfinished(&dir).is_empty());
}
