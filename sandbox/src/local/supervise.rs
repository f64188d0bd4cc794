//! The driver's own thread: sets up, listens to the spawner, replaces it when it dies, keeps the pool full.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use manifests::units::Clock;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, Semaphore, broadcast, watch};

use super::capacity;
use super::command::{self, Commands};
use super::config::{LocalConfig, SetupError};
use super::dial::{Dialer, Remote};
use super::end::bury;
use super::freeze::Freezing;
use super::link::Link;
use super::meters;
use super::network;
use super::pool::Bounds;
use super::probe::Prober;
use super::proc;
use super::shell::{Failure, Shell, Stage};
use super::start::RESPAWN;
use super::state::{Inner, warnings};
use super::watched;
use crate::cgroup::Hierarchy;
use crate::driver::{ExitStatus, Limits};
use crate::egress::{self, Network};
use crate::logs::LogDir;
use crate::spawner::protocol::{Event, Isolation, Setup, ShellId, VERSION};
use crate::volumes::Volumes;
use crate::wire;
use crate::{rootfs, spawner};

/// How long the spawner of a Knarr that was killed may clean up before its successor gives up waiting.
const PREDECESSOR: Duration = Duration::from_secs(15);

/// How long a driver that was dropped in this process may take to end.
const DRIVER: Duration = Duration::from_secs(2);

/// How many events a receiver may lag behind.
const EVENTS: usize = 4096;

/// How long leftovers of a crash are hunted.
const REAP: Duration = Duration::from_secs(5);

/// The pool is filled when no start has taken a shell for this long.
const QUIET: Duration = Duration::from_millis(2);

/// How often those are looked for that nobody waits for, while sandboxes die with their spawner.
const STRAYS: Duration = Duration::from_millis(10);

/// How soon after its removal an image has no shells any more.
const SWEEP: Duration = Duration::from_secs(5);

/// Sets everything up and leaves the thread running.
pub(super) fn begin(config: LocalConfig) -> Result<Arc<Inner>, SetupError> {
    let (answer, answered) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        // This thread holds the host's network for `Dialer`, and never leaves it.
        let begun = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SetupError::io("make a runtime"));
        match begun.and_then(|runtime| set_up(config, &runtime).map(|made| (runtime, made))) {
            Ok((runtime, (inner, child))) => {
                let _ = answer.send(Ok(Arc::clone(&inner)));
                runtime.block_on(supervise(&inner, child));
                inner.finished.send_replace(true);
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    };
    thread::Builder::new()
        .name("knarr-sandbox".to_owned())
        .spawn(run)
        .map_err(SetupError::io("start a thread"))?;
    answered
        .recv()
        .unwrap_or_else(|_| Err(SetupError::io("set up")(io::Error::other("the thread ended"))))
}

fn set_up(config: LocalConfig, runtime: &Runtime) -> Result<(Arc<Inner>, Child), SetupError> {
    let make = |path: &Path| {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(SetupError::io(path.display().to_string()))
    };
    make(&config.data_dir)?;
    let named = SetupError::io(config.data_dir.display().to_string());
    let data_dir = config.data_dir.canonicalize().map_err(named)?;
    let lock = take_lock(&data_dir, "driver.lock", DRIVER)?;
    let locks = [lock, take_lock(&data_dir, "spawner.lock", PREDECESSOR)?];
    let mountpoint = data_dir.join("root");
    make(&mountpoint)?;
    let skeleton = data_dir.join("skeleton");
    rootfs::make_skeleton(&skeleton).map_err(SetupError::io(skeleton.display().to_string()))?;
    command::make_dir(&data_dir).map_err(SetupError::io("make the directory of commands"))?;
    let images = match &config.images {
        Some(images) => images.clone(),
        None => open_images(&data_dir.join("images"), &config.spawner.0)?,
    };
    let logs = LogDir::open(data_dir.join("logs"), config.logs).map_err(SetupError::io("open the log directory"))?;
    let mut hierarchy = Hierarchy::detect();
    let group = group(&data_dir);
    match hierarchy.reap(&group, REAP) {
        Ok(left) if left.is_empty() => {}
        Ok(left) => tracing::info!(sandboxes = left.len(), "removed what an earlier run has left"),
        Err(error) => tracing::warn!(%error, "something of an earlier run is left"),
    }
    let volumes = Volumes::open(&data_dir, &group).map_err(SetupError::io("make the directories of volumes"))?;
    let setup = Setup {
        temporary: volumes.temporary(),
        version: VERSION,
        isolate: !config.unsafe_no_isolation,
        uids: config.uids,
        host: rootfs::host(),
        image: rootfs::image(&hierarchy.visible()),
        skeleton,
        mountpoint,
        cgroup_group: Some(group.clone()),
    };
    let (link, child) = Link::start(&config.spawner, setup.clone(), &locks[1])?;
    let dialer = match link.abilities.isolation {
        Isolation::Root => Dialer::in_place().map_err(SetupError::io("open the network namespace"))?,
        Isolation::UserNamespace => Dialer::Remote(Remote::default()),
        Isolation::None => Dialer::Host,
    };
    let freezing = Freezing::probe(config.freezing, &mut hierarchy, &group);
    let budget = config.memory_budget.unwrap_or_else(capacity::default_budget);
    match hierarchy.limit_group(&group, budget) {
        Ok(true) => {}
        // The warnings of the driver say it in more words.
        Ok(false) => tracing::debug!("the memory budget has no wall: no cgroup limits memory here"),
        Err(error) => tracing::warn!(%error, "the memory budget has no wall"),
    }
    let network = Network::start(config.egress.clone(), Clock::clone(&config.clock))
        .map_err(SetupError::io("start the network of sandboxes"))?;
    let mut warnings = warnings(&link.abilities, &hierarchy);
    if link.abilities.isolation == Isolation::Root {
        warnings.extend(egress::trial());
    }
    let inner = Inner {
        network,
        isolation: link.abilities.isolation,
        abilities: link.abilities.clone(),
        images,
        warnings,
        freezing,
        budget,
        host: capacity::Host::find(hierarchy.group_memory(&group)),
        reclaiming: Semaphore::new(1),
        config,
        data_dir,
        hierarchy,
        group,
        logs,
        events: broadcast::Sender::new(EVENTS),
        probing: Default::default(),
        prober: Prober::start().map_err(SetupError::io("start a thread"))?,
        dialer,
        setup,
        locks,
        runtime: runtime.handle().clone(),
        refill: Notify::new(),
        link: watch::Sender::new(Some(Arc::new(link))),
        finished: watch::Sender::new(false),
        state: Mutex::default(),
        commands: Commands::default(),
        volumes: Arc::new(volumes),
        gauges: Default::default(),
    };
    Ok((Arc::new(inner), child))
}

fn open_images(dir: &Path, worker: &Path) -> Result<images::Store, SetupError> {
    let config = images::StoreConfig::default().with_worker(worker);
    let opened = images::Store::open(dir, config);
    opened.map_err(|error| SetupError::io("open the image store")(io::Error::other(error)))
}

/// Two locks: a living driver is told of soon, but a spawner that has outlived its Knarr, and holds the other one until
/// it has cleaned up, is waited for.
fn take_lock(data_dir: &Path, name: &str, patience: Duration) -> Result<File, SetupError> {
    let path = data_dir.join(name);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options
        .open(&path)
        .map_err(SetupError::io(path.display().to_string()))?;
    let pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if waited < patience => thread::sleep(pause),
            Err(Errno::WOULDBLOCK) => return Err(SetupError::InUse(data_dir.to_owned())),
            Err(error) => return Err(SetupError::io(path.display().to_string())(error.into())),
        }
        waited += pause;
    }
}

/// The cgroup group of a data directory: the same after a crash, different for another directory (FNV-1a).
pub(crate) fn group(data_dir: &Path) -> String {
    let bytes = data_dir.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    format!("knarr-{hash:016x}")
}

/// Until the driver is shut down or dropped.
async fn supervise(inner: &Arc<Inner>, child: Child) {
    let mut child = Some(child);
    let filling = inner.runtime.spawn(keep_pool(Arc::clone(inner)));
    loop {
        if let Some(link) = inner.spawner() {
            let dialing = serve_dialer(inner, &link);
            if let Err(error) = listen(inner, &link.control).await {
                tracing::error!(%error, "the spawner is not understood");
            }
            dialing.abort();
            inner.link.send_replace(None);
            link.close();
            command::bury_all(inner).await;
            bury_all(inner).await;
            reap(child.take()).await;
            proc::reap_inherited(spawner::NAME);
        }
        if inner.lock().closing {
            break;
        }
        let (config, setup, lock) = (
            inner.config.spawner.clone(),
            inner.setup.clone(),
            inner.locks[1].try_clone(),
        );
        let started = inner.runtime.spawn_blocking(move || {
            let lock = lock.map_err(SetupError::io("copy the lock"))?;
            Link::start(&config, setup, &lock)
        });
        match started.await {
            Ok(Ok((link, new))) => {
                tracing::warn!("the spawner died and was replaced");
                child = Some(new);
                inner.link.send_replace(Some(Arc::new(link)));
                inner.refill.notify_one();
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "no new spawner");
                tokio::time::sleep(RESPAWN).await;
            }
            Err(_) => break,
        }
    }
    filling.abort();
    inner.hierarchy.remove_group(&inner.group);
}

/// Reads what the spawner says until it is gone.
async fn listen(inner: &Arc<Inner>, control: &Arc<OwnedFd>) -> io::Result<()> {
    let control = watched::watch(Arc::clone(control))?;
    loop {
        let mut ready = control.readable().await?;
        match ready.try_io(|c| wire::receive::<Event>(c.get_ref().as_fd())) {
            Ok(Ok((event, fds))) => handle(inner, event, fds)?,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

fn handle(inner: &Arc<Inner>, event: Event, fds: Vec<OwnedFd>) -> io::Result<()> {
    let shell = |id: ShellId| inner.lock().shells.get(&id).map(|(shell, _)| Arc::clone(shell));
    match event {
        Event::Prepared { shell: id, pid } => match shell(id) {
            Some(shell) => shell.prepared(pid, fds, |netns| network::open(inner, netns)),
            None => Ok(()),
        },
        Event::Rooted { shell: id } => {
            if let Some(shell) = shell(id) {
                shell.rooted(fds);
            }
            Ok(())
        }
        Event::Executed { shell: id } => {
            if let Some(shell) = shell(id) {
                shell.stage.send_replace(Stage::Executed);
            }
            Ok(())
        }
        Event::Failed {
            shell: id,
            step,
            detail,
            errno,
            had_process,
        } => {
            if let Some(shell) = shell(id) {
                shell.failed(Failure {
                    step: Some(step),
                    detail,
                    errno,
                });
                if !had_process {
                    ended(inner, shell, ExitStatus::Signal(libc::SIGKILL));
                }
            }
            Ok(())
        }
        Event::Exited { shell: id, status } => {
            if let Some(shell) = shell(id) {
                ended(inner, shell, status);
            }
            Ok(())
        }
        Event::CommandMade { .. }
        | Event::CommandExecuted { .. }
        | Event::CommandFailed { .. }
        | Event::CommandExited { .. } => command::told(inner, event, fds),
        Event::Ready { .. } | Event::Refused { .. } => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn ended(inner: &Arc<Inner>, shell: Arc<Shell>, status: ExitStatus) {
    shell.ended(status);
    inner.runtime.spawn(bury(Arc::clone(inner), shell, status));
}

/// The spawner is dead. The kernel has killed its children, except one that has asked not to be.
async fn bury_all(inner: &Arc<Inner>) {
    let shells: Vec<Arc<Shell>> = inner
        .lock()
        .shells
        .values()
        .map(|(shell, _)| Arc::clone(shell))
        .collect();
    let mut buried = Vec::new();
    for shell in shells {
        shell.kill();
        let inner = Arc::clone(inner);
        buried.push(inner.clone().runtime.spawn(async move {
            let status = dead(&shell).await;
            shell.failed_by_spawner();
            shell.ended(status);
            bury(inner, shell, status).await;
        }));
    }
    // A command that the spawner had no time to tell of keeps the namespace it is in from ending.
    let strays = async {
        loop {
            proc::reap_inherited(spawner::NAME);
            tokio::time::sleep(STRAYS).await;
        }
    };
    let all = async {
        for one in buried {
            let _ = one.await;
        }
    };
    tokio::select! {
        () = strays => {}
        () = all => {}
    }
}

/// Waits for a process that is not our child, by its pidfd. Where this process is init, it has become our child.
async fn dead(shell: &Shell) -> ExitStatus {
    let killed = ExitStatus::Signal(libc::SIGKILL);
    let Some(held) = shell.held() else { return killed };
    let Ok(pidfd) = held.pidfd.try_clone().and_then(|fd| watched::watch(Arc::new(fd))) else {
        return killed;
    };
    let _ = pidfd.readable().await;
    match waitid(
        WaitId::PidFd(held.pidfd.as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    ) {
        Ok(Some(status)) => match status.exit_status() {
            Some(code) => ExitStatus::Code(code),
            None => status.terminating_signal().map_or(killed, ExitStatus::Signal),
        },
        _ => killed,
    }
}

async fn reap(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = tokio::task::spawn_blocking(move || child.wait()).await;
    }
}

fn serve_dialer(inner: &Arc<Inner>, link: &Link) -> tokio::task::JoinHandle<()> {
    let (inner, socket) = (Arc::clone(inner), Arc::clone(&link.dialer));
    inner.clone().runtime.spawn(async move {
        if let Dialer::Remote(remote) = &inner.dialer {
            remote.serve(socket).await;
        }
    })
}

/// Makes shells ahead, one at a time, when no start is asking for one.
async fn keep_pool(inner: Arc<Inner>) {
    let bounds = inner.pool_bounds();
    loop {
        while inner.spawner().is_some() && !inner.lock().closing && inner.lock().pool.missing(bounds).is_some() {
            // A start that comes meanwhile goes first.
            while tokio::time::timeout(QUIET, inner.refill.notified()).await.is_ok() {}
            if !make_shell(&inner, bounds).await {
                break;
            }
        }
        let ended = {
            let mut state = inner.lock();
            let mut ended = state.pool.trim(bounds);
            ended.append(&mut state.pool.sweep());
            ended
        };
        for shell in ended {
            inner.kill(&shell);
        }
        if inner.lock().pool.has_leases() {
            // An image that is removed takes its shells along.
            let _ = tokio::time::timeout(SWEEP, inner.refill.notified()).await;
        } else {
            inner.refill.notified().await;
        }
    }
}

/// Makes the shell that is missing most; false when that does not work now.
async fn make_shell(inner: &Inner, bounds: Bounds) -> bool {
    let Some(missing) = inner.lock().pool.missing(bounds) else {
        return true;
    };
    let (users, root) = match &missing {
        Some(key) => (key.users, Some(&key.root)),
        None => (inner.abilities.host_users(), None),
    };
    let Ok(shell) = inner.new_shell(&Limits::default(), users, root, None) else {
        return false;
    };
    let made = |stage: &Stage| match stage {
        Stage::Asked => false,
        Stage::Prepared => root.is_none(),
        _ => true,
    };
    let stage = shell.until(made).await;
    // It was only of use to a start that looks files up.
    drop(shell.take_root());
    if let Stage::Failed(failure) | Stage::Ended(Some(failure)) = stage {
        if let Some(key) = &missing {
            tracing::warn!(error = %failure.error(), "cannot {} ahead of a start", failure.context());
            inner.lock().pool.forget_one(key);
        }
        return missing.is_some();
    }
    meters::refilled(missing.is_some());
    let over = {
        let mut state = inner.lock();
        let known = state.shells.contains_key(&shell.id);
        known.then(|| state.pool.put(missing.as_ref(), shell)).flatten()
    };
    if let Some(shell) = over {
        inner.kill(&shell);
    }
    true
}
