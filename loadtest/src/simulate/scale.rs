//! How the control loop does with many revisions: time of its ticks, and memory. The caller gives the clock.

use manifests::units::{Clock, Timestamp};
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::market::Market;
use super::policy::Policy;
use super::settings::Settings;
use super::summary::count;
use super::tally::Tally;
use crate::trace::Trace;

/// A control loop of one size.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scale {
    /// Revisions.
    pub revisions: usize,
    /// Simulated minutes.
    pub minutes: u32,
    /// Calls in that time.
    pub calls: u64,
    /// Milliseconds of work of the loop in each tick of two seconds: the median, 99 %, the most.
    pub tick: [f64; 3],
    /// Microseconds of work for each thing that it was told.
    pub each: f64,
    /// Seconds that all of it took, the rest of the simulation included.
    pub took: f64,
    /// Bytes that the process grew by, for each revision; the simulated gateway and host and the trace included.
    pub memory: u64,
}

/// Runs a trace tiled to so many revisions; `memory` says how many bytes the process has.
pub fn scale(
    trace: &Trace,
    (revisions, minutes): (usize, u32),
    (settings, market, policy): (&Settings, &Market, &Policy),
    clock: &Clock,
    memory: impl Fn() -> u64,
    minute: impl FnMut() -> bool,
) -> Scale {
    let before = memory();
    let trace = trace.tiled(revisions, minutes);
    let begun = clock();
    let mut engine = Engine::new(&trace, settings, market, policy, 1).with_stopwatch(Clock::clone(clock));
    engine.run(minute);
    let grown = memory().saturating_sub(before);
    let watch = engine.stopwatch();
    let tallies = engine.finish();
    let seconds = |begun: Timestamp| clock().since(begun).as_secs_f64();
    let (mut ticks, calls) = watch.map_or((Vec::new(), 1), |watch| (watch.ticks, watch.calls));
    let all = count(usize::try_from(ticks.iter().sum::<u64>()).unwrap_or(usize::MAX));
    ticks.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let at = |share: f64| {
        let index = (share * count(ticks.len().saturating_sub(1))).round() as usize;
        let nanos = ticks.get(index).copied().unwrap_or_default();
        count(usize::try_from(nanos).unwrap_or(usize::MAX)) / 1e6
    };
    Scale {
        revisions,
        minutes,
        calls: Tally::sum(&tallies).arrivals,
        tick: [at(0.5), at(0.99), at(1.0)],
        each: all / 1e3 / count(usize::try_from(calls).unwrap_or(usize::MAX)).max(1.0),
        took: seconds(begun),
        memory: grown / u64::try_from(revisions.max(1)).unwrap_or(1),
    }
}
