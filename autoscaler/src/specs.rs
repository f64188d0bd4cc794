//! PURE  The instance specs that one revision may run on: its full one, and cheaper ones to stand on while nobody asks.
//!
//! From the catalogue and what the manifest says, once per revision; everything below knows only this. A cheaper spec is
//! *throttled* when it is the same sandbox with less CPU, too little to serve on, and a *reserve* when it serves: the same
//! sandbox with less CPU and memory, or another sandbox that is started beside.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::instances::{Burst, InstanceSpec, Instances, StartPrior};
use manifests::revision::Revision;
use manifests::units::{Bytes, PricePerHour};
use manifests::workload::Workload;
use sandbox::driver::Limits;
use serde::{Deserialize, Serialize};

use crate::start_latency::Prior;

/// What one instance of a revision may be.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in the catalogue.
    pub name: Arc<str>,
    /// The rung that an instance on it stands on: throttled, reserve or full.
    pub rung: Rung,
    /// What it may use; never more than the manifest's own limits.
    pub limits: Limits,
    /// Money per second.
    pub price: f64,
    /// At least this long is paid for.
    pub minimum: Duration,
    /// What is paid for is rounded up to a multiple of this.
    #[serde(default)]
    pub granularity: Duration,
    /// A running sandbox can be changed to it, and back.
    pub in_place: bool,
    /// How many times longer work takes on it, before that was measured; 1 or more.
    pub slow: f64,
    /// How long a start on it takes before one was measured.
    pub start: Option<StartPrior>,
    /// How many can be had at once, by all revisions together; `None` is no limit.
    pub stock: Option<u32>,
    /// It has less than its CPU in the long run, and credits for the rest.
    pub burst: Option<Burst>,
}

/// All of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Specs {
    full: Arc<Spec>,
    /// Cheapest first; none costs as much as the full one.
    cheaper: Box<[Arc<Spec>]>,
    /// What a frozen sandbox costs; `None` where the catalogue has no price for that.
    frozen: Option<Frozen>,
}

/// What a frozen sandbox costs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
struct Frozen {
    /// Money per second and GiB.
    price: f64,
    /// Paid for this much, whatever it holds.
    whole: Option<Bytes>,
}

impl Spec {
    fn of(spec: &InstanceSpec, full: &InstanceSpec, rung: Rung, workload: &Workload) -> Self {
        let memory = spec.memory.into_iter().chain(workload.memory_limit()).min();
        Self {
            name: Arc::clone(&spec.name),
            rung,
            limits: Limits {
                cpu: spec.cpu_of(workload),
                memory,
                pids: None,
            },
            price: spec.price_of(workload),
            minimum: spec.minimum,
            granularity: spec.granularity,
            in_place: spec.in_place,
            slow: (spec.slow / full.slow).max(1.0),
            start: spec.start,
            stock: spec.stock,
            burst: spec.burst,
        }
    }

    /// What is believed of starts on it before one was measured.
    pub fn prior(&self) -> Option<Prior> {
        self.start.map(Prior::Said)
    }

    /// What a start costs that takes so many seconds: what is paid for at least counts whole, because nobody knows how long
    /// the instance will be needed.
    pub fn start_money(&self, seconds: f64) -> f64 {
        self.price * seconds.max(self.minimum.as_secs_f64())
    }

    /// What is paid for beyond the time that it was there.
    pub fn unused(&self, used: Duration) -> Duration {
        let least = used.max(self.minimum).as_nanos();
        let step = self.granularity.as_nanos().max(1);
        let paid = least.div_ceil(step) * step;
        Duration::from_nanos(u64::try_from(paid).unwrap_or(u64::MAX)).saturating_sub(used)
    }

    /// The share of a full instance's load that it takes.
    pub fn share(&self, full: &Self) -> f64 {
        let share = match (self.limits.cpu, full.limits.cpu) {
            (Some(own), Some(full)) if full.0 > 0 => f64::from(own.0) / f64::from(full.0),
            _ => 1.0 / self.slow.max(1.0),
        };
        share.clamp(0.001, 1.0)
    }
}

impl Specs {
    /// What a catalogue offers to a revision, within what its manifest lists.
    pub fn of(instances: &Instances, revision: &Revision) -> Self {
        let (workload, planning) = (&*revision.workload, &revision.planning);
        let full = instances.full_for(workload, &planning.specs);
        let reserve = planning.reserve.as_ref().map(|reserve| &reserve.specs);
        let listed = reserve.filter(|specs| !specs.is_empty()).unwrap_or(&planning.specs);
        // Unless the manifest names it, one must have the memory that the app asks for.
        let enough = |spec: &InstanceSpec| {
            spec.memory
                .is_none_or(|has| workload.memory_request().is_none_or(|asks| has >= asks))
        };
        let may = |spec: &&InstanceSpec| {
            if listed.is_empty() {
                spec.throttled || enough(spec)
            } else {
                listed.contains(&spec.name)
            }
        };
        let of = |spec: &InstanceSpec, rung| Spec::of(spec, full, rung, workload);
        let cheaper = instances.specs.iter().filter(may).map(|spec| match spec.throttled {
            true => of(spec, Rung::Throttled),
            false => of(spec, Rung::Reserve),
        });
        let frozen = instances.frozen.map(|frozen| Frozen {
            price: frozen.memory_price,
            whole: full.memory.or_else(|| workload.memory_limit()).filter(|_| frozen.whole),
        });
        Self::new(of(full, Rung::Full), cheaper.collect(), frozen)
    }

    /// `cheaper` in any order. Left out is what does not cost less than the full one, and a reserve that is slower than one
    /// that costs no more.
    fn new(full: Spec, mut cheaper: Vec<Spec>, frozen: Option<Frozen>) -> Self {
        cheaper.retain(|spec| spec.price < full.price && spec.name != full.name);
        cheaper.sort_by(|a, b| a.price.total_cmp(&b.price).then_with(|| a.name.cmp(&b.name)));
        let mut fastest = f64::INFINITY;
        cheaper.retain(|spec| {
            let better = spec.rung != Rung::Reserve || spec.slow < fastest;
            if spec.rung == Rung::Reserve {
                fastest = fastest.min(spec.slow);
            }
            better
        });
        Self {
            full: Arc::new(full),
            cheaper: cheaper.into_iter().map(Arc::new).collect(),
            frozen,
        }
    }

    /// The one that serves load.
    pub const fn full(&self) -> &Arc<Spec> {
        &self.full
    }

    /// The others, cheapest first.
    pub fn cheaper(&self) -> &[Arc<Spec>] {
        &self.cheaper
    }

    /// The one of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<Spec>> {
        [&self.full]
            .into_iter()
            .chain(&self.cheaper)
            .find(|spec| *spec.name == *name)
    }

    /// The cheapest on a rung; the full one where there is none.
    pub fn on(&self, rung: Rung) -> &Arc<Spec> {
        self.cheaper.iter().find(|spec| spec.rung == rung).unwrap_or(&self.full)
    }

    /// Whether a running sandbox can be changed from one to the other.
    pub fn changes(&self, from: &Spec, to: &Spec) -> bool {
        let within = |spec: &Spec| spec.in_place || spec.name == self.full.name;
        from.name == to.name || within(from) && within(to)
    }

    /// Money per second of a frozen sandbox that holds `memory`: never more than of one that runs on the cheapest spec
    /// which holds as much.
    pub fn frozen_price(&self, memory: Bytes) -> f64 {
        let throttled = self.cheaper.iter().find(|spec| spec.rung == Rung::Throttled);
        let running = throttled.unwrap_or(&self.full).price;
        let price = |frozen: Frozen| frozen.price * gib(frozen.whole.unwrap_or(memory));
        self.frozen.map_or(running, |frozen| price(frozen).min(running))
    }

    /// Whether the catalogue has a price for frozen ones at all.
    pub const fn freezes(&self) -> bool {
        self.frozen.is_some()
    }
}

/// Money per second, as users read it. A price that was written per hour comes out as it was written.
pub fn per_hour(per_second: f64) -> PricePerHour {
    PricePerHour((per_second * SECONDS_PER_HOUR * 1e9).round() / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
fn gib(Bytes(bytes): Bytes) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

const SECONDS_PER_HOUR: f64 = 3600.0;
