//! Tables of instants, random lives against the invariants, and real servers on loopback.

mod servers;

use std::time::Duration;

use manifests::units::Timestamp;
use manifests::workload::{Check, Container, Image, Probe, Probes, Workload};
use proptest::prelude::*;

use super::health::{Ask, Change, Crowd, Health, Kind};
use super::worker::{Outcome, Patience};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Containers run since then.
const BEGIN: Timestamp = Timestamp::from_millis(1_000_000);

fn check(port: u16) -> Check {
    Check::Http {
        tls: false,
        port,
        path: "/".into(),
        headers: Vec::new(),
    }
}

/// Every `period` seconds, with Kubernetes' other defaults; exec, so that nothing is asked sooner.
fn every(period: u32) -> Probe {
    Probe {
        check: Check::Exec {
            command: vec!["true".into()],
        },
        period: Some(S * period),
        timeout: S,
        ..Probe::aggressive(check(80))
    }
}

fn workload(probes: Probes) -> Workload {
    let mut workload = Workload::host("/bin/true");
    workload.serving.probes = probes;
    workload
}

/// A sandbox whose probes answer by a plan, in virtual time.
struct World<F> {
    health: Health,
    now: Timestamp,
    /// From the probe, and milliseconds since the beginning, to the answer and how long it takes.
    plan: F,
    /// When each answer comes.
    flights: Vec<(Timestamp, Ask, bool)>,
    told: Vec<String>,
    quiet: bool,
}

impl<F: FnMut(Kind, u64) -> (bool, Duration)> World<F> {
    fn new(workload: &Workload, plan: F) -> Self {
        Self {
            health: Health::new(workload, BEGIN),
            now: BEGIN,
            plan,
            flights: Vec::new(),
            told: Vec::new(),
            quiet: false,
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.now.since(BEGIN).as_millis()).unwrap()
    }

    fn say(&mut self, what: &str) {
        self.told.push(format!("{} {what}", self.millis()));
    }

    fn until(&mut self, end: Duration) {
        let end = BEGIN.plus(end);
        loop {
            while let Some(ask) = self.health.poll(self.now) {
                if !self.quiet {
                    self.say(&ask.kind.to_string());
                }
                let same = |(_, other, _): &&(Timestamp, Ask, bool)| {
                    (other.container, other.kind) == (ask.container, ask.kind)
                };
                assert!(!self.flights.iter().any(|flight| same(&flight)), "H1: {ask:?} twice");
                let (passes, takes) = {
                    let at = self.millis();
                    (self.plan)(ask.kind, at)
                };
                self.flights.push((self.now.plus(takes), ask, passes));
            }
            let next = self
                .flights
                .iter()
                .map(|(at, ..)| *at)
                .chain(self.health.next_timeout())
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            assert!(next >= self.now, "time runs backwards");
            self.now = next;
            let landed = self.flights.iter().position(|(at, ..)| *at <= next);
            if let Some((_, ask, passes)) = landed.map(|index| self.flights.remove(index)) {
                let outcome = if passes {
                    Outcome::Passed
                } else {
                    Outcome::Failed("no".into())
                };
                match self.health.answered(&ask, &outcome, self.now, Crowd::default()) {
                    Some(Change::Ready) => self.say("=> ready"),
                    Some(Change::NotReady(why)) => self.say(&format!("=> not ready: {why}")),
                    Some(Change::Dead(verdict)) => self.say(&format!("=> dead: {}", verdict.why)),
                    None => {}
                }
            }
        }
    }

    fn pause(&mut self) {
        self.health.pause();
        self.flights.clear();
    }
}

/// Asks and changes until `end`, with answers that take no time.
fn run(probes: Probes, end: Duration, passes: impl Fn(Kind, u64) -> bool) -> Vec<String> {
    let mut world = World::new(&workload(probes), |kind, at| (passes(kind, at), Duration::ZERO));
    world.until(end);
    world.told
}

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

fn any_probe(kind: Kind) -> impl Strategy<Value = Probe> {
    let period = prop_oneof![(1u32..8).prop_map(Some), Just(None)];
    (period, 0u32..6, 1u32..4, 1u32..4, any::<bool>()).prop_map(move |(period, delay, failures, successes, exec)| {
        let period = if kind == Kind::Readiness {
            period
        } else {
            Some(period.unwrap_or(3))
        };
        Probe {
            check: if exec { every(1).check } else { check(80) },
            period: period.map(|period| S * period),
            initial_delay: S * delay,
            grace: None,
            failure_threshold: failures,
            success_threshold: if kind == Kind::Readiness { successes } else { 1 },
            timeout: S,
        }
    })
}

fn any_probes() -> impl Strategy<Value = Probes> {
    let maybe = |kind| proptest::option::of(any_probe(kind));
    (maybe(Kind::Startup), maybe(Kind::Readiness), maybe(Kind::Liveness)).prop_map(|(startup, readiness, liveness)| {
        Probes {
            startup,
            readiness,
            liveness,
        }
    })
}

proptest! {
    /// H1 is checked by the world; here H2, H3, delays, and that every change has its reason in the answers before it.
    #[test]
    fn random_lives_keep_the_rules(
        probes in any_probes(),
        answers in proptest::collection::vec((any::<bool>(), 0u64..9_000), 1..60),
        pauses in proptest::collection::vec((1u64..60, 1u64..30), 0..3),
    ) {
        let mut log: Vec<(Kind, u64, bool, u64)> = Vec::new();
        let mut turn = 0;
        let mut world = World::new(&workload(probes.clone()), |kind, at| {
            let (passes, takes) = answers[turn % answers.len()];
            turn += 1;
            log.push((kind, at, passes, at + takes));
            (passes, Duration::from_millis(takes))
        });
        let (mut at, mut rests) = (0, Vec::new());
        for (wait, length) in pauses {
            at += wait;
            world.until(S * u32::try_from(at).unwrap());
            world.pause();
            rests.push((at * 1000, (at + length) * 1000));
            at += length;
            world.until(S * u32::try_from(at).unwrap());
            world.health.resume(world.now);
        }
        world.until(S * 200);
        let (told, is_ready) = (world.told.clone(), world.health.is_ready());
        drop(world);
        let time = |line: &str| line.split(' ').next().unwrap().parse::<u64>().unwrap();
        let dead = told.iter().find(|line| line.contains("=> dead")).map(|line| time(line));
        // Of two answers in one instant the second may come after what the first has brought about.
        let brought = |kind: Kind, to: u64, wanted: usize, value: bool| -> bool {
            let mut landed: Vec<_> = log
                .iter()
                .filter(|(of, asked, _, at)| *of == kind && *at <= to && !rests.iter().any(|(a, b)| asked <= a && at >= a && at <= b || asked < a && at > a))
                .map(|(_, _, passes, at)| (*at, *passes))
                .collect();
            landed.sort_by_key(|(at, _)| *at);
            (0..landed.len()).filter(|last| landed[*last].0 == to && last + 1 >= wanted).any(|last| {
                landed[last + 1 - wanted..=last].iter().all(|(_, passes)| *passes == value)
            })
        };
        let started = match &probes.startup {
            None => Some(0),
            Some(_) => log
                .iter()
                .filter(|(kind, asked, passes, at)| *kind == Kind::Startup && *passes && !rests.iter().any(|(a, _)| asked <= a && at >= a))
                .map(|(.., at)| *at)
                .min(),
        };
        for (kind, asked, ..) in &log {
            let spec = match kind {
                Kind::Startup => &probes.startup,
                Kind::Readiness => &probes.readiness,
                Kind::Liveness => &probes.liveness,
            };
            let delay = u64::try_from(spec.as_ref().unwrap().initial_delay.as_millis()).unwrap();
            prop_assert!(*asked >= delay || rests.iter().any(|(_, end)| end <= asked), "{kind} before its delay, at {asked}");
            prop_assert!(*kind == Kind::Startup || started.is_some_and(|at| at <= *asked), "H2: {kind} at {asked}, started {started:?}");
            prop_assert!(dead.is_none_or(|dead| *asked <= dead), "{kind} at {asked} of the dead");
            prop_assert!(!rests.iter().any(|(from, to)| from < asked && asked < to), "{kind} at {asked} while paused");
        }
        let mut ready = probes.startup.is_none() && probes.readiness.is_none();
        for line in told.iter().filter(|line| line.contains("=>")) {
            let at = time(line);
            if line.contains("=> dead") {
                let (kind, spec) = if line.contains("startup") { (Kind::Startup, &probes.startup) } else { (Kind::Liveness, &probes.liveness) };
                let failures = spec.as_ref().unwrap().failure_threshold as usize;
                prop_assert!(brought(kind, at, failures, false), "{line}: {log:?}");
            } else {
                prop_assert!(line.contains("=> ready") != ready, "H3: {told:?}");
                ready = line.contains("=> ready");
                if let Some(spec) = &probes.readiness {
                    let wanted = if ready { spec.success_threshold } else { spec.failure_threshold } as usize;
                    prop_assert!(brought(Kind::Readiness, at, wanted, ready), "{line}: {log:?}");
                }
            }
        }
        prop_assert_eq!(ready, is_ready);
        // It never falls asleep: whatever is open was asked within the last period, its delay and a slow answer.
        if dead.is_none() && probes.startup.is_none() {
            for (kind, spec) in [(Kind::Readiness, &probes.readiness), (Kind::Liveness, &probes.liveness)] {
                if spec.is_some() {
                    let last = log.iter().filter(|(of, ..)| *of == kind).map(|(_, asked, ..)| *asked).max();
                    prop_assert!(last.is_some_and(|last| last >= 200_000 - 7_000 - 9_000), "{kind} asked last at {last:?}");
                }
            }
        }
    }
}
