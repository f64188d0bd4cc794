//! The best that fixed ages can do: full, then the reserve, then zero, with both ages tuned on the half of the functions that
//! is not reported on. PURE.

use std::time::Duration;

use autoscaler::planner::Population;
use manifests::exchange::Rung;

use super::baselines::Stairs;
use super::gaps::Life;
use super::market::Market;
use super::settings::Settings;
use super::shelf::Shelf;
use super::tally::Tally;
use crate::trace::Trace;

/// The ages until which full and reserve last that cost least while at most the share that the SLA allows is late, all idle
/// arrivals together; without such ages those with the fewest late ones.
pub(super) fn best_stairs(trace: &Trace, settings: &Settings, market: &Market) -> (Duration, Duration) {
    let shelves: Vec<Shelf> = (0..trace.functions.len())
        .map(|function| Shelf::of(market, trace, settings, function))
        .collect();
    let lives: Vec<(&Shelf, Life)> = (0..)
        .zip(&shelves)
        .flat_map(|(function, shelf)| SEEDS.map(move |seed| (shelf, function, seed)))
        .map(|(shelf, function, seed)| (shelf, Life::of(trace, settings, function, seed)))
        .collect();
    let has_reserve = shelves.iter().any(|shelf| shelf.has(Rung::Reserve));
    let allowed = 1.0 - settings.sla.quantile;
    let population = Population::default();
    let mut best: Option<((bool, f64), (Duration, Duration))> = None;
    for full in AGES {
        let can = |reserve: &u64| *reserve == full || *reserve > full && has_reserve;
        for reserve in AGES.into_iter().filter(can) {
            let ages = (Duration::from_secs(full), Duration::from_secs(reserve));
            let tallies: Vec<Tally> = lives
                .iter()
                .map(|(shelf, life)| life.live(settings, shelf, &population, &mut stairs(ages.0, ages.1)))
                .collect();
            let all = Tally::sum(&tallies);
            let keeps = all.share() <= allowed;
            let rank = (!keeps, if keeps { all.costs.of_idling() } else { all.share() });
            let better =
                |(known, _): &((bool, f64), _)| (rank.0, rank.1).partial_cmp(known).is_some_and(|it| it.is_lt());
            if best.as_ref().is_none_or(better) {
                best = Some((rank, ages));
            }
        }
    }
    best.map_or((Duration::ZERO, Duration::ZERO), |(_, ages)| ages)
}

/// Full until one age, the reserve until the other.
pub(super) fn stairs(full: Duration, reserve: Duration) -> Stairs {
    let mut steps = vec![(Duration::ZERO, Rung::Full)];
    if full.is_zero() {
        steps.clear();
    }
    if reserve > full {
        steps.push((full, Rung::Reserve));
    }
    steps.push((reserve.max(full), Rung::Zero));
    Stairs { steps, stay_low: true }
}

/// Seconds; the last is for ever.
const AGES: [u64; 13] = [0, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 1 << 32];

const SEEDS: std::ops::Range<u64> = 1000..1003;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Prices;
    use crate::trace::{Calls, Function, Trigger};

    fn trace(every: u64) -> Trace {
        let functions = (0..3).map(|n| Function {
            name: format!("f{n}"),
            app: String::new(),
            trigger: Trigger::Http,
            calls: Calls::Times(
                (1..60)
                    .map(|call| Duration::from_secs(every * call + n).into())
                    .collect(),
            ),
            durations: None,
            memory: None,
            start: None,
        });
        Trace {
            name: "timers".into(),
            minutes: 0..120,
            functions: functions.collect(),
        }
    }

    #[test]
    fn ages_just_cover_what_comes() {
        let settings = Settings::default();
        let (full, reserve) = best_stairs(&trace(100), &settings, &Market::equal());
        assert_eq!((full.as_secs(), reserve.as_secs()), (0, 120));
        let (full, reserve) = best_stairs(&trace(50), &settings, &Market::equal());
        assert_eq!((full.as_secs(), reserve.as_secs()), (0, 60));
        // Without a reserve the full instance stays.
        let none = Market::new(
            "none",
            &Prices {
                reserve: None,
                ..Prices::eci()
            },
        );
        let (full, _) = best_stairs(&trace(50), &settings, &none);
        assert_eq!(full.as_secs(), 60);
    }
}
