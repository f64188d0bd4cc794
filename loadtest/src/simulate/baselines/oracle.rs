//! What one could do who knew the next call: when it comes, how long it runs, how long a start for it takes. PURE.
//!
//! For each idle time by itself the cheapest way that is never late, if there is one: stay at zero (when the start is quick
//! enough), start just in time, stay on the reserve (when that is fast enough), frozen, or full.

use std::time::Duration;

use autoscaler::planner::{Arrival, IdlePlanner, Menu, Schedule, View};
use manifests::exchange::Rung;
use manifests::units::Timestamp;

use crate::simulate::engine::instant;
use crate::simulate::settings::Settings;
use crate::trace::Trace;

/// The calls of one function: when, and how long they run.
pub(in crate::simulate) struct Future {
    calls: Vec<(Timestamp, Duration)>,
    /// How long a start takes before the call of this number.
    start: Box<dyn Fn(u64) -> Duration + Send>,
}

impl Future {
    /// Of a function of the trace.
    pub(in crate::simulate) fn of(trace: &Trace, settings: &Settings, function: usize, seed: u64) -> Self {
        let minutes = trace.minutes.clone();
        let calls = minutes.flat_map(|minute| trace.minute_of(function, minute, seed));
        let calls = calls.map(|call| (instant(call.at), call.duration.unwrap_or(settings.duration)));
        let calls = calls.collect();
        let (of, starts) = (trace.functions[function].clone(), settings.starts);
        let median = starts.median_of(&of, seed);
        Self {
            calls,
            start: Box::new(move |calls| starts.latency(&of, seed, median, calls, 0)),
        }
    }
}

/// Plans with knowledge of the future.
pub(in crate::simulate) struct Oracle(pub(in crate::simulate) Future);

impl Oracle {
    fn stairs(&self, view: &View<'_>) -> Vec<(Duration, Rung)> {
        let at = |rung| vec![(Duration::ZERO, rung)];
        let index = self.0.calls.partition_point(|(at, _)| *at <= view.since);
        let Some((next, service)) = self.0.calls.get(index).copied() else {
            return at(Rung::Zero);
        };
        let gap = next.since(view.since);
        let start = (self.0.start)(u64::try_from(index).unwrap_or(u64::MAX));
        let Menu { offers, .. } = view.menu;
        let price = |rung| offers.iter().find(|offer| offer.rung == rung).map(|offer| offer.price);
        let full = view.menu.full_price();
        let (seconds, just_in_time) = (gap.as_secs_f64(), start + MARGIN);
        let mut ways = vec![(full * seconds, at(Rung::Full))];
        if start <= view.sla.limit {
            ways.push((full * start.as_secs_f64(), at(Rung::Zero)));
        } else if let Some(age) = gap.checked_sub(just_in_time).filter(|age| *age > Duration::ZERO) {
            ways.push((
                full * just_in_time.as_secs_f64(),
                vec![(Duration::ZERO, Rung::Zero), (age, Rung::Full)],
            ));
        }
        let reserve = offers.iter().position(|offer| offer.rung == Rung::Reserve);
        if let Some(reserve) = reserve {
            let slower = service.mul_f64((offers[reserve].slow - 1.0).max(0.0));
            if slower <= view.sla.limit {
                let there = if view.at == reserve { 0.0 } else { start.as_secs_f64() };
                ways.push((offers[reserve].price * (seconds + there), at(Rung::Reserve)));
            }
        }
        if let Some(price) = price(Rung::Frozen) {
            ways.push((price * seconds, at(Rung::Frozen)));
        }
        let best = ways.into_iter().min_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map_or_else(|| at(Rung::Full), |(_, stairs)| stairs)
    }
}

impl IdlePlanner for Oracle {
    fn plan(&mut self, view: &View<'_>) -> Schedule {
        super::schedule(view, &self.stairs(view), true)
    }

    fn arrived(&mut self, _: &Arrival, _: &View<'_>) {}
}

/// An instance that is ready a moment early costs next to nothing.
const MARGIN: Duration = Duration::from_millis(20);
