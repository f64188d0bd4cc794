use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::simulate::settings::Engine;
use crate::trace::{Calls, Function, Trigger};

/// Timers of many periods.
fn trace() -> Trace {
    let functions = (0..24_u64).map(|n| Function {
        name: format!("f{n}"),
        app: String::new(),
        trigger: Trigger::Http,
        calls: Calls::Times(
            (1..80)
                .map(|call| Duration::from_secs(call * (30 + 40 * n) + n).into())
                .collect(),
        ),
        durations: None,
        memory: None,
        start: None,
    });
    Trace {
        name: "timers".into(),
        minutes: 0..300,
        functions: functions.collect(),
    }
}

fn settings() -> Settings {
    Settings {
        engine: Engine::Gaps,
        ..Settings::default()
    }
}

#[test]
fn halves_share_nothing_and_lose_nothing() {
    let (tuned, reported) = halves(&trace());
    let mut names: Vec<String> = [tuned.functions, reported.functions]
        .concat()
        .into_iter()
        .map(|it| it.name)
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 24);
    // FNV-1a of "often" is odd, of "once" even.
    assert_eq!((half("often"), half("once")), (1, 0));
}

#[test]
fn every_policy_is_in_every_market_and_what_knows_no_menu_is_the_same_there() {
    let heard = AtomicU64::new(0);
    let evaluation = evaluate(&trace(), &settings(), &Market::all(), 1..3, &|minutes| {
        heard.fetch_add(minutes, Ordering::Relaxed);
        true
    })
    .expect("nobody ended it");
    assert_eq!(evaluation.rows.len(), 3 * 11);
    let of = |market: &str, policy: &str| {
        let found = evaluation
            .rows
            .iter()
            .find(|row| row.market == market && row.policy == policy);
        found.unwrap_or_else(|| panic!("{policy} in {market}"))
    };
    for policy in ["knative", "fixed-10m", "always-one", "hybrid"] {
        let (a, b) = (of("equal", policy), of("frozen", policy));
        assert_eq!((a.idle_cost, a.violations), (b.idle_cost, b.violations), "{policy}");
    }
    assert!(of("equal", "always-one").idle_cost > of("equal", "knative").idle_cost);
    assert!(of("equal", "oracle").idle_cost < of("equal", "auto").idle_cost);
    assert_eq!(of("equal", "oracle").violations, 0.0);
    assert!(of("frozen", "auto").idle_cost < of("slow", "auto").idle_cost);
    // Progress counts up to what was announced: policies that know no menu run once.
    let (tuned, reported) = halves(&trace());
    let cases = cases((&tuned, &reported), &settings(), &Market::all(), 1);
    assert_eq!(cases.len(), 11 + 4 + 4);
    let announced = crate::simulate::minutes(&reported, &cases, 2);
    assert_eq!(heard.into_inner(), announced);
    let again = evaluate(&trace(), &settings(), &Market::all(), 1..3, &|_| true);
    assert_eq!(again, Some(evaluation), "the same on any number of threads");
}

#[test]
fn a_demand_that_is_missed_is_missed() {
    let evaluation = evaluate(&trace(), &settings(), &[Market::equal()], 1..2, &|_| true).expect("nobody ended it");
    let check = |what: &str| {
        let found = evaluation.checks.iter().find(|check| check.what == what);
        found.unwrap_or_else(|| panic!("{what}: {:?}", evaluation.checks))
    };
    let cost = check("idle cost / knative");
    let (low, high) = cost.interval.expect("functions are drawn anew");
    assert!(low <= cost.measured && cost.measured <= high, "{cost:?}");
    assert_eq!(cost.demand, Some(Demand::AtMost(0.45)));
    let against = |measured| Check {
        measured,
        ..cost.clone()
    };
    assert_eq!(
        [against(0.45).holds(), against(0.46).holds(), against(f64::NAN).holds()],
        [true, false, false].map(Some)
    );
    assert_eq!(check("idle cost / oracle").holds(), None, "only reported");
    let mut missed = evaluation.clone();
    missed.checks[0].measured = 2.0;
    assert!(!missed.holds());
}

#[test]
fn it_can_be_ended() {
    assert_eq!(evaluate(&trace(), &settings(), &Market::all(), 1..3, &|_| false), None);
}
