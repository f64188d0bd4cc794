//! The control loop: files and statuses in, snapshots out. The only task that changes desired state.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use manifests::bundle::{self, Bundle, Checked, Input, Runtimes};
use manifests::exchange::{RevisionStatus, Snapshot};
use manifests::units::{Clock, Timestamp};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use crate::claims::Claims;
use crate::config::Catalogue;
use crate::desired::{Desired, Machine};
use crate::objects::Kind;
use crate::pulls::pins::{self, Saved};
use crate::pulls::worker::{What, Word, Worker};
use crate::server::ServeError;
use crate::source::{self, Missing, Sources};
use crate::tell::tell;

/// What the loop owns. Readers share [`Control::desired`] and [`Control::warnings`].
pub(crate) struct Control {
    desired: Arc<RwLock<Desired>>,
    /// What is wrong with files now, and what keeps revisions from running.
    warnings: Arc<RwLock<Vec<String>>>,
    /// Of the files only.
    about_files: Vec<String>,
    /// Of revisions: made anew with each snapshot.
    about_revisions: Vec<String>,
    sources: Sources,
    bundle: Bundle,
    paths: Vec<PathBuf>,
    /// Texts that do not change: standard input, which can be read only once, and a catalogue that comes with Knarr.
    fixed: Vec<Input>,
    /// What `runtimeClassName` may name.
    runtimes: Runtimes,
    /// Of the texts that were read last; `None` when they could not be read.
    read: Option<u64>,
    services: watch::Sender<u64>,
    clock: Clock,
}

impl Control {
    /// Reads and applies the manifests of `paths` and the catalogue; wrong ones are an error here.
    ///
    /// # Errors
    /// A path that cannot be read, or every problem of the manifests.
    pub(crate) fn load(
        mut paths: Vec<PathBuf>,
        instances: Option<Catalogue>,
        runtimes: Runtimes,
        machine: Machine,
        epoch: u64,
        clock: &Clock,
    ) -> Result<Self, ServeError> {
        let mut fixed = Vec::new();
        match instances {
            Some(Catalogue::Shipped(input)) => fixed.push(input),
            Some(Catalogue::File(path)) if !paths.contains(&path) => paths.push(path),
            Some(Catalogue::File(_)) | None => {}
        }
        let mut inputs = source::read(&paths, Missing::Refused)?;
        fixed.extend(inputs.iter().find(|input| input.name == "-").cloned());
        inputs.extend(fixed.iter().filter(|input| input.name != "-").cloned());
        let checked = bundle::bundle_for(Some(&runtimes), &inputs, None);
        if !checked.problems.is_empty() {
            let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
            return Err(ServeError::Manifests(problems.join("\n")));
        }
        let mut sources = Sources::default();
        sources.judge(inputs.clone(), |_| BTreeSet::new());
        let mut desired = Desired::new(epoch, || uuid::Uuid::new_v4().to_string()).on(machine);
        desired.apply(&checked.bundle, clock());
        let about_files: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
        Ok(Self {
            desired: Arc::new(RwLock::new(desired)),
            warnings: Arc::new(RwLock::new(about_files.clone())),
            about_files,
            about_revisions: Vec::new(),
            sources,
            bundle: checked.bundle,
            runtimes,
            paths,
            read: Some(fingerprint(&inputs)),
            fixed,
            services: watch::Sender::new(0),
            clock: Clock::clone(clock),
        })
    }

    /// The first snapshot, once the pins of an earlier Knarr are known.
    pub(crate) fn first(&mut self, pins: Vec<Saved>) -> Snapshot {
        let mut desired = self.lock();
        desired.restore_pins(pins);
        let (first, about_revisions) = desired.snapshot((self.clock)()).unwrap_or_default();
        drop(desired);
        self.about_revisions = about_revisions;
        self.say_warnings();
        first
    }

    /// Desired state, to read.
    pub(crate) fn desired(&self) -> Arc<RwLock<Desired>> {
        Arc::clone(&self.desired)
    }

    /// What is wrong now, to read.
    pub(crate) fn warnings(&self) -> Arc<RwLock<Vec<String>>> {
        Arc::clone(&self.warnings)
    }

    /// Tells of every change of a Service, its status included.
    pub(crate) fn services(&self) -> watch::Receiver<u64> {
        self.services.subscribe()
    }

    /// Reads the files again and applies what is right of them; what is wrong keeps its last good state.
    fn reload(&mut self) {
        let watched: Vec<PathBuf> = self
            .paths
            .iter()
            .filter(|path| *path != Path::new("-"))
            .cloned()
            .collect();
        let mut inputs = match source::read(&watched, Missing::Absent) {
            Ok(inputs) => inputs,
            Err(error) => {
                tracing::warn!(%error, "cannot read the manifests; what was read before stays");
                self.about_files = vec![format!("{error}; what was read before stays")];
                self.read = None;
                return;
            }
        };
        inputs.extend(self.fixed.iter().cloned());
        // Other files change where manifests are: Knarr's own log may stand among them.
        let read = Some(fingerprint(&inputs));
        if std::mem::replace(&mut self.read, read) == read {
            return;
        }
        let mut found = Vec::new();
        let (previous, runtimes) = (&self.bundle, Some(&self.runtimes));
        let judged = self.sources.judge(inputs, |inputs| {
            let Checked { problems, .. } = bundle::bundle_for(runtimes, inputs, Some(previous));
            let wrong = problems.iter().map(|problem| problem.file.to_string()).collect();
            found.extend(problems.iter().map(ToString::to_string));
            wrong
        });
        let checked = bundle::bundle_for(runtimes, &judged.inputs, Some(previous));
        let kept = judged
            .kept
            .iter()
            .map(|file| format!("{file} is wrong: its last good state stays"));
        let ignored = judged
            .ignored
            .iter()
            .map(|file| format!("{file} is wrong: it is left out"));
        self.about_files = kept.chain(ignored).chain(found).collect();
        for warning in &self.about_files {
            tell(format_args!("{warning}"));
        }
        if self.about_files.is_empty() && !same_objects(previous, &checked.bundle) {
            tell(format_args!(
                "applied {}",
                judged
                    .inputs
                    .iter()
                    .map(|input| input.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        self.about_files
            .extend(checked.warnings.iter().map(ToString::to_string));
        self.lock().apply(&checked.bundle, (self.clock)());
        self.bundle = checked.bundle;
    }

    /// Takes what scaling said, and publishes the snapshot that follows from all that changed, if anything did. Nobody reads
    /// that something is ready before the snapshot that routes to it is on its way.
    fn publish(&mut self, statuses: Vec<RevisionStatus>, snapshots: &watch::Sender<Arc<Snapshot>>) {
        let mut desired = self.lock();
        let now = (self.clock)();
        for status in statuses {
            desired.report(status, now);
        }
        let about_revisions = desired.snapshot(now).map(|(snapshot, about_revisions)| {
            snapshots.send_replace(Arc::new(snapshot));
            about_revisions
        });
        let services = desired.store().version_of(Kind::Service);
        drop(desired);
        self.services
            .send_if_modified(|seen| std::mem::replace(seen, services) != services);
        if let Some(about_revisions) = about_revisions {
            self.about_revisions = about_revisions;
        }
        // Also when nothing follows: a file that has become wrong changes no object.
        self.say_warnings();
    }

    fn say_warnings(&self) {
        let warnings = self.about_files.iter().chain(&self.about_revisions).cloned().collect();
        *self.warnings.write().unwrap_or_else(PoisonError::into_inner) = warnings;
    }

    /// Takes what became of images.
    fn hear(&self, word: Word, images: &mut Images) {
        let now = (self.clock)();
        let Word { revision, uid, what } = word;
        match what {
            What::Resolved(pins) => self.lock().images_resolved(&revision, &uid, pins, now),
            What::Ended(Ok(roots)) => {
                images.worker.hold(&revision, &uid, roots);
                self.lock().images_ended(&revision, &uid, Ok(()), now);
            }
            What::Ended(Err(trouble)) => self.lock().images_ended(&revision, &uid, Err(trouble), now),
        }
    }

    /// Begins what is due, gives up what nobody wants any more, and keeps the pins. Returns how long nothing is due.
    fn tend(&self, images: &mut Images) -> Option<Duration> {
        let now = (self.clock)();
        let mut desired = self.lock();
        for job in desired.due_pulls(now) {
            images.worker.start(job, &self.bundle.cluster.deployment);
        }
        let pulls = desired.pulls();
        images.worker.retain(|revision, uid| pulls.wants(revision, uid));
        let pins = (pulls.version() != images.written).then(|| pulls.saved());
        let (version, next) = (pulls.version(), pulls.next_due());
        drop(desired);
        if let Some(pins) = pins {
            match tokio::task::block_in_place(|| pins::write(&images.pins, &pins)) {
                Ok(()) => images.written = version,
                Err(error) => tracing::warn!(file = %images.pins.display(), %error, "cannot keep the pins of images"),
            }
        }
        next.map(|next| next.since(now))
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Desired> {
        self.desired.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until `stop`: applies changes of files and statuses from scaling, and publishes snapshots.
pub(crate) async fn run(
    mut control: Control,
    mut statuses: UnboundedReceiver<RevisionStatus>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    mut images: Images,
    mut claims: Claims,
    stop: CancellationToken,
) {
    let (changed_to, mut changed) = unbounded_channel();
    let mut sweep = tokio::time::interval(SWEEP);
    let _watcher = watch_files(&control.paths, changed_to);
    let mut reload = Reload::default();
    claims.settle(&control.lock());
    loop {
        let next_pull = control.tend(&mut images);
        let mut said = Vec::new();
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = changed.recv() => {
                reload.put_off((control.clock)());
                continue;
            }
            () = reload.due() => tokio::task::block_in_place(|| {
                control.reload();
                claims.settle(&control.lock());
            }),
            Some(word) = images.words.recv() => control.hear(word, &mut images),
            () = tokio::time::sleep(next_pull.unwrap_or_default()), if next_pull.is_some() => continue,
            _ = sweep.tick() => control.lock().collect_garbage((control.clock)()),
            Some(status) = statuses.recv() => {
                said.push(status);
                // Statuses come in bursts; a table of all routes is made once for all of them.
                let until = tokio::time::sleep(COALESCE);
                tokio::pin!(until);
                loop {
                    tokio::select! {
                        biased;
                        () = &mut until => break,
                        Some(status) = statuses.recv() => said.push(status),
                    }
                }
            }
            else => return,
        }
        control.publish(said, &snapshots);
    }
}

/// The images of revisions, as the loop tends them.
pub(crate) struct Images {
    /// Does what is due.
    pub(crate) worker: Worker,
    /// What became of it.
    pub(crate) words: UnboundedReceiver<Word>,
    /// Where pins outlive Knarr.
    pub(crate) pins: PathBuf,
    /// The version of the pins that are there.
    pub(crate) written: u64,
}

/// When to read the files again: editors write in several steps, so when it has been quiet for a while; but not at the
/// end of all time where something is written without a pause.
#[derive(Default)]
struct Reload(Option<(Timestamp, Pin<Box<Sleep>>)>);

impl Reload {
    /// Something has changed at `now`.
    fn put_off(&mut self, now: Timestamp) {
        let first = self.0.as_ref().map_or(now, |(first, _)| *first);
        let left = first.plus(LONGEST).since(now);
        self.0 = Some((first, Box::pin(tokio::time::sleep(left.min(QUIET)))));
    }

    /// Resolves once, when the files are to be read; never while nothing has changed.
    async fn due(&mut self) {
        match &mut self.0 {
            Some((_, quiet)) => quiet.as_mut().await,
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}

/// Sends a word whenever something changes where `paths` are. Without a watcher (out of inotify instances, most likely)
/// Knarr serves on, and says that it does not see changes.
fn watch_files(paths: &[PathBuf], changed: UnboundedSender<()>) -> Option<notify::RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.send(());
        }
    });
    let watched = watcher.and_then(|mut watcher| {
        for point in source::watch_points(paths) {
            watcher.watch(&point, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    watched
        .inspect_err(|error| tracing::warn!(%error, "cannot watch the manifests: changes will not be seen"))
        .ok()
}

fn fingerprint(inputs: &[Input]) -> u64 {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    hasher.finish()
}

fn same_objects(a: &Bundle, b: &Bundle) -> bool {
    a.cluster == b.cluster
        && a.sources == b.sources
        && a.objects.len() == b.objects.len()
        && a.objects
            .iter()
            .zip(&b.objects)
            .all(|(a, b)| a.0 == b.0 && a.1.resource == b.1.resource)
}

/// Revisions grow old slowly.
const SWEEP: Duration = Duration::from_secs(600);
/// A change is applied when the files have been quiet for this long,
const QUIET: Duration = Duration::from_millis(100);
/// or when this long has passed since the first.
const LONGEST: Duration = Duration::from_secs(1);
/// Changes within this time make one snapshot (mechanisms: a table of 100,000 routes takes 15 ms to make).
const COALESCE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes every 60 ms for one and a half seconds: read again after a second, and when it has become quiet.
    #[tokio::test(start_paused = true)]
    #[expect(
        clippy::disallowed_methods,
        reason = "the test is the shell: it reads the paused clock"
    )]
    async fn files_are_read_when_it_is_quiet_and_within_a_second_anyway() {
        let began = tokio::time::Instant::now();
        let now = || Timestamp::EPOCH.plus(began.elapsed());
        let (mut reload, mut read) = (Reload::default(), Vec::new());
        let mut change = tokio::time::interval(Duration::from_millis(60));
        loop {
            tokio::select! {
                biased;
                () = reload.due() => read.push(now().as_millis()),
                _ = change.tick(), if now().as_millis() < 1_500 => reload.put_off(now()),
                () = tokio::time::sleep(Duration::from_secs(9)) => break,
            }
        }
        assert_eq!(read, [1_000, 1_600]);
    }
}
