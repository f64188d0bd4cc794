//! Idle time by idle time, one instance per function: the quick engine, for tuning and for planners that the fleet does not
//! drive. PURE.
//!
//! What happens while calls are in flight costs nothing here; neither does the second that the fleet needs to hear that
//! nobody asks any more. Calls, service times and starts are those of the other engine for the same seed.

use std::time::Duration;

use autoscaler::planner::{Arrival, IdlePlanner, Menu, Offer, Population, Schedule, Step, View};
use autoscaler::start_latency::Latencies;
use manifests::exchange::Rung;
use manifests::units::{Bytes, Timestamp};

use super::engine::instant;
use super::market::Market;
use super::settings::Settings;
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
}

/// The idle times of one function.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Life {
    /// The start at deployment, for the first call; `None` without one.
    deployed: Option<Duration>,
    idle: Vec<Idle>,
    /// Since when nothing was in flight at the end, and when that was.
    last: (Timestamp, Timestamp),
    calls: u64,
    memory: Bytes,
}

impl Life {
    /// Of a function of the trace.
    pub(super) fn of(trace: &Trace, settings: &Settings, function: usize, seed: u64) -> Self {
        let of = &trace.functions[function];
        let median = settings.starts.median_of(of, seed);
        let start = |calls| settings.starts.latency(of, seed, median, calls, 0);
        let begin = instant(Duration::from_secs(60) * trace.minutes.start);
        let end = instant(Duration::from_secs(60) * trace.minutes.end);
        let deployed = (settings.initial_scale > 0).then(|| start(0));
        let mut free = begin;
        let (mut idle, mut calls) = (Vec::new(), 0);
        for call in trace
            .minutes
            .clone()
            .flat_map(|minute| trace.minute_of(function, minute, seed))
        {
            let (mut at, service) = (instant(call.at), call.duration.unwrap_or(settings.duration));
            if calls == 0
                && let Some(start) = deployed
            {
                // What is deployed for it is not late for it.
                at = at.plus(start);
            } else if at > free {
                idle.push(Idle {
                    since: free,
                    gap: at.since(free),
                    service,
                    start: start(calls),
                });
            }
            free = free.max(at.plus(service));
            calls += 1;
        }
        Self {
            deployed: deployed.filter(|_| calls > 0),
            idle,
            last: (free, end.max(free)),
            calls,
            memory: of.memory.unwrap_or(settings.memory_of_app),
        }
    }

    /// Lives it with a planner.
    pub(super) fn live(
        &self,
        settings: &Settings,
        market: &Market,
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
        let mut rung = Rung::Zero;
        if let Some(start) = self.deployed {
            rung = Rung::Full;
            learned.add(start);
            tally.starts += 1;
            tally.costs.starts += market.full * start.as_secs_f64();
        }
        let mut offered = menu(market, self.memory, settings, &learned);
        for idle in &self.idle {
            let menu = &offered;
            let view = View {
                now: idle.since,
                since: idle.since,
                at: at(menu, rung),
                sla: &settings.sla,
                menu,
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
                rung,
                ready: Duration::ZERO,
                market,
                memory: self.memory,
                start: idle.start,
                tally: &mut tally,
            };
            stand.along(menu, &schedule.ladder.steps, idle.gap);
            let (met, wait) = (stand.rung, stand.ready.saturating_sub(idle.gap));
            let slow = match (met, market.reserve) {
                (Rung::Reserve, Some(reserve)) => idle.service.mul_f64(reserve.slowdown - 1.0),
                _ => Duration::ZERO,
            };
            let wait = match met {
                Rung::Zero => idle.start,
                Rung::Frozen => settings.thaw,
                _ => wait,
            };
            let late = wait + slow > settings.sla.limit;
            tally.idle += 1;
            tally.violations += u64::from(late);
            tally.late += u64::from(late);
            tally.cold += u64::from(met == Rung::Zero);
            tally.added.add(wait + slow);
            let upgrades = met == Rung::Reserve && !schedule.stay_low;
            if met == Rung::Zero || upgrades {
                tally.starts += 1;
                tally.costs.starts += market.full * idle.start.as_secs_f64();
                learned.add(idle.start);
            }
            rung = if met == Rung::Reserve && schedule.stay_low {
                Rung::Reserve
            } else {
                Rung::Full
            };
            let arrival = Arrival {
                gap: Some(idle.gap),
                at: at(menu, met),
                service: Some(idle.service),
                late,
            };
            let view = View {
                now: idle.since.plus(idle.gap),
                at: at(menu, met),
                ..view
            };
            planner.arrived(&arrival, &view);
            if met == Rung::Zero || upgrades {
                offered = self::menu(market, self.memory, settings, &learned);
            }
        }
        let (since, end) = self.last;
        let menu = offered;
        let view = View {
            now: since,
            since,
            at: at(&menu, rung),
            sla: &settings.sla,
            menu: &menu,
            population,
        };
        let schedule = planner.plan(&view);
        let mut stand = Stand {
            rung,
            ready: Duration::ZERO,
            market,
            memory: self.memory,
            start: self.deployed.unwrap_or(settings.starts.median),
            tally: &mut tally,
        };
        stand.along(&menu, &schedule.ladder.steps, end.since(since));
        tally
    }
}

/// Where an instance stands, and what that costs.
struct Stand<'a> {
    rung: Rung,
    /// The age at which what was ordered last is there.
    ready: Duration,
    market: &'a Market,
    memory: Bytes,
    start: Duration,
    tally: &'a mut Tally,
}

impl Stand<'_> {
    /// Moves by the steps until `end`.
    fn along(&mut self, menu: &Menu, steps: &[Step], end: Duration) {
        let mut since = Duration::ZERO;
        for step in steps {
            if step.age >= end {
                break;
            }
            let Some(offer) = menu.offers.get(step.offer).filter(|offer| offer.rung != self.rung) else {
                continue;
            };
            self.stay(since, step.age);
            since = self.go(offer.rung, step.age).min(end);
            self.ready = self.ready.max(if self.rung == Rung::Zero {
                step.age + self.start
            } else {
                Duration::ZERO
            });
            self.rung = offer.rung;
        }
        self.stay(since, end);
    }

    /// Pays for standing.
    fn stay(&mut self, from: Duration, to: Duration) {
        let seconds = to.saturating_sub(from).as_secs_f64();
        self.tally.costs.idle += seconds * self.price(self.rung);
    }

    /// Pays for a move, and says from when on the new rung is stood on: another instance is ready before the old one goes.
    fn go(&mut self, to: Rung, age: Duration) -> Duration {
        let in_place = self.market.reserve.is_some_and(|reserve| reserve.in_place) && self.rung != Rung::Zero;
        let starts = !in_place && (to > self.rung || to == Rung::Reserve);
        if !starts || to == Rung::Frozen || self.rung == Rung::Frozen {
            return age;
        }
        self.tally.starts += 1;
        self.tally.costs.starts += self.price(to) * self.start.as_secs_f64();
        self.tally.costs.idle += self.price(self.rung) * self.start.as_secs_f64();
        age + self.start
    }

    fn price(&self, rung: Rung) -> f64 {
        match (rung, self.market.reserve) {
            (Rung::Zero, _) => 0.0,
            (Rung::Frozen, _) => self.market.frozen_price(self.memory).unwrap_or(self.market.full),
            (Rung::Reserve, Some(reserve)) => reserve.price,
            _ => self.market.full,
        }
    }
}

fn at(menu: &Menu, rung: Rung) -> usize {
    menu.find(rung).unwrap_or_else(|| menu.full())
}

/// The rungs of a market, as one function can stand on them.
fn menu(market: &Market, memory: Bytes, settings: &Settings, learned: &Latencies) -> Menu {
    let starts = learned.estimate(&settings.sla, Some(settings.starts.median));
    let starts = starts.unwrap_or_default();
    let offer = |rung, price, wake, late, slow| Offer {
        rung,
        spec: None,
        price,
        wake,
        late,
        slow,
        lead: starts.most,
    };
    let mut offers = vec![
        offer(Rung::Zero, 0.0, market.full * starts.mean, starts.late, 1.0),
        offer(Rung::Full, market.full, 0.0, 0.0, 1.0),
    ];
    offers.extend(
        market
            .reserve
            .map(|it| offer(Rung::Reserve, it.price, 0.0, 0.0, it.slowdown)),
    );
    let thaws = if settings.thaw > settings.sla.limit { 1.0 } else { 0.0 };
    offers.extend(
        market
            .frozen_price(memory)
            .map(|price| offer(Rung::Frozen, price, 0.0, thaws, 1.0)),
    );
    offers.sort_by(|a, b| a.price.total_cmp(&b.price).then(a.rung.cmp(&b.rung)));
    let in_place = market.reserve.is_some_and(|reserve| reserve.in_place);
    let between = |from: &Offer, to: &Offer| match (from.rung, to.rung) {
        (from, to) if from == to => 0.0,
        (_, Rung::Zero) | (Rung::Full, Rung::Frozen) => 0.0,
        (_, Rung::Frozen) => f64::INFINITY,
        (Rung::Frozen, Rung::Reserve) => f64::INFINITY,
        (Rung::Frozen, Rung::Full) => 0.0,
        (Rung::Zero, _) => to.price * starts.mean,
        _ if in_place => 0.0,
        _ => to.price * starts.mean,
    };
    let moves = offers
        .iter()
        .map(|from| offers.iter().map(|to| between(from, to)).collect());
    Menu {
        moves: moves.collect(),
        offers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::baselines::Stairs;
    use crate::simulate::{Billing, Starts};
    use crate::trace::{Calls, Durations, Function, Trigger};

    fn trace(times: &[u64]) -> Trace {
        Trace {
            name: "by hand".into(),
            minutes: 0..60,
            functions: vec![Function {
                name: "a".into(),
                app: String::new(),
                trigger: Trigger::Http,
                calls: Calls::Times(times.iter().map(|at| Duration::from_secs(*at).into()).collect()),
                durations: Durations::new(vec![(0.0, 1e3), (1.0, 1e3)]),
                memory: None,
                start: None,
            }],
        }
    }

    fn live(times: &[u64], slowdown: f64, stairs: Stairs) -> Tally {
        let settings = Settings {
            starts: Starts {
                median: Duration::from_secs(2),
                spread: 0.0,
                sigma: 0.0,
            },
            initial_scale: 0,
            ..Settings::default()
        };
        let mut market = Market {
            full: 1.0,
            billing: Billing {
                granularity: Duration::ZERO,
                minimum: Duration::ZERO,
            },
            ..Market::equal()
        };
        if let Some(reserve) = &mut market.reserve {
            (reserve.price, reserve.slowdown) = (0.25, slowdown);
        }
        let life = Life::of(&trace(times), &settings, 0, 1);
        let mut planner = stairs;
        life.live(&settings, &market, &Population::default(), &mut planner)
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
        let times = [100, 131, 132, 433];
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
