//! `docker-daemon:`: an image of the local Docker, fetched as an archive when somebody wants its content.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use super::docker_archive::DockerArchive;
use super::files::Files;
use super::{Answer, Blob, Raw, Source};
use crate::digest::Digest;
use crate::docker::Daemon;
use crate::error::ImageError;
use crate::manifest::Descriptor;
use crate::tasks::blocking;

/// One image of a daemon.
pub(crate) struct DockerDaemon {
    daemon: Daemon,
    name: String,
    /// Where the archive may lie for as long as it is read.
    directory: PathBuf,
    archive: OnceCell<DockerArchive>,
}

impl DockerDaemon {
    pub(crate) fn new(daemon: Daemon, name: &str, directory: &Path) -> Self {
        Self {
            daemon,
            name: name.to_owned(),
            directory: directory.to_owned(),
            archive: OnceCell::new(),
        }
    }

    async fn archive(&self) -> Result<&DockerArchive, ImageError> {
        self.archive.get_or_try_init(|| self.fetch()).await
    }

    async fn fetch(&self) -> Result<DockerArchive, ImageError> {
        let mut saved = self.daemon.save(&self.name).await?;
        let directory = self.directory.clone();
        let shown = PathBuf::from(format!("docker-daemon:{}", self.name));
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ImageError::Full {
                what: format!("the archive of docker-daemon:{}", self.name),
                store: self.directory.clone(),
                reason: error.to_string(),
            },
            _ => ImageError::io(format!("cannot keep the archive of docker-daemon:{}", self.name), error),
        };
        let mut file = nameless(&directory).map_err(failed)?;
        while let Some(bytes) = saved.chunk().await? {
            // The page cache takes it: no wait worth a thread.
            file.write_all(&bytes).map_err(failed)?;
        }
        // One image was asked for, so one is in it.
        blocking(move || DockerArchive::open(Files::archive_in(file, &shown)?, None)).await
    }
}

/// A file that is gone when it is closed.
fn nameless(directory: &Path) -> std::io::Result<Arc<File>> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("archive-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(Arc::new(file))
}

impl Source for DockerDaemon {
    fn document<'a>(&'a self, wanted: Option<&'a Descriptor>) -> Answer<'a, Raw> {
        Box::pin(async move { self.archive().await?.document(wanted).await })
    }

    fn config(&self) -> Answer<'_, Option<Digest>> {
        Box::pin(async move {
            let found = self.daemon.inspect(&self.name).await?;
            let id = found.map(|it| it.id);
            let digest = |id: String| id.parse().ok().or_else(|| Digest::from_hex(&id));
            Ok(id.and_then(digest))
        })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> Answer<'a, Blob> {
        Box::pin(async move { self.archive().await?.blob(descriptor).await })
    }

    fn has_blob_digests(&self) -> bool {
        false
    }
}
