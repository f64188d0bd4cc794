//! One layer: claimed, unpacked by the worker while its bytes come, verified, published under its digest.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use manifests::units::Bytes;
use rustix::fs::{FlockOperation, OFlags, XattrFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::Inner;
use super::disk::{Disk, OpaqueMark, lock_directory, sync_directory};
use crate::digest::{Digest, Hasher};
use crate::error::ImageError;
use crate::inside;
use crate::manifest::Descriptor;
use crate::progress::Stage;
use crate::source::{Blob, Source};
use crate::tasks::blocking;
use crate::worker::{self, Failure, Outcome, Problem, Report, Rules, Task};

/// A layer that stays while this lives, whatever process collects garbage.
#[derive(Debug)]
pub(super) struct Layer {
    /// Its files.
    pub(super) files: PathBuf,
    pub(super) facts: LayerFile,
    _lock: File,
}

/// `layer.json`: what is known of an unpacked layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct LayerFile {
    pub(super) diff_id: Digest,
    /// Bytes on disk.
    pub(super) disk: u64,
    pub(super) entries: u64,
    /// Nothing of lower layers shows: overlayfs does not look at the mark of a root.
    pub(super) opaque_root: bool,
    /// How other opaque directories are marked.
    pub(super) opaque: OpaqueMark,
    /// Whether files have the image's owners, or all this user.
    pub(super) owners: bool,
    /// What was left out.
    pub(super) devices: u64,
    pub(super) attributes: u64,
}

/// What is to be fetched.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) source: Arc<dyn Source>,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    /// As the user wrote it, for messages.
    pub(super) image: String,
    /// What all layers of the image may take together.
    pub(super) budget: Option<Arc<Budget>>,
}

/// How many more bytes an image may take.
#[derive(Debug)]
pub(super) struct Budget {
    /// Of the whole store, for messages.
    pub(super) quota: u64,
    pub(super) left: AtomicU64,
    /// It was not enough.
    pub(super) exceeded: AtomicBool,
}

impl Layer {
    /// The layer when it is there, kept from being collected.
    pub(super) fn find(disk: &Disk, diff_id: &Digest) -> Result<Option<Self>, ImageError> {
        let path = disk.layer(diff_id);
        let failed = |error: io::Error| disk.failed("cannot use a layer", error);
        let Some(lock) = lock_directory(&path, FlockOperation::LockShared).map_err(failed)? else {
            return Ok(None);
        };
        let facts = fs::read(path.join("layer.json")).ok();
        let Some(facts) = facts.and_then(|bytes| serde_json::from_slice(&bytes).ok()) else {
            // A broken disk, or hands: as if it were not there. It goes unless somebody uses it in spite of that.
            drop(lock);
            return match lock_directory(&path, FlockOperation::NonBlockingLockExclusive).map_err(failed)? {
                Some(lock) => disk.discard(&path, &lock).map(|()| None).map_err(failed),
                None => Err(failed(io::Error::other(format!(
                    "{} is damaged, and in use",
                    path.display()
                )))),
            };
        };
        Ok(Some(Self {
            files: path.join("fs"),
            facts,
            _lock: lock,
        }))
    }
}

/// Gets the layer from wherever it is. Runs in a task of its own, which everybody who wants the layer waits for.
pub(super) async fn fetch(
    inner: Arc<Inner>,
    wanted: Wanted,
    stage: watch::Sender<Stage>,
) -> Result<Arc<Layer>, ImageError> {
    let diff_id = wanted.diff_id;
    let claim = loop {
        let disk = inner.disk.clone();
        let step = blocking(move || {
            if let Some(layer) = Layer::find(&disk, &diff_id)? {
                return Ok(Step::There(layer));
            }
            Ok(match Claim::try_new(&disk, &diff_id)? {
                Some(claim) => Step::Mine(claim),
                None => Step::Theirs,
            })
        });
        match step.await? {
            Step::There(layer) => {
                stage.send_replace(Stage::Present);
                return Ok(Arc::new(layer));
            }
            Step::Mine(claim) => break claim,
            // Another process unpacks it; a lock cannot be waited for without a thread.
            Step::Theirs => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let _turn = inner
        .turns
        .acquire()
        .await
        .map_err(|_| ImageError::Unreachable("the store is closed".to_owned()))?;
    let blob = wanted.source.blob(&wanted.descriptor).await?;
    let unpack = Unpack {
        program: inner.config.worker.clone(),
        rules: rules(wanted.budget.as_deref(), inner.disk.opaque),
        disk: inner.disk.clone(),
        verify_blob: wanted.source.has_blob_digests(),
        cancelled: Arc::default(),
        wanted: wanted.clone(),
        stage,
    };
    let _guard = CancelOnDrop(unpack.cancelled.clone());
    let layer = match blob {
        Blob::File(reader) => blocking(move || unpack.run(claim, reader)).await?,
        Blob::Stream(mut stream) => {
            let (send, receive) = mpsc::channel(16);
            let reader = Incoming {
                chunks: receive,
                current: bytes::Bytes::new(),
            };
            let work = blocking(move || unpack.run(claim, reader));
            let feed = async move {
                let mut failure = None;
                while let Some(chunk) = stream.next().await {
                    let message = match chunk {
                        Ok(chunk) => Ok(Some(chunk)),
                        Err(error) => {
                            let message = io::Error::other(error.to_string());
                            failure = Some(error);
                            Err(message)
                        }
                    };
                    if send.send(message).await.is_err() || failure.is_some() {
                        return failure;
                    }
                }
                let _ = send.send(Ok(None)).await;
                None
            };
            let (result, failure) = tokio::join!(work, feed);
            match failure {
                Some(failure) => return Err(failure),
                None => result?,
            }
        }
    };
    Ok(Arc::new(layer))
}

/// Bounds for a layer that is about to be unpacked.
fn rules(budget: Option<&Budget>, opaque: OpaqueMark) -> Rules {
    let mut rules = Rules {
        // Root's mark needs a capability that is worth more than the whole jail: the store sets it.
        mark: opaque
            .attribute()
            .filter(|_| opaque == OpaqueMark::User)
            .map(str::to_owned),
        ..Rules::default()
    };
    if let Some(budget) = budget {
        rules.bytes = rules.bytes.min(budget.left.load(Ordering::Relaxed));
    }
    rules
}

enum Step {
    There(Layer),
    Mine(Claim),
    Theirs,
}

/// The right to unpack a layer, among all processes: the lock of its partial directory.
struct Claim {
    disk: Disk,
    path: PathBuf,
    lock: Option<File>,
}

impl Claim {
    fn try_new(disk: &Disk, diff_id: &Digest) -> Result<Option<Self>, ImageError> {
        let path = disk.partial(diff_id);
        let failed = |error: io::Error| disk.failed("cannot begin a layer", error);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let Some(lock) = lock_directory(&path, FlockOperation::NonBlockingLockExclusive).map_err(failed)? else {
            return Ok(None);
        };
        // Somebody may have begun, and died.
        for entry in fs::read_dir(&path).map_err(failed)? {
            disk.remove_tree(&entry.map_err(failed)?.path()).map_err(failed)?;
        }
        fs::create_dir(path.join("fs")).map_err(failed)?;
        Ok(Some(Self {
            disk: disk.clone(),
            path,
            lock: Some(lock),
        }))
    }

    /// Gives the directory its final name. The lock stays with it, shared from now on.
    fn publish(mut self, facts: LayerFile) -> Result<Layer, ImageError> {
        let disk = self.disk.clone();
        let failed = |error: io::Error| disk.failed("cannot finish a layer", error);
        let text = serde_json::to_vec(&facts).map_err(|error| failed(error.into()))?;
        fs::write(self.path.join("layer.json"), text).map_err(failed)?;
        let Some(lock) = self.lock.take() else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let published = (|| {
            // One call for all files of the layer: syncing them one by one takes many times as long.
            rustix::fs::syncfs(&lock)?;
            let path = self.disk.layer(&facts.diff_id);
            fs::rename(&self.path, &path)?;
            sync_directory(&self.disk.root.join("layers"))?;
            rustix::fs::flock(&lock, FlockOperation::LockShared)?;
            io::Result::Ok(path)
        })();
        match published {
            Ok(path) => Ok(Layer {
                files: path.join("fs"),
                facts,
                _lock: lock,
            }),
            Err(error) => {
                self.lock = Some(lock);
                Err(failed(error))
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            // What cannot be removed now is removed when the store is opened.
            let _ = self.disk.discard(&self.path, &lock);
        }
    }
}

/// Whether anybody still waits, and the worker that ends when nobody does.
#[derive(Default)]
struct Cancelled {
    yes: AtomicBool,
    worker: Mutex<Option<OwnedFd>>,
}

struct CancelOnDrop(Arc<Cancelled>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.yes.store(true, Ordering::SeqCst);
        self.0.kill();
    }
}

impl Cancelled {
    /// From now on the worker ends with the wait.
    fn watch(&self, worker: OwnedFd) {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
        if self.yes.load(Ordering::SeqCst) {
            self.kill();
        }
    }

    fn kill(&self) {
        if let Some(worker) = &*self.worker.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended by itself.
            let _ = rustix::process::pidfd_send_signal(worker, Signal::KILL);
        }
    }
}

/// Everything that the blocking part needs.
struct Unpack {
    program: (PathBuf, Vec<std::ffi::OsString>),
    rules: Rules,
    disk: Disk,
    verify_blob: bool,
    cancelled: Arc<Cancelled>,
    wanted: Wanted,
    stage: watch::Sender<Stage>,
}

impl Unpack {
    fn run(self, claim: Claim, reader: impl Read) -> Result<Layer, ImageError> {
        let files = claim.path.join("fs");
        let report = self.work(&files, reader)?;
        self.stage.send_replace(Stage::Verifying);
        if report.diff_id != Some(self.wanted.diff_id) {
            let got = report.diff_id.map(|digest| digest.to_string()).unwrap_or_default();
            let layer = self.wanted.descriptor.digest;
            return Err(self.invalid(format!(
                "layer {layer} unpacks to {got}, the configuration says {}",
                self.wanted.diff_id
            )));
        }
        self.mark_opaque(&files, &report)?;
        let facts = LayerFile {
            diff_id: self.wanted.diff_id,
            disk: report.disk,
            entries: report.entries,
            opaque_root: report.opaque.iter().any(|path| path == b"."),
            opaque: self.disk.opaque,
            owners: report.owners,
            devices: report.devices,
            attributes: report.attributes,
        };
        let layer = claim.publish(facts)?;
        if let Some(budget) = &self.wanted.budget {
            let spend = |left: u64| Some(left.saturating_sub(report.disk));
            let _ = budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        }
        self.stage.send_replace(Stage::Done);
        Ok(layer)
    }

    /// Feeds the worker while hashing, and hears what became of it.
    fn work(&self, files: &Path, mut reader: impl Read) -> Result<Report, ImageError> {
        let mut child = self.start(files)?;
        let fed = self.feed(&mut child, &mut reader);
        let fed = match fed {
            Ok(fed) => fed,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        self.stage.send_replace(Stage::Unpacking);
        let mut said = Vec::new();
        if let Some(output) = child.stdout.take() {
            let read = output.take(OUTCOME_LIMIT).read_to_end(&mut said);
            read.map_err(|error| self.disk.failed("cannot hear the unpack worker", error))?;
        }
        let status = child
            .wait()
            .map_err(|error| self.disk.failed("cannot wait for the unpack worker", error))?;
        let outcome = serde_json::from_slice(&said).unwrap_or_else(|_| {
            let how = match status.signal() {
                Some(signal) => format!("was ended by signal {signal}"),
                None => format!("ended with {}", status.code().unwrap_or_default()),
            };
            Outcome::Failed(Failure::new(
                Problem::Setup,
                format!("the unpack worker {how} and said nothing"),
            ))
        });
        match (outcome, fed) {
            // Wrong bytes explain whatever the worker says of them.
            (_, Fed::Wrong(reason)) => Err(self.invalid(reason)),
            (Outcome::Done(report), Fed::All) => Ok(report),
            (Outcome::Done(_), Fed::Part) => {
                Err(self.invalid("the unpack worker did not read the whole layer".to_owned()))
            }
            (Outcome::Failed(failure), _) => Err(self.explain(failure)),
        }
    }

    fn start(&self, files: &Path) -> Result<Child, ImageError> {
        let mut command = Command::new(&self.program.0);
        command
            .args(&self.program.1)
            .args(worker::arguments(files, &Task::Unpack(self.rules.clone())))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(|error| {
            ImageError::io(
                format!("cannot start the unpack worker {}", self.program.0.display()),
                error,
            )
        })?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Without it the worker goes on to its end, in vain.
        if let Some(Ok(worker)) = pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) {
            self.cancelled.watch(worker);
        }
        if let Some(input) = &child.stdin {
            // Fewer switches between the processes; an ordinary user's share of pipe memory may be used up.
            let _ = rustix::pipe::fcntl_setpipe_size(input, PIPE);
        }
        Ok(child)
    }

    /// Hands all bytes to the worker. An error is one of this side; the worker says its own.
    fn feed(&self, child: &mut Child, reader: &mut impl Read) -> Result<Fed, ImageError> {
        let Some(mut pipe) = child.stdin.take() else {
            return Ok(Fed::Part);
        };
        let wanted = &self.wanted.descriptor;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; PIPE];
        let mut told = 0;
        loop {
            if self.cancelled.yes.load(Ordering::Relaxed) {
                return Err(ImageError::Unreachable(
                    "nobody waits for the layer any more".to_owned(),
                ));
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::io(format!("cannot read layer {}", wanted.digest), error)),
            };
            hasher.update(&buffer[..count]);
            if hasher.bytes() > wanted.size {
                return Ok(Fed::Wrong(format!(
                    "layer {} is longer than the {} bytes of the manifest",
                    wanted.digest, wanted.size
                )));
            }
            match pipe.write_all(&buffer[..count]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Fed::Part),
                Err(error) => return Err(self.disk.failed("cannot feed the unpack worker", error)),
            }
            if hasher.bytes() - told >= REPORT_EVERY {
                told = hasher.bytes();
                let (done, total) = (Bytes(told), Bytes(wanted.size));
                self.stage.send_replace(Stage::Downloading { done, total });
            }
        }
        if hasher.bytes() != wanted.size {
            let (got, want) = (hasher.bytes(), wanted.size);
            return Ok(Fed::Wrong(format!(
                "layer {} has {got} bytes, the manifest says {want}",
                wanted.digest
            )));
        }
        let digest = hasher.finish();
        if self.verify_blob && digest != wanted.digest {
            return Ok(Fed::Wrong(format!("layer {} has the digest {digest}", wanted.digest)));
        }
        Ok(Fed::All)
    }

    /// Those that the worker may not set.
    fn mark_opaque(&self, files: &Path, report: &Report) -> Result<(), ImageError> {
        if report.opaque.is_empty() || self.rules.mark.is_some() {
            return Ok(());
        }
        let failed = |error: rustix::io::Errno| self.disk.failed("cannot mark an opaque directory", error.into());
        let Some(attribute) = self.disk.opaque.attribute() else {
            let reason = "its file system has no extended attributes, which opaque directories need";
            return Err(self.disk.failed(reason, io::ErrorKind::Unsupported.into()));
        };
        let root = File::open(files).map_err(|error| self.disk.failed("cannot open a layer", error))?;
        for path in &report.opaque {
            match inside::open(&root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => {
                    rustix::fs::fsetxattr(&directory, attribute, b"y", XattrFlags::empty()).map_err(failed)?;
                }
                // Replaced later in the archive.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    fn explain(&self, failure: Failure) -> ImageError {
        let full = |reason: String| ImageError::Full {
            what: format!("{}, layer {}", self.wanted.image, self.wanted.descriptor.digest),
            store: self.disk.root.clone(),
            reason,
        };
        match failure.problem {
            Problem::Archive => self.invalid(failure.message),
            Problem::Full => full(failure.message),
            Problem::TooLarge => match &self.wanted.budget {
                Some(budget) if self.rules.bytes < Rules::default().bytes => {
                    budget.exceeded.store(true, Ordering::Relaxed);
                    let (message, quota) = (failure.message, budget.quota);
                    full(format!(
                        "{message}, and no more of the quota of {quota} bytes is free or can be made free"
                    ))
                }
                _ => self.invalid(failure.message),
            },
            Problem::System | Problem::Setup => {
                let error = match failure.errno {
                    Some(number) => io::Error::from_raw_os_error(number),
                    None => io::Error::other("see there"),
                };
                ImageError::io(
                    format!("cannot unpack a layer of {}: {}", self.wanted.image, failure.message),
                    error,
                )
            }
        }
    }

    fn invalid(&self, reason: String) -> ImageError {
        ImageError::invalid(&self.wanted.image, reason)
    }
}

/// What the worker got.
enum Fed {
    All,
    /// It stopped reading.
    Part,
    /// Bytes that are not the layer.
    Wrong(String),
}

/// Bytes that are under way to the worker.
const PIPE: usize = 1 << 20;
/// Longest outcome that is read: a path for each opaque directory.
const OUTCOME_LIMIT: u64 = 256 << 20;
/// How often progress is told.
const REPORT_EVERY: u64 = 512 << 10;

/// What comes from the network, read by a thread that may wait. It ends with `None`; without it the sender has gone.
struct Incoming {
    chunks: mpsc::Receiver<io::Result<Option<bytes::Bytes>>>,
    current: bytes::Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(Ok(Some(chunk))) => self.current = chunk,
                Some(Ok(None)) => return Ok(0),
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
