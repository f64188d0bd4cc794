use std::time::Duration;

use manifests::units::Bytes;

use crate::simulate::by_hand::{function, prices, settings, trace};
use crate::simulate::{Billing, Engine, Market, Policy, Prices, Settings, Starts, Tally, simulate};
use crate::trace::{Calls, Trace};

fn market() -> Market {
    Market::new("by hand", &prices())
}

fn billed(billing: Billing) -> Market {
    let prices = Prices { billing, ..prices() };
    Market::new("by hand", &prices)
}

fn run(trace: &Trace, settings: &Settings, policy: Policy) -> Vec<Tally> {
    simulate(trace, settings, &market(), &policy, 1, || true)
}

/// `stays` is what an idle instance stays after its last call, two seconds of tick and a moment to stop on top.
fn stays(cost: f64, certain: f64, stays: f64, times: f64) -> bool {
    let (least, most) = (certain + stays * times, certain + (stays + 2.2) * times);
    (least - 0.2..most).contains(&cost)
}

#[test]
fn three_calls_under_knative() {
    let trace = trace(10, vec![function("a", &[100.0, 130.0, 400.0], 0.1)]);
    let tally = run(&trace, &settings(), Policy::Knative).remove(0);
    let counts = (
        tally.arrivals,
        tally.answered,
        tally.idle,
        tally.cold,
        tally.violations,
        tally.starts,
    );
    assert_eq!(counts, (3, 3, 3, 2, 2, 2), "{tally:?}");
    // Two starts of 2 s; each call runs for 0.1 s.
    assert!((tally.costs.starts - 4.0).abs() < 1e-6, "{tally:?}");
    assert!((tally.costs.busy - 0.3).abs() < 1e-6, "{tally:?}");
    // Warm from 102.1 to 130, then for the stable window, twice.
    assert!(stays(tally.costs.idle, 27.9, 60.0, 2.0), "{tally:?}");
    assert_eq!(tally.added.quantile(0.3), Some(Duration::ZERO));
    assert!(
        tally
            .added
            .quantile(0.99)
            .is_some_and(|it| (2.0..2.4).contains(&it.as_secs_f64())),
        "{tally:?}"
    );
}

#[test]
fn three_calls_under_the_others() {
    let trace = trace(60, vec![function("a", &[100.0, 130.0, 400.0], 0.1)]);
    let of = |policy| run(&trace, &settings(), policy).remove(0);
    let grace = of(Policy::KnativeGrace);
    assert_eq!((grace.cold, grace.violations), (2, 2));
    assert!(stays(grace.costs.idle, 27.9, 90.0, 2.0), "{grace:?}");
    let fixed = of(Policy::KeepAlive(Duration::from_secs(600)));
    assert_eq!((fixed.cold, fixed.violations, fixed.starts), (1, 1, 1));
    assert!(stays(fixed.costs.idle, 27.9 + 269.9, 600.0, 1.0), "{fixed:?}");
    let always = of(Policy::AlwaysOne);
    assert_eq!((always.cold, always.violations, always.starts), (0, 0, 1));
    // Started at once, and there to the end.
    assert!((always.costs.idle - (3600.0 - 2.0 - 0.3)).abs() < 1e-6, "{always:?}");
}

#[test]
fn what_is_deployed_is_started_once() {
    // In the minute of the first call, which finds nothing yet at 61 s and is not late by that.
    let trace = trace(6, vec![function("a", &[61.0, 280.0], 0.1), function("never", &[], 0.1)]);
    let deployed = Settings {
        initial_scale: 1,
        ..settings()
    };
    for engine in [Engine::Fleet, Engine::Gaps] {
        let tallies = run(
            &trace,
            &Settings {
                engine,
                ..deployed.clone()
            },
            Policy::Knative,
        );
        let of = |tally: &Tally| (tally.arrivals, tally.idle, tally.starts, tally.cold, tally.violations);
        assert_eq!(of(&tallies[0]), (2, 1, 2, 1, 1), "{engine:?}: {tallies:?}");
        assert_eq!(of(&tallies[1]), (0, 0, 0, 0, 0), "{engine:?}: {tallies:?}");
    }
}

#[test]
fn minimums_are_charged() {
    let trace = trace(5, vec![function("a", &[10.0], 0.1)]);
    let hourly = billed(Billing {
        granularity: Duration::from_secs(1),
        minimum: Duration::from_secs(3600),
    });
    let tally = simulate(&trace, &settings(), &hourly, &Policy::Knative, 1, || true).remove(0);
    assert!((tally.costs.total() - 3600.0).abs() < 1e-6, "{tally:?}");
}

/// `containerConcurrency: 1`, and more calls at once than instances that the memory has room for.
#[test]
fn every_call_is_answered_refused_or_open() {
    for seed in 0..20_u64 {
        let times = |every: f64, offset: f64| -> Vec<f64> { (0..40).map(|n| offset + every * f64::from(n)).collect() };
        let functions = vec![
            function("often", &times(0.7, seed as f64), 3.0),
            function("rare", &times(25.0, 1.0), 0.2),
            function("never", &[], 1.0),
            function("long", &times(3.0, 100.0), 90.0),
        ];
        let trace = trace(20, functions);
        let tight = Settings {
            concurrency: 1,
            host_memory: (seed % 2 == 1).then_some(Bytes(600 << 20)),
            cores: 2,
            initial_scale: u32::from(seed % 3 == 0),
            starts: Starts::default(),
            ..settings()
        };
        let tallies = simulate(&trace, &tight, &Market::equal(), &Policy::Knative, seed, || true);
        for (tally, function) in tallies.iter().zip(&trace.functions) {
            let Calls::Times(times) = &function.calls else { continue };
            assert_eq!(tally.arrivals, times.len() as u64, "seed {seed}, {}", function.name);
            let ended = tally.answered + tally.refused + tally.expired + tally.open;
            assert_eq!(tally.arrivals, ended, "seed {seed}, {}: {tally:?}", function.name);
            assert!(tally.violations <= tally.idle && tally.cold <= tally.idle, "{tally:?}");
        }
        let again = simulate(&trace, &tight, &Market::equal(), &Policy::Knative, seed, || true);
        assert_eq!(again, tallies, "seed {seed}: the same world twice");
    }
}

#[test]
fn seeds_give_different_worlds() {
    let mut function = function("a", &[], 0.1);
    function.calls = Calls::PerMinute(vec![3; 60]);
    let trace = trace(60, vec![function]);
    let random = Settings {
        starts: Starts::default(),
        ..settings()
    };
    let costs: Vec<f64> = (0..5)
        .map(|seed| {
            simulate(&trace, &random, &Market::equal(), &Policy::Knative, seed, || true)[0]
                .costs
                .total()
        })
        .collect();
    assert!(costs.windows(2).all(|pair| pair[0] != pair[1]), "{costs:?}");
}

#[test]
fn a_run_can_be_ended_early() {
    let trace = trace(60, vec![function("a", &[100.0, 3000.0], 0.1)]);
    let mut minutes = 0;
    let tallies = simulate(&trace, &settings(), &market(), &Policy::Knative, 1, || {
        minutes += 1;
        minutes < 10
    });
    assert_eq!((minutes, tallies[0].arrivals), (10, 1));
}
