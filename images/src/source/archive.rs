//! Opens a local image by what its path and scheme say.

use manifests::workload::Image;

use super::Source;
use super::directory::{self, SkopeoDirectory};
use super::docker_archive::DockerArchive;
use super::files::Files;
use super::layout::Layout;
use crate::error::ImageError;
use crate::tasks::blocking;

/// What a reference to something on this machine stands for.
pub(crate) enum Local {
    /// An image with manifest and layers.
    Source(Box<dyn Source>),
    /// A directory that is the root file system.
    Plain(std::path::PathBuf),
}

/// Opens it; `None` when the image is not on this machine's disk.
pub(crate) async fn open(image: &Image) -> Result<Option<Local>, ImageError> {
    let image = match image {
        Image::Pinned { image, .. } => Image::clone(image),
        other => other.clone(),
    };
    blocking(move || {
        let source: Box<dyn Source> = match &image {
            Image::Oci { path, tag } => Box::new(Layout::open(Files::Directory(path.clone()), tag.as_deref())?),
            Image::OciArchive { path, tag } => Box::new(Layout::open(Files::archive(path)?, tag.as_deref())?),
            Image::DockerArchive { path, tag } => Box::new(DockerArchive::open(Files::archive(path)?, tag.as_deref())?),
            Image::Dir(path) if directory::is_skopeo(path) => Box::new(SkopeoDirectory::open(path)?),
            Image::Dir(path) => return directory::plain(path).map(|path| Some(Local::Plain(path))),
            Image::Registry(_) | Image::DockerDaemon(_) | Image::Host(_) | Image::Pinned { .. } => return Ok(None),
        };
        Ok(Some(Local::Source(source)))
    })
    .await
}
