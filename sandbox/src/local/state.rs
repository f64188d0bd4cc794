//! What the driver knows: its sandboxes, its shells, and everything they share.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use manifests::ids::{RevisionId, SandboxId};
use manifests::units::{Bytes, Millicores};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::task::JoinHandle;

use super::account::Account;
use super::app::App;
use super::command::Commands;
use super::config::LocalConfig;
use super::dial::Dialer;
use super::freeze::{Freezing, Ice};
use super::health::{Probing, Quiet};
use super::limits;
use super::link::Link;
use super::members::Members;
use super::meters::Gauges;
use super::pool::{Bounds, Pool};
use super::probe::Prober;
use super::proc;
use super::shell::Shell;
use crate::cgroup::Hierarchy;
use crate::driver::{DriverError, Event, Exit, Limits, Phases, SandboxSpec, Stats};
use crate::egress::{Attached, Network};
use crate::logs::LogDir;
use crate::rootfs::ORDINARY_UID;
use crate::spawner::protocol::{Abilities, Isolation, Request, RootPlan, Setup, ShellId, Users};
use crate::volumes::{Made, Volumes};

/// Uids of sandboxes under root begin here: above what user databases and subordinate ranges hand out.
const UID_BASE: u32 = 1_900_000_000;
const UIDS: u64 = 1_000_000;

/// The driver, shared by its handle, its thread and the starts in flight.
pub(super) struct Inner {
    pub config: LocalConfig,
    /// `config.data_dir`, without links.
    pub data_dir: PathBuf,
    pub isolation: Isolation,
    /// What works on this host.
    pub abilities: Abilities,
    pub images: images::Store,
    pub hierarchy: Hierarchy,
    /// How sandboxes are frozen; `None` when they cannot be.
    pub freezing: Option<Freezing>,
    /// What all sandboxes together may use.
    pub budget: Bytes,
    pub host: super::capacity::Host,
    /// One reclaim at a time.
    pub reclaiming: Semaphore,
    /// The cgroup group of this data directory.
    pub group: String,
    pub warnings: Vec<String>,
    pub logs: LogDir,
    pub events: broadcast::Sender<Event>,
    pub prober: Prober,
    pub probing: Probing,
    pub dialer: Dialer,
    pub network: Network,
    /// For every spawner of this driver.
    pub setup: Setup,
    /// Held while this driver lives; the second one by its spawner too, until that has cleaned up.
    pub locks: [File; 2],
    /// Of the driver's own thread.
    pub runtime: Handle,
    /// A shell was taken, or a spawner has come: the pool may want filling.
    pub refill: Notify,
    /// The spawner; counts up with each new one.
    pub link: watch::Sender<Option<Arc<Link>>>,
    /// True once the driver's thread has nothing left to do.
    pub finished: watch::Sender<bool>,
    pub state: Mutex<State>,
    pub commands: Commands,
    pub volumes: Arc<Volumes>,
    pub gauges: Gauges,
}

/// What is missing, in words for the user.
pub(super) fn warnings(abilities: &Abilities, hierarchy: &Hierarchy) -> Vec<String> {
    match abilities.isolation {
        Isolation::None => vec![
            "no isolation: apps run as plain processes of this user, on ports of this host, and see all its files"
                .to_owned(),
        ],
        Isolation::Root | Isolation::UserNamespace => {
            let by_root = abilities.isolation == Isolation::Root;
            let users = match (&abilities.own_users, abilities.alone) {
                (Err(why), _) if by_root => Some(format!(
                    "users: sandboxes share the host's users, each app runs as a uid of its own without a user namespace \
                     ({why})"
                )),
                (Err(why), _) => Some(format!(
                    "users: to the host all sandboxes are this one user, and runAsUser is refused ({why})"
                )),
                (Ok(()), Some(alone)) => Some(format!("users: {}", shared_users(alone))),
                (Ok(()), None) => None,
            };
            let mapped = abilities.mapped_images.as_ref().err();
            let owners = mapped.filter(|_| by_root && users.is_none()).map(|why| {
                format!("image users: all images share one user namespace, with the host's uids in it ({why})")
            });
            let images = abilities.images.as_ref().err();
            let images = images.map(|why| format!("images: none can be run, only programs of this machine ({why})"));
            let all = users.into_iter().chain(owners).chain(images);
            all.chain(hierarchy.missing().iter().cloned()).collect()
        }
    }
}

/// What an ordinary user's subordinate ids are enough for.
pub(super) fn shared_users(alone: u32) -> String {
    format!(
        "images share one range of subordinate ids, and so do programs of this machine beyond {alone} at once; uid 0 of an \
         image is this user to the host"
    )
}

/// What changes.
#[derive(Default)]
pub(super) struct State {
    pub sandboxes: HashMap<SandboxId, Slot>,
    /// Every shell of which something may be left, by number, with the sandbox it has become.
    pub shells: HashMap<ShellId, (Arc<Shell>, Option<Arc<Sandbox>>)>,
    /// Shells that wait for an app.
    pub pool: Pool<Arc<Shell>>,
    /// Who the apps of images run as, by the layers that say so and what was asked for.
    pub accounts: HashMap<AccountKey, Account>,
    /// No start succeeds any more.
    pub closing: bool,
    next: u64,
}

/// What an account follows from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct AccountKey {
    pub layers: Vec<PathBuf>,
    pub user: String,
    pub asked: (Option<u32>, Option<u32>, bool),
}

/// What a name stands for.
pub(super) enum Slot {
    /// A start is looking for its program, image, volumes and shell.
    Reserved(Arc<Reserved>),
    /// It has a shell.
    Live(Arc<Sandbox>),
}

/// A name that a start holds before there is a sandbox.
#[derive(Default)]
pub(super) struct Reserved {
    /// `stop` was called.
    pub stopped: watch::Sender<bool>,
    /// What has it now, when that is a sandbox of the same start.
    pub sandbox: OnceLock<Arc<Sandbox>>,
    /// The start has let go of the name, or has a sandbox.
    pub over: watch::Sender<bool>,
}

/// One sandbox, from the moment it has a shell.
pub(super) struct Sandbox {
    pub id: SandboxId,
    pub revision: RevisionId,
    /// What it was started as.
    pub spec: SandboxSpec,
    pub shell: Arc<Shell>,
    /// What runs, and as whom. Holds an image while it is used.
    pub app: Arc<App>,
    pub account: Account,
    /// Its other containers.
    pub members: Mutex<Members>,
    /// `None` without volumes.
    pub volumes: Option<Made>,
    /// Where the app listens: inside, or on the host without isolation.
    pub port: u16,
    /// What all of it may use now.
    pub limits: Mutex<Limits>,
    /// `stop` was called.
    pub requested: AtomicBool,
    /// What its containers may take to end.
    pub patience: watch::Sender<Patience>,
    pub progress: Mutex<Progress>,
    /// Why its probes rest; while nothing says so they do not.
    pub quiet: watch::Sender<Quiet>,
    /// Sockets of its network namespace made ahead.
    pub spare: Mutex<Vec<OwnedFd>>,
    pub refilling: AtomicBool,
    pub ice: Mutex<Ice>,
    /// Its way out.
    pub attached: Mutex<Option<Attached>>,
    /// Why it has none.
    pub shut_in: OnceLock<String>,
    /// How long its start took; set when it was ready.
    pub phases: OnceLock<Phases>,
    gone: watch::Sender<Option<Exit>>,
}

/// How long the containers of a sandbox may take to end. It only runs out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Patience {
    /// Nobody has asked them to.
    Unasked,
    /// They have heard the stop signal, all at the same time.
    Grace,
    /// What is left is killed.
    Over,
}

/// How far a sandbox is.
#[derive(Default)]
pub(super) struct Progress {
    /// `start` has returned it: its end is an event.
    pub started: bool,
    /// Its process is gone.
    pub ended: bool,
    /// Why its readiness probe fails, while it does.
    pub unready: Option<Arc<str>>,
    /// The probe for whose failure it is being ended.
    pub unhealthy: Option<Arc<str>>,
    /// Reads its output; gives the end of it.
    pub output: Option<JoinHandle<String>>,
}

impl Inner {
    pub(super) fn describe(&self) -> String {
        let how = match self.isolation {
            Isolation::Root => "namespaces, by root",
            Isolation::UserNamespace => "namespaces, in a user namespace",
            Isolation::None => "no isolation",
        };
        let frozen = self.freezing.map_or("nothing", Freezing::as_str);
        format!("{how}; {}; frozen by {frozen}", self.hierarchy.describe())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox of this name, started or about to be.
    pub(super) fn sandbox(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        match self.lock().sandboxes.get(id) {
            Some(Slot::Live(sandbox)) => Some(Arc::clone(sandbox)),
            _ => None,
        }
    }

    pub(super) fn find(&self, id: &SandboxId) -> Result<Arc<Sandbox>, DriverError> {
        self.sandbox(id).ok_or_else(|| DriverError::NotFound(id.clone()))
    }

    /// One that `start` has returned.
    pub(super) fn find_started(&self, id: &SandboxId) -> Result<Arc<Sandbox>, DriverError> {
        let sandbox = self.find(id)?;
        let started = sandbox.progress().started;
        if started {
            Ok(sandbox)
        } else {
            Err(DriverError::NotFound(id.clone()))
        }
    }

    pub(super) fn started(&self) -> Vec<SandboxId> {
        let live: Vec<Arc<Sandbox>> = self.lock().live().collect();
        live.iter()
            .filter(|s| s.progress().started)
            .map(|s| s.id.clone())
            .collect()
    }

    /// Started ones whose readiness probe fails.
    pub(super) fn unready(&self) -> Vec<(SandboxId, Arc<str>)> {
        let live: Vec<Arc<Sandbox>> = self.lock().live().collect();
        let unready = |sandbox: &Arc<Sandbox>| {
            let progress = sandbox.progress();
            let why = progress.unready.clone().filter(|_| progress.started)?;
            Some((sandbox.id.clone(), why))
        };
        live.iter().filter_map(unready).collect()
    }

    /// The spawner of the moment; `None` between the death of one and the next.
    pub(super) fn spawner(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    /// How many shells are kept ready.
    pub(super) fn pool_bounds(&self) -> Bounds {
        Bounds {
            generic: self.config.pool,
            services: if self.isolation == Isolation::None {
                0
            } else {
                self.config.pool_services
            },
        }
    }

    /// Asks the spawner for a shell with a cgroup of its own, and with a root when it is known already.
    /// `beside` another, it has that one's network, IPC and host name.
    pub(super) fn new_shell(
        &self,
        limits: &Limits,
        users: Users,
        root: Option<&RootPlan>,
        beside: Option<ShellId>,
    ) -> io::Result<Arc<Shell>> {
        let id = self.lock().next_shell();
        let cgroup = self.hierarchy.create(&self.group, &format!("shell-{}", id.0), limits)?;
        let shell = Arc::new(Shell::new(id, cgroup));
        self.lock().shells.insert(id, (Arc::clone(&shell), None));
        let root = root.cloned().map(Box::new);
        let prepare = Request::Prepare {
            shell: id,
            users,
            root,
            beside,
        };
        let asked = shell.cgroup.open_join().and_then(|join| {
            let link = self.spawner().ok_or(io::ErrorKind::BrokenPipe)?;
            link.send(&prepare, &join)
        });
        match asked {
            Ok(()) => Ok(shell),
            Err(error) => {
                self.lock().shells.remove(&id);
                let _ = shell.cgroup.remove(std::time::Duration::ZERO);
                Err(error)
            }
        }
    }

    /// Ends a shell, whatever it has become.
    pub(super) fn kill(&self, shell: &Shell) {
        match (shell.held(), self.spawner()) {
            (Some(_), _) => shell.kill(),
            // Not made yet: the spawner reads the request to make it first, then this one.
            (None, Some(link)) => drop(link.send(&Request::Kill { shell: shell.id }, &[])),
            // Its spawner is dead: the driver's thread ends it.
            (None, None) => {}
        }
    }

    /// The driver was dropped: the spawner is told, which ends everything.
    pub(super) fn abandon(&self) {
        self.lock().closing = true;
        if let Some(link) = self.spawner() {
            link.close();
        }
    }

    /// The user of a `host:` app in this shell.
    pub(super) fn uid(&self, shell: ShellId) -> u32 {
        match self.isolation {
            Isolation::Root if self.abilities.own_users.is_err() => {
                UID_BASE + u32::try_from(shell.0 % UIDS).unwrap_or(0)
            }
            _ => ORDINARY_UID,
        }
    }
}

impl State {
    pub(super) fn live(&self) -> impl Iterator<Item = Arc<Sandbox>> {
        self.sandboxes.values().filter_map(|slot| match slot {
            Slot::Live(sandbox) => Some(Arc::clone(sandbox)),
            Slot::Reserved(_) => None,
        })
    }

    /// Names that have no shell yet.
    pub(super) fn reserved(&self) -> impl Iterator<Item = &Arc<Reserved>> {
        self.sandboxes.values().filter_map(|slot| match slot {
            Slot::Reserved(reserved) => Some(reserved),
            Slot::Live(_) => None,
        })
    }

    fn next_shell(&mut self) -> ShellId {
        self.next += 1;
        ShellId(self.next)
    }
}

impl Sandbox {
    pub(super) fn new(
        spec: SandboxSpec,
        (app, account): (Arc<App>, Account),
        shell: Arc<Shell>,
        volumes: Option<Made>,
        port: u16,
    ) -> Self {
        Self {
            id: spec.id.clone(),
            revision: spec.revision.clone(),
            limits: Mutex::new(spec.limits),
            spec,
            shell,
            app,
            account,
            members: Mutex::default(),
            volumes,
            port,
            requested: AtomicBool::new(false),
            patience: watch::Sender::new(Patience::Unasked),
            progress: Mutex::default(),
            quiet: watch::Sender::new(Quiet::default()),
            spare: Mutex::default(),
            refilling: AtomicBool::new(false),
            ice: Mutex::default(),
            attached: Mutex::default(),
            shut_in: OnceLock::new(),
            phases: OnceLock::new(),
            gone: watch::Sender::new(None),
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing of it is left.
    pub(super) async fn gone(&self) -> Exit {
        let mut gone = self.gone.subscribe();
        loop {
            if let Some(exit) = &*gone.borrow_and_update() {
                return exit.clone();
            }
            // The sender is `self`, so it is there.
            let _ = gone.changed().await;
        }
    }

    /// Nothing of it is left.
    pub(super) fn set_gone(&self, exit: Exit) {
        self.gone.send_replace(Some(exit));
    }

    /// Changes the reasons for which its probes rest; with the last one gone they count anew.
    pub(super) fn rest(&self, change: impl FnOnce(&mut Quiet)) {
        self.quiet.send_if_modified(|quiet| {
            let before = *quiet;
            change(quiet);
            *quiet != before
        });
    }

    /// Its containers may take this long from now on, and no longer.
    pub(super) fn be_patient(&self, patience: Patience) {
        self.patience.send_if_modified(|now| {
            let less = *now < patience;
            *now = patience.max(*now);
            less
        });
    }

    /// What all of it may use now.
    pub(super) fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn was_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    pub(super) fn set_limits(&self, inner: &Inner, limits: Limits) -> Result<(), DriverError> {
        let unchecked = limits.cpu.is_some() && inner.hierarchy.missing().iter().any(|m| m.starts_with("CPU"));
        if unchecked {
            let source = io::Error::new(io::ErrorKind::Unsupported, inner.hierarchy.missing().join("; "));
            return Err(DriverError::Io {
                context: format!("limit {}", self.id),
                source,
            });
        }
        let throttled = limits
            .cpu
            .is_some_and(|cpu| self.spec.limits.cpu.is_none_or(|full| cpu < full));
        if throttled {
            self.rest(|quiet| quiet.throttled = true);
        }
        let set = self.limit_all(limits);
        if !throttled && set.is_ok() {
            self.rest(|quiet| quiet.throttled = false);
        }
        set.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DriverError::NotFound(self.id.clone()),
            _ => DriverError::Io {
                context: format!("limit {}", self.id),
                source,
            },
        })
    }

    /// Every container, each with its part; those that start from now on too.
    fn limit_all(&self, limits: Limits) -> io::Result<()> {
        let part = |app: &App| limits::of(app.role, &self.spec.workload, &limits);
        self.shell.cgroup.set_limits(&part(&self.app))?;
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        for member in self.others() {
            match member.shell.cgroup.set_limits(&part(&member.app)) {
                // It has ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    pub(super) fn stats(&self) -> Result<Stats, DriverError> {
        let gone = || DriverError::NotFound(self.id.clone());
        let usage = self.shell.cgroup.usage().map_err(|_| gone())?;
        let pid = self.shell.held().ok_or_else(gone)?.pid;
        let mut stats = Stats {
            cpu: usage.cpu,
            memory: usage.memory,
            pids: usage.pids,
            limits: usage.limits,
            main_pid: u32::try_from(pid).ok(),
            frozen: self.is_frozen(),
            reclaimed: self.reclaimed(),
        };
        for member in self.others() {
            if let Ok(usage) = member.shell.cgroup.usage() {
                stats.cpu += usage.cpu;
                stats.memory.0 += usage.memory.0;
                stats.pids = stats.pids.zip(usage.pids).map(|(all, more)| all + more);
                stats.limits = sum(stats.limits, usage.limits);
            }
        }
        // Where no cgroup counts.
        if stats.memory.0 == 0 && stats.cpu.is_zero() {
            let used = proc::usage(pid).ok_or_else(gone)?;
            (stats.cpu, stats.memory, stats.pids) = (used.cpu, used.memory, Some(used.tasks));
        }
        Ok(stats)
    }
}

/// Of two containers together; one without a limit leaves both without.
fn sum(a: Limits, b: Limits) -> Limits {
    let cpus = a.cpu.zip(b.cpu);
    let memories = a.memory.zip(b.memory);
    let pids = a.pids.zip(b.pids);
    Limits {
        cpu: cpus.map(|(a, b)| Millicores(a.0.saturating_add(b.0))),
        memory: memories.map(|(a, b)| Bytes(a.0.saturating_add(b.0))),
        pids: pids.map(|(a, b)| a.saturating_add(b)),
    }
}
