//! `containerConcurrency` holds whatever clients do.

use std::time::Duration;

use loadtest::{Abort, Plan};

use crate::support::Knarr;
use crate::support::manifest::{SHORT_WINDOWS, service};

/// Of 200 requests at once, a third lose patience while they wait, while they run, or after they were answered.
#[test]
fn two_hundred_at_zero_a_third_of_them_aborted() {
    let app = service("one").concurrency(1).with("max-scale", "8");
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("one.yaml", &app.yaml())]);
    assert_eq!(knarr.revision("one-00001").actual_replicas, 0);

    for (seed, after) in [(1, 5), (2, 60), (3, 400)] {
        let abort = Abort {
            share: 1.0 / 3.0,
            after: Duration::from_millis(after),
        };
        let plan = Plan {
            abort: Some(abort),
            seed,
            ..Plan::burst(knarr.target("one", "/overlap?ms=30"), 200)
        };
        let report = knarr.load(plan).report();
        // The app answers 409 when two were inside at once.
        assert_eq!(
            report.count(200) + report.aborted,
            200,
            "aborts after {after} ms\n{report}"
        );
        assert!(report.aborted > 0 && report.count(200) > 100, "{report}");
        let most = knarr.revision("one-00001").actual_replicas;
        assert!(most <= 8, "{most} replicas");
    }

    // What each sandbox itself has seen, those of aborted requests included.
    let idle = |it: &control::status::RevisionStatus| it.in_flight == 0;
    let replicas = knarr.until_revision("one-00001", "is done", idle).actual_replicas;
    for _ in 0..4 * replicas {
        let seen = knarr.get("one", "/overlap/report").json();
        assert_eq!((&seen["overlaps"], &seen["running"]), (&0.into(), &0.into()), "{seen}");
        assert!(seen["most"].as_u64() <= Some(1), "{seen}");
    }
}
