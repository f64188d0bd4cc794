//! What a simulation assumes beyond what its trace says. PURE.

use std::time::Duration;

use manifests::revision::ColdStartSla;
use manifests::units::Bytes;
use serde::Serialize;

use super::starts::Starts;

/// What runs a simulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Every request, through the real fleet.
    #[default]
    Fleet,
    /// Idle times only, one instance per function.
    Gaps,
}

impl Engine {
    /// What a table says of itself.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Fleet => "every request through the fleet (engine fleet)",
            Self::Gaps => "idle times only, one instance per function, not through the fleet (engine gaps)",
        }
    }
}

/// Of every run of one simulation.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// What functions are promised: at most this share above the limit.
    pub sla: ColdStartSla,
    /// How long instances take to start.
    pub starts: Starts,
    /// How long a frozen one takes to run again: the median.
    pub thaw: Duration,
    /// Of the logarithm of that; 0 where all take as long.
    pub thaw_sigma: f64,
    /// How long a change of limits in place takes.
    pub resize: Duration,
    /// `containerConcurrency`: calls that an instance takes at once; 0 is no limit.
    pub concurrency: u32,
    /// `initial-scale`: instances that are started when a function is deployed. A function is deployed in the minute of its
    /// first call, which is not the end of an idle time then; with 0 all are deployed at the first minute, and every call counts.
    pub initial_scale: u32,
    /// How long a call takes of which the trace does not say it.
    pub duration: Duration,
    /// What each call takes beyond what the trace says: a trace's 0 ms are more than nothing.
    pub overhead: Duration,
    /// What an instance holds of which the trace does not say it.
    pub memory_of_app: Bytes,
    /// What all instances together may hold; `None` is as much as they like.
    pub host_memory: Option<Bytes>,
    /// Twice as many starts may be in flight.
    pub cores: u32,
    /// When within its seconds the gateway reports; less than one. Only calls that come at whole seconds can tell.
    pub phase: Duration,
    /// What runs it.
    pub engine: Engine,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sla: ColdStartSla {
                quantile: 0.99,
                limit: Duration::from_secs(1),
            },
            starts: Starts::default(),
            thaw: Duration::from_millis(5),
            thaw_sigma: 0.0,
            resize: Duration::from_millis(5),
            concurrency: 100,
            initial_scale: 1,
            duration: Duration::from_millis(100),
            overhead: Duration::ZERO,
            memory_of_app: Bytes(100 << 20),
            host_memory: None,
            cores: 1 << 16,
            phase: Duration::ZERO,
            engine: Engine::Fleet,
        }
    }
}
