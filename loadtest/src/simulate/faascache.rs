//! FaasCache: what is kept alive is a cache in one pool of memory (Fuerst and Sharma, ASPLOS 2021). PURE.
//!
//! Greedy-dual-size-frequency: an instance that was used has the priority
//!
//! ```text
//! clock + frequency x cost / size
//! ```
//!
//! where the clock is the priority of what was evicted last, the frequency counts calls since the function came into the
//! pool, the cost is how much longer a cold call takes than a warm one (the mean of the starts that were seen) and the size
//! its memory. Nothing goes before the pool is full; then the lowest priorities go, as many as are in the way, but none that
//! runs. A call for which that is not enough is refused.
//!
//! There is no price in it and no limit on latency: it is compared at a pool as large as what another policy holds on
//! average. As in the quick engine each function has one instance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::units::{Bytes, Timestamp};

use super::gaps::{Busy, Life};
use super::market::Market;
use super::policy::{Policy, World};
use super::settings::Settings;
use super::shelf::Shelf;
use super::tally::Tally;
use crate::trace::Trace;

/// One run: how each function fared.
pub(super) fn live(trace: &Trace, settings: &Settings, market: &Market, pool: Bytes, seed: u64) -> Vec<Tally> {
    let functions = (0..trace.functions.len()).map(|function| {
        let life = Life::of(trace, settings, function, seed);
        Cached {
            busy: life.busy(),
            end: life.end(),
            size: memory(trace, settings, function),
            price: Shelf::of(market, trace, settings, function).full().price,
            ..Cached::default()
        }
    });
    let mut cache = Cache {
        limit: settings.sla.limit,
        pool,
        used: Bytes(0),
        clock: 0.0,
        functions: functions.collect(),
    };
    let mut agenda: BinaryHeap<Reverse<(Timestamp, Next)>> = BinaryHeap::new();
    for (index, function) in cache.functions.iter().enumerate() {
        let begins = function.busy.iter().map(|busy| busy.from);
        agenda.extend(
            begins
                .enumerate()
                .map(|(nth, from)| Reverse((from, Next::Begins(index, nth)))),
        );
    }
    while let Some(Reverse((now, next))) = agenda.pop() {
        match next {
            Next::Begins(index, nth) => {
                let until = cache.begins(index, nth, now);
                agenda.push(Reverse((until, Next::Ends(index))));
            }
            Next::Ends(index) => cache.ends(index, now),
        }
    }
    let finish = |mut function: Cached| {
        function.pay(function.end);
        function.tally
    };
    cache.functions.into_iter().map(finish).collect()
}

/// The memory that a policy which knows full instances only holds on average.
pub(super) fn held(trace: &Trace, settings: &Settings, market: &Market, policy: Policy, seed: u64) -> Bytes {
    let world = World::of(policy, trace, settings, seed);
    let population = Default::default();
    let span = 60.0 * f64::from(trace.minutes.end.saturating_sub(trace.minutes.start));
    let held = (0..trace.functions.len()).map(|function| {
        let (life, shelf) = (
            Life::of(trace, settings, function, seed),
            Shelf::of(market, trace, settings, function),
        );
        let tally = life.live(settings, &shelf, &population, &mut *policy.planner(&world, function));
        let busy: f64 = life
            .busy()
            .iter()
            .map(|busy| busy.until.since(busy.from).as_secs_f64())
            .sum();
        let idle = tally.costs.idle / shelf.at(shelf.find(Rung::Full)).price;
        mib(memory(trace, settings, function)) * (busy + idle) / span.max(1.0)
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "MiB of memory")]
    let whole = held.sum::<f64>().ceil() as u64;
    Bytes(whole << 20)
}

/// What happens to a function at an instant; what ends frees its instance before another one begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Ends(usize),
    Begins(usize, usize),
}

struct Cache {
    limit: Duration,
    pool: Bytes,
    used: Bytes,
    clock: f64,
    functions: Vec<Cached>,
}

/// One function.
#[derive(Default)]
struct Cached {
    busy: Vec<Busy>,
    end: Timestamp,
    size: Bytes,
    price: f64,
    tally: Tally,
    state: State,
    /// Calls since it came into the pool.
    frequency: u64,
    priority: f64,
    /// Starts that were seen, and what they took together.
    starts: (u32, Duration),
}

#[derive(Clone, Copy, PartialEq, Default)]
enum State {
    #[default]
    Absent,
    Runs,
    /// Nothing is in flight since then.
    Idles(Timestamp),
}

impl Cached {
    /// For standing idle until `now`.
    fn pay(&mut self, now: Timestamp) {
        if let State::Idles(since) = self.state {
            self.tally.costs.idle += self.price * now.since(since).as_secs_f64();
        }
    }

    /// Seconds that a cold call takes longer, for each MiB.
    fn worth(&self) -> f64 {
        let (count, all) = self.starts;
        all.as_secs_f64() / f64::from(count.max(1)) / mib(self.size).max(f64::MIN_POSITIVE)
    }
}

impl Cache {
    /// A call after an idle time, and those that come while it runs: until when.
    fn begins(&mut self, index: usize, nth: usize, now: Timestamp) -> Timestamp {
        let busy = self.functions[index].busy[nth];
        let cold = self.functions[index].state == State::Absent;
        let room = !cold || self.make_room(self.functions[index].size, now);
        let function = &mut self.functions[index];
        function.tally.arrivals += busy.calls;
        let wait = if cold { busy.start } else { Duration::ZERO };
        if busy.ends_idle_time {
            let late = wait > self.limit || !room;
            function.tally.idle += 1;
            function.tally.cold += u64::from(cold);
            function.tally.violations += u64::from(late);
            function.tally.late += u64::from(late);
            function.tally.added.add(wait);
        }
        if !room {
            function.tally.refused += busy.calls;
            return busy.until;
        }
        function.tally.answered += busy.calls;
        if cold {
            self.used.0 += function.size.0;
            function.frequency = 0;
            function.tally.starts += 1;
            function.tally.costs.starts += function.price * busy.start.as_secs_f64();
            function.starts = (function.starts.0 + 1, function.starts.1 + busy.start);
        }
        function.pay(now);
        function.state = State::Runs;
        function.frequency += busy.calls;
        busy.until
    }

    /// Nothing of it is in flight any more.
    fn ends(&mut self, index: usize, now: Timestamp) {
        let clock = self.clock;
        let function = &mut self.functions[index];
        if function.state == State::Runs {
            function.state = State::Idles(now);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let frequency = function.frequency as f64;
            function.priority = clock + frequency * function.worth();
        }
    }

    /// Evicts until there is room for so much; whether there is.
    fn make_room(&mut self, size: Bytes, now: Timestamp) -> bool {
        while self.used.0 + size.0 > self.pool.0 {
            let idle = self
                .functions
                .iter_mut()
                .filter(|it| matches!(it.state, State::Idles(_)));
            let Some(lowest) = idle.min_by(|a, b| a.priority.total_cmp(&b.priority)) else {
                return false;
            };
            lowest.pay(now);
            lowest.state = State::Absent;
            self.used.0 -= lowest.size.0;
            self.clock = lowest.priority;
        }
        true
    }
}

fn memory(trace: &Trace, settings: &Settings, function: usize) -> Bytes {
    trace.functions[function].memory.unwrap_or(settings.memory_of_app)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
fn mib(Bytes(bytes): Bytes) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests;
