//! A row of a table: what came of a policy, over all seeds and functions. PURE.

use std::time::Duration;

use serde::Serialize;

use super::experiment::Row;
use super::settings::Engine;
use super::statistics::lower_bound;
use super::tally::{Tally, ratio};
use crate::trace::Trace;

/// One policy in one market, in numbers.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// What ran it.
    pub engine: Engine,
    /// The market.
    pub market: String,
    /// What its prices are in.
    pub currency: String,
    /// The policy.
    pub policy: String,
    /// Idle cost of one run: idle instances and the money of starts, on average over seeds.
    pub idle_cost: f64,
    /// Everything that was paid for in one run.
    pub cost: f64,
    /// Idle arrivals in one run.
    pub idle: f64,
    /// The share of idle arrivals that were late: all together.
    pub violations: f64,
    /// The same, as the mean over functions.
    pub mean_violations: f64,
    /// The share of idle arrivals that found nothing running.
    pub cold: f64,
    /// The share of all calls that were late.
    pub late: f64,
    /// Added latency of idle arrivals: the median, 99 % and 99.9 %, in seconds.
    pub added: [f64; 3],
    /// Instances ordered for 1,000 calls.
    pub churn: f64,
    /// Calls of one run without an answer.
    pub unanswered: f64,
    /// Functions with [`MANY`] idle arrivals or more, counted once for each seed.
    pub large: u64,
    /// Those of them that break the SLA for certain: one-sided 95 % lower bound of Clopper and Pearson over what it allows.
    pub broken: Vec<Broken>,
}

/// A function that breaks its SLA for certain.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Broken {
    /// Which one.
    pub function: String,
    /// In which world.
    pub seed: u64,
    /// Its idle arrivals.
    pub idle: u64,
    /// Those that were late.
    pub violations: u64,
    /// The share that is exceeded with 95 % confidence.
    pub bound: f64,
}

/// From so many idle arrivals on 1 % can be shown of a single function.
pub const MANY: u64 = 200;

impl Summary {
    /// Of a row; `first` is its first seed.
    pub fn of(row: &Row, trace: &Trace, first: u64) -> Self {
        let all = Tally::sum(row.runs.iter().flatten());
        let runs = count(row.runs.len()).max(1.0);
        let allowed = 1.0 - row.case.settings.sla.quantile;
        let mut broken = Vec::new();
        let mut large = 0;
        for (seed, run) in (first..).zip(&row.runs) {
            for (tally, function) in run.iter().zip(&trace.functions) {
                if tally.idle < MANY {
                    continue;
                }
                large += 1;
                let bound = lower_bound(tally.violations, tally.idle, 0.95);
                if bound > allowed {
                    broken.push(Broken {
                        function: function.name.clone(),
                        seed,
                        idle: tally.idle,
                        violations: tally.violations,
                        bound,
                    });
                }
            }
        }
        let seconds = |share| all.added.quantile(share).map_or(0.0, |it: Duration| it.as_secs_f64());
        Self {
            engine: row.case.settings.engine,
            market: row.case.market.name.clone(),
            currency: row.case.market.instances.currency.to_string(),
            policy: row.case.policy.name(),
            idle_cost: all.costs.of_idling() / runs,
            cost: all.costs.total() / runs,
            idle: ratio(all.idle, 1) / runs,
            violations: all.share(),
            mean_violations: mean_share(&row.runs, |_| 1),
            cold: ratio(all.cold, all.idle),
            late: ratio(all.late, all.arrivals),
            added: [0.5, 0.99, 0.999].map(seconds),
            churn: 1e3 * ratio(all.starts, all.arrivals),
            unanswered: ratio(all.refused + all.expired, 1) / runs,
            large,
            broken,
        }
    }

    /// The share of large functions that break their SLA for certain.
    pub fn broken_share(&self) -> f64 {
        ratio(u64::try_from(self.broken.len()).unwrap_or(u64::MAX), self.large)
    }
}

/// The mean over functions of their shares of late idle arrivals; each function of each seed counts `times` its index.
pub(super) fn mean_share(runs: &[Vec<Tally>], times: impl Fn(usize) -> u32) -> f64 {
    let (mut sum, mut weight) = (0.0, 0.0);
    for (index, tally) in runs.iter().flat_map(|run| run.iter().enumerate()) {
        if tally.idle > 0 {
            let times = f64::from(times(index));
            sum += times * tally.share();
            weight += times;
        }
    }
    if weight > 0.0 { sum / weight } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}
