//! Many runs at once: each policy with each market and each seed, on all cores, large traces in parts. What is measured does
//! not depend on how many cores there are.

use std::slice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::market::Market;
use super::policy::Policy;
use super::settings::Settings;
use super::tally::Tally;
use crate::trace::{Function, Trace};

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
    let split = Split::of(trace, PART);
    let jobs: Vec<(usize, u64, &Trace)> = (0..cases.len())
        .flat_map(|case| (first..first + seeds).map(move |seed| (case, seed)))
        .flat_map(|(case, seed)| split.parts(&cases[case]).iter().map(move |part| (case, seed, part)))
        .collect();
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<Option<Vec<Tally>>>> = Mutex::new(vec![None; jobs.len()]);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((case, seed, part)) = jobs.get(number).copied() else {
                return;
            };
            let Case {
                market,
                policy,
                settings,
            } = &cases[case];
            let tallies = super::simulate(part, settings, market, policy, seed, || {
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
    let rows = cases.into_iter().map(|case| {
        let parts = split.parts(&case).len();
        let mut run = || done.by_ref().take(parts).flatten().collect();
        let runs = (0..seeds).map(|_| run()).collect();
        Row { case, runs }
    });
    Some(rows.collect())
}

/// Minutes of all runs that [`run`] makes: what progress counts up to.
pub fn minutes(trace: &Trace, cases: &[Case], seeds: u64) -> u64 {
    let minutes = u64::from(trace.minutes.end.saturating_sub(trace.minutes.start));
    let split = Split::of(trace, PART);
    let parts: usize = cases.iter().map(|case| split.parts(case).len()).sum();
    minutes * seeds * u64::try_from(parts).unwrap_or(u64::MAX)
}

/// A trace, and the same in parts of as many functions: where nothing is scarce they do not know of each other.
struct Split<'a> {
    whole: &'a Trace,
    parts: Vec<Trace>,
}

impl<'a> Split<'a> {
    fn of(whole: &'a Trace, most: usize) -> Self {
        let part = |functions: &[Function]| Trace {
            name: whole.name.clone(),
            minutes: whole.minutes.clone(),
            functions: functions.to_vec(),
        };
        let parts = if whole.functions.len() > most {
            whole.functions.chunks(most).map(part).collect()
        } else {
            Vec::new()
        };
        Self { whole, parts }
    }

    fn parts(&self, case: &Case) -> &[Trace] {
        let shares = case.settings.host_memory.is_some() || matches!(case.policy, Policy::FaasCache(_));
        if shares || self.parts.is_empty() {
            slice::from_ref(self.whole)
        } else {
            &self.parts
        }
    }
}

/// More functions than these are simulated in parts.
const PART: usize = 2_500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::by_hand::{function, settings, trace};
    use manifests::units::Bytes;

    #[test]
    fn parts_are_put_together_in_order_unless_functions_share_something() {
        let functions = (0..7_u32).map(|n| function(&format!("f{n}"), &vec![30.0; n as usize + 1], 0.1));
        let whole = trace(2, functions.collect());
        let case = Case {
            market: Market::equal(),
            policy: Policy::Auto,
            settings: settings(),
        };
        let split = Split::of(&whole, 3);
        let parts: Vec<usize> = split.parts(&case).iter().map(|part| part.functions.len()).collect();
        assert_eq!(parts, [3, 3, 1]);
        let together: Vec<Function> = split.parts(&case).iter().flat_map(|it| it.functions.clone()).collect();
        assert_eq!(together, whole.functions);
        let mut shares = case.clone();
        shares.settings.host_memory = Some(Bytes(1 << 30));
        assert_eq!(split.parts(&shares).len(), 1);
        assert_eq!(Split::of(&whole, 7).parts(&case).len(), 1);
    }
}
