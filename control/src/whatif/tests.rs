//! A made-up recording: what each policy makes of it.

use manifests::ids::RevisionId;
use manifests::units::{Bytes, Timestamp};
use manifests::workload::Workload;
use sandbox::driver::Capacity;

use super::*;
use crate::happened::Life;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000 + seconds * 1000)
}

/// A revision that is asked twice every ten minutes for an hour, and takes two seconds to start.
fn recorded() -> Happened {
    let id = RevisionId::new("default", "app-00001");
    let revision = Arc::new(Revision::new(id.clone(), Workload::host("/bin/true")));
    let mut life = Life::new(revision, at(0));
    life.arrivals = (0..6)
        .map(|n| (at(100 + n * 600), 2, Duration::from_millis(50)))
        .collect();
    life.started = vec![Duration::from_secs(2)];
    let mut happened = Happened {
        span: Some((at(0), at(3600))),
        room: Capacity {
            cores: 2,
            free_memory: Bytes(1 << 30),
            budget: Bytes(1 << 30),
            used: Bytes(0),
        },
        ..Happened::default()
    };
    happened.revisions.insert(id, life);
    happened
}

fn outcome(policy: &str) -> Outcome {
    simulate(&recorded(), policy.parse().unwrap(), &Arc::default())
}

#[test]
fn each_policy_does_what_its_name_says() {
    let (knative, always, frozen, fixed) = (
        outcome("knative"),
        outcome("always-on"),
        outcome("frozen"),
        outcome("fixed-20m"),
    );
    for outcome in [&knative, &always, &frozen, &fixed] {
        assert_eq!((outcome.requests, outcome.refused), (12, 0), "{outcome:?}");
        assert!(outcome.idle_arrivals >= 6, "{outcome:?}");
    }
    // Its first start is when it is deployed; it is gone by the first request.
    assert_eq!((knative.starts, knative.violations), (7, 6), "{knative:?}");
    assert_eq!((always.starts, always.violations), (1, 0), "{always:?}");
    assert_eq!((frozen.starts, frozen.violations), (1, 0), "{frozen:?}");
    assert_eq!((fixed.starts, fixed.violations), (1, 0), "{fixed:?}");
    let costs = [&knative, &frozen, &fixed, &always].map(|outcome| outcome.cost.unwrap());
    assert!(
        costs.is_sorted() || costs[2] < costs[3] * 1.001 && costs[..3].is_sorted(),
        "{costs:?}"
    );
    // One full instance for an hour costs 1 in the shipped catalogue.
    let hour = Instances::default();
    let workload = Workload::host("/bin/true");
    let full = hour.full_for(&workload, &[]).price_of(&workload) * 3600.0;
    assert!((costs[3] / full - 1.0).abs() < 0.01, "{} is not {full}", costs[3]);
}

#[test]
fn the_same_again_and_again() {
    assert_eq!(outcome("auto"), outcome("auto"));
    assert!(outcome("auto").cost <= outcome("keep").cost);
}

#[test]
fn words_that_are_no_policy_or_catalogue() {
    for policy in ["", "fixed-", "fixed-1000d", "Auto", "as recorded"] {
        let error = policy.parse::<Policy>().unwrap_err();
        assert!(error.contains("there are knative, auto"), "{error}");
    }
    assert_eq!("fixed-10m".parse::<Policy>().unwrap().name(), "fixed-10m");
    assert!(catalogue("eci").is_ok());
    assert!(
        catalogue("/none.yaml")
            .unwrap_err()
            .contains("write a file, or one of local, eci")
    );
}
