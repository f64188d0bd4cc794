//! `dir:`: skopeo's directory of an image, or a plain directory that is the root file system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::{Answer, Blob, Raw, Source};
use crate::error::ImageError;
use crate::manifest::{Descriptor, MANIFEST_LIMIT};
use crate::tasks::blocking;

/// Skopeo's format: `manifest.json`, `version`, and every blob in a file named by its digits.
pub(crate) struct SkopeoDirectory {
    files: Arc<Files>,
}

/// Whether the directory is in skopeo's format.
pub(crate) fn is_skopeo(path: &Path) -> bool {
    path.join("version").is_file() && path.join("manifest.json").is_file()
}

/// The directory, when it can be a root file system.
pub(crate) fn plain(path: &Path) -> Result<PathBuf, ImageError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ImageError::NotFound(format!("dir:{0}: {0} does not exist", path.display())),
        _ => ImageError::io(format!("cannot use {} as a root directory", path.display()), error),
    };
    let real = path.canonicalize().map_err(failed)?;
    if !real.metadata().map_err(failed)?.is_dir() {
        return Err(ImageError::NotFound(format!(
            "dir:{0}: {0} is not a directory",
            path.display()
        )));
    }
    Ok(real)
}

impl SkopeoDirectory {
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let files = Files::Directory(path.to_owned());
        let version = files.read("version", 4096)?;
        let version = String::from_utf8_lossy(&version);
        if !version.trim_end().starts_with("Directory Transport Version: 1.") {
            let reason = format!(
                "its file version says {:?}, want \"Directory Transport Version: 1.1\"",
                version.trim_end()
            );
            return Err(ImageError::invalid(path.display(), reason));
        }
        Ok(Self { files: Arc::new(files) })
    }
}

impl Source for SkopeoDirectory {
    fn document<'a>(&'a self, wanted: Option<&'a Descriptor>) -> Answer<'a, Raw> {
        // `skopeo copy --all` keeps the images of an index beside it.
        let name = match wanted {
            Some(descriptor) => format!("{}.manifest.json", descriptor.digest.hex()),
            None => "manifest.json".to_owned(),
        };
        let media_type = wanted
            .map(|descriptor| descriptor.media_type.clone())
            .filter(|name| !name.is_empty());
        let files = self.files.clone();
        Box::pin(blocking(move || {
            let bytes = files.read(&name, MANIFEST_LIMIT)?;
            Ok(Raw { bytes, media_type })
        }))
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> Answer<'a, Blob> {
        let name = descriptor.digest.hex();
        let files = self.files.clone();
        Box::pin(blocking(move || Ok(Blob::File(files.open(&name)?.0))))
    }
}
