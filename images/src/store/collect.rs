//! What is in the store, and how it leaves it: by the user's word, or to make room.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use manifests::units::Bytes;
use rustix::fs::FlockOperation;

use super::disk::{Disk, lock_directory};
use super::layer::{Budget, LayerFile};
use super::record::Record;
use super::{Inner, Root};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::tasks::blocking;

/// An image in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageInfo {
    /// As in `image:`, normalised.
    pub name: String,
    /// Of its manifest for this platform.
    pub digest: Digest,
    /// Bytes on disk of its layers; images may share layers.
    pub size: Bytes,
    /// How many layers it has.
    pub layers: usize,
    /// When it was last asked for, to about the time between two collections.
    pub used: SystemTime,
    /// All of its layers are there.
    pub complete: bool,
    /// Somebody in this process holds its [`super::Root`].
    pub in_use: bool,
}

/// What [`super::Store::remove`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Bytes that came free.
    pub freed: Bytes,
    /// Layers that stay until nobody uses them any more; a later collection removes them.
    pub in_use: usize,
}

/// What [`super::Store::prune`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Names of the images that went.
    pub images: Vec<String>,
    /// Layers that went.
    pub layers: usize,
    /// Bytes that came free.
    pub freed: Bytes,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Images by name.
    pub images: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// Bytes on disk of layers, manifests and configurations.
    pub total: Bytes,
    /// Of these, in layers that no image has: what a pull left that failed, or an image that was removed while it was used.
    pub unreferenced: Bytes,
}

/// Everything on disk, as it was at one time.
struct Inventory {
    records: Vec<(Record, SystemTime)>,
    layers: HashMap<Digest, u64>,
    blobs: HashMap<Digest, u64>,
}

impl Inventory {
    fn take(disk: &Disk) -> Result<Self, ImageError> {
        let failed = |error: io::Error| disk.failed("cannot look through the store", error);
        let mut layers = HashMap::new();
        for entry in fs::read_dir(disk.root.join("layers")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(diff_id) = entry.file_name().to_str().and_then(Digest::from_hex) else {
                continue;
            };
            let facts = fs::read(entry.path().join("layer.json")).ok();
            let facts = facts.and_then(|bytes| serde_json::from_slice::<LayerFile>(&bytes).ok());
            // It may just have left.
            if let Some(facts) = facts {
                layers.insert(diff_id, facts.disk);
            }
        }
        let mut blobs = HashMap::new();
        for entry in fs::read_dir(disk.root.join("blobs/sha256")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let digest = entry.file_name().to_str().and_then(Digest::from_hex);
            if let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) {
                blobs.insert(digest, metadata.len());
            }
        }
        Ok(Self {
            records: Record::all(disk)?,
            layers,
            blobs,
        })
    }

    fn total(&self) -> u64 {
        self.layers.values().chain(self.blobs.values()).sum()
    }

    /// Layers that some image has.
    fn referenced(&self) -> HashSet<Digest> {
        self.records
            .iter()
            .flat_map(|(record, _)| record.diff_ids.iter().copied())
            .collect()
    }
}

pub(super) fn list(inner: &Inner) -> Result<Vec<ImageInfo>, ImageError> {
    let used = names_in_use(inner);
    let inventory = Inventory::take(&inner.disk)?;
    let sizes = &inventory.layers;
    let info = |(record, time): &(Record, SystemTime)| ImageInfo {
        name: record.name.clone(),
        digest: record.manifest,
        size: Bytes(record.diff_ids.iter().filter_map(|diff_id| sizes.get(diff_id)).sum()),
        layers: record.diff_ids.len(),
        used: *time,
        complete: record.diff_ids.iter().all(|diff_id| sizes.contains_key(diff_id)),
        in_use: used.contains(&record.name),
    };
    Ok(inventory.records.iter().map(info).collect())
}

pub(super) fn usage(inner: &Inner) -> Result<Usage, ImageError> {
    let inventory = Inventory::take(&inner.disk)?;
    let referenced = inventory.referenced();
    let unreferenced = inventory
        .layers
        .iter()
        .filter(|(diff_id, _)| !referenced.contains(diff_id));
    Ok(Usage {
        images: inventory.records.len(),
        layers: inventory.layers.len(),
        total: Bytes(inventory.total()),
        unreferenced: Bytes(unreferenced.map(|(_, size)| size).sum()),
    })
}

pub(super) fn remove(inner: &Inner, name: &str) -> Result<Removed, ImageError> {
    let mut sweep = Sweep::begin(inner)?;
    let Some(place) = sweep
        .inventory
        .records
        .iter()
        .position(|(record, _)| record.name == name)
    else {
        return Err(ImageError::NotFound(format!("{name} is not in the store")));
    };
    let record = sweep.forget(place)?;
    let referenced = sweep.inventory.referenced();
    let mut removed = Removed::default();
    for diff_id in record.diff_ids.iter().filter(|diff_id| !referenced.contains(diff_id)) {
        match sweep.drop_layer(diff_id)? {
            Some(size) => removed.freed.0 += size,
            None => removed.in_use += usize::from(sweep.inventory.layers.contains_key(diff_id)),
        }
    }
    sweep.drop_blobs()?;
    sweep.end()?;
    Ok(removed)
}

pub(super) fn prune(inner: &Inner, unused: bool) -> Result<Pruned, ImageError> {
    let mut sweep = Sweep::begin(inner)?;
    let mut pruned = Pruned::default();
    if unused {
        let used = names_in_use(inner);
        while let Some(place) = sweep
            .inventory
            .records
            .iter()
            .position(|(record, _)| !used.contains(&record.name))
        {
            pruned.images.push(sweep.forget(place)?.name);
        }
    }
    let referenced = sweep.inventory.referenced();
    let orphans: Vec<Digest> = sweep
        .inventory
        .layers
        .keys()
        .filter(|diff_id| !referenced.contains(diff_id))
        .copied()
        .collect();
    for diff_id in orphans {
        if let Some(size) = sweep.drop_layer(&diff_id)? {
            pruned.layers += 1;
            pruned.freed.0 += size;
        }
    }
    sweep.drop_blobs()?;
    sweep.end()?;
    Ok(pruned)
}

/// Removes layers that no image has, then whole images, the least recently used first, until at most `target` bytes are
/// left. Returns what came free.
fn shrink(inner: &Inner, target: u64) -> Result<u64, ImageError> {
    let mut sweep = Sweep::begin(inner)?;
    let before = sweep.inventory.total();
    let referenced = sweep.inventory.referenced();
    let orphans: Vec<Digest> = sweep
        .inventory
        .layers
        .keys()
        .filter(|diff_id| !referenced.contains(diff_id))
        .copied()
        .collect();
    for diff_id in orphans {
        if sweep.inventory.total() > target {
            sweep.drop_layer(&diff_id)?;
        }
    }
    sweep.inventory.records.sort_by_key(|(_, used)| *used);
    let used = names_in_use(inner);
    let mut place = 0;
    while sweep.inventory.total() > target && place < sweep.inventory.records.len() {
        if used.contains(&sweep.inventory.records[place].0.name) {
            place += 1;
            continue;
        }
        let record = sweep.forget(place)?;
        let referenced = sweep.inventory.referenced();
        for diff_id in record.diff_ids.iter().filter(|diff_id| !referenced.contains(diff_id)) {
            sweep.drop_layer(diff_id)?;
        }
    }
    sweep.drop_blobs()?;
    let after = sweep.inventory.total();
    sweep.end()?;
    Ok(before - after)
}

/// Names of images of which somebody beside the store itself holds a root.
fn names_in_use(inner: &Inner) -> HashSet<String> {
    let roots = inner.roots.read().unwrap_or_else(PoisonError::into_inner);
    roots
        .iter()
        .filter(|(_, root)| Arc::strong_count(root) > 1)
        .map(|(image, _)| image.to_string())
        .collect()
}

/// A change of what is there, with the store's lock.
struct Sweep<'a> {
    inner: &'a Inner,
    inventory: Inventory,
    graves: Vec<PathBuf>,
    _lock: fs::File,
}

impl<'a> Sweep<'a> {
    fn begin(inner: &'a Inner) -> Result<Self, ImageError> {
        let lock = inner.disk.lock(FlockOperation::LockExclusive)?;
        {
            let roots = inner.roots.read().unwrap_or_else(PoisonError::into_inner);
            for (image, root) in roots.iter() {
                Record::touch(&inner.disk, &image.to_string(), root.used.load(Ordering::Relaxed));
            }
        }
        Ok(Self {
            inner,
            inventory: Inventory::take(&inner.disk)?,
            graves: Vec::new(),
            _lock: lock,
        })
    }

    /// Forgets a name; its layers stay for now.
    fn forget(&mut self, place: usize) -> Result<Record, ImageError> {
        let (record, _) = self.inventory.records.remove(place);
        Record::remove(&self.inner.disk, &record.name)?;
        let mut roots = self.inner.roots.write().unwrap_or_else(PoisonError::into_inner);
        roots.retain(|image, _| image.to_string() != record.name);
        Ok(record)
    }

    /// Removes a layer unless somebody, in whatever process, uses it. Returns its size.
    fn drop_layer(&mut self, diff_id: &Digest) -> Result<Option<u64>, ImageError> {
        let disk = &self.inner.disk;
        let failed = |error: io::Error| disk.failed("cannot remove a layer", error);
        let path = disk.layer(diff_id);
        let locked = lock_directory(&path, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        let Some(locked) = locked else { return Ok(None) };
        self.graves.push(disk.bury(&path, &locked).map_err(failed)?);
        Ok(self.inventory.layers.remove(diff_id))
    }

    /// Removes manifests and configurations that no image has.
    fn drop_blobs(&mut self) -> Result<(), ImageError> {
        let records = self.inventory.records.iter();
        let kept: HashSet<Digest> = records
            .flat_map(|(record, _)| [record.top, record.manifest, record.config])
            .collect();
        let disk = &self.inner.disk;
        for digest in self.inventory.blobs.keys().filter(|digest| !kept.contains(digest)) {
            match fs::remove_file(disk.blob(digest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(disk.failed("cannot remove a blob", error));
                }
                _ => {}
            }
        }
        self.inventory.blobs.retain(|digest, _| kept.contains(digest));
        Ok(())
    }

    /// Lets others go on, then does the long part.
    fn end(self) -> Result<(), ImageError> {
        let Self {
            inner,
            graves,
            _lock: lock,
            ..
        } = self;
        drop(lock);
        for grave in graves {
            inner
                .disk
                .remove_tree(&grave)
                .map_err(|error| inner.disk.failed("cannot remove a layer", error))?;
        }
        Ok(())
    }
}

/// Room for an image whose unpacked size nobody knows before it is unpacked.
///
/// Within a quota an image may take what others that nobody uses take now; these go when it is there, the least recently
/// used first, and no more of them than must. When the disk itself is full they go before another try.
pub(super) struct Room {
    pub(super) budget: Option<Arc<Budget>>,
    wanted: u64,
}

impl Room {
    /// For an image of so many compressed bytes, some of whose layers may be there.
    pub(super) async fn for_image(
        inner: &Arc<Inner>,
        compressed: u64,
        diff_ids: &[Digest],
    ) -> Result<Self, ImageError> {
        let budget = match inner.config.quota {
            None => None,
            Some(quota) => {
                let (inner, mut used) = (inner.clone(), diff_ids.iter().copied().collect::<HashSet<_>>());
                let in_use = blocking(move || {
                    let inventory = Inventory::take(&inner.disk)?;
                    let names = names_in_use(&inner);
                    let records = inventory
                        .records
                        .iter()
                        .filter(|(record, _)| names.contains(&record.name));
                    used.extend(records.flat_map(|(record, _)| &record.diff_ids));
                    Ok(used
                        .iter()
                        .filter_map(|diff_id| inventory.layers.get(diff_id))
                        .sum::<u64>())
                });
                let left = quota.0.saturating_sub(in_use.await?);
                Some(Arc::new(Budget {
                    quota: quota.0,
                    left: left.into(),
                    exceeded: false.into(),
                }))
            }
        };
        Ok(Self {
            budget,
            wanted: compressed.max(1 << 20),
        })
    }

    /// The disk was full: makes room. False when that is in vain.
    pub(super) async fn more(&mut self, inner: &Arc<Inner>) -> Result<bool, ImageError> {
        if self
            .budget
            .as_ref()
            .is_some_and(|budget| budget.exceeded.load(Ordering::Relaxed))
        {
            return Ok(false);
        }
        self.wanted = self.wanted.saturating_mul(2);
        let (inner, wanted) = (inner.clone(), self.wanted);
        let freed = blocking(move || {
            let total = usage(&inner)?.total.0;
            shrink(&inner, total.saturating_sub(wanted))
        });
        Ok(freed.await? > 0)
    }

    /// After the pull: no more than the quota. What is in use elsewhere may make that impossible; then the image goes again.
    pub(super) async fn settle(
        &self,
        inner: &Arc<Inner>,
        root: Arc<Root>,
        name: String,
    ) -> Result<Arc<Root>, ImageError> {
        let Some(quota) = self.budget.as_ref().map(|budget| budget.quota) else {
            return Ok(root);
        };
        let inner = inner.clone();
        blocking(move || {
            let mut total = usage(&inner)?.total.0;
            if total > quota {
                total -= shrink(&inner, quota)?;
            }
            if total <= quota {
                return Ok(root);
            }
            drop(root);
            remove(&inner, &name)?;
            Err(ImageError::Full {
                what: name,
                store: inner.disk.root.clone(),
                reason: format!("with it {total} bytes are in use, the quota is {quota}"),
            })
        })
        .await
    }
}
