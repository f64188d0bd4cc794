//! The verdict: the shipped planner against the others, on functions that nothing was tuned on, line by line. PURE but for
//! the threads of [`experiment`](super::experiment).

use std::time::Duration;

use serde::Serialize;

use super::experiment::{Case, Row, run};
use super::faascache::held;
use super::market::Market;
use super::policy::Policy;
use super::settings::{Engine, Settings};
use super::statistics::bootstrap;
use super::summary::{Summary, mean_share};
use super::tune::best_stairs;
use crate::trace::Trace;

/// Everything that was measured, and which of the demands hold.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Evaluation {
    /// The trace.
    pub trace: String,
    /// Functions that things were tuned on, and others that are reported on.
    pub functions: (usize, usize),
    /// The seeds.
    pub seeds: std::ops::Range<u64>,
    /// Each policy in each market.
    pub rows: Vec<Summary>,
    /// What is demanded.
    pub checks: Vec<Check>,
}

/// A demand, and what was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Check {
    /// In which market.
    pub market: String,
    /// Of what.
    pub what: String,
    /// What came out.
    pub measured: f64,
    /// 95 % of all sets of as many functions give something in between; `None` where functions are not drawn anew.
    pub interval: Option<(f64, f64)>,
    /// What must hold; `None` where it is only reported.
    pub demand: Option<Demand>,
}

/// A limit.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// Not more.
    AtMost(f64),
    /// More.
    MoreThan(f64),
}

impl Check {
    /// Whether it is so; `None` where nothing is demanded.
    pub fn holds(&self) -> Option<bool> {
        Some(match self.demand? {
            Demand::AtMost(limit) => self.measured <= limit,
            Demand::MoreThan(limit) => self.measured > limit,
        })
    }
}

impl Evaluation {
    /// Whether every demand holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds() != Some(false))
    }
}

/// Halves of a trace by the hash of the functions' names: to tune on, and to report on.
pub fn halves(trace: &Trace) -> (Trace, Trace) {
    let (mut tuned, mut reported) = (trace.clone(), trace.clone());
    tuned.functions.retain(|function| half(&function.name) == 0);
    reported.functions.retain(|function| half(&function.name) == 1);
    (tuned, reported)
}

/// FNV-1a.
fn half(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    }) % 2
}

/// The best static ladder, tuned on these functions.
pub fn tuned(of: &Trace, settings: &Settings, market: &Market) -> Policy {
    let (full, reserve) = best_stairs(of, settings, market);
    Policy::stairs(full, reserve)
}

/// What is compared in a market; the static ladder is tuned on these functions.
pub fn policies(of: &Trace, settings: &Settings, market: &Market) -> Vec<Policy> {
    vec![
        Policy::Knative,
        Policy::KnativeGrace,
        Policy::KeepAlive(TEN_MINUTES),
        Policy::AlwaysOne,
        Policy::Ask,
        Policy::HybridHistogram,
        tuned(of, settings, market),
        Policy::Auto,
        Policy::Oracle,
    ]
}

/// FaasCache with as much memory as Knative's default holds on average, and as ten minutes after the last call do: of these
/// functions, since a pool is as large as what it is for. The engine of idle times only knows it.
pub fn pools(of: &Trace, settings: &Settings, market: &Market, seed: u64) -> Vec<Policy> {
    if settings.engine != Engine::Gaps {
        return Vec::new();
    }
    [Policy::Knative, Policy::KeepAlive(TEN_MINUTES)]
        .map(|as_much_as| Policy::FaasCache(held(of, settings, market, as_much_as, seed)))
        .into()
}

/// The cases of an evaluation: policies that know no menu run once, not in each market. Seeds begin with this one.
pub fn cases((tuned, reported): (&Trace, &Trace), settings: &Settings, markets: &[Market], seed: u64) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for market in markets {
        let mut policies = policies(tuned, settings, market);
        policies.extend(pools(reported, settings, market, seed));
        for policy in policies {
            let known = |case: &Case| case.policy == policy && !policy.chooses() && case.market.serves_as(market);
            if !cases.iter().any(known) {
                cases.push(Case {
                    market: market.clone(),
                    policy,
                    settings: settings.clone(),
                });
            }
        }
    }
    cases
}

/// Runs everything over the half of the trace that is reported on. `None` when `progress` ended it.
pub fn evaluate(
    trace: &Trace,
    settings: &Settings,
    markets: &[Market],
    seeds: std::ops::Range<u64>,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Option<Evaluation> {
    let (tuned, reported) = halves(trace);
    let cases = cases((&tuned, &reported), settings, markets, seeds.start);
    let ran = run(&reported, cases, seeds.start, seeds.end - seeds.start, progress)?;
    let mut rows = Vec::new();
    let mut checks = Vec::new();
    for market in markets {
        let here: Vec<Row> = ran
            .iter()
            .filter(|row| row.case.market == *market || !row.case.policy.chooses() && row.case.market.serves_as(market))
            .map(|row| Row {
                case: Case {
                    market: market.clone(),
                    ..row.case.clone()
                },
                runs: row.runs.clone(),
            })
            .collect();
        let mut of: Vec<Summary> = here
            .iter()
            .map(|row| Summary::of(row, &reported, seeds.start))
            .collect();
        checks.extend(judge(&here, &of));
        rows.append(&mut of);
    }
    Some(Evaluation {
        trace: trace.name.clone(),
        functions: (tuned.functions.len(), reported.functions.len()),
        seeds,
        rows,
        checks,
    })
}

/// The demands on one market.
fn judge(rows: &[Row], summaries: &[Summary]) -> Vec<Check> {
    let find = |policy: Policy| {
        let at = rows.iter().position(|row| row.case.policy == policy)?;
        Some((&rows[at], &summaries[at]))
    };
    let (Some((auto, of_auto)), Some((knative, of_knative))) = (find(Policy::Auto), find(Policy::Knative)) else {
        return Vec::new();
    };
    let market = &of_auto.market;
    let allowed = 1.0 - auto.case.settings.sla.quantile;
    let check = |what: String, measured: f64, interval, demand| Check {
        market: market.clone(),
        what,
        measured,
        interval,
        demand,
    };
    let (against_knative, against_fixed, breaks) = match market.as_str() {
        "equal" => (Some(0.45), Some(0.25), Some(Demand::AtMost(0.02))),
        "slow" => (Some(0.85), Some(0.45), None),
        "frozen" => (Some(0.10), None, Some(Demand::AtMost(0.02))),
        _ => (None, None, None),
    };
    let mut checks = Vec::new();
    let mut compare = |name: &str, other: &Row, cost: Option<f64>, violations: Option<f64>| {
        let (a, b) = (Sums::of(auto), Sums::of(other));
        let mut add = |what: &str, figure: &dyn Fn(&[u32]) -> f64, limit: Option<f64>| {
            let ones = vec![1; a.cost.len()];
            let interval = bootstrap(a.cost.len(), RESAMPLES, 0.95, 1, figure);
            let what = format!("{what} / {name}");
            checks.push(check(what, figure(&ones), Some(interval), limit.map(Demand::AtMost)));
        };
        add("idle cost", &|times| over(a.cost(times), b.cost(times)), cost);
        add(
            "violations, pooled",
            &|times| over(a.share(times), b.share(times)),
            violations,
        );
        let mean = |times: &[u32]| {
            let of = |row: &Row| mean_share(&row.runs, |index| times[index]);
            over(of(auto), of(other))
        };
        add("violations, mean per function", &mean, violations);
    };
    compare("knative", knative, against_knative, against_knative.map(|_| 0.1));
    if let Some((fixed, _)) = find(Policy::KeepAlive(TEN_MINUTES)) {
        compare("fixed 10 min", fixed, against_fixed, against_fixed.map(|_| 1.0));
    }
    if let Some((grace, _)) = find(Policy::KnativeGrace) {
        compare("knative 60+30 s", grace, None, None);
    }
    if let Some((oracle, _)) = find(Policy::Oracle) {
        let (a, b) = (Sums::of(auto), Sums::of(oracle));
        let figure = |times: &[u32]| over(a.cost(times), b.cost(times));
        let interval = bootstrap(a.cost.len(), RESAMPLES, 0.95, 1, figure);
        checks.push(check(
            "idle cost / oracle".into(),
            figure(&vec![1; a.cost.len()]),
            Some(interval),
            None,
        ));
    }
    let sums = Sums::of(auto);
    let interval = bootstrap(sums.cost.len(), RESAMPLES, 0.95, 1, |times| sums.share(times));
    checks.push(check(
        "violations, pooled".into(),
        of_auto.violations,
        Some(interval),
        Some(Demand::AtMost(allowed)),
    ));
    checks.push(check(
        "violations of knative, pooled".into(),
        of_knative.violations,
        None,
        Some(Demand::MoreThan(allowed)),
    ));
    checks.push(check(
        format!(
            "functions with {} idle arrivals that break it for certain",
            super::summary::MANY
        ),
        of_auto.broken_share(),
        None,
        breaks,
    ));
    checks
}

/// What each function came to over all seeds.
struct Sums {
    cost: Vec<f64>,
    late: Vec<f64>,
    idle: Vec<f64>,
}

impl Sums {
    fn of(row: &Row) -> Self {
        let functions = row.runs.first().map_or(0, Vec::len);
        let mut sums = Self {
            cost: vec![0.0; functions],
            late: vec![0.0; functions],
            idle: vec![0.0; functions],
        };
        for (index, tally) in row.runs.iter().flat_map(|run| run.iter().enumerate()) {
            sums.cost[index] += tally.costs.of_idling();
            sums.late[index] += super::tally::ratio(tally.violations, 1);
            sums.idle[index] += super::tally::ratio(tally.idle, 1);
        }
        sums
    }

    fn cost(&self, times: &[u32]) -> f64 {
        weigh(&self.cost, times)
    }

    fn share(&self, times: &[u32]) -> f64 {
        over(weigh(&self.late, times), weigh(&self.idle, times))
    }
}

/// Nothing of nothing is nothing.
fn over(part: f64, all: f64) -> f64 {
    if part == 0.0 { 0.0 } else { part / all }
}

fn weigh(values: &[f64], times: &[u32]) -> f64 {
    values
        .iter()
        .zip(times)
        .map(|(value, times)| value * f64::from(*times))
        .sum()
}

/// The rule that many platforms had.
pub const TEN_MINUTES: Duration = Duration::from_secs(600);
const RESAMPLES: usize = 1000;

#[cfg(test)]
mod tests;
