//! PURE  0 to n from the queue: how many replicas a waiting queue may ask for before the next tick.
//!
//! A queue length is not an average concurrency: ten thousand queued requests of 2 ms each must not start ten thousand
//! sandboxes. So the queue asks for at most what its length needs, what the manifest and Knative's rate limit allow, and
//! what this machine can hold; and it is looked at again after every start (see `admission`), when most of it may be gone.

use manifests::revision::{Metric, Revision};
use manifests::units::Replicas;

/// What is known about a revision's queue.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Requests that wait for a slot.
    pub waiting: u32,
    /// Replicas that take requests now.
    pub ready: Replicas,
    /// Replicas being started.
    pub starting: Replicas,
    /// Cores of the machine.
    pub cores: u32,
    /// More replicas that fit into its free memory.
    pub fits_memory: u32,
}

/// What the queue asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Demand {
    /// Replicas in all; 0 when nothing waits.
    pub replicas: Replicas,
    /// What kept it from asking for more.
    pub limit: Option<Limit>,
}

/// A limit on queue-driven starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// `max-scale`.
    MaxScale,
    /// `max-scale-up-rate` times the ready replicas.
    ScaleUpRate,
    /// [`PER_CORE`] replicas per core.
    Cores,
    /// Free memory.
    Memory,
}

impl Limit {
    /// In words for the user.
    pub const fn text(self) -> &'static str {
        match self {
            Self::MaxScale => "max-scale",
            Self::ScaleUpRate => "max-scale-up-rate",
            Self::Cores => "the cores of this machine",
            Self::Memory => "the free memory of this machine",
        }
    }
}

/// How many replicas the queue asks for. At least one when anything waits, whatever the machine has left: the refusal then
/// comes from the start itself, with its reason.
pub fn demand(revision: &Revision, queue: Queue) -> Demand {
    if queue.waiting == 0 {
        return Demand {
            replicas: Replicas(0),
            limit: None,
        };
    }
    let live = queue.ready.0.saturating_add(queue.starting.0);
    let rate = revision.scaling.max_scale_up_rate * f64::from(queue.ready.0.max(1));
    let limits = [
        (
            revision.scaling.max_scale.map_or(u32::MAX, |max| max.0),
            Limit::MaxScale,
        ),
        (saturate(rate.ceil()), Limit::ScaleUpRate),
        (queue.cores.saturating_mul(PER_CORE), Limit::Cores),
        (live.saturating_add(queue.fits_memory), Limit::Memory),
    ];
    let needs = saturate((f64::from(queue.waiting) / per_replica(revision)).ceil());
    let (most, limit) = limits
        .into_iter()
        .min_by_key(|(most, _)| *most)
        .unwrap_or((u32::MAX, Limit::MaxScale));
    if needs > most {
        Demand {
            replicas: Replicas(most.max(1)),
            limit: Some(limit),
        }
    } else {
        Demand {
            replicas: Replicas(needs),
            limit: None,
        }
    }
}

/// Requests one replica should have in flight: the target of the concurrency metric, or for revisions that scale by rate
/// their `containerConcurrency`, by default 100 as Knative's own concurrency default.
fn per_replica(revision: &Revision) -> f64 {
    match revision.scaling.metric {
        Metric::Concurrency { target, .. } => target.0,
        Metric::Rps { .. } => revision.container_concurrency.limit().map_or(100.0, f64::from),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "out of range saturates"
)]
fn saturate(value: f64) -> u32 {
    value as u32
}

/// The queue alone never asks for more replicas than this per core; measured load may.
pub const PER_CORE: u32 = 16;

#[cfg(test)]
mod tests {
    use manifests::units::{Concurrency, ContainerConcurrency, Rps};

    use super::*;
    use crate::testing::revision;

    #[test]
    fn a_table() {
        // (target, max-scale, up rate, waiting, ready, cores, memory fits) to (replicas, limit)
        let table = [
            (70.0, None, 1000.0, 0, 0, 2, 100, (0, None)),
            (70.0, None, 1000.0, 1, 0, 2, 100, (1, None)),
            (70.0, None, 1000.0, 70, 0, 2, 100, (1, None)),
            (70.0, None, 1000.0, 71, 0, 2, 100, (2, None)),
            (0.7, Some(8), 1000.0, 200, 0, 2, 100, (8, Some(Limit::MaxScale))),
            (0.7, Some(8), 1000.0, 3, 4, 2, 100, (5, None)),
            (1.0, None, 1000.0, 10_000, 0, 2, 100, (32, Some(Limit::Cores))),
            (1.0, None, 1000.0, 10_000, 0, 64, 7, (7, Some(Limit::Memory))),
            (1.0, None, 1000.0, 10_000, 3, 64, 7, (10, Some(Limit::Memory))),
            (1.0, None, 2.0, 10_000, 3, 64, 500, (6, Some(Limit::ScaleUpRate))),
            // Nothing fits: one is asked for, and its start says why it cannot be.
            (1.0, None, 1000.0, 5, 0, 2, 0, (1, Some(Limit::Memory))),
        ];
        for (n, (target, max, rate, waiting, ready, cores, fits_memory, want)) in table.into_iter().enumerate() {
            let mut revision = revision("default", "hello-00001");
            revision.scaling.metric = Metric::Concurrency {
                target: Concurrency(target),
                total: Concurrency(100.0),
            };
            revision.scaling.max_scale = max.map(Replicas);
            revision.scaling.max_scale_up_rate = rate;
            let queue = Queue {
                waiting,
                ready: Replicas(ready),
                starting: Replicas(0),
                cores,
                fits_memory,
            };
            let got = demand(&revision, queue);
            assert_eq!((got.replicas.0, got.limit), want, "row {n}");
        }
    }

    #[test]
    fn a_rate_target_is_not_a_concurrency() {
        let mut revision = revision("default", "hello-00001");
        revision.scaling.metric = Metric::Rps {
            target: Rps(2.0),
            total: Rps(2.0),
        };
        let queue = Queue {
            waiting: 40,
            ready: Replicas(0),
            starting: Replicas(0),
            cores: 8,
            fits_memory: 100,
        };
        assert_eq!(demand(&revision, queue).replicas, Replicas(1));
        revision.container_concurrency = ContainerConcurrency(10);
        assert_eq!(demand(&revision, queue).replicas, Replicas(4));
    }
}
