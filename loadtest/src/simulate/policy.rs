//! What is compared: the shipped planner, Knative, and what others have published. PURE.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use autoscaler::explain::Explain;
use autoscaler::fleet::Fleet;
use autoscaler::planner::{IdlePlanner, Pilot};
use manifests::config::{WINDOW_MAX, WINDOW_MIN};
use manifests::exchange::{Rung, Snapshot};
use manifests::ids::{Generation, RevisionId};
use manifests::resources::Quantity;
use manifests::revision::{IdlePolicy, Metric, Reachability, Revision};
use manifests::units::{Bytes, Concurrency, ContainerConcurrency, Replicas, Timestamp};
use manifests::workload::Workload;
use sandbox::driver::Capacity;

use super::baselines::{Future, HybridHistogram, Lacks, Lame, Oracle, Stairs};
use super::market::{FULL, MEMORY, Market};
use super::settings::Settings;
use super::tune::stairs;
use crate::trace::{Function, Trace};

/// How functions are kept warm, or not.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Policy {
    /// No annotation: Knative's defaults. An instance goes when the stable window of 60 s is empty, because the gateway
    /// could hold requests all the time (target-burst-capacity 200).
    Knative,
    /// Knative with `target-burst-capacity: "0"`: the stable window and then the grace period, 60 and 30 s.
    KnativeGrace,
    /// Knative with this `autoscaling.knative.dev/window`.
    KnativeWindow(Duration),
    /// An instance goes when nothing was in flight for so long, by `scale-to-zero-pod-retention-period`.
    KeepAlive(Duration),
    /// `min-scale: "1"`.
    AlwaysOne,
    /// The shipped planner.
    Auto,
    /// The shipped planner without something.
    Without(Lacks),
    /// Alibaba ASK's reserved instances: full for as long as Knative, then a cheaper one for ever, and a full one at each
    /// call.
    Ask,
    /// *Serverless in the Wild*.
    HybridHistogram,
    /// Full until the first age, the reserve until the other, then zero.
    Stairs {
        /// Since the last call.
        full: Duration,
        /// Since the last call.
        reserve: Duration,
        /// What is served on the reserve stays there.
        stay_low: bool,
    },
    /// FaasCache: nothing goes before so much memory is full.
    FaasCache(Bytes),
    /// It knows the next call.
    Oracle,
}

impl Policy {
    /// Full until the first age, the reserve until the other; what is served on the reserve stays there.
    pub const fn stairs(full: Duration, reserve: Duration) -> Self {
        Self::Stairs {
            full,
            reserve,
            stay_low: true,
        }
    }

    /// The same stairs, but each call on the reserve starts a full instance.
    #[must_use]
    pub const fn always_up(self) -> Self {
        match self {
            Self::Stairs { full, reserve, .. } => Self::Stairs {
                full,
                reserve,
                stay_low: false,
            },
            other => other,
        }
    }

    /// Its name in tables, which [`FromStr`] reads again.
    pub fn name(&self) -> String {
        match self {
            Self::Knative => "knative".into(),
            Self::KnativeGrace => "knative-grace".into(),
            Self::KnativeWindow(window) => format!("knative-{}", short(*window)),
            Self::KeepAlive(time) => format!("fixed-{}", short(*time)),
            Self::AlwaysOne => "always-one".into(),
            Self::Auto => "auto".into(),
            Self::Without(Lacks::Prewarm) => "auto-without-prewarm".into(),
            Self::Without(Lacks::StayLow) => "auto-without-stay-low".into(),
            Self::Ask => "ask".into(),
            Self::HybridHistogram => "hybrid".into(),
            Self::Stairs {
                full,
                reserve,
                stay_low,
            } => {
                let up = if *stay_low { "" } else { "-up" };
                format!("static-{}-{}{up}", short(*full), short(*reserve))
            }
            Self::FaasCache(pool) => format!("faascache-{}Mi", pool.0 >> 20),
            Self::Oracle => "oracle".into(),
        }
    }

    /// Whether it does something else where there is something else to choose from.
    pub const fn chooses(&self) -> bool {
        !matches!(
            self,
            Self::Knative
                | Self::KnativeGrace
                | Self::KnativeWindow(_)
                | Self::KeepAlive(_)
                | Self::AlwaysOne
                | Self::HybridHistogram
                | Self::FaasCache(_)
        )
    }

    /// Who plans the idle times of a function; for those that Knative's own annotations say, what comes to the same where
    /// nothing but idle times is looked at.
    pub(super) fn planner(&self, world: &World, function: usize) -> Box<dyn IdlePlanner> {
        let full = |time: Duration| Stairs {
            steps: vec![(Duration::ZERO, Rung::Full), (time, Rung::Zero)],
            stay_low: false,
        };
        match self {
            Self::Knative => Box::new(full(WINDOW + HALF_TICK)),
            Self::KnativeGrace => Box::new(full(WINDOW + GRACE + HALF_TICK)),
            Self::KnativeWindow(window) => Box::new(full(*window + HALF_TICK)),
            Self::KeepAlive(time) => Box::new(full(*time + HALF_TICK)),
            // One pool for all functions: nothing that one of them could plan by itself.
            Self::AlwaysOne | Self::FaasCache(_) => Box::new(Stairs {
                steps: vec![(Duration::ZERO, Rung::Full)],
                stay_low: false,
            }),
            Self::Auto => Box::new(Pilot::default()),
            Self::Without(lacks) => Box::new(Lame::new(*lacks)),
            Self::Ask => Box::new(Stairs {
                steps: vec![(Duration::ZERO, Rung::Full), (WINDOW + GRACE, Rung::Reserve)],
                stay_low: false,
            }),
            Self::HybridHistogram => Box::new(HybridHistogram::default()),
            Self::Stairs {
                full,
                reserve,
                stay_low,
            } => Box::new(Stairs {
                stay_low: *stay_low,
                ..stairs(*full, *reserve)
            }),
            Self::Oracle => Box::new(Oracle(Future::of(&world.trace, &world.settings, function, world.seed))),
        }
    }

    /// Every function of the trace as a revision.
    pub(super) fn snapshot(&self, trace: &Trace, settings: &Settings, market: &Market, now: Timestamp) -> Snapshot {
        let revisions = trace.functions.iter().enumerate().map(|(index, function)| {
            let mut revision = revision(index, function, settings, now);
            self.annotate(&mut revision);
            (revision.id.clone(), Arc::new(revision))
        });
        Snapshot {
            generation: Generation::first(1),
            revisions: revisions.collect(),
            instances: market.instances(&settings.starts),
            ..Snapshot::default()
        }
    }

    /// The fleet that decides; `used` is what instances hold.
    pub(super) fn fleet(
        &self,
        trace: &Trace,
        settings: &Settings,
        market: &Market,
        seed: u64,
        used: Arc<AtomicU64>,
    ) -> Fleet {
        let (cores, budget) = (settings.cores, settings.host_memory);
        let capacity = Box::new(move || {
            let used = used.load(Ordering::Relaxed);
            match budget {
                Some(budget) => Capacity {
                    cores,
                    free_memory: Bytes(budget.0.saturating_sub(used)),
                    budget,
                    used: Bytes(used),
                },
                None => Capacity {
                    cores,
                    free_memory: Bytes(u64::MAX / 2),
                    ..Capacity::default()
                },
            }
        });
        let (policy, world) = (*self, World::of(*self, trace, settings, seed));
        Fleet::new(Explain::default(), 1, capacity)
            .with_freezer(market.instances.frozen.is_some())
            .with_planners(Box::new(move |revision| {
                policy.planner(&world, function_of(&revision.id).unwrap_or(usize::MAX))
            }))
    }

    fn annotate(&self, revision: &mut Revision) {
        match self {
            Self::Knative => {}
            Self::KnativeGrace => revision.scaling.target_burst_capacity = Some(0.0),
            Self::KnativeWindow(window) => revision.scaling.stable_window = *window,
            Self::KeepAlive(time) => {
                // Counted from the end of the stable window.
                revision.scaling.retention = time.saturating_sub(revision.scaling.stable_window);
            }
            Self::AlwaysOne => revision.scaling.min_scale = Replicas(1),
            _ => revision.idle = IdlePolicy::Auto,
        }
    }
}

/// What a planner may know of the world that it plans for: only the oracle looks.
pub(super) struct World {
    /// Empty for all others.
    trace: Trace,
    settings: Settings,
    seed: u64,
}

impl World {
    pub(super) fn of(policy: Policy, trace: &Trace, settings: &Settings, seed: u64) -> Self {
        let mut known = Trace {
            name: trace.name.clone(),
            minutes: trace.minutes.clone(),
            functions: Vec::new(),
        };
        if policy == Policy::Oracle {
            known.functions.clone_from(&trace.functions);
        }
        Self {
            trace: known,
            settings: settings.clone(),
            seed,
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let time = |text: &str| humantime::parse_duration(text).ok();
        let stairs = |rest: &str| {
            let (rest, stay_low) = rest.strip_suffix("-up").map_or((rest, true), |rest| (rest, false));
            let (full, reserve) = rest.split_once('-')?;
            Some(Self::Stairs {
                full: time(full)?,
                reserve: time(reserve)?,
                stay_low,
            })
        };
        let known = match name {
            "knative" => Some(Self::Knative),
            "knative-grace" => Some(Self::KnativeGrace),
            "always-one" => Some(Self::AlwaysOne),
            "auto" => Some(Self::Auto),
            "auto-without-prewarm" => Some(Self::Without(Lacks::Prewarm)),
            "auto-without-stay-low" => Some(Self::Without(Lacks::StayLow)),
            "ask" => Some(Self::Ask),
            "hybrid" => Some(Self::HybridHistogram),
            "oracle" => Some(Self::Oracle),
            _ => None,
        };
        let fixed = || Some(Self::KeepAlive(time(name.strip_prefix("fixed-")?)?));
        let pool = || {
            let size: Quantity = name.strip_prefix("faascache-")?.parse().ok()?;
            let bytes = u64::try_from(size.value()).ok().filter(|bytes| *bytes > 0)?;
            Some(Self::FaasCache(Bytes(bytes)))
        };
        let window = || {
            let window = time(name.strip_prefix("knative-")?)?;
            // What Knative takes.
            (WINDOW_MIN..=WINDOW_MAX)
                .contains(&window)
                .then_some(Self::KnativeWindow(window))
        };
        let known = known
            .or_else(fixed)
            .or_else(window)
            .or_else(pool)
            .or_else(|| stairs(name.strip_prefix("static-")?));
        known.ok_or_else(|| {
            format!(
                "{name:?} is no policy; there are auto, auto-without-prewarm, auto-without-stay-low, knative, knative-grace, \
                 knative-WINDOW (6s to 1h, as knative-30s), fixed-TIME (as fixed-10m), always-one, ask, hybrid, faascache, \
                 faascache-SIZE (as faascache-8Gi), static, static-FULL-RESERVE (as static-0s-15m), oracle"
            )
        })
    }
}

/// A time as [`humantime`] writes it, without blanks.
fn short(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}

/// Any function, as far as a catalogue is concerned: 1 CPU, 2 GiB.
pub(super) fn typical() -> Revision {
    Revision::new(revision_id(0), workload())
}

fn workload() -> Workload {
    let mut workload = Workload::host("simulated");
    workload.serving.resources.cpu_limit = Some(FULL);
    workload.serving.resources.memory_limit = Some(MEMORY);
    workload
}

/// A function as a Service would be.
pub(super) fn revision(index: usize, function: &Function, settings: &Settings, now: Timestamp) -> Revision {
    let mut workload = workload();
    // What it asks for decides what fits on a host, and which specs are too small for it.
    let memory = function.memory.unwrap_or(settings.memory_of_app);
    workload.serving.resources.memory_request = settings.host_memory.map(|_| memory);
    let mut revision = Revision::new(revision_id(index), workload);
    revision.created = now;
    revision.planning.sla = settings.sla;
    revision.reachability = Reachability::Reachable;
    revision.container_concurrency = ContainerConcurrency(settings.concurrency);
    if settings.concurrency > 0 {
        let total = f64::from(settings.concurrency);
        revision.scaling.metric = Metric::Concurrency {
            target: Concurrency((total * 0.7).max(0.01)),
            total: Concurrency(total),
        };
    }
    revision.scaling.initial_scale = Replicas(settings.initial_scale);
    revision
}

/// The function of a revision.
fn function_of(revision: &RevisionId) -> Option<usize> {
    revision.name().strip_prefix('f')?.parse().ok()
}

/// The revision of a function.
pub(super) fn revision_id(index: usize) -> RevisionId {
    RevisionId::new("default", format!("f{index:06}"))
}

/// Knative's stable window and grace period, and half of the time between two looks.
const WINDOW: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(30);
const HALF_TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_again() {
        let secs = Duration::from_secs;
        for policy in [
            Policy::Knative,
            Policy::KnativeGrace,
            Policy::KnativeWindow(secs(6)),
            Policy::KnativeWindow(secs(90)),
            Policy::KeepAlive(secs(600)),
            Policy::KeepAlive(secs(90)),
            Policy::AlwaysOne,
            Policy::Auto,
            Policy::Without(Lacks::Prewarm),
            Policy::Without(Lacks::StayLow),
            Policy::Ask,
            Policy::HybridHistogram,
            Policy::FaasCache(Bytes(1536 << 20)),
            Policy::stairs(secs(0), secs(900)),
            Policy::stairs(secs(30), secs(7200)).always_up(),
            Policy::Oracle,
        ] {
            assert_eq!(policy.name().parse(), Ok(policy), "{}", policy.name());
        }
        for wrong in [
            "",
            "fixed-",
            "fixed-soon",
            "knative-",
            "knative-5s",
            "knative-2h",
            "static-1m",
            "static-1m-x",
            "Auto",
            "faascache-",
            "faascache-0",
            "faascache-much",
        ] {
            let error = wrong.parse::<Policy>().expect_err(wrong);
            assert!(error.contains("fixed-TIME"), "{error}");
        }
    }
}
