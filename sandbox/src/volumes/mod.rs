//! Volumes on the host: directories made before a sandbox, shown in its containers, and removed after it.
//!
//! ```text
//! DATA_DIR/sandboxes/ID/NAME    emptyDir; with a tmpfs on it      gone with the sandbox
//!                               when it is in memory
//! /dev/shm/knarr-GROUP/ID/NAME  files                             gone with the sandbox
//! DATA_DIR/volumes/NS/NAME      claims                            stay until they are deleted
//! ```
//!
//! On disk ids are those inside: every volume is shown through an idmapped mount where sandboxes have users of their own.
//! What is in a volume may be hostile: nothing here follows a link out of one.

mod beneath;
mod claims;
mod fill;
mod size;
mod tmpfs;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifests::ids::{ObjectId, SandboxId};
use manifests::text::Facts;
use manifests::units::Bytes;
use manifests::workload::{Container, HostPathKind, Mount, Volume, VolumeSource, Workload};

use crate::driver::{DriverError, StartError};
use crate::spawner::protocol::FsStep;
use claims::{Claims, Taken};

/// Where the volumes of one driver are.
pub(crate) struct Volumes {
    data_dir: PathBuf,
    disk: PathBuf,
    /// On a file system in memory, where this host has one that we may use.
    memory: PathBuf,
    claims: Claims,
}

/// The volumes of one sandbox. Dropped, they are removed; [`Made::remove`] is for whoever must know that they are.
pub(crate) struct Made {
    home: Arc<Volumes>,
    id: SandboxId,
    removed: AtomicBool,
    sources: BTreeMap<Arc<str>, Source>,
    held: Vec<ObjectId>,
    /// File systems of its own, which the kernel holds to their size.
    mounted: Vec<PathBuf>,
    limits: Vec<Limit>,
    /// What is on disk, of all volumes together.
    total: Option<(Vec<PathBuf>, Bytes)>,
}

struct Source {
    path: PathBuf,
    read_only: bool,
    /// Nobody writes here after us: what is not there will not come.
    fixed: bool,
}

struct Limit {
    volume: Arc<str>,
    path: PathBuf,
    most: Bytes,
}

impl Volumes {
    /// Makes the places, and empties those of sandboxes: whoever opens holds the lock on `data_dir`, so nobody uses them.
    /// `group` tells this driver's from others'.
    pub(crate) fn open(data_dir: &Path, group: &str) -> io::Result<Self> {
        let volumes = Self {
            data_dir: data_dir.to_owned(),
            disk: data_dir.join("sandboxes"),
            memory: Path::new("/dev/shm").join(format!("knarr-{}", group.replace('/', "-"))),
            claims: Claims::open(data_dir.join("volumes"))?,
        };
        for dir in volumes.temporary() {
            clear(&dir)?;
        }
        own_dir(&volumes.disk)?;
        // Somebody else's directory of that name, or no such file system: on disk, then.
        if in_memory(Path::new("/dev/shm")) && own_dir(&volumes.memory).is_ok() {
            return Ok(volumes);
        }
        let memory = volumes.disk.clone();
        Ok(Self { memory, ..volumes })
    }

    /// What must not outlive the driver.
    pub(crate) fn temporary(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.disk.clone(), self.memory.clone()];
        dirs.dedup();
        dirs
    }

    /// Makes the volumes of a sandbox; after an error nothing of it is left.
    pub(crate) fn make(
        self: &Arc<Self>,
        id: &SandboxId,
        workload: &Workload,
        facts: &Facts,
    ) -> Result<Made, StartError> {
        let mut made = Made {
            home: Arc::clone(self),
            id: id.clone(),
            removed: AtomicBool::new(false),
            sources: BTreeMap::new(),
            held: Vec::new(),
            mounted: Vec::new(),
            limits: Vec::new(),
            total: None,
        };
        self.make_all(&mut made, workload, facts)?;
        Ok(made)
    }

    fn make_all(&self, made: &mut Made, workload: &Workload, facts: &Facts) -> Result<(), StartError> {
        self.hold(made, workload)?;
        let most = workload.memory_limit();
        for volume in &workload.volumes {
            let source = match &volume.source {
                VolumeSource::Empty { memory: true, size } => {
                    let size = size.iter().copied().chain(most).min();
                    self.make_in_memory(made, volume, size, workload.fs_group)
                }
                _ => self.make_one(made, volume, workload.fs_group, facts),
            };
            let source = source.map_err(|why| why.about(&volume.name))?;
            made.sources.insert(Arc::clone(&volume.name), source);
        }
        made.total = made.ephemeral_limit(workload);
        Ok(())
    }

    fn hold(&self, made: &mut Made, workload: &Workload) -> Result<(), StartError> {
        for (claim, shared) in workload.claims() {
            match self.claims.take(claim, &made.id, !shared) {
                Ok(()) => made.held.push(claim.clone()),
                Err(Taken::By(other)) => {
                    let text =
                        format!("PersistentVolumeClaim {claim} is in use by {other}, and one sandbox may have it");
                    return Err(StartError::Exhausted(text));
                }
                Err(Taken::Deleted) => {
                    let text = format!("PersistentVolumeClaim {claim} was deleted: add it again, or use another one");
                    return Err(StartError::Refused(text));
                }
            }
        }
        Ok(())
    }

    /// Waits until nobody else has what this workload shares with nobody: the sandbox before it is about to go, or else the
    /// start is refused.
    pub(crate) async fn free(&self, id: &SandboxId, workload: &Workload) {
        let all_free = async {
            loop {
                let released = self.claims.released.notified();
                let mut exclusive = workload.exclusive_claims();
                if !exclusive.any(|claim| self.claims.holder(claim, id).is_some()) {
                    return;
                }
                released.await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, all_free).await;
    }

    /// These claims are there, and these are not any more: what goes goes now or with its last user. Returns what is to be
    /// removed; that may take long, and nobody sees it any more.
    pub(crate) fn settle_claims(&self, there: &[ObjectId], deleted: &[ObjectId]) -> Vec<io::Result<PathBuf>> {
        let kept = there.iter().map(|claim| self.claims.keep(claim).map(|()| None));
        let kept: Vec<io::Result<Option<PathBuf>>> = kept.collect();
        let overdue = self.claims.overdue();
        let out = deleted.iter().chain(&overdue).map(|claim| self.claims.delete(claim));
        kept.into_iter().chain(out).filter_map(Result::transpose).collect()
    }

    /// A file system of its own, where this user may mount one; else a directory in memory that is looked after.
    fn make_in_memory(
        &self,
        made: &mut Made,
        volume: &Volume,
        size: Option<Bytes>,
        group: Option<u32>,
    ) -> Result<Source, Wrong> {
        let path = own_place(&self.disk, &made.id, &volume.name)?;
        if tmpfs::make(&path, size)? {
            made.mounted.push(path.clone());
            fill::open_to_all(&path, group)?;
            return Ok(Source::writable(path));
        }
        let path = own_place(&self.memory, &made.id, &volume.name)?;
        fill::open_to_all(&path, group)?;
        made.limit(volume, &path, size);
        Ok(Source::writable(path))
    }

    fn make_one(&self, made: &mut Made, volume: &Volume, group: Option<u32>, facts: &Facts) -> Result<Source, Wrong> {
        let (id, name) = (&made.id, &*volume.name);
        match &volume.source {
            VolumeSource::Empty { size, .. } => {
                let path = own_place(&self.disk, id, name)?;
                fill::open_to_all(&path, group)?;
                made.limit(volume, &path, *size);
                Ok(Source::writable(path))
            }
            VolumeSource::Files(files) => {
                let path = own_place(&self.memory, id, name)?;
                fill::files(&path, files, group, facts)?;
                Ok(Source {
                    path,
                    read_only: true,
                    fixed: true,
                })
            }
            VolumeSource::Claim { claim, read_only, .. } => {
                let path = self.claims.path(claim);
                if let Some(namespace) = path.parent() {
                    own_dir(namespace)?;
                }
                if !path.exists() {
                    own_dir(&path)?;
                    fill::open_to_all(&path, group)?;
                } else if let Some(group) = group {
                    fill::give_to_group(&path, group)?;
                }
                Ok(Source {
                    path,
                    read_only: *read_only,
                    fixed: false,
                })
            }
            VolumeSource::HostPath { path, kind } => self.host_path(path, *kind),
        }
    }

    fn host_path(&self, path: &Path, kind: HostPathKind) -> Result<Source, Wrong> {
        let refuse = |why: &str| Err(Wrong::Manifest(format!("hostPath {}: {why}", path.display())));
        match kind {
            HostPathKind::DirectoryOrCreate if !path.exists() => fs::create_dir_all(path)?,
            HostPathKind::FileOrCreate if !path.exists() => drop(fs::File::create(path)?),
            _ => {}
        }
        let Ok(path) = path.canonicalize() else {
            return refuse("there is no such file or directory");
        };
        if path.starts_with(&self.data_dir) || self.data_dir.starts_with(&path) {
            return refuse("Knarr's own data directory is in the way");
        }
        let meta = fs::metadata(&path)?;
        let is_socket = std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type());
        match kind {
            HostPathKind::Directory | HostPathKind::DirectoryOrCreate if !meta.is_dir() => refuse("is not a directory"),
            HostPathKind::File | HostPathKind::FileOrCreate if !meta.is_file() => refuse("is not a file"),
            HostPathKind::Socket if !is_socket => refuse("is not a socket"),
            _ => Ok(Source::writable(path)),
        }
    }

    fn remove(&self, made: &Made) -> io::Result<()> {
        let unmounted = made.mounted.iter().map(|path| tmpfs::remove(path));
        let directories = self.temporary();
        let removed = directories.iter().map(|root| remove(&root.join(made.id.as_str())));
        let released = made.held.iter().map(|claim| self.claims.release(claim, &made.id));
        // All of it, whatever becomes of the first.
        let all: Vec<io::Result<()>> = unmounted.chain(removed).chain(released).collect();
        all.into_iter().collect()
    }
}

impl Source {
    const fn writable(path: PathBuf) -> Self {
        Self {
            path,
            read_only: false,
            fixed: false,
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(sandbox = %self.id, %error, "volumes are left");
        }
    }
}

impl Made {
    /// Removes everything of the sandbox that does not stay, and lets go of its claims. Once.
    pub(crate) fn remove(&self) -> io::Result<()> {
        if self.removed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.home.remove(self)
    }

    /// What shows the volumes in a container, those further up first.
    ///
    /// # Errors
    /// A `subPath` that is not there, or that a link leads out of its volume.
    pub(crate) fn steps(&self, container: &Container) -> Result<Vec<FsStep>, String> {
        let mut mounts: Vec<&Mount> = container.mounts.iter().collect();
        mounts.sort_by_key(|mount| mount.path.components().count());
        let mut steps = Vec::new();
        for mount in mounts {
            let Some(source) = self.sources.get(&mount.volume) else {
                return Err(format!("there is no volume {:?}", mount.volume));
            };
            let is_dir = match &mount.sub_path {
                None => source.path.is_dir(),
                Some(sub_path) => beneath::is_dir(&source.path, sub_path, !source.fixed)
                    .map_err(|error| format!("subPath {} of volume {:?}: {error}", sub_path.display(), mount.volume))?,
            };
            self.place(mount, is_dir, &container.mounts, &mut steps)?;
            let path = mount.path.clone();
            steps.push(FsStep::Volume {
                source: source.path.clone(),
                sub_path: mount.sub_path.clone(),
                path,
                read_only: mount.read_only || source.read_only,
            });
        }
        Ok(steps)
    }

    /// Makes what a volume is mounted on: in the root, or in the volume that is mounted above, by us: on the host ids are
    /// those inside, and the child that makes roots is nobody there.
    fn place(&self, mount: &Mount, is_dir: bool, mounts: &[Mount], steps: &mut Vec<FsStep>) -> Result<(), String> {
        let path = &mount.path;
        let inside = |other: &&Mount| path != &other.path && path.starts_with(&other.path);
        let above = mounts
            .iter()
            .filter(inside)
            .max_by_key(|it| it.path.components().count());
        if let Some(above) = above
            && let Some(source) = self.sources.get(&above.volume)
            && let Ok(rest) = path.strip_prefix(&above.path)
        {
            let rest = above.sub_path.as_deref().unwrap_or(Path::new("")).join(rest);
            return beneath::make(&source.path, &rest, is_dir)
                .map_err(|error| format!("{} in volume {:?}: {error}", path.display(), above.volume));
        }
        let mut dirs: Vec<&Path> = path.ancestors().skip(1).filter(|it| *it != Path::new("/")).collect();
        dirs.reverse();
        steps.extend(dirs.into_iter().map(|path| FsStep::Dir { path: path.to_owned() }));
        let path = path.clone();
        steps.push(if is_dir {
            FsStep::Dir { path }
        } else {
            let content = String::new();
            FsStep::File { path, content }
        });
        Ok(())
    }

    fn limit(&mut self, volume: &Volume, path: &Path, most: Option<Bytes>) {
        self.limits.extend(most.map(|most| Limit {
            volume: Arc::clone(&volume.name),
            path: path.to_owned(),
            most,
        }));
    }

    /// What all volumes on disk together may hold: what the running containers' `ephemeral-storage` limits are together.
    fn ephemeral_limit(&self, workload: &Workload) -> Option<(Vec<PathBuf>, Bytes)> {
        let limits = workload.running().filter_map(|it| it.resources.ephemeral_limit);
        let most = limits.reduce(|sum, limit| Bytes(sum.0.saturating_add(limit.0)))?;
        let on_disk = workload.volumes.iter().filter_map(|volume| match volume.source {
            VolumeSource::Empty { memory: false, .. } => Some(self.sources.get(&volume.name)?.path.clone()),
            _ => None,
        });
        let on_disk: Vec<PathBuf> = on_disk.collect();
        (!on_disk.is_empty()).then_some((on_disk, most))
    }

    /// Whether only shells made from now on can show all of it: mounts of the host reach no other.
    pub(crate) fn needs_new_shell(&self) -> bool {
        !self.mounted.is_empty()
    }

    /// Whether any volume has a size to keep to.
    pub(crate) fn is_limited(&self) -> bool {
        !self.limits.is_empty() || self.total.is_some()
    }

    /// The first volume that holds more than it may, in Kubernetes' words. Looks through all of them.
    pub(crate) fn over_limit(&self) -> Option<String> {
        let over = |limit: &&Limit| size::of(&limit.path) > limit.most.0;
        if let Some(limit) = self.limits.iter().find(over) {
            let (volume, most) = (&limit.volume, limit.most);
            return Some(format!(
                "Usage of EmptyDir volume {volume:?} exceeds the limit {:?}.",
                most.0
            ));
        }
        let (on_disk, most) = self.total.as_ref()?;
        let used: u64 = on_disk.iter().map(|path| size::of(path)).sum();
        (used > most.0).then(|| {
            format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {}.",
                most.0
            )
        })
    }
}

/// Why there is no such volume.
enum Wrong {
    /// The manifest must change.
    Manifest(String),
    Host(io::Error),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl Wrong {
    fn about(self, volume: &str) -> StartError {
        match self {
            Self::Manifest(text) => StartError::Refused(text),
            Self::Host(error) if error.kind() == io::ErrorKind::StorageFull => {
                StartError::Exhausted(format!("cannot make volume {volume:?}: {error}"))
            }
            Self::Host(source) => DriverError::Io {
                context: format!("make volume {volume:?}"),
                source,
            }
            .into(),
        }
    }
}

/// `ROOT/ID/NAME`, new.
fn own_place(root: &Path, id: &SandboxId, name: &str) -> io::Result<PathBuf> {
    let of_sandbox = root.join(id.as_str());
    own_dir(&of_sandbox)?;
    let path = of_sandbox.join(name);
    own_dir(&path)?;
    Ok(path)
}

/// A directory of this user alone; one that is there must be that too.
fn own_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        let text = format!("{} is somebody else's", path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}

fn in_memory(path: &Path) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|it| it.f_type == TMPFS)
}

/// Removes a place of volumes, with whatever a Knarr that is gone has left in it.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    tmpfs::unmount_below(dir)?;
    remove(dir)
}

/// With everything in it; links are removed, not followed. What an ordinary user's sandboxes have made as other users, which
/// are subordinate ones of that user, goes by the image store's worker: this binary once more.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            images::worker::remove(&images::StoreConfig::default().worker, path)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How long a start waits for the sandbox before it to let go of a claim.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
