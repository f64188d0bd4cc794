//! Many runs at once: each policy with each market and each seed, on all cores. What is measured does not depend on how many
//! there are.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::market::Market;
use super::policy::Policy;
use super::settings::Settings;
use super::tally::Tally;
use crate::trace::Trace;

/// One policy in one market.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// The market.
    pub market: Market,
    /// The policy.
    pub policy: Policy,
    /// What is assumed.
    pub settings: Settings,
}

/// A case and what came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// By seed, by function.
    pub runs: Vec<Vec<Tally>>,
}

/// Runs every case with seeds from `first` on. `progress` hears of each simulated minute of a run and of how many there are
/// in all; it may end everything by `false`, and nothing is returned then.
pub fn run(
    trace: &Trace,
    cases: Vec<Case>,
    first: u64,
    seeds: u64,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Option<Vec<Row>> {
    let jobs: Vec<(usize, u64)> = (0..cases.len())
        .flat_map(|case| (first..first + seeds).map(move |seed| (case, seed)))
        .collect();
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<Option<Vec<Tally>>>> = Mutex::new(vec![None; jobs.len()]);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((case, seed)) = jobs.get(number).copied() else {
                return;
            };
            let Case {
                market,
                policy,
                settings,
            } = &cases[case];
            let tallies = super::simulate(trace, settings, market, policy, seed, || {
                let on = !ended.load(Ordering::Relaxed) && progress(1);
                ended.fetch_or(!on, Ordering::Relaxed);
                on
            });
            done.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(tallies);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    if ended.load(Ordering::Relaxed) {
        return None;
    }
    let mut done = done
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_iter()
        .flatten();
    let per_case = usize::try_from(seeds).unwrap_or(usize::MAX);
    let rows = cases.into_iter().map(|case| Row {
        case,
        runs: done.by_ref().take(per_case).collect(),
    });
    Some(rows.collect())
}

/// Runs that [`run`] makes, each of so many minutes: what progress counts up to.
pub fn minutes(trace: &Trace, cases: usize, seeds: u64) -> u64 {
    let minutes = u64::from(trace.minutes.end.saturating_sub(trace.minutes.start));
    minutes * seeds * u64::try_from(cases).unwrap_or(u64::MAX)
}
