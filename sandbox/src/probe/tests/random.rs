//! Random lives against the invariants.

use super::*;

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
        // What is asked, and what is answered, in the instant of a pause comes before it.
        let thrown_away = |asked: u64, at: u64| rests.iter().any(|(pause, _)| asked <= *pause && at > *pause);
        // Of two answers in one instant the second may come after what the first has brought about.
        let brought = |kind: Kind, to: u64, wanted: usize, value: bool| -> bool {
            let mut landed: Vec<_> = log
                .iter()
                .filter(|(of, asked, _, at)| *of == kind && *at <= to && !thrown_away(*asked, *at))
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
                .filter(|(kind, asked, passes, at)| *kind == Kind::Startup && *passes && !thrown_away(*asked, *at))
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
        // It never falls asleep: whatever is open was asked within the longest period, which is that of commands, and a slow answer.
        if dead.is_none() && probes.startup.is_none() {
            for (kind, spec) in [(Kind::Readiness, &probes.readiness), (Kind::Liveness, &probes.liveness)] {
                if spec.is_some() {
                    let last = log.iter().filter(|(of, ..)| *of == kind).map(|(_, asked, ..)| *asked).max();
                    prop_assert!(last.is_some_and(|last| last >= 200_000 - 10_000 - 9_000), "{kind} asked last at {last:?}");
                }
            }
        }
    }
}
