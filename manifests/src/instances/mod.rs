//! The catalogue: what instances there are and what each costs; in one ConfigMap, `config-instances`.
//!
//! ```text
//! text (config-instances, or --instances FILE) ─▶ read (every mistake at once) ─▶ Instances ─▶ Snapshot ─▶ planner
//!         shipped: local, eci, ecs-burstable, fargate ┘
//! ```
//!
//! Prices are per second, in whatever currency the catalogue names; they are only ever compared within one catalogue. PURE.

pub(crate) mod lookup;
mod price;
mod raw;
pub(crate) mod read;
mod shipped;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::price::per_hour;
pub use self::raw::{RawBurst, RawSpec, RawStart};
pub use self::shipped::SHIPPED;

use serde::{Deserialize, Serialize};

use crate::resources::mirror;
use crate::units::{Bytes, Millicores};

/// Every instance spec that can be had.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Instances {
    /// Of the shipped catalogue it is or builds on; `own` otherwise.
    pub name: Arc<str>,
    /// What prices are in.
    pub currency: Arc<str>,
    /// Where the prices come from, and when they were read; empty when nobody says.
    pub source: Arc<str>,
    /// As written.
    pub date: Arc<str>,
    /// At least one; names are unique. In the catalogue's order, which is the order of preference at equal price.
    pub specs: Arc<[InstanceSpec]>,
    /// The spec of a revision that says nothing of CPU and memory, where no spec is the revision's own limits.
    pub default: Arc<str>,
    /// What a frozen sandbox costs; `None` where nothing can be frozen.
    pub frozen: Option<FrozenPrice>,
}

/// What an instance may be.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Its name in manifests and plans.
    pub name: Arc<str>,
    /// Which pool it comes from: steady nodes, serverless bursts, ...
    pub pool: Arc<str>,
    /// The CPU it has; `None` is the revision's own limit.
    pub cpu: Option<Millicores>,
    /// The memory it has; `None` is the revision's own limit.
    pub memory: Option<Bytes>,
    /// What it costs per second.
    pub price: f64,
    /// Added per second and GiB of the revision's memory limit.
    pub memory_price: f64,
    /// What is paid for is rounded up to a multiple of this.
    pub granularity: Duration,
    /// What is paid for at least, however soon it ends.
    pub minimum: Duration,
    /// How long a start takes, before any was measured.
    pub start: Option<StartPrior>,
    /// It has less than its CPU in the long run, and credits for the rest.
    pub burst: Option<Burst>,
    /// How many can be had at once; `None` is no limit.
    pub stock: Option<u32>,
    /// A running sandbox can be changed to it and from it.
    pub in_place: bool,
    /// Only to stand idle on: what runs is raised to full at the first request. Always `in_place`.
    pub throttled: bool,
    /// How many times longer work takes on it than on a whole CPU, before that was measured; more than 0.
    pub slow: f64,
    /// Where a cluster puts it; nothing on this machine.
    pub scheduling: Scheduling,
}

/// The price of memory that a frozen sandbox keeps.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct FrozenPrice {
    /// Per second and GiB.
    pub memory_price: f64,
    /// Paid for the whole memory of the spec, not for what the sandbox really holds.
    pub whole: bool,
}

/// The logarithm of a start's duration is taken for normal.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct StartPrior {
    /// Half of the starts are faster; more than 0.
    pub median: Duration,
    /// The deviation of the logarithm; 0.5 makes one in a hundred starts take 3.2 times the median.
    pub sigma: f64,
}

/// CPU credits: one is a CPU for a minute.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Burst {
    /// The share of its CPU that it has for ever; more than 0, at most 1.
    pub baseline: f64,
    /// Credits earned per hour.
    pub credits_per_hour: f64,
    /// Most credits that can be kept.
    pub most: f64,
}

/// What a pod on this spec gets in a cluster.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Scheduling {
    /// `nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `tolerations`.
    pub tolerations: Vec<Toleration>,
    /// Added to the pod's annotations.
    pub annotations: BTreeMap<String, String>,
}

mirror! {
    /// A taint that is tolerated (Kubernetes: Toleration).
    pub struct Toleration {
        key: String = "key",
        operator: String = "operator",
        value: String = "value",
        effect: String = "effect",
        toleration_seconds: Option<i64> = "tolerationSeconds",
    }
}

#[cfg(test)]
mod tests;
