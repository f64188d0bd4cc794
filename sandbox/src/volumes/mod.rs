//! Volumes on the host: directories made before a sandbox, shown in its containers, and removed after it.
//!
//! ```text
//! DATA_DIR/sandboxes/ID/NAME    emptyDir                        gone with the sandbox
//! /dev/shm/knarr-GROUP/ID/NAME  emptyDir in memory, files       gone with the sandbox
//! DATA_DIR/volumes/NS/NAME      claims                          stay
//! ```
//!
//! On disk ids are those inside: every volume is shown through an idmapped mount where sandboxes have users of their own.
//! What is in a volume may be hostile: nothing here follows a link out of one.

mod beneath;
mod fill;
mod size;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use manifests::ids::{ObjectId, SandboxId};
use manifests::text::Facts;
use manifests::units::Bytes;
use manifests::workload::{Container, HostPathKind, Mount, Volume, VolumeSource, Workload};

use crate::driver::{DriverError, StartError};
use crate::spawner::protocol::FsStep;

/// Where the volumes of one driver are.
pub(crate) struct Volumes {
    data_dir: PathBuf,
    disk: PathBuf,
    /// On a file system in memory, where this host has one that we may use.
    memory: PathBuf,
    claims: PathBuf,
    /// Who has a claim that only one may have.
    held: Mutex<HashMap<ObjectId, SandboxId>>,
}

/// The volumes of one sandbox. Dropped, they are removed; [`Made::remove`] is for whoever must know that they are.
pub(crate) struct Made {
    home: Arc<Volumes>,
    id: SandboxId,
    removed: AtomicBool,
    sources: BTreeMap<Arc<str>, Source>,
    held: Vec<ObjectId>,
    limits: Vec<Limit>,
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
            claims: data_dir.join("volumes"),
            held: Mutex::default(),
        };
        for dir in volumes.temporary() {
            remove(&dir)?;
        }
        own_dir(&volumes.disk)?;
        own_dir(&volumes.claims)?;
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
            limits: Vec::new(),
        };
        self.make_all(&mut made, workload, facts)?;
        Ok(made)
    }

    fn make_all(&self, made: &mut Made, workload: &Workload, facts: &Facts) -> Result<(), StartError> {
        self.hold(made, workload)?;
        for volume in &workload.volumes {
            let (source, limit) = self
                .make_one(&made.id, volume, workload.fs_group, facts)
                .map_err(|why| why.about(&volume.name))?;
            made.limits.extend(limit);
            made.sources.insert(Arc::clone(&volume.name), source);
        }
        Ok(())
    }

    fn hold(&self, made: &mut Made, workload: &Workload) -> Result<(), StartError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for claim in workload.exclusive_claims() {
            match held.get(claim) {
                Some(other) if *other != made.id => {
                    let text =
                        format!("PersistentVolumeClaim {claim} is in use by {other}, and one sandbox may have it");
                    return Err(StartError::Exhausted(text));
                }
                _ => {
                    held.insert(claim.clone(), made.id.clone());
                    made.held.push(claim.clone());
                }
            }
        }
        Ok(())
    }

    fn make_one(
        &self,
        id: &SandboxId,
        volume: &Volume,
        group: Option<u32>,
        facts: &Facts,
    ) -> Result<(Source, Option<Limit>), Wrong> {
        let name = &*volume.name;
        match &volume.source {
            VolumeSource::Empty { memory, size } => {
                let root = if *memory { &self.memory } else { &self.disk };
                let path = own_place(root, id, name)?;
                fill::open_to_all(&path, group)?;
                let limit = size.map(|most| Limit {
                    volume: Arc::clone(&volume.name),
                    path: path.clone(),
                    most,
                });
                Ok((Source::writable(path), limit))
            }
            VolumeSource::Files(files) => {
                let path = own_place(&self.memory, id, name)?;
                fill::files(&path, files, group, facts)?;
                let source = Source {
                    path,
                    read_only: true,
                    fixed: true,
                };
                Ok((source, None))
            }
            VolumeSource::Claim { claim, read_only, .. } => {
                let namespace = self.claims.join(claim.namespace());
                own_dir(&namespace)?;
                let path = namespace.join(claim.name());
                if !path.exists() {
                    own_dir(&path)?;
                    fill::open_to_all(&path, group)?;
                } else if let Some(group) = group {
                    fill::give_to_group(&path, group)?;
                }
                let source = Source {
                    path,
                    read_only: *read_only,
                    fixed: false,
                };
                Ok((source, None))
            }
            VolumeSource::HostPath { path, kind } => Ok((self.host_path(path, *kind)?, None)),
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
        let removed = self
            .temporary()
            .iter()
            .try_for_each(|root| remove(&root.join(made.id.as_str())));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for claim in &made.held {
            held.remove(claim);
        }
        removed
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

    /// Whether any volume has a size to keep to.
    pub(crate) fn is_limited(&self) -> bool {
        !self.limits.is_empty()
    }

    /// The first volume that holds more than it may, in Kubernetes' words. Looks through all of them.
    pub(crate) fn over_limit(&self) -> Option<String> {
        let over = |limit: &&Limit| size::of(&limit.path) > limit.most.0;
        let limit = self.limits.iter().find(over)?;
        let (volume, most) = (&limit.volume, limit.most);
        Some(format!(
            "Usage of EmptyDir volume {volume:?} exceeds the limit {:?}.",
            most.0
        ))
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

#[cfg(test)]
mod tests;
