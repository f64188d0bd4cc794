//! Idle time by idle time, one instance per function: the quick engine, for tuning and for planners that the fleet does not
//! drive. PURE.
//!
//! What happens while calls are in flight costs nothing here; neither does the second that the fleet needs to hear that
//! nobody asks any more. Calls, service times and starts are those of the other engine for the same seed.

use std::time::Duration;

use autoscaler::planner::{Arrival, IdlePlanner, Population, Schedule, Step, View};
use autoscaler::start_latency::Latencies;
use manifests::exchange::Rung;
use manifests::units::Timestamp;

use super::engine::instant;
use super::settings::Settings;
use super::shelf::Shelf;
use super::tally::Tally;
use crate::trace::Trace;

/// A time in which nothing was in flight, and the call that ended it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Idle {
    since: Timestamp,
    gap: Duration,
    service: Duration,
    /// How long a start for that call takes.
    start: Duration,
    /// Calls before it.
    before: u64,
}

/// A time in which something was in flight.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Busy {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) calls: u64,
    /// How long a start for its first call takes.
    pub(super) start: Duration,
    /// It is not the first one of a function that was deployed for it.
    pub(super) ends_idle_time: bool,
}

/// The idle times of one function.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Life {
    /// The first call and the start at deployment, for it; `None` without one.
    deployed: Option<(Timestamp, Duration)>,
    idle: Vec<Idle>,
    /// Since when nothing was in flight at the end, and when that was.
    last: (Timestamp, Timestamp),
    calls: u64,
}

impl Life {
    /// Of a function of the trace.
    pub(super) fn of(trace: &Trace, settings: &Settings, function: usize, seed: u64) -> Self {
        let of = &trace.functions[function];
        let median = settings.starts.median_of(of, seed);
        let start = |calls| settings.starts.latency(of, seed, median, calls, 0);
        let begin = instant(Duration::from_secs(60) * trace.minutes.start);
        let end = instant(Duration::from_secs(60) * trace.minutes.end);
        let (mut free, mut deployed) = (begin, None);
        let (mut idle, mut calls) = (Vec::new(), 0);
        for call in trace
            .minutes
            .clone()
            .flat_map(|minute| trace.minute_of(function, minute, seed))
        {
            let (mut at, service) = (instant(call.at), call.duration.unwrap_or(settings.duration));
            if calls == 0 && settings.initial_scale > 0 {
                // What is deployed for it is not late for it.
                deployed = Some((at, start(0)));
                at = at.plus(start(0));
            } else if at > free {
                idle.push(Idle {
                    since: free,
                    gap: at.since(free),
                    service,
                    start: start(calls),
                    before: calls,
                });
            }
            free = free.max(at.plus(service));
            calls += 1;
        }
        Self {
            deployed,
            idle,
            last: (free, end.max(free)),
            calls,
        }
    }

    /// The times between its idle times.
    pub(super) fn busy(&self) -> Vec<Busy> {
        let first = self.deployed.map(|(from, start)| (from, start, 0, false));
        let others = self
            .idle
            .iter()
            .map(|it| (it.since.plus(it.gap), it.start, it.before, true));
        let begins: Vec<_> = first.into_iter().chain(others).collect();
        let ends = self.idle.iter().map(|it| (it.since, it.before));
        // The first idle time is before everything, where nothing is deployed.
        let ends = ends
            .skip(usize::from(first.is_none()))
            .chain([(self.last.0, self.calls)]);
        let busy = begins.into_iter().zip(ends);
        busy.map(|((from, start, before, ends_idle_time), (until, calls))| Busy {
            from,
            until,
            calls: calls - before,
            start,
            ends_idle_time,
        })
        .collect()
    }

    /// When its trace ends.
    pub(super) const fn end(&self) -> Timestamp {
        self.last.1
    }

    /// Lives it with a planner.
    pub(super) fn live(
        &self,
        settings: &Settings,
        shelf: &Shelf,
        population: &Population,
        planner: &mut dyn IdlePlanner,
    ) -> Tally {
        let mut tally = Tally {
            arrivals: self.calls,
            answered: self.calls,
            ..Tally::default()
        };
        if self.calls == 0 {
            return tally;
        }
        let mut learned = Latencies::default();
        let mut place = shelf.find(Rung::Zero);
        if let Some((_, start)) = self.deployed {
            place = shelf.find(Rung::Full);
            learned.add(start);
            tally.starts += 1;
            tally.costs.starts += shelf.full().price * start.as_secs_f64();
        }
        let mut menu = shelf.menu(settings, &learned);
        for idle in &self.idle {
            let view = View {
                now: idle.since,
                since: idle.since,
                at: place,
                sla: &settings.sla,
                menu: &menu,
                population,
            };
            // Nothing is planned for a function that never ran.
            let never = self.deployed.is_none() && tally.idle == 0;
            let schedule = if never {
                Schedule::default()
            } else {
                planner.plan(&view)
            };
            let mut stand = Stand {
                place,
                ready: Duration::ZERO,
                shelf,
                start: idle.start,
                tally: &mut tally,
            };
            stand.along(&schedule.ladder.steps, idle.gap);
            let (met, wait) = (stand.place, stand.ready.saturating_sub(idle.gap));
            let good = shelf.at(met);
            let slow = idle.service.mul_f64(good.slow - 1.0);
            let wait = match good.rung {
                Rung::Zero => idle.start,
                Rung::Frozen => settings.thaw,
                Rung::Throttled => settings.resize,
                Rung::Reserve | Rung::Full => wait,
            };
            let late = wait + slow > settings.sla.limit;
            tally.idle += 1;
            tally.violations += u64::from(late);
            tally.late += u64::from(late);
            tally.cold += u64::from(good.rung == Rung::Zero);
            tally.added.add(wait + slow);
            let stays = good.rung == Rung::Reserve && schedule.stay_low;
            let full = shelf.find(Rung::Full);
            let started = if stays {
                None
            } else {
                shelf.start(met, full, idle.start)
            };
            if let Some(start) = started {
                tally.starts += 1;
                tally.costs.starts += shelf.full().price * start.as_secs_f64();
                learned.add(start);
            }
            place = if stays { met } else { full };
            let arrival = Arrival {
                gap: Some(idle.gap),
                at: met,
                service: Some(idle.service),
                late,
            };
            let view = View {
                now: idle.since.plus(idle.gap),
                at: met,
                ..view
            };
            planner.arrived(&arrival, &view);
            if started.is_some() {
                menu = shelf.menu(settings, &learned);
            }
        }
        let (since, end) = self.last;
        let view = View {
            now: since,
            since,
            at: place,
            sla: &settings.sla,
            menu: &menu,
            population,
        };
        let schedule = planner.plan(&view);
        let mut stand = Stand {
            place,
            ready: Duration::ZERO,
            shelf,
            start: self.deployed.map_or(settings.starts.median, |(_, start)| start),
            tally: &mut tally,
        };
        stand.along(&schedule.ladder.steps, end.since(since));
        tally
    }
}

/// Where an instance stands, and what that costs.
struct Stand<'a> {
    place: usize,
    /// The age at which what was ordered last is there.
    ready: Duration,
    shelf: &'a Shelf,
    /// Of a full instance.
    start: Duration,
    tally: &'a mut Tally,
}

impl Stand<'_> {
    /// Moves by the steps until `end`.
    fn along(&mut self, steps: &[Step], end: Duration) {
        let mut since = Duration::ZERO;
        for step in steps {
            if step.age >= end {
                break;
            }
            if step.offer == self.place {
                continue;
            }
            self.stay(since, step.age);
            since = self.go(step.offer, step.age).min(end);
        }
        self.stay(since, end);
    }

    /// Pays for standing.
    fn stay(&mut self, from: Duration, to: Duration) {
        let seconds = to.saturating_sub(from).as_secs_f64();
        self.tally.costs.idle += seconds * self.shelf.at(self.place).price;
    }

    /// Pays for a move, and says from when on the new place is stood on: another instance is ready before the old one goes.
    fn go(&mut self, to: usize, age: Duration) -> Duration {
        let from = std::mem::replace(&mut self.place, to);
        let Some(start) = self.shelf.start(from, to, self.start) else {
            return age;
        };
        let (from, to) = (self.shelf.at(from), self.shelf.at(to));
        self.tally.starts += 1;
        self.tally.costs.starts += to.price * start.as_secs_f64();
        self.tally.costs.idle += from.price * start.as_secs_f64();
        if from.rung == Rung::Zero {
            self.ready = self.ready.max(age + start);
        }
        age + start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::baselines::Stairs;
    use crate::simulate::by_hand::{function, prices, settings, trace};
    use crate::simulate::{Market, Prices, Reserve};

    fn live(times: &[f64], slowdown: f64, stairs: Stairs) -> Tally {
        let reserve = Some(Reserve {
            price: 0.25,
            slowdown,
            in_place: false,
        });
        let frozen = None;
        let market = Market::new(
            "by hand",
            &Prices {
                reserve,
                frozen,
                ..prices()
            },
        );
        let (trace, settings) = (trace(60, vec![function("a", times, 1.0)]), settings());
        let (life, shelf) = (
            Life::of(&trace, &settings, 0, 1),
            Shelf::of(&market, &trace, &settings, 0),
        );
        let mut planner = stairs;
        life.live(&settings, &shelf, &Population::default(), &mut planner)
    }

    fn stairs(stay_low: bool, steps: &[(u64, Rung)]) -> Stairs {
        Stairs {
            steps: steps
                .iter()
                .map(|(age, rung)| (Duration::from_secs(*age), *rung))
                .collect(),
            stay_low,
        }
    }

    #[test]
    fn three_calls_on_stairs() {
        let (full, zero, reserve) = (Rung::Full, Rung::Zero, Rung::Reserve);
        // 100: from zero. 131: 30 s after the end. 132: not idle. 433: 300 s after.
        let times = [100.0, 131.0, 132.0, 433.0];
        let got = |tally: Tally| {
            (
                tally.idle,
                tally.cold,
                tally.violations,
                tally.starts,
                tally.costs.of_idling(),
            )
        };
        // A start of 2 s; idle 30 s and 60 s; another start; 60 s.
        let keep = live(&times, 1.0, stairs(false, &[(0, full), (60, zero)]));
        assert_eq!(got(keep), (3, 2, 2, 2, 2.0 + 30.0 + 60.0 + 2.0 + 60.0));
        // Reserve after 10 s: started while the full one waits for it 2 s, then 18 s of it; a call on it starts a full one.
        let ask = live(&times, 1.0, stairs(false, &[(0, full), (10, reserve)]));
        let each = 12.0 + 0.5;
        let idle = 3.0 * each + (18.0 + 288.0 + (3600.0 - 434.0 - 12.0)) * 0.25;
        assert_eq!(got(ask), (3, 1, 1, 1 + 3 + 2, 2.0 + 2.0 * 2.0 + idle));
        // It stays on it.
        let low = live(&times, 1.0, stairs(true, &[(0, full), (10, reserve)]));
        assert_eq!(got(low), (3, 1, 1, 2, 2.0 + each + (18.0 + 300.0 + 3166.0) * 0.25));
        // Three times as slow: one second takes two more.
        let slow = live(&times, 3.0, stairs(true, &[(0, full), (10, reserve)]));
        assert_eq!((slow.violations, slow.cold), (3, 1));
        // Zero, and a start 250 s after the end: the one at 433 finds it running, the one at 131 does not.
        let warm = live(&times, 1.0, stairs(false, &[(0, zero), (250, full), (310, zero)]));
        assert_eq!((warm.cold, warm.violations, warm.starts), (2, 2, 4));
        assert_eq!(warm.costs.of_idling(), 4.0 + (2.0 + 48.0) + (2.0 + 58.0));
    }
}
