//! What the local driver is told at its start, and why it may refuse.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::thread;

use manifests::units::{Bytes, Clock};

use super::bundle::Runtime;
use super::freeze::Freezing;
use crate::egress::EgressConfig;
use crate::logs::LogLimits;
use crate::spawner::{self, UidRanges};

/// Settings of the local driver.
#[derive(Clone)]
pub struct LocalConfig {
    /// Logs, the mount point and the lock go here; also what tells the leftovers of one Knarr from another's. Made when
    /// it is missing, for this user alone. One driver at a time may use it.
    pub data_dir: PathBuf,
    /// Run plain processes without any isolation, one port of the host each. Default off.
    pub unsafe_no_isolation: bool,
    /// Shells kept ready: processes in their namespaces and cgroup, waiting for an app. Each costs about 0.35 MiB and
    /// saves most of a start's sandbox time. Default twice the cores, at most 8; 0 turns the pool off.
    pub pool: usize,
    /// Services, those started last, that have one or two shells of their own ready: with their root mounted, so that a
    /// start is little more than an execute. Each shell costs about 0.35 MiB. Default 64; 0 turns it off.
    pub pool_services: usize,
    /// Users of sandboxes, by root: no user of this host, and no other Knarr on it, may have them.
    pub uids: UidRanges,
    /// What all sandboxes together may use; the kernel holds them to it, as far as a cgroup counts memory. Default 75 % of
    /// the machine's memory, or of the limit that Knarr's own cgroup is under.
    pub memory_budget: Option<Bytes>,
    /// The way to freeze, for tests of each; without it the first that works, in the order of [`Freezing`].
    pub freezing: Option<Freezing>,
    /// Whether the memory of frozen sandboxes is moved to swap, where there is any. Default on: it costs a wake-up some
    /// milliseconds and gives most of the memory back.
    pub reclaim: bool,
    /// Where sandboxes may connect to, and what they find there.
    pub egress: EgressConfig,
    /// OCI runtimes that manifests may name in `runtimeClassName`. Default none; `native` is always there.
    pub runtimes: BTreeMap<String, Runtime>,
    /// Where the profiles are that manifests name in `localhostProfile`. Default `seccomp` in `data_dir`.
    pub seccomp: PathBuf,
    /// Where images are. Default: a store of its own in `data_dir`.
    pub images: Option<images::Store>,
    /// How much output is kept.
    pub logs: LogLimits,
    /// What is executed as the spawner: a program whose `main` begins with [`crate::spawner::main_if_asked`], and
    /// arguments. Default: this very binary.
    pub spawner: (PathBuf, Vec<OsString>),
    /// Tells the time.
    pub clock: Clock,
}

impl LocalConfig {
    /// The defaults.
    pub fn new(data_dir: impl Into<PathBuf>, clock: Clock) -> Self {
        let data_dir = data_dir.into();
        Self {
            seccomp: data_dir.join("seccomp"),
            data_dir,
            unsafe_no_isolation: false,
            pool: thread::available_parallelism().map_or(2, |cores| (2 * cores.get()).min(8)),
            pool_services: 64,
            uids: UidRanges::default(),
            memory_budget: None,
            freezing: None,
            reclaim: true,
            egress: EgressConfig::default(),
            runtimes: BTreeMap::new(),
            images: None,
            logs: LogLimits::default(),
            spawner: (PathBuf::from("/proc/self/exe"), vec![spawner::ARGUMENT.into()]),
            clock,
        }
    }

    /// Executes another binary as the spawner: for tests, whose own `main` is the test harness's.
    #[must_use]
    pub fn with_spawner(mut self, program: impl Into<PathBuf>) -> Self {
        self.spawner.0 = program.into();
        self
    }
}

/// Why the local driver does not start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Neither root's way nor an ordinary user's works on this host.
    #[error(
        "sandboxes cannot be isolated here: {reason}. Run as root, allow user namespaces, or give \
         --unsafe-no-isolation to run apps as plain processes"
    )]
    NoIsolation {
        /// What was tried, and what the kernel said.
        reason: String,
    },
    /// Another driver uses the data directory.
    #[error("{0} is in use by another Knarr")]
    InUse(PathBuf),
    /// Something else is wrong with this host.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: io::Error,
    },
}

impl SetupError {
    /// For `map_err`.
    pub(super) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}
