//! PURE  Where an idle revision stands: the cheapest rung of the ladder whose wake-up keeps the cold-start SLA.
//!
//! Asked when the gate says that a revision with `knarr.dev/idle: auto` may go to zero. Each rung has a price per hour and
//! an upper bound on the latency that its wake-up adds, measured on this revision; the planner takes the cheapest rung
//! whose bound keeps the SLA and says why the others were not taken. Total and deterministic: a full instance adds
//! nothing, so there is always an answer. A further rung is one more entry in [`ladder`].

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::instances::InstanceSpec;
use manifests::revision::ColdStartSla;
use manifests::units::{Bytes, Millicores, PricePerHour};
use manifests::workload::Workload;
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::start_latency::{Estimate, Latencies};

/// Everything a plan follows from.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// What must hold.
    pub sla: &'a ColdStartSla,
    /// What can be had, at what price.
    pub catalogue: &'a Catalogue,
    /// The revision's own limits.
    pub workload: &'a Workload,
    /// Starts from zero: from the decision to ready.
    pub starts: &'a Latencies,
    /// Wake-ups from throttled: from the wake-up call to the limit rewritten.
    pub upgrades: &'a Latencies,
    /// Wake-ups from frozen: from the wake-up call to ready.
    pub thaws: &'a Latencies,
    /// The last start failed: nobody can say how long the next one takes.
    pub start_fails: bool,
    /// This host could not lower the limit of a running sandbox.
    pub throttle_fails: bool,
    /// This host can freeze, and could freeze this revision.
    pub can_freeze: bool,
    /// What an idle sandbox of it holds.
    pub memory: Bytes,
}

/// Where to stand, and why.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Plan {
    /// The rung.
    pub rung: Rung,
    /// The spec on it; `None` at zero.
    pub spec: Option<Arc<str>>,
    /// What it costs.
    pub price: PricePerHour,
    /// The SLA it keeps, as the annotation writes it.
    pub sla: String,
    /// Every rung that was looked at, cheapest first.
    pub candidates: Vec<Candidate>,
}

/// One rung that was looked at.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Candidate {
    /// Which rung.
    pub rung: Rung,
    /// The spec on it; `None` at zero.
    pub spec: Option<Arc<str>>,
    /// The CPU of that spec; `None` is no limit.
    pub cpu: Option<Millicores>,
    /// What standing there costs.
    pub price: PricePerHour,
    /// Upper bound on what a wake-up adds; `None` when nobody can say.
    pub bound: Option<Duration>,
    /// Measurements behind the bound.
    pub samples: usize,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Verdict {
    /// It is the plan.
    Chosen,
    /// It keeps the SLA, but costs more.
    Dearer,
    /// Its bound is over the limit.
    TooSlow,
    /// Most wake-ups were fast enough, but too many were not.
    Missed,
    /// Nothing was measured yet.
    Unmeasured,
    /// The last start failed.
    StartFails,
    /// This host cannot change limits in place.
    Unavailable,
    /// This host cannot freeze, or not this one.
    CannotFreeze,
}

/// Chooses. Same input, same plan.
pub fn plan(input: PlanInput<'_>) -> Plan {
    let mut candidates = ladder(input);
    candidates.sort_by(|a, b| a.price.0.total_cmp(&b.price.0).then(a.rung.cmp(&b.rung)));
    let keeps = candidates
        .iter()
        .position(|candidate| candidate.verdict == Verdict::Dearer);
    // The full rung adds no latency and is always on the ladder.
    let chosen = keeps.unwrap_or(candidates.len() - 1);
    candidates[chosen].verdict = Verdict::Chosen;
    let Candidate { rung, spec, price, .. } = candidates[chosen].clone();
    Plan {
        rung,
        spec,
        price,
        sla: sla_text(input.sla),
        candidates,
    }
}

impl Plan {
    /// The choice in a sentence.
    pub fn reason(&self) -> String {
        let chosen = self
            .candidates
            .iter()
            .find(|candidate| candidate.verdict == Verdict::Chosen);
        let bound = chosen.map(Candidate::bound_text).unwrap_or_default();
        format!(
            "{} at {} is the cheapest rung that keeps {} ({bound})",
            self.rung.as_str(),
            self.price,
            self.sla
        )
    }
}

impl Candidate {
    /// The bound in words.
    pub fn bound_text(&self) -> String {
        match (self.bound, self.samples) {
            (None, _) => "wake-up unknown".into(),
            (Some(Duration::ZERO), _) => "adds nothing".into(),
            (Some(bound), 0) => format!("adds at most {}, not measured yet", short(bound)),
            (Some(bound), 1) => format!("adds at most {}, 1 measured", short(bound)),
            (Some(bound), n) => format!("adds at most {}, {n} measured", short(bound)),
        }
    }

    /// The verdict in words.
    pub const fn verdict_text(&self) -> &'static str {
        match self.verdict {
            Verdict::Chosen => "chosen",
            Verdict::Dearer => "keeps the SLA, costs more",
            Verdict::TooSlow => "rejected: may be slower than the SLA allows",
            Verdict::Missed => "rejected: too many were slower than the SLA allows",
            Verdict::Unmeasured => "rejected: no start was measured yet",
            Verdict::StartFails => "rejected: the last start failed",
            Verdict::Unavailable => "rejected: this host could not change the CPU limit in place",
            Verdict::CannotFreeze => "rejected: this host could not freeze it",
        }
    }
}

/// Every rung this host offers, judged against the SLA but not yet against each other.
fn ladder(input: PlanInput<'_>) -> Vec<Candidate> {
    let starts = input.starts.estimate(input.sla, None);
    let upgrades = input.upgrades.estimate(input.sla, Some(ASSUMED_UPGRADE));
    let thaws = input.thaws.estimate(input.sla, Some(ASSUMED_THAW));
    let frozen = Candidate {
        rung: Rung::Frozen,
        spec: None,
        cpu: Some(Millicores(0)),
        price: input.catalogue.frozen_price(input.memory, input.workload),
        bound: thaws.filter(|_| input.can_freeze).map(|thaws| thaws.bound),
        samples: thaws.map_or(0, |thaws| thaws.samples),
        verdict: if input.can_freeze {
            judge(thaws, input.sla)
        } else {
            Verdict::CannotFreeze
        },
    };
    let zero = Candidate {
        rung: Rung::Zero,
        spec: None,
        cpu: Some(Millicores(0)),
        price: PricePerHour(0.0),
        bound: starts.filter(|_| !input.start_fails).map(|starts| starts.bound),
        samples: starts.map_or(0, |starts| starts.samples),
        verdict: if input.start_fails {
            Verdict::StartFails
        } else {
            judge(starts, input.sla)
        },
    };
    let on = |rung, spec: &InstanceSpec, estimate: Option<Estimate>| Candidate {
        rung,
        spec: Some(spec.name.clone()),
        cpu: spec.cpu_of(input.workload),
        price: spec.price_per_hour(input.workload),
        bound: estimate.map(|estimate| estimate.bound),
        samples: estimate.map_or(0, |estimate| estimate.samples),
        verdict: judge(estimate, input.sla),
    };
    let nothing_added = Estimate {
        bound: Duration::ZERO,
        samples: 0,
        misses: 0,
    };
    let mut ladder = vec![
        zero,
        frozen,
        on(Rung::Full, input.catalogue.full(input.workload), Some(nothing_added)),
    ];
    ladder.extend(input.catalogue.throttled(input.workload).into_iter().map(|spec| {
        let mut throttled = on(Rung::Throttled, spec, upgrades);
        if input.throttle_fails {
            throttled.verdict = Verdict::Unavailable;
        }
        throttled
    }));
    ladder
}

fn judge(estimate: Option<Estimate>, sla: &ColdStartSla) -> Verdict {
    match estimate {
        None => Verdict::Unmeasured,
        Some(estimate) if estimate.bound < sla.limit => Verdict::Dearer,
        Some(estimate) if (1..estimate.samples.div_ceil(2)).contains(&estimate.misses) => Verdict::Missed,
        Some(_) => Verdict::TooSlow,
    }
}

fn sla_text(sla: &ColdStartSla) -> String {
    format!("p{}<{}", (sla.quantile * 1e8).round() / 1e6, short(sla.limit))
}

/// A duration as people write it: three digits and a unit.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    let text = if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// Rewriting a limit takes far less; this stands in until it was measured once.
pub(crate) const ASSUMED_UPGRADE: Duration = Duration::from_millis(5);

/// So does a thaw, unless the memory was moved to swap.
pub(crate) const ASSUMED_THAW: Duration = Duration::from_millis(5);

/// The memory an instance is assumed to need when the manifest sets no limit.
pub const ASSUMED_MEMORY: Bytes = Bytes(64 << 20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::revision;

    struct Case {
        sla_ms: u64,
        starts_ms: Vec<u64>,
        upgrades_ms: Vec<u64>,
        thaws_ms: Vec<u64>,
        start_fails: bool,
        throttle_fails: bool,
        can_freeze: bool,
    }

    fn decide(case: &Case) -> Plan {
        let latencies = |samples: &[u64]| {
            let mut latencies = Latencies::default();
            samples.iter().for_each(|ms| latencies.add(Duration::from_millis(*ms)));
            latencies
        };
        plan(PlanInput {
            sla: &ColdStartSla {
                quantile: 0.99,
                limit: Duration::from_millis(case.sla_ms),
            },
            catalogue: &Catalogue::default(),
            workload: &revision("default", "a").workload,
            starts: &latencies(&case.starts_ms),
            upgrades: &latencies(&case.upgrades_ms),
            thaws: &latencies(&case.thaws_ms),
            start_fails: case.start_fails,
            throttle_fails: case.throttle_fails,
            can_freeze: case.can_freeze,
            memory: Bytes(64 << 20),
        })
    }

    #[test]
    fn the_cheapest_rung_that_keeps_the_sla() {
        let table = [
            (500, vec![5], vec![], false, Rung::Zero),
            (500, vec![2000], vec![], false, Rung::Throttled),
            (500, vec![], vec![], false, Rung::Throttled),
            (500, vec![5], vec![], true, Rung::Throttled),
            (500, vec![100], vec![], false, Rung::Throttled),
            (500, vec![100, 100], vec![], false, Rung::Zero),
            (500, vec![2000], vec![600, 700], false, Rung::Full),
            (20, vec![5], vec![], false, Rung::Full),
            (20, vec![5], vec![1], false, Rung::Throttled),
            (60_000, vec![2000], vec![], false, Rung::Zero),
            (0, vec![0], vec![0], false, Rung::Full),
        ];
        for (n, (sla_ms, starts_ms, upgrades_ms, start_fails, want)) in table.into_iter().enumerate() {
            let plan = decide(&Case {
                sla_ms,
                starts_ms,
                upgrades_ms,
                start_fails,
                throttle_fails: false,
                thaws_ms: vec![],
                can_freeze: false,
            });
            assert_eq!(plan.rung, want, "row {n}: {plan:#?}");
            let chosen = plan.candidates.iter().filter(|c| c.verdict == Verdict::Chosen).count();
            assert_eq!((chosen, plan.candidates.len()), (1, 4), "row {n}");
        }
    }

    #[test]
    fn the_plan_says_why() {
        let plan = decide(&Case {
            sla_ms: 500,
            starts_ms: vec![2000],
            upgrades_ms: vec![],
            start_fails: false,
            throttle_fails: false,
            thaws_ms: vec![],
            can_freeze: false,
        });
        let lines: Vec<String> = plan
            .candidates
            .iter()
            .map(|c| {
                format!(
                    "{} {} {} {}",
                    c.rung.as_str(),
                    c.price,
                    c.bound_text(),
                    c.verdict_text()
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "zero 0.0000/h adds at most 12.8s, 1 measured rejected: may be slower than the SLA allows",
                "frozen 0.0250/h wake-up unknown rejected: this host could not freeze it",
                "throttled 0.1000/h adds at most 31.9ms, not measured yet chosen",
                "full 1.0000/h adds nothing keeps the SLA, costs more",
            ]
        );
        assert_eq!(
            plan.reason(),
            "throttled at 0.1000/h is the cheapest rung that keeps p99<500ms (adds at most 31.9ms, not measured yet)"
        );
    }

    #[test]
    fn a_host_that_cannot_throttle_keeps_a_full_instance() {
        let case = Case {
            sla_ms: 500,
            starts_ms: vec![2000],
            upgrades_ms: vec![],
            start_fails: false,
            throttle_fails: true,
            thaws_ms: vec![],
            can_freeze: false,
        };
        let plan = decide(&case);
        assert_eq!(plan.rung, Rung::Full);
        assert_eq!(plan.candidates[2].verdict, Verdict::Unavailable);
    }

    /// (SLA, starts, thaws) of a host that can freeze.
    #[test]
    fn frozen_is_cheaper_than_throttled_and_dearer_than_zero() {
        let table = [
            (500, vec![5], vec![], Rung::Zero),
            (500, vec![2000], vec![], Rung::Frozen),
            (500, vec![], vec![1], Rung::Frozen),
            // It pages in from swap: 99 % may be above.
            (500, vec![2000], vec![400, 600], Rung::Throttled),
            (20, vec![5], vec![], Rung::Full),
            (20, vec![2000], vec![1, 1], Rung::Frozen),
        ];
        for (n, (sla_ms, starts_ms, thaws_ms, want)) in table.into_iter().enumerate() {
            let plan = decide(&Case {
                sla_ms,
                starts_ms,
                upgrades_ms: vec![],
                thaws_ms,
                start_fails: false,
                throttle_fails: false,
                can_freeze: true,
            });
            assert_eq!(plan.rung, want, "row {n}: {plan:#?}");
        }
    }

    #[test]
    fn durations_are_short() {
        let table = [
            (0, "0us"),
            (900, "900us"),
            (1_000, "1ms"),
            (31_949, "31.9ms"),
            (12_778_000, "12.8s"),
            (600_000_000, "600s"),
        ];
        for (micros, want) in table {
            assert_eq!(short(Duration::from_micros(micros)), want);
        }
    }
}
