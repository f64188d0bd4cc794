//! The driver contract: what every way of running an instance promises, whatever it runs on.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::units::{Bytes, Millicores};
use manifests::workload::Workload;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use crate::details::Details;
use crate::exec::{Exec, ExecError, ExecSpec};

/// A boxed future: the trait is used as `Arc<dyn Driver>`, and every call does far more work than one allocation.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs instances of revisions.
///
/// Every implementation passes [`crate::conformance`]:
/// - `start` resolves when every container has passed its startup and its readiness probe, or with the reason why not;
///   after an error nothing is left. Dropping its future midway leaves nothing behind either.
/// - Two starts with one id are an error; an id may be used again after its sandbox is gone.
/// - `stop` is idempotent, also for ids that never existed. It resolves only when no process, mount, cgroup, namespace,
///   port or directory of the sandbox is left (namespaces are freed by the kernel a little later). Dropping its future
///   does not undo the stop.
/// - Exactly one [`Event::Exited`] is sent for each sandbox that `start` returned, whether it was stopped, crashed or
///   was killed from outside. After it, `dial` fails.
/// - Afterwards readiness is asked for on: [`Event::Readiness`] tells of every change, and the sandbox can be dialled
///   all the same. A liveness probe that fails for good is told by [`Event::Unhealthy`]; the driver then ends the
///   sandbox as `stop` would with the workload's own grace, and its exit says why. Both come after `start` has returned
///   it and before its exit.
/// - `set_limits` changes a running sandbox in place, without a restart and without losing a connection.
/// - `freeze` and `thaw` are idempotent; the later call of the two wins. A frozen sandbox uses no CPU, keeps its memory and
///   its connections, answers nothing, and stays in `list`; its kernel goes on accepting connections. `stop` works on it as
///   on any other: the app hears the signal. Killed from outside or out of memory, it ends like any other.
/// - `exec` runs a command in a sandbox under the same lockdown as its app; it ends with the sandbox at the latest, and
///   with the [`Exec`] that holds it.
/// - A sandbox's containers share its volumes and its network; init containers have ended well before the others begin, and
///   the serving one's end is the end of all. A volume that is the sandbox's own is empty at its start and gone with it.
/// - No method waits for another sandbox's start; `dial` in particular never does.
pub trait Driver: Send + Sync + 'static {
    /// Starts an instance and waits until it is ready or `spec.deadline` has passed.
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Started, StartError>>;

    /// Sends the stop signal, waits up to `grace`, then kills; returns how the app ended (`None`: it was not there).
    fn stop(&self, id: &SandboxId, grace: Duration) -> BoxFuture<'_, Result<Option<Exit>, DriverError>>;

    /// Rewrites the limits of a running sandbox in place.
    fn set_limits(&self, id: &SandboxId, limits: Limits) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Holds every process of a running sandbox where it is. Resolves when all stand still, with the memory it holds; what
    /// can be moved to swap is moved there in the background afterwards, and told by [`Event::Reclaimed`]. Dropping the
    /// future does not undo the freeze. After an error it runs.
    fn freeze(&self, id: &SandboxId) -> BoxFuture<'_, Result<Bytes, DriverError>>;

    /// Lets a frozen sandbox run on.
    fn thaw(&self, id: &SandboxId) -> BoxFuture<'_, Result<(), DriverError>>;

    /// By what sandboxes are frozen here, in a word for the user; `None` when they cannot be.
    fn freezer(&self) -> Option<&'static str>;

    /// What a running sandbox uses now.
    fn stats(&self, id: &SandboxId) -> BoxFuture<'_, Result<Stats, DriverError>>;

    /// All that can be said of a sandbox, starting or running.
    fn inspect(&self, id: &SandboxId) -> BoxFuture<'_, Result<Details, DriverError>>;

    /// Opens a connection to the app's port inside the sandbox. Fails at once when the sandbox is gone.
    fn dial(&self, id: &SandboxId) -> BoxFuture<'_, std::io::Result<TcpStream>>;

    /// Runs a command inside a running sandbox, as its app runs: same namespaces, root, user, rights, limits, variables.
    /// Resolves when its program runs. Dropping the future, or the [`Exec`], kills it.
    fn exec(&self, id: &SandboxId, command: ExecSpec) -> BoxFuture<'_, Result<Exec, ExecError>>;

    /// What happens to sandboxes from now on. A receiver that lags gets `Lagged` and must look again with [`Self::list`].
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Every sandbox that is started and has not exited.
    fn list(&self) -> Vec<SandboxId>;

    /// Those of [`Self::list`] whose readiness probe fails now, each with the reason.
    fn unready(&self) -> Vec<(SandboxId, Arc<str>)>;

    /// Where the sandbox's output is: the newest file first; the files stay after the sandbox is gone, within the bound.
    fn logs(&self, id: &SandboxId) -> Vec<PathBuf>;

    /// Every sandbox, running or gone, of which there is output: what [`Self::logs`] has files for.
    fn logged(&self) -> Vec<SandboxId>;

    /// What this host can still take, for admission.
    fn capacity(&self) -> Capacity;

    /// Stops everything, each with `grace`, and returns when nothing is left. No `start` succeeds afterwards.
    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, ()>;
}

/// One instance to start.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Its name.
    pub id: SandboxId,
    /// Of which revision; becomes `K_REVISION`.
    pub revision: RevisionId,
    /// Becomes `K_CONFIGURATION`.
    pub configuration: ObjectId,
    /// Becomes `K_SERVICE`; empty for a bare Configuration.
    pub service: Option<ObjectId>,
    /// What to run.
    pub workload: Arc<Workload>,
    /// Limits to start under.
    pub limits: Limits,
    /// Give up when it is not ready after this long.
    pub deadline: Duration,
}

/// Resource limits of a sandbox; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time per wall time.
    pub cpu: Option<Millicores>,
    /// Memory, page cache included.
    pub memory: Option<Bytes>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// A sandbox that became ready.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where the time went.
    pub phases: Phases,
    /// What isolation was degraded on this host, in words for the user; empty when everything holds.
    pub warnings: Vec<String>,
}

/// The phases of a start; each from the call of `start`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases {
    /// The program was executed inside its sandbox.
    pub spawned: Duration,
    /// The readiness probe passed.
    pub ready: Duration,
}

/// Something that happened to a sandbox without being asked for, or as the last thing it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is gone: nothing of it is left.
    Exited {
        /// Which one.
        id: SandboxId,
        /// Of which revision.
        revision: RevisionId,
        /// How it ended.
        exit: Exit,
    },
    /// It stopped being ready by its readiness probe, or became ready again.
    Readiness {
        /// Which one.
        id: SandboxId,
        /// Of which revision.
        revision: RevisionId,
        /// Whether it is ready now.
        ready: bool,
        /// Why not, in words for the user; empty when it is.
        why: Arc<str>,
    },
    /// Its liveness probe failed for good: it is being ended, and its exit follows.
    Unhealthy {
        /// Which one.
        id: SandboxId,
        /// Of which revision.
        revision: RevisionId,
        /// Which probe, and what it said, in words for the user.
        why: Arc<str>,
    },
    /// Memory of a frozen sandbox was moved to swap.
    Reclaimed {
        /// Which one.
        id: SandboxId,
        /// Of which revision.
        revision: RevisionId,
        /// How much.
        reclaimed: Reclaimed,
    },
}

impl Event {
    /// Which sandbox it is about.
    pub const fn sandbox(&self) -> &SandboxId {
        match self {
            Self::Exited { id, .. }
            | Self::Readiness { id, .. }
            | Self::Unhealthy { id, .. }
            | Self::Reclaimed { id, .. } => id,
        }
    }
}

/// What moving a frozen sandbox's memory to swap has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reclaimed {
    /// Charged to it before.
    pub before: Bytes,
    /// And after.
    pub after: Bytes,
}

/// How an app ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// `stop` was called before it ended.
    pub requested: bool,
    /// Why the driver ended it: the startup or liveness probe that failed and what it said, or `Evicted:` and the volume
    /// that was too full.
    pub unhealthy: Option<Arc<str>>,
    /// What it left as its last words at `terminationMessagePath`, at most 4 KiB; else the end of its output, at most 2 KiB.
    pub last_output: String,
    /// The most memory it ever had; `None` where the host does not count it.
    pub peak_memory: Option<Bytes>,
}

/// Exit code or signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ExitStatus {
    /// `exit(code)`.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// As Kubernetes reports it: 128 + signal for a signal.
    pub const fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a sandbox uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// CPU time so far.
    pub cpu: Duration,
    /// Memory charged to it now.
    pub memory: Bytes,
    /// Processes and threads now; `None` where the host does not count them.
    pub pids: Option<u32>,
    /// The limits in force.
    pub limits: Limits,
    /// The app's first process, as the host numbers it; `None` where it is no process of this host.
    pub main_pid: Option<u32>,
    /// It is frozen.
    pub frozen: bool,
    /// What was moved to swap since it was frozen last.
    pub reclaimed: Option<Reclaimed>,
}

/// What a host can still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capacity {
    /// Cores; at most twice as many starts are in flight.
    pub cores: u32,
    /// Memory that can be given to new sandboxes: what is left of the budget, or less when the host runs short.
    pub free_memory: Bytes,
    /// What all sandboxes together may use.
    pub budget: Bytes,
    /// What they use now, prepared shells included, reclaimable page cache not.
    pub used: Bytes,
}

/// Why a start failed: whose fault it is, and whether another try may work.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The app ended before it was ready, by itself or because a startup or liveness probe failed for good.
    #[error("{}", before_ready(.0))]
    Exited(Exit),
    /// The app did not pass its startup and readiness probes in time.
    #[error("the app was not ready after {after:?}: {last}")]
    NotReady {
        /// How long it had.
        after: Duration,
        /// What the last try said.
        last: String,
    },
    /// The program is missing, is not executable, or asks for something this host cannot give: the manifest must change.
    #[error("{0}")]
    Refused(String),
    /// This host is short of something: another try later may work.
    #[error("{0}")]
    Exhausted(String),
    /// The driver itself failed: the spawner died, a system call was refused.
    #[error("{0}")]
    Driver(#[from] DriverError),
}

fn before_ready(exit: &Exit) -> String {
    match &exit.unhealthy {
        Some(why) => format!("{why}; the app was ended before it was ready ({})", exit.status),
        None => format!("the app ended with {} before it was ready", exit.status),
    }
}

/// The driver could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No such sandbox runs.
    #[error("no sandbox {0}")]
    NotFound(SandboxId),
    /// A sandbox of this name runs already.
    #[error("sandbox {0} runs already")]
    Exists(SandboxId),
    /// This host cannot freeze, or could not freeze this one: why.
    #[error("cannot freeze: {0}")]
    CannotFreeze(String),
    /// The driver is shutting down.
    #[error("the driver is shutting down")]
    ShuttingDown,
    /// A system call or the spawner failed.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}
