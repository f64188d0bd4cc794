//! The store: images on this machine's disk, each layer unpacked once, whatever images it is of.
//!
//! ```text
//! ensure: ready? recorded? ─▶ document ─▶ manifest of this platform ─▶ configuration ─▶ layers, side by side ─▶ record ─▶ Root
//! ```
//!
//! Compressed layers are not kept: bytes go from the source through the hash into the unpacker, and what is on disk is the
//! unpacked layer alone. That saves a third of the space and a write of every byte; a layer that has been collected is
//! fetched again, which its registry is for.

mod collect;
mod config;
mod disk;
mod flight;
mod layer;
mod pull;
mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use futures_util::FutureExt as _;
use manifests::reference::Reference;
use manifests::workload::{Image, PullPolicy, RegistryAuth};
use tokio::sync::Semaphore;

pub use collect::{ImageInfo, Pruned, Removed, Usage};
pub use config::StoreConfig;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::progress::Progress;
use crate::registry;
use crate::source::registry::hinted;
use disk::{Disk, OpaqueMark};
use flight::Flights;
use layer::Layer;

/// Images on this machine's disk. Clones are the same store; other processes may use its directory at the same time.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Disk,
    config: StoreConfig,
    registry: registry::Client,
    /// What [`Store::ready`] knows.
    roots: RwLock<HashMap<Image, Arc<Root>>>,
    /// Layers in use, so that each is opened once.
    layers: Mutex<HashMap<Digest, Weak<Layer>>>,
    flights: Flights,
    /// How many layers are unpacked at once.
    turns: Semaphore,
}

/// An image's file system and configuration. While it lives its layers stay.
#[derive(Debug)]
pub struct Root {
    /// Of the manifest for this platform. Of a plain directory: of its path, which says nothing of its content.
    pub digest: Digest,
    /// Directories for overlayfs, topmost first. A single one needs no overlay to be read.
    pub layers: Vec<PathBuf>,
    /// What the image says about its process.
    pub config: ImageConfig,
    /// Whether overlayfs must be mounted with `userxattr`: opaque directories are marked by `user.overlay.opaque`, not by
    /// `trusted.overlay.opaque`.
    pub userxattr: bool,
    /// Whether files have the owners that the image gives them. Otherwise all belong to the store's user.
    pub owners: bool,
    leases: Vec<Arc<Layer>>,
    /// When it was last asked for, in nanoseconds since 1970: the least recently used images go first.
    used: AtomicU64,
}

impl Root {
    /// Bytes on disk, of all layers.
    pub fn disk(&self) -> manifests::units::Bytes {
        manifests::units::Bytes(self.leases.iter().map(|layer| layer.facts.disk).sum())
    }

    /// Whether it is a directory of the user's, used as it is.
    pub fn is_plain(&self) -> bool {
        self.leases.is_empty() && !self.layers.is_empty()
    }

    /// A directory of the user's, used as it is.
    fn plain(path: PathBuf) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        Self {
            digest: Digest::of(&[b"dir:", path.as_os_str().as_bytes()].concat()),
            layers: vec![path],
            config: ImageConfig::default(),
            userxattr: false,
            owners: true,
            leases: Vec::new(),
            used: AtomicU64::new(now()),
        }
    }

    /// `layers` lowest first.
    fn new(digest: Digest, config: ImageConfig, layers: Vec<Arc<Layer>>) -> Self {
        // Overlayfs does not look at the mark of a root: what such a layer hides is left out here.
        let from = layers.iter().rposition(|layer| layer.facts.opaque_root).unwrap_or(0);
        let visible = layers.get(from..).unwrap_or_default();
        Self {
            digest,
            layers: visible.iter().rev().map(|layer| layer.files.clone()).collect(),
            config,
            userxattr: visible.iter().any(|layer| layer.facts.opaque == OpaqueMark::User),
            owners: visible.iter().all(|layer| layer.facts.owners),
            leases: layers,
            used: AtomicU64::new(now()),
        }
    }
}

impl Store {
    /// Opens the directory, made for this user alone when it is missing, and removes what a crash has left. Blocks.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the directory cannot be used.
    pub fn open(dir: &Path, config: StoreConfig) -> Result<Self, ImageError> {
        let disk = Disk::open(dir, config.worker.clone())?;
        let turns = Semaphore::new(config.unpackers.max(1));
        Ok(Self {
            inner: Arc::new(Inner {
                disk,
                registry: registry::Client::new(config.registry.clone()),
                config,
                roots: RwLock::default(),
                layers: Mutex::default(),
                flights: Flights::default(),
                turns,
            }),
        })
    }

    /// Digest of the image's manifest for this platform, asked at its source. Nothing is stored.
    ///
    /// # Errors
    /// As of [`Self::ensure`].
    pub async fn resolve(&self, image: &Image, auth: &[RegistryAuth]) -> Result<Digest, ImageError> {
        pull::resolve(&self.inner, image, auth).await
    }

    /// What a tag stands for at its registry now: the digest of an index or manifest. Nothing is stored.
    ///
    /// # Errors
    /// When there is no such image, or its registry cannot be asked.
    pub async fn tag(&self, image: &Reference, auth: &[RegistryAuth]) -> Result<String, ImageError> {
        match self.inner.registry.repository(image, auth)?.digest().await {
            Err(error) => Err(hinted(error, image).await),
            found => found,
        }
    }

    /// The image, from the store or from its source. Whoever wants the same layers at the same time waits for the same
    /// download; dropping the future of the last one stops it.
    ///
    /// # Errors
    /// See [`ImageError`]. What was complete before stays as it was, whatever fails.
    pub async fn ensure(
        &self,
        image: &Image,
        policy: PullPolicy,
        auth: &[RegistryAuth],
        progress: &dyn Progress,
    ) -> Result<Arc<Root>, ImageError> {
        // Boxed: nobody's own futures grow by all of it.
        pull::ensure(&self.inner, image, policy, auth, progress).boxed().await
    }

    /// Keeps what [`Self::ensure`] of an image of this machine has brought under a name with its digest as well: that image
    /// can be had from then on whatever its source holds. `None` when the source has changed since, or is a plain directory,
    /// which is used as it is.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn pin(&self, image: &Image, root: &Arc<Root>) -> Result<Option<Image>, ImageError> {
        pull::pin(&self.inner, image, root).await
    }

    /// What an earlier [`Self::ensure`] of this process returned. Neither waits nor reads a disk.
    pub fn ready(&self, image: &Image) -> Option<Arc<Root>> {
        let roots = self.inner.roots.read().unwrap_or_else(PoisonError::into_inner);
        let root = roots.get(image)?;
        root.used.store(now(), Ordering::Relaxed);
        Some(root.clone())
    }

    /// All images, by name. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        collect::list(&self.inner)
    }

    /// Forgets an image by its name, and removes the layers that no other image has. Blocks.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when there is none of that name.
    pub fn remove(&self, name: &str) -> Result<Removed, ImageError> {
        collect::remove(&self.inner, name)
    }

    /// Removes what no image has; with `unused` also the images that nobody uses now. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune(&self, unused: bool) -> Result<Pruned, ImageError> {
        collect::prune(&self.inner, unused)
    }

    /// How much there is. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self) -> Result<Usage, ImageError> {
        collect::usage(&self.inner)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.disk.root
    }
}

impl Inner {
    /// The layer when it is in use already, or on disk. Blocks.
    fn find_layer(&self, diff_id: &Digest) -> Result<Option<Arc<Layer>>, ImageError> {
        if let Some(layer) = self.layer_in_use(diff_id) {
            return Ok(Some(layer));
        }
        Ok(Layer::find(&self.disk, diff_id)?.map(|layer| self.share_layer(*diff_id, Arc::new(layer))))
    }

    fn layer_in_use(&self, diff_id: &Digest) -> Option<Arc<Layer>> {
        self.layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(diff_id)?
            .upgrade()
    }

    /// Everybody gets the one that was there first.
    fn share_layer(&self, diff_id: Digest, layer: Arc<Layer>) -> Arc<Layer> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|_, layer| layer.strong_count() > 0);
        if let Some(there) = layers.get(&diff_id).and_then(Weak::upgrade) {
            return there;
        }
        layers.insert(diff_id, Arc::downgrade(&layer));
        layer
    }

    fn set_ready(&self, image: &Image, root: Root) -> Arc<Root> {
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        match roots.get(image) {
            Some(there) if there.digest == root.digest && there.layers == root.layers => {
                there.used.store(now(), Ordering::Relaxed);
                there.clone()
            }
            _ => {
                let root = Arc::new(root);
                roots.insert(image.clone(), root.clone());
                root
            }
        }
    }
}

/// Files have times of this clock too.
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the times of files, and nothing else"
)]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
