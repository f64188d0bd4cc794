//! What a test says beforehand about fake instances, and what it is told afterwards.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{RevisionId, SandboxId};
use manifests::units::Bytes;

use super::{Commands, Serve};
use crate::driver::{ExitStatus, Limits};

/// How the instances of a revision act.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How each start goes.
    pub starts: Starts,
    /// The instance ends by itself this long after it was ready.
    pub exits_after: Option<(Duration, ExitStatus)>,
    /// The kernel ends it for its memory this long after it was ready.
    pub starves_after: Option<Duration>,
    /// It takes this long to end with code 0 after the stop signal; `None` ignores the signal and is killed.
    pub stops_after: Option<Duration>,
    /// Its readiness probe fails this long after it was ready, for this long.
    pub unready_after: Option<(Duration, Duration)>,
    /// Its liveness probe fails for good this long after it was ready.
    pub unhealthy_after: Option<Duration>,
    /// Who answers a connection.
    pub serve: Serve,
    /// What commands inside it do.
    pub commands: Commands,
    /// What it has said: the content of its log and of `Exit::last_output`, by line.
    pub output: Vec<String>,
    /// What `stats` says it uses.
    pub memory: Bytes,
    /// How long its freeze takes; `None` is never: it fails.
    pub freezes_after: Option<Duration>,
    /// How long its thaw takes.
    pub thaws_after: Duration,
    /// Cores that it keeps busy, from when it is ready.
    pub cpu: f64,
}

impl Default for Behaviour {
    /// Ready after 10 ms, ends at once when asked to, serves nothing, idle in 16 MiB.
    fn default() -> Self {
        Self {
            starts: Start::ready_after(Duration::from_millis(10)).into(),
            exits_after: None,
            starves_after: None,
            stops_after: Some(Duration::ZERO),
            unready_after: None,
            unhealthy_after: None,
            serve: Serve::Nothing,
            commands: Commands::default(),
            output: Vec::new(),
            memory: Bytes(16 << 20),
            freezes_after: Some(Duration::ZERO),
            thaws_after: Duration::ZERO,
            cpu: 0.0,
        }
    }
}

impl Behaviour {
    /// How long it takes to end when it is asked to with this grace, and how it ends then.
    pub(super) fn end_within(&self, grace: Duration) -> (Duration, ExitStatus) {
        match self.stops_after {
            Some(after) if after <= grace => (after, ExitStatus::Code(0)),
            _ => (grace, ExitStatus::Signal(9)),
        }
    }
}

/// How one start goes.
#[derive(Clone, Debug)]
pub enum Start {
    /// Ready after this long.
    Ready {
        /// From the call of `start`.
        after: Duration,
    },
    /// The app ends before it is ready.
    Exits {
        /// From the call of `start`.
        after: Duration,
        /// How.
        status: ExitStatus,
    },
    /// Its startup probe fails for good.
    Unhealthy {
        /// From the call of `start`.
        after: Duration,
        /// What it said.
        why: String,
    },
    /// It runs and is never ready: `start` fails at its deadline.
    NeverReady,
    /// `StartError::Refused`, at once.
    Refused(String),
    /// `StartError::Exhausted`, at once.
    Exhausted(String),
}

impl Start {
    /// Ready after this long.
    pub const fn ready_after(after: Duration) -> Self {
        Self::Ready { after }
    }
}

/// How all starts of a revision go, by their number: the first is 0, failed and dropped ones count.
#[derive(Clone)]
pub struct Starts(Arc<dyn Fn(u64) -> Start + Send + Sync>);

impl Starts {
    /// By number.
    pub fn by(plan: impl Fn(u64) -> Start + Send + Sync + 'static) -> Self {
        Self(Arc::new(plan))
    }

    /// The plan of one start.
    pub fn nth(&self, number: u64) -> Start {
        (self.0)(number)
    }
}

impl From<Start> for Starts {
    /// All the same.
    fn from(start: Start) -> Self {
        Self::by(move |_| start.clone())
    }
}

impl From<Vec<Start>> for Starts {
    /// One after the other, the last for ever after; none at all is ready at once.
    fn from(starts: Vec<Start>) -> Self {
        Self::by(move |number| {
            let at = usize::try_from(number)
                .unwrap_or(usize::MAX)
                .min(starts.len().saturating_sub(1));
            starts.get(at).cloned().unwrap_or(Start::ready_after(Duration::ZERO))
        })
    }
}

impl fmt::Debug for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries((0..3).map(|n| self.nth(n)))
            .finish_non_exhaustive()
    }
}

/// Something that was asked of the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// When, from the making of the driver.
    pub at: Duration,
    /// Of which sandbox.
    pub id: SandboxId,
    /// What.
    pub what: What,
}

/// What was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// `start`, whatever came of it.
    Start {
        /// Of this revision.
        revision: RevisionId,
        /// Under these limits.
        limits: Limits,
    },
    /// `stop`, also as part of `shutdown`.
    Stop {
        /// With this grace.
        grace: Duration,
    },
    /// `set_limits`.
    SetLimits {
        /// To these.
        limits: Limits,
    },
    /// `freeze`.
    Freeze,
    /// `thaw`.
    Thaw,
    /// `exec`.
    Exec {
        /// Of this command.
        command: Vec<String>,
    },
}
