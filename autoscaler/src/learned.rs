//! PURE  What a revision has taught, to be kept over a restart of Knarr.
//!
//! A revision comes back under its name; whether it is still the same program is told by [`program`]. Nothing learned of
//! one program is believed of another.

use std::sync::Arc;

use manifests::revision::Revision;
use manifests::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::evict::Rhythm;
use crate::slowdown::Usual;
use crate::start_latency::Latencies;

/// What one revision has taught.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Learned {
    /// Of which program: [`program`].
    pub program: u64,
    /// How long its starts took.
    #[serde(default)]
    pub starts: Latencies,
    /// How long raising its limits took.
    #[serde(default)]
    pub upgrades: Latencies,
    /// How long it took to thaw.
    #[serde(default)]
    pub thaws: Latencies,
    /// The most memory that a sandbox of it had.
    #[serde(default)]
    pub peak: Option<Bytes>,
    /// How often it is used.
    #[serde(default)]
    pub rhythm: Rhythm,
    /// How long requests take on a full instance.
    #[serde(default)]
    pub(crate) usual: Usual,
    /// On cheaper specs, by name: starts, and how long requests take.
    #[serde(default)]
    pub(crate) elsewhere: Vec<(Arc<str>, Latencies, Usual)>,
    /// What its planner has learned.
    #[serde(default)]
    pub planner: Option<serde_json::Value>,
}

impl Learned {
    /// Whether there is anything to be kept.
    pub fn is_empty(&self) -> bool {
        let Self {
            program,
            starts,
            upgrades,
            thaws,
            peak,
            rhythm,
            usual,
            elsewhere,
            planner,
        } = self;
        let _ = program;
        starts.is_empty()
            && upgrades.is_empty()
            && thaws.is_empty()
            && peak.is_none()
            && *rhythm == Rhythm::default()
            && *usual == Usual::default()
            && elsewhere.is_empty()
            && planner.is_none()
    }
}

/// A number that stays when Knarr starts again, and changes with the program and what it may use (FNV-1a).
pub fn program(revision: &Revision) -> u64 {
    let workload = &revision.workload;
    let limits = (
        workload.cpu_limit(),
        workload.memory_limit(),
        revision.container_concurrency,
    );
    let text = format!("{} {limits:?}", workload.serving.image);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
