//! A revision, checked: what the planes know of a manifest. Made in one place, from defaulted and validated resources.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exchange::Rung;
use crate::idle_ignore::IdleIgnore;
use crate::ids::{ObjectId, RevisionId};
use crate::keep_warm::KeepWarm;
use crate::units::{Concurrency, ContainerConcurrency, Replicas, Rps, Timestamp};
use crate::workload::Workload;

/// One immutable version of code and configuration, with everything that the cluster's ConfigMaps default resolved.
#[derive(Clone, PartialEq, Debug)]
pub struct Revision {
    /// Its name.
    pub id: RevisionId,
    /// The Configuration that made it.
    pub configuration: ObjectId,
    /// The Service above it; `None` for a bare Configuration. Becomes `K_SERVICE`.
    pub service: Option<ObjectId>,
    /// When it was created.
    pub created: Timestamp,
    /// What to run.
    pub workload: Arc<Workload>,
    /// Requests in flight per replica.
    pub container_concurrency: ContainerConcurrency,
    /// Request deadlines.
    pub timeouts: Timeouts,
    /// How it scales.
    pub scaling: Scaling,
    /// What it does when idle.
    pub idle: IdlePolicy,
    /// What the planner may choose from, and what must hold.
    pub planning: Planning,
    /// `knarr.dev/idle-ignore`: requests that the gateway answers itself, as if they had never come.
    pub idle_ignore: Option<IdleIgnore>,
    /// `knarr.dev/server-timing: "enabled"`: `Server-Timing` on every response, not only when asked for.
    pub server_timing: bool,
    /// Whether connections to its sandboxes are used again. `knarr.dev/upstream-keepalive: "disabled"` turns it off, for
    /// apps that serve one connection at a time while `containerConcurrency` is 0.
    pub upstream_keepalive: bool,
    /// Whether any route sends it traffic.
    pub reachability: Reachability,
}

impl Revision {
    /// What Knative's defaults make of a template that says nothing but what to run; reachable, created at the epoch, of a
    /// Configuration of its own name.
    pub fn new(id: RevisionId, workload: Workload) -> Self {
        Self {
            configuration: ObjectId::new(id.namespace(), id.name()),
            id,
            service: None,
            created: Timestamp::EPOCH,
            workload: Arc::new(workload),
            container_concurrency: ContainerConcurrency(0),
            timeouts: Timeouts {
                request: Duration::from_secs(300),
                response_start: None,
                idle: None,
            },
            scaling: Scaling::default(),
            idle: IdlePolicy::Knative,
            planning: Planning::default(),
            idle_ignore: None,
            server_timing: false,
            upstream_keepalive: true,
            reachability: Reachability::Reachable,
        }
    }
}

/// Request deadlines of a revision (Knative: RevisionSpec).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// `timeoutSeconds`: the whole request, queueing included. Range 1 s to `max-revision-timeout-seconds`.
    pub request: Duration,
    /// `responseStartTimeoutSeconds`: until the first byte of the response. `None` when not set.
    pub response_start: Option<Duration>,
    /// `idleTimeoutSeconds`: the longest gap between writes of the response. `None` when off.
    pub idle: Option<Duration>,
}

/// Whether traffic can reach a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Reachability {
    /// Not known yet; treated as reachable.
    #[default]
    Unknown,
    /// A route names it.
    Reachable,
    /// No route names it: min-scale, retention and scale-down delay do not apply.
    Unreachable,
}

/// The autoscaling annotations of a revision over `config-autoscaler` (Knative: autoscaling annotations), resolved.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scaling {
    /// What is measured, with target (per replica, utilization applied, at least 0.01) and total.
    pub metric: Metric,
    /// How samples in the window weigh.
    pub aggregation: Aggregation,
    /// The stable window; 6 s to 1 h, whole seconds.
    pub stable_window: Duration,
    /// The panic window; whole seconds, at least 1.
    pub panic_window: Duration,
    /// Enter panic at desired / ready of this ratio: `panic-threshold-percentage` / 100.
    pub panic_threshold: f64,
    /// Largest factor up per decision; more than 1.
    pub max_scale_up_rate: f64,
    /// Largest factor down per decision; more than 1.
    pub max_scale_down_rate: f64,
    /// `None` is Knative's -1: unlimited.
    pub target_burst_capacity: Option<f64>,
    /// Requests one activator can hold; only reported.
    pub activator_capacity: f64,
    /// Least replicas; 0 allows zero.
    pub min_scale: Replicas,
    /// Most replicas; `None` is no limit.
    pub max_scale: Option<Replicas>,
    /// Replicas a new revision must reach once before it is ready; 0 only where the cluster allows it.
    pub initial_scale: Replicas,
    /// Least replicas when scaling from zero; 1 unless annotated.
    pub activation_scale: Replicas,
    /// Keep the highest recent decision for this long before going down.
    pub scale_down_delay: Duration,
    /// `enable-scale-to-zero`.
    pub scale_to_zero: bool,
    /// `scale-to-zero-grace-period`; more than 0.
    pub scale_to_zero_grace: Duration,
    /// Keep the last replica this long after the decision to go to zero.
    pub retention: Duration,
    /// How long a start may take before it counts as failed; whole seconds.
    pub progress_deadline: Duration,
}

impl Default for Scaling {
    /// Knative's, without any annotation or ConfigMap.
    fn default() -> Self {
        Self {
            metric: Metric::Concurrency {
                target: Concurrency(70.0),
                total: Concurrency(100.0),
            },
            aggregation: Aggregation::Linear,
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            panic_threshold: 2.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            target_burst_capacity: Some(211.0),
            activator_capacity: 100.0,
            min_scale: Replicas(0),
            max_scale: None,
            initial_scale: Replicas(1),
            activation_scale: Replicas(1),
            scale_down_delay: Duration::ZERO,
            scale_to_zero: true,
            scale_to_zero_grace: Duration::from_secs(30),
            retention: Duration::ZERO,
            progress_deadline: Duration::from_secs(600),
        }
    }
}

/// What the decider measures, per replica.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Metric {
    /// Requests in flight.
    Concurrency {
        /// Wanted average per replica.
        target: Concurrency,
        /// The most one replica can take, before utilization.
        total: Concurrency,
    },
    /// Requests per second.
    Rps {
        /// Wanted average per replica.
        target: Rps,
        /// The most one replica can take, before utilization.
        total: Rps,
    },
}

/// `metric-aggregation-algorithm`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Aggregation {
    /// Every second weighs the same.
    #[default]
    Linear,
    /// Recent seconds weigh more.
    WeightedExponential,
}

/// `knarr.dev/idle`: what a revision does when nobody asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum IdlePolicy {
    /// As Knative: window, grace, zero (or min-scale).
    #[default]
    Knative,
    /// One sandbox stays, frozen, where Knative would keep none.
    Frozen {
        /// `knarr.dev/freeze-delay`: how long no request may have been in flight before; at most an hour. `None` is the
        /// instant at which Knative would go to zero.
        delay: Option<Duration>,
    },
    /// Nothing stays; at Knative's instants.
    Zero,
    /// One sandbox stays, under a small CPU limit that the first request raises.
    Throttled,
    /// One cheaper instance stays and serves what comes, alone as long as it is enough.
    Reserve,
    /// One full instance stays.
    Keep,
    /// The ladder that costs least within [`Planning::sla`].
    Auto,
}

/// What the planner may choose from for a revision, and what must hold; annotations over `config-planner`, resolved.
#[derive(Clone, PartialEq, Debug)]
pub struct Planning {
    /// `knarr.dev/cold-start-sla`: the limit on the latency that a start, or a slower spec, adds.
    pub sla: ColdStartSla,
    /// `knarr.dev/instance-specs` (or `k8s.aliyun.com/eci-use-specs`): names in the catalogue, in the user's order of
    /// preference. Empty is the whole catalogue.
    pub specs: Arc<[Arc<str>]>,
    /// `knative.aliyun.com/reserve-instance` and its relatives.
    pub reserve: Option<Reserve>,
    /// `knarr.dev/min-scale-as`: the rung that min-scale's replicas stand on while nobody asks; never [`Rung::Zero`].
    pub min_scale_as: Rung,
    /// `knarr.dev/keep-warm`: while it is open at least one replica stays, as if min-scale were 1.
    pub keep_warm: Option<KeepWarm>,
}

impl Default for Planning {
    fn default() -> Self {
        Self {
            sla: ColdStartSla::default(),
            specs: Arc::default(),
            reserve: None,
            min_scale_as: Rung::Full,
            keep_warm: None,
        }
    }
}

/// Which instances are kept in reserve, where the manifest says so in Alibaba's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserve {
    /// Names in the catalogue, in the user's order of preference. Empty is the cheapest that serves.
    pub specs: Arc<[Arc<str>]>,
    /// How many; at least 1.
    pub replicas: Replicas,
}

/// `knarr.dev/cold-start-sla: "p99<500ms"`: the added latency of a request that meets an idle revision.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct ColdStartSla {
    /// The quantile that must hold, 0 < q < 1; 0.99 for `p99`.
    pub quantile: f64,
    /// The limit on the added latency.
    pub limit: Duration,
}
