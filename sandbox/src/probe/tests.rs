//! Tables of instants. In files of their own: eager probes, random lives against the invariants, real servers on loopback.

mod eager;
mod random;
mod servers;
mod world;

use std::time::Duration;

use manifests::workload::{Check, Container, Image, Probe, Probes};
use proptest::prelude::*;

use super::health::{Change, Crowd, Health, Kind};
use super::worker::{Outcome, Patience};
use world::{BEGIN, MS, S, World, check, every, run, workload};

#[test]
fn without_probes_a_container_is_ready_when_it_runs() {
    let health = Health::new(&workload(Probes::default()), BEGIN);
    assert!(health.is_ready() && health.is_over());
    assert_eq!(health.next_timeout(), None);
}

#[test]
fn readiness_by_ticks_and_thresholds() {
    let readiness = Probe {
        initial_delay: 5 * S,
        success_threshold: 2,
        failure_threshold: 3,
        ..every(10)
    };
    let probes = Probes {
        readiness: Some(readiness),
        ..Probes::default()
    };
    let told = run(probes, 125 * S, |_, at| {
        !(5_000..15_000).contains(&at) && !(40_000..80_000).contains(&at)
    });
    assert_eq!(
        told,
        [
            "5000 readiness",
            "15000 readiness",
            "25000 readiness",
            "25000 => ready",
            "35000 readiness",
            "45000 readiness",
            "55000 readiness",
            "65000 readiness",
            "65000 => not ready: readiness probe failed 3 times: no",
            "75000 readiness",
            "85000 readiness",
            "95000 readiness",
            "95000 => ready",
            "105000 readiness",
            "115000 readiness",
            "125000 readiness",
        ]
    );
}

#[test]
fn a_failure_in_between_counts_anew() {
    let probes = Probes {
        liveness: Some(every(1)),
        ..Probes::default()
    };
    let told = run(probes, 20 * S, |_, at| ![1, 2, 4, 5, 7, 8, 9].contains(&(at / 1000)));
    assert_eq!(told.last().unwrap(), "9000 => dead: liveness probe failed 3 times: no");
    assert_eq!(told.len(), 11, "nothing is asked of the dead: {told:?}");
}

#[test]
fn startup_gates_the_others() {
    let probes = Probes {
        startup: Some(Probe {
            initial_delay: S,
            failure_threshold: 30,
            ..every(2)
        }),
        readiness: Some(Probe {
            initial_delay: 2 * S,
            ..every(10)
        }),
        liveness: Some(Probe {
            initial_delay: 3 * S,
            failure_threshold: 1,
            ..every(5)
        }),
    };
    let told = run(probes.clone(), 20 * S, |kind, at| kind != Kind::Startup || at >= 6_000);
    assert_eq!(
        told,
        [
            "1000 startup",
            "3000 startup",
            "5000 startup",
            "7000 startup",
            // At once, not at its next tick.
            "7000 readiness",
            "7000 => ready",
            // At its own ticks: 3, 8, 13.
            "8000 liveness",
            "13000 liveness",
            "17000 readiness",
            "18000 liveness",
        ]
    );
    // Initial delays that are longer than the startup took still hold.
    let mut late = probes;
    late.readiness.as_mut().unwrap().initial_delay = 10 * S;
    late.liveness.as_mut().unwrap().initial_delay = 12 * S;
    let told = run(late, 13 * S, |_, _| true);
    assert_eq!(
        told,
        ["1000 startup", "10000 readiness", "10000 => ready", "12000 liveness"]
    );
}

#[test]
fn a_startup_that_never_passes_ends_it() {
    let probes = Probes {
        startup: Some(Probe {
            failure_threshold: 3,
            ..every(2)
        }),
        liveness: Some(every(1)),
        ..Probes::default()
    };
    let told = run(probes, 60 * S, |_, _| false);
    assert_eq!(
        told,
        [
            "0 startup",
            "2000 startup",
            "4000 startup",
            "4000 => dead: startup probe failed 3 times: no"
        ]
    );
}

#[test]
fn liveness_ends_it_also_before_it_is_ready() {
    let probes = Probes {
        readiness: Some(every(10)),
        liveness: Some(Probe {
            failure_threshold: 2,
            ..every(3)
        }),
        ..Probes::default()
    };
    let told = run(probes, 60 * S, |_, _| false);
    assert_eq!(
        told,
        [
            "0 readiness",
            "0 liveness",
            "3000 liveness",
            "3000 => dead: liveness probe failed 2 times: no"
        ]
    );
}

#[test]
fn a_slow_answer_skips_ticks_and_the_phase_stays() {
    let probes = Probes {
        liveness: Some(Probe {
            failure_threshold: 100,
            ..every(2)
        }),
        ..Probes::default()
    };
    // Go's ticker keeps one tick for whoever was late, and drops the others.
    let mut world = World::new(&workload(probes), |_, at| {
        (true, if at == 2_000 { 5 * S } else { 100 * MS })
    });
    world.until(14 * S);
    let asked = ["0", "2000", "7000", "8000", "10000", "12000", "14000"].map(|at| format!("{at} liveness"));
    assert_eq!(world.told, asked);
}

#[test]
fn every_container_must_be_ready_and_says_which_is_not() {
    let mut two = workload(Probes {
        readiness: Some(every(10)),
        ..Probes::default()
    });
    let mut sidecar = Container::new("proxy", Image::Host("/bin/true".into()));
    sidecar.probes.startup = Some(Probe {
        failure_threshold: 30,
        ..every(1)
    });
    sidecar.probes.readiness = Some(Probe {
        failure_threshold: 1,
        ..every(2)
    });
    two.sidecars.push(sidecar);
    let mut world = World::new(&two, |kind, at| {
        let startup = kind == Kind::Startup && at >= 3_000;
        (
            startup || kind == Kind::Readiness && !(6_500..8_000).contains(&at),
            Duration::ZERO,
        )
    });
    world.until(10 * S);
    let changes: Vec<&String> = world.told.iter().filter(|line| line.contains("=>")).collect();
    assert_eq!(
        changes,
        [
            "3000 => ready",
            "7000 => not ready: readiness probe of proxy failed: no",
            "9000 => ready"
        ]
    );
}

#[test]
fn what_cannot_be_asked_counts_as_nothing() {
    let probes = Probes {
        readiness: Some(every(1)),
        liveness: Some(Probe {
            failure_threshold: 2,
            ..every(1)
        }),
        ..Probes::default()
    };
    let mut health = Health::new(&workload(probes), BEGIN);
    let unknown = Outcome::Unknown("no way in".into());
    for second in 0..10 {
        let now = BEGIN.plus(S * second);
        let mut asked = 0;
        while let Some(ask) = health.poll(now) {
            assert_eq!(health.answered(&ask, &unknown, now, Crowd::default()), None);
            asked += 1;
        }
        assert_eq!(asked, 2, "at the next tick again");
    }
    assert!(!health.is_ready());
    assert!(health.last().ends_with("no way in"), "{}", health.last());
    // A failure before and one after are still in a row.
    let mut liveness = |outcome: &Outcome, second| {
        let now = BEGIN.plus(S * second);
        std::iter::from_fn(|| health.poll(now))
            .collect::<Vec<_>>()
            .iter()
            .filter(|ask| ask.kind == Kind::Liveness)
            .find_map(|ask| health.answered(ask, outcome, now, Crowd::default()))
    };
    let failed = Outcome::Failed("no".into());
    assert_eq!(liveness(&failed, 10), None);
    assert_eq!(liveness(&unknown, 11), None);
    assert!(matches!(liveness(&failed, 12), Some(Change::Dead(_))));
}

#[test]
fn a_pause_asks_nothing_and_counts_anew() {
    let probes = Probes {
        readiness: Some(every(2)),
        liveness: Some(every(3)),
        ..Probes::default()
    };
    let mut world = World::new(&workload(probes), |_, at| (at < 2_000, 10 * MS));
    // Two failures of each, and one in flight.
    world.until(6 * S + 5 * MS);
    world.pause();
    assert_eq!(world.health.next_timeout(), None);
    world.until(100 * S);
    assert!(world.health.poll(world.now).is_none());
    world.told.clear();
    world.health.resume(world.now);
    world.until(120 * S);
    assert_eq!(
        world.told,
        [
            "102000 readiness",
            "103000 liveness",
            "104000 readiness",
            "106000 readiness",
            "106000 liveness",
            "106010 => not ready: readiness probe failed 3 times: no",
            "108000 readiness",
            "109000 liveness",
            "109010 => dead: liveness probe failed 3 times: no",
        ]
    );
}

#[test]
fn an_answer_of_before_a_pause_says_nothing() {
    let probes = Probes {
        liveness: Some(Probe {
            failure_threshold: 1,
            ..every(1)
        }),
        ..Probes::default()
    };
    let mut health = Health::new(&workload(probes), BEGIN);
    let ask = health.poll(BEGIN).unwrap();
    health.pause();
    health.resume(BEGIN);
    let late = health.answered(&ask, &Outcome::Failed("frozen".into()), BEGIN, Crowd::default());
    assert_eq!(late, None);
    // One that is not ready is asked again at once, one that is alive after a period.
    assert_eq!(health.next_timeout(), Some(BEGIN.plus(S)));
}
