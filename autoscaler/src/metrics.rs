//! Metrics of this crate: one table of names, and the only place that writes them.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `knarr_revision_desired_replicas` | gauge | namespace, revision | what the decider wants |
//! | `knarr_revision_wanted_replicas` | gauge | namespace, revision | what shall run, after bounds, gate, queue and plan |
//! | `knarr_revision_actual_replicas` | gauge | namespace, revision | ready |
//! | `knarr_revision_starting_replicas` | gauge | namespace, revision | being started |
//! | `knarr_revision_panic_mode` | gauge | namespace, revision | 1 while panicking |
//! | `knarr_revision_stable_concurrency`, `_panic_concurrency` | gauge | namespace, revision | averages over the windows |
//! | `knarr_revision_stable_rps`, `_panic_rps` | gauge | namespace, revision | averages over the windows |
//! | `knarr_revision_target` | gauge | namespace, revision | wanted average per replica, in the metric's unit |
//! | `knarr_revision_excess_burst_capacity` | gauge | namespace, revision | requests; -1 is unlimited |
//! | `knarr_revision_rung` | gauge | namespace, revision | 0 zero, 1 frozen, 2 throttled, 3 reserve, 4 full |
//! | `knarr_revision_price_per_hour` | gauge | namespace, revision | of what runs |
//! | `knarr_sandbox_starts_total` | counter | namespace, revision, outcome | ended starts |
//! | `knarr_sandbox_start_seconds` | histogram | namespace, revision | from the decision to ready |
//! | `knarr_sandbox_exits_total` | counter | namespace, revision | ends that nobody asked for |
//! | `knarr_revision_frozen_replicas`, `knarr_revision_frozen_bytes` | gauge | namespace, revision | frozen, and what they hold |
//! | `knarr_sandbox_freezes_total` | counter | namespace, revision, outcome | freezes: `frozen` or `failed` |
//! | `knarr_sandbox_thaw_seconds` | histogram | namespace, revision | from the wake-up call to ready |
//! | `knarr_sandbox_reclaimed_bytes_total` | counter | namespace, revision | memory of frozen sandboxes moved to swap |
//! | `knarr_sandbox_evictions_total` | counter | namespace, revision | idle sandboxes that went because memory was short |

use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::RevisionId;
use manifests::units::{Bytes, PricePerHour, Replicas};
use metrics::{Gauge, Label, counter, gauge, histogram};
use sandbox::driver::Reclaimed;

use crate::decider::Observed;

/// The gauges of one revision.
pub(crate) struct Gauges {
    pub(crate) desired: Option<Replicas>,
    pub(crate) wanted: Replicas,
    pub(crate) actual: Replicas,
    pub(crate) starting: Replicas,
    pub(crate) panicking: bool,
    pub(crate) concurrency: Observed,
    pub(crate) rps: Observed,
    pub(crate) target: f64,
    pub(crate) excess_burst_capacity: i32,
    pub(crate) rung: Rung,
    pub(crate) price: PricePerHour,
    /// Memory of the frozen one; `None` when there is none.
    pub(crate) frozen: Option<Bytes>,
}

/// Where the gauges of one revision go; found once, since every look at it sets them all.
pub(crate) struct Handles([Gauge; NAMES.len()]);

/// In the order of [`Handles::set`].
const NAMES: [&str; 15] = [
    "knarr_revision_desired_replicas",
    "knarr_revision_wanted_replicas",
    "knarr_revision_actual_replicas",
    "knarr_revision_starting_replicas",
    "knarr_revision_panic_mode",
    "knarr_revision_stable_concurrency",
    "knarr_revision_panic_concurrency",
    "knarr_revision_stable_rps",
    "knarr_revision_panic_rps",
    "knarr_revision_target",
    "knarr_revision_excess_burst_capacity",
    "knarr_revision_rung",
    "knarr_revision_price_per_hour",
    "knarr_revision_frozen_replicas",
    "knarr_revision_frozen_bytes",
];

impl Handles {
    pub(crate) fn of(revision: &RevisionId) -> Self {
        let labels = labels(revision);
        Self(NAMES.map(|name| gauge!(name, labels.clone())))
    }

    pub(crate) fn set(&self, gauges: &Gauges) {
        let values = [
            f64::from(gauges.desired.unwrap_or_default().0),
            f64::from(gauges.wanted.0),
            f64::from(gauges.actual.0),
            f64::from(gauges.starting.0),
            f64::from(u8::from(gauges.panicking)),
            gauges.concurrency.stable,
            gauges.concurrency.panic,
            gauges.rps.stable,
            gauges.rps.panic,
            gauges.target,
            f64::from(gauges.excess_burst_capacity),
            f64::from(gauges.rung as u8),
            gauges.price.0,
            f64::from(u8::from(gauges.frozen.is_some())),
            bytes(gauges.frozen.unwrap_or_default()),
        ];
        for (gauge, value) in self.0.iter().zip(values) {
            gauge.set(value);
        }
    }
}

/// A start ended; `Ok` with how long it took.
pub(crate) fn start_ended(revision: &RevisionId, outcome: Result<Duration, &'static str>) {
    let mut labels = labels(revision);
    if let Ok(took) = outcome {
        histogram!("knarr_sandbox_start_seconds", labels.clone()).record(took);
    }
    labels.push(Label::new("outcome", outcome.err().unwrap_or("ready")));
    counter!("knarr_sandbox_starts_total", labels).increment(1);
}

/// A sandbox ended without being asked to.
pub(crate) fn exited(revision: &RevisionId) {
    counter!("knarr_sandbox_exits_total", labels(revision)).increment(1);
}

/// A freeze ended, as it should or not.
pub(crate) fn frozen(revision: &RevisionId, done: bool) {
    let mut labels = labels(revision);
    labels.push(Label::new("outcome", if done { "frozen" } else { "failed" }));
    counter!("knarr_sandbox_freezes_total", labels).increment(1);
}

/// A thaw ended.
pub(crate) fn thawed(revision: &RevisionId, took: Duration) {
    histogram!("knarr_sandbox_thaw_seconds", labels(revision)).record(took);
}

/// Memory of a frozen sandbox was moved to swap.
pub(crate) fn reclaimed(revision: &RevisionId, reclaimed: Reclaimed) {
    let freed = reclaimed.before.0.saturating_sub(reclaimed.after.0);
    counter!("knarr_sandbox_reclaimed_bytes_total", labels(revision)).increment(freed);
}

/// An idle sandbox went because memory was short.
pub(crate) fn evicted(revision: &RevisionId) {
    counter!("knarr_sandbox_evictions_total", labels(revision)).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
fn bytes(Bytes(bytes): Bytes) -> f64 {
    bytes as f64
}

fn labels(revision: &RevisionId) -> Vec<Label> {
    vec![
        Label::new("namespace", revision.namespace().to_owned()),
        Label::new("revision", revision.name().to_owned()),
    ]
}
