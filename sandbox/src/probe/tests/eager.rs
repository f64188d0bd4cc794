//! How soon and how often is asked where nobody said it, and the budget of all together.

use super::*;

#[test]
fn aggressive_readiness_is_eager_first_and_steady_then() {
    let probes = Probes {
        readiness: Some(Probe::aggressive(check(8080))),
        ..Probes::default()
    };
    let told = run(probes.clone(), 5 * S, |_, at| {
        at >= 200 && !(1_000..5_000).contains(&at)
    });
    let eager = [0, 1, 3, 7, 15, 31, 63, 113, 163, 213].map(|at| format!("{at} readiness"));
    assert_eq!(told[..10], eager, "gaps grow to Knative's 50 ms");
    assert_eq!(
        told[10..],
        [
            "213 => ready",
            "1213 readiness",
            "2213 readiness",
            "3213 readiness",
            "3213 => not ready: readiness probe failed 3 times: no",
            "4213 readiness",
        ]
    );
    let mut health = Health::new(&workload(probes), BEGIN);
    let ask = health.poll(BEGIN).unwrap();
    assert_eq!(ask.patience, Patience::WhenOpen(100 * MS));
    let ready = health.answered(&ask, &Outcome::Passed, BEGIN, Crowd::default());
    assert_eq!(ready, Some(Change::Ready));
    let later = BEGIN.plus(S);
    assert_eq!(health.next_timeout(), Some(later));
    let rounds = Patience::Rounds {
        each: 100 * MS,
        gap: 50 * MS,
        all: S,
    };
    assert_eq!(health.poll(later).unwrap().patience, rounds);
}

#[test]
fn aggressive_commands_are_asked_less_often() {
    let probes = Probes {
        readiness: Some(Probe {
            timeout: S,
            ..Probe::aggressive(every(1).check)
        }),
        ..Probes::default()
    };
    let told = run(probes, 25 * S, |_, at| at >= 3_000);
    let times: Vec<&str> = told.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let asked = [
        "0", "20", "60", "140", "300", "620", "1260", "2260", "3260", "3260", "13260", "23260",
    ];
    assert_eq!(times, asked, "{told:?}");
}

#[test]
fn a_long_period_does_not_hold_up_the_first_readiness() {
    let readiness = Probe {
        check: check(80),
        initial_delay: S,
        success_threshold: 2,
        ..every(10)
    };
    let probes = Probes {
        readiness: Some(readiness.clone()),
        ..Probes::default()
    };
    let told = run(probes.clone(), 35 * S, |_, at| at >= 2_000);
    let asked: Vec<u64> = told
        .iter()
        .filter(|line| line.ends_with("readiness"))
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    // As often as Knative's activator at the end; a success counts once per period.
    assert_eq!(
        asked,
        [
            1000, 1001, 1003, 1007, 1015, 1031, 1063, 1127, 1255, 1455, 1655, 1855, 2055, 12055, 22055, 32055
        ]
    );
    assert!(told.contains(&"12055 => ready".to_owned()), "{told:?}");
    // Knative's activator leaves those alone that have a startup probe; exec is kubelet's.
    let with_startup = Probes {
        startup: Some(every(1)),
        ..probes
    };
    assert_eq!(
        run(with_startup, 12 * S, |kind, _| kind == Kind::Startup),
        ["0 startup", "1000 readiness", "11000 readiness"]
    );
}

#[test]
fn asking_has_a_budget() {
    let aggressive = Probes {
        readiness: Some(Probe::aggressive(check(8080))),
        ..Probes::default()
    };
    let next_gap = |outcome: &Outcome, crowd| {
        let mut health = Health::new(&workload(aggressive.clone()), BEGIN);
        let first = health.poll(BEGIN).unwrap();
        health.answered(&first, &Outcome::Passed, BEGIN, crowd);
        if *outcome != Outcome::Passed {
            // Not ready yet.
            health = Health::new(&workload(aggressive.clone()), BEGIN);
            let first = health.poll(BEGIN).unwrap();
            health.answered(&first, outcome, BEGIN, crowd);
            return health.next_timeout().unwrap().since(BEGIN);
        }
        let now = health.next_timeout().unwrap();
        let second = health.poll(now).unwrap();
        health.answered(&second, outcome, now, crowd);
        let third = health.next_timeout().unwrap();
        health.poll(third);
        health.answered(&second, outcome, third, crowd);
        health.next_timeout().unwrap().since(third)
    };
    let failed = Outcome::Failed("no".into());
    for (starting, gap) in [(0, MS), (1, MS), (50, 50 * MS), (1000, S)] {
        let crowd = Crowd { starting, running: 0 };
        assert_eq!(next_gap(&failed, crowd), gap, "{starting} starting");
    }
    for (running, round) in [(1, S), (1000, S), (5000, S), (50_000, 10 * S)] {
        let crowd = Crowd { starting: 0, running };
        assert_eq!(next_gap(&Outcome::Passed, crowd), round, "{running} running");
    }
}
