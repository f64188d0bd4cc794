//! Merging reports: what adds up, what is dropped, when a sandbox is free.

use manifests::ids::RevisionId;
use manifests::units::{Concurrency, Rps};

use super::*;
use crate::testing::revision;

fn at(seconds: u64) -> Timestamp {
    Timestamp::EPOCH.plus(Duration::from_secs(1000 + seconds))
}

fn generation(counter: u64) -> Generation {
    Generation { epoch: 1, counter }
}

fn load(kind: LoadKind, in_flight: u32, waiting: u32, acked: u64, draining: &[(&str, u32)]) -> RevisionLoad {
    RevisionLoad {
        revision: RevisionId::new("default", "hello-00001"),
        kind,
        concurrency: Concurrency(f64::from(in_flight)),
        rps: Rps(0.0),
        work: Default::default(),
        in_flight,
        waiting,
        acked: generation(acked),
        draining: draining.iter().map(|(id, n)| left(id, *n, *n)).collect(),
        ejected: Vec::new(),
    }
}

fn left(sandbox: &str, in_flight: u32, connections: u32) -> Draining {
    Draining {
        sandbox: SandboxId::new(sandbox),
        in_flight,
        connections,
        answered: false,
    }
}

/// Feeds reports of several gateways to one revision.
#[derive(Default)]
struct Side {
    gateways: Gateways,
    loads: Loads,
    counter: u64,
}

impl Side {
    fn report(&mut self, gateway: &str, seconds: u64, load: Option<RevisionLoad>) {
        self.counter += 1;
        let counter = self.counter;
        assert!(self.report_as(gateway, counter, seconds, load));
    }

    fn report_as(&mut self, gateway: &str, counter: u64, seconds: u64, load: Option<RevisionLoad>) -> bool {
        let gateway = GatewayId(gateway.into());
        let report = LoadReport {
            gateway,
            generation: generation(counter),
            revisions: load.into_iter().collect(),
        };
        if !self.gateways.accept(&report, at(seconds)) {
            return false;
        }
        for load in &report.revisions {
            self.loads.update(&report.gateway, report.generation, load);
        }
        true
    }

    fn requests(&self, seconds: u64) -> (u32, u32) {
        self.loads.requests(&self.gateways, at(seconds))
    }

    /// Dropped from the endpoints with set 5 at second 0.
    fn released(&self, seconds: u64) -> bool {
        self.loads
            .released(&self.gateways, &SandboxId::new("x"), generation(5), at(0), at(seconds))
    }

    fn disconnected(&self, seconds: u64) -> bool {
        self.loads
            .disconnected(&self.gateways, &SandboxId::new("x"), generation(5), at(0), at(seconds))
    }
}

#[test]
fn statistics_of_one_second_add_up_in_both_metrics() {
    let mut scaling = revision("default", "a").scaling;
    let mut collector = Collector::new(&scaling);
    assert_eq!(collector.observed(&scaling, at(0)), None, "no data");
    collector.record(at(0), 1.0, 10.0);
    collector.record(at(0), 2.0, 20.0);
    collector.record(at(1), 0.0, 0.0);
    assert_eq!(
        collector.observed(&scaling, at(1)),
        Some(Observed {
            stable: 1.5,
            panic: 1.5
        })
    );
    scaling.metric = Metric::Rps {
        target: Rps(1.0),
        total: Rps(1.0),
    };
    assert_eq!(
        collector.observed(&scaling, at(1)),
        Some(Observed {
            stable: 15.0,
            panic: 15.0
        })
    );
    // Six silent seconds empty the panic window; trailing silence shrinks the divisor of the stable one.
    assert_eq!(
        collector.observed(&scaling, at(7)),
        Some(Observed {
            stable: 15.0,
            panic: 0.0
        })
    );
    assert_eq!(
        collector.observed(&scaling, at(61)),
        Some(Observed {
            stable: 0.0,
            panic: 0.0
        })
    );
    assert_eq!(collector.observed(&scaling, at(62)), None);
    scaling.target_burst_capacity = None;
    assert_eq!(
        collector.observed(&scaling, at(62)),
        Some(Observed {
            stable: 0.0,
            panic: 0.0
        }),
        "nothing is scraped"
    );
}

#[test]
fn an_older_report_is_dropped() {
    let mut side = Side::default();
    assert!(side.report_as("a", 7, 0, Some(load(LoadKind::Periodic, 5, 2, 0, &[]))));
    assert!(!side.report_as("a", 7, 1, Some(load(LoadKind::Periodic, 9, 9, 0, &[]))));
    assert!(!side.report_as("a", 6, 1, None));
    assert_eq!(side.requests(1), (5, 2));
}

#[test]
fn requests_add_up_and_end_with_absence_or_silence() {
    let mut side = Side::default();
    side.report("a", 0, Some(load(LoadKind::Periodic, 5, 2, 0, &[])));
    side.report("b", 0, Some(load(LoadKind::Wake, 1, 1, 0, &[])));
    assert_eq!(side.requests(0), (6, 3));
    // Says nothing about requests.
    side.report("b", 1, Some(load(LoadKind::Sandboxes, 0, 0, 3, &[])));
    assert_eq!(side.requests(1), (6, 3));
    // A whole picture without the revision.
    side.report("a", 1, None);
    assert_eq!(side.requests(1), (1, 1));
    assert_eq!(side.requests(10), (1, 1));
    assert_eq!(side.requests(11), (0, 0), "gateway b has been silent for ten seconds");
}

#[test]
fn a_sandbox_is_free_when_every_gateway_acknowledged_and_reports_zero() {
    let mut side = Side::default();
    assert!(side.released(0), "nobody ever routed to it");
    side.report("a", 0, Some(load(LoadKind::Periodic, 2, 0, 4, &[])));
    side.report("b", 0, Some(load(LoadKind::Periodic, 1, 0, 5, &[("x", 1), ("y", 3)])));
    assert!(!side.released(0), "a has not acknowledged, b has one in flight");
    side.report("b", 1, Some(load(LoadKind::Sandboxes, 0, 0, 5, &[("x", 0), ("y", 3)])));
    assert!(!side.released(1), "a has not acknowledged");
    side.report("a", 1, Some(load(LoadKind::Periodic, 2, 0, 6, &[("x", 1)])));
    assert!(!side.released(1), "a has one in flight");
    side.report("a", 2, Some(load(LoadKind::Periodic, 2, 0, 6, &[])));
    assert!(side.released(2));
}

#[test]
fn a_sandbox_is_disconnected_when_no_gateway_has_a_connection_either() {
    let mut side = Side::default();
    let report = |acked, connections| {
        let mut load = load(LoadKind::Sandboxes, 0, 0, acked, &[]);
        load.draining = vec![left("x", 0, connections)];
        Some(load)
    };
    side.report("a", 0, report(4, 0));
    assert!(!side.released(0) && !side.disconnected(0), "not acknowledged");
    side.report("a", 0, report(5, 2));
    assert!(side.released(0) && !side.disconnected(0), "idle connections are open");
    side.report("b", 0, report(5, 0));
    assert!(!side.disconnected(0), "those of a");
    side.report("a", 1, report(5, 0));
    assert!(side.disconnected(1));
}

#[test]
fn a_whole_picture_without_the_revision_frees_it() {
    let mut side = Side::default();
    side.report("a", 0, Some(load(LoadKind::Periodic, 2, 0, 5, &[("x", 2)])));
    assert!(!side.released(0));
    side.report("a", 1, None);
    assert!(side.released(1), "acknowledged before, nothing in flight now");

    let mut side = Side::default();
    side.report("a", 0, Some(load(LoadKind::Periodic, 2, 0, 4, &[])));
    side.report("a", 1, None);
    assert!(!side.released(1), "may not have put the set in place yet");
    side.report("a", 2, None);
    assert!(side.released(2));
}

#[test]
fn a_gateway_that_went_away_holds_nothing() {
    let mut side = Side::default();
    side.report("a", 0, Some(load(LoadKind::Periodic, 2, 0, 4, &[])));
    assert!(!side.released(9));
    assert!(side.released(10));
}
