//! Claims that one sandbox may have at a time: stop before start, turns, and nobody left waiting. The host checks S7.

use manifests::ids::ObjectId;
use manifests::workload::{Volume, VolumeSource};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Revision `nth` of a service, with a claim that it shares with nobody at a time.
fn of(service: &str, nth: u64, claims: &[&str]) -> Revision {
    let mut revision = revision("default", &format!("{service}-{nth:05}"));
    revision.configuration = ObjectId::new("default", service);
    revision.created = at(f64::from(u32::try_from(nth).unwrap()));
    revision.scaling.max_scale = Some(Replicas(1));
    let workload = Arc::get_mut(&mut revision.workload).unwrap();
    for claim in claims {
        let source = VolumeSource::Claim {
            claim: ObjectId::new("default", *claim),
            read_only: false,
            shared: false,
        };
        let name = (*claim).into();
        workload.volumes.push(Volume { name, source });
    }
    revision
}

fn reach(sim: &mut Sim, id: &RevisionId, reachability: Reachability) {
    let id = id.clone();
    sim.change(move |revisions| {
        if let Some(revision) = revisions.get_mut(&id) {
            Arc::make_mut(revision).reachability = reachability;
        }
    });
}

/// What was started and stopped, without the rest.
fn acts(sim: &mut Sim) -> Vec<String> {
    let told = sim.told().into_iter();
    let act = |line: String| {
        let (_, what) = line.split_once(' ')?;
        let (verb, id) = what.split_once(' ')?;
        let of = id.split("-0000").next()?;
        let nth = id.strip_prefix(of)?.get(..6)?;
        matches!(verb, "start" | "stop" | "cancel").then(|| format!("{verb} {of}{nth}"))
    };
    told.filter_map(act).collect()
}

/// Requests of 30 ms, one every 20 ms, to whatever the routes say: the new revision 15 ms after it was ready first.
fn roll_out(sim: &mut Sim, old: &RevisionId, new: &RevisionId, length: Duration) -> u64 {
    let (begin, mut sent, mut routed) = (sim.now, 0, None);
    while sim.now < begin.plus(length) {
        let ready = sim.statuses.get(new).is_some_and(|status| status.initialized);
        if ready && routed.is_none() {
            routed = Some(sim.now.plus(15 * MS));
        }
        if routed == Some(sim.now) {
            reach(sim, old, Reachability::Unreachable);
            reach(sim, new, Reachability::Reachable);
        }
        if sent % 4 == 0 {
            let to = if routed.is_some_and(|at| at <= sim.now) {
                new
            } else {
                old
            };
            sim.request(0, to, 30 * MS);
        }
        sent += 1;
        sim.until(sim.now.plus(5 * MS));
    }
    sent / 4
}

#[test]
fn a_new_revision_stops_the_old_one_before_it_starts_and_no_request_is_lost() {
    for start in [5, 100, 3_000] {
        let mut sim = sim();
        let old = sim.deploy(of("app", 1, &["data"]), start * MS);
        sim.until(at(10.0));
        assert_eq!(sim.endpoints(&old).len(), 1);
        acts(&mut sim);
        let mut fresh = of("app", 2, &["data"]);
        fresh.reachability = Reachability::Unknown;
        let new = sim.deploy(fresh, start * MS);
        let sent = roll_out(&mut sim, &old, &new, Duration::from_secs(30));
        sim.until(sim.now.plus(Duration::from_secs(20)));
        assert_eq!(sim.served, sent, "start takes {start} ms");
        assert_eq!((sim.hosted(&old), sim.hosted(&new)), (0, 1));
        let acts = acts(&mut sim);
        assert_eq!(acts[..2], ["stop app-00001", "start app-00002"], "{acts:?}");
        // What waited for the old one is served by it, once; then the new one stays.
        assert!(acts.len() <= 6, "{acts:?}");
    }
}

#[test]
fn the_old_revision_comes_back_when_the_new_one_fails() {
    let mut sim = sim();
    let old = sim.deploy(of("app", 1, &["data"]), 50 * MS);
    sim.until(at(5.0));
    let mut broken = of("app", 2, &["data"]);
    broken.reachability = Reachability::Unknown;
    let refused = |_| (20 * MS, Err(StartError::Refused("no such program".to_owned())));
    let new = sim.deploy_with(broken, Box::new(refused));
    let sent = roll_out(&mut sim, &old, &new, Duration::from_secs(20));
    assert_eq!(sim.endpoints(&old).len(), 1);
    sim.until(sim.now.plus(100 * MS));
    assert_eq!(sim.served, sent);
    // It was tried once: a service under load is not interrupted by what has failed already.
    let acts = acts(&mut sim);
    assert_eq!(
        acts.iter().filter(|act| *act == "start app-00002").count(),
        1,
        "{acts:?}"
    );
    assert_eq!(
        sim.statuses[&new].container.reason.as_ref(),
        "CreateContainerConfigError"
    );
    // Idle, it makes room for another try, and is back for the next request while that one hangs.
    let mut hangs = of("app", 3, &["data"]);
    hangs.reachability = Reachability::Unknown;
    let plan = |nth| match nth {
        0 => (20 * MS, Err(StartError::Exhausted("later".to_owned()))),
        _ => (Duration::from_secs(500), Ok(())),
    };
    sim.remove(&new);
    sim.deploy_with(hangs, Box::new(plan));
    sim.until(sim.now.plus(Duration::from_secs(5)));
    assert_eq!((sim.hosted(&old), sim.starting()), (0, 1));
    sim.request(0, &old, 10 * MS);
    sim.until(sim.now.plus(100 * MS));
    assert_eq!((sim.served, sim.endpoints(&old).len()), (sent + 1, 1));
}

#[test]
fn the_old_revision_comes_back_when_the_new_one_does_not_fit_into_memory() {
    let mut sim = sim();
    let old = sim.deploy(of("app", 1, &["data"]), 50 * MS);
    sim.until(at(5.0));
    let mut large = of("app", 2, &["data"]);
    large.reachability = Reachability::Unknown;
    Arc::get_mut(&mut large.workload)
        .unwrap()
        .serving
        .resources
        .memory_request = Some(Bytes(4 * GIB.0));
    let new = sim.deploy(large, 50 * MS);
    let sent = roll_out(&mut sim, &old, &new, Duration::from_secs(10));
    sim.until(sim.now.plus(100 * MS));
    assert_eq!((sim.served, sim.endpoints(&old).len()), (sent, 1));
    assert_eq!(sim.statuses[&new].resources.reason.as_ref(), "Unschedulable");
}

#[test]
fn revisions_that_both_serve_take_turns() {
    let mut sim = sim();
    let ids = [1, 2].map(|nth| {
        sim.until(at(f64::from(nth)));
        sim.deploy(of("app", u64::try_from(nth).unwrap(), &["data"]), 100 * MS)
    });
    sim.until(at(4.0));
    acts(&mut sim);
    let mut sent = 0;
    while seconds(&sim) < 24.0 {
        for id in &ids {
            sim.request(0, id, 10 * MS);
            sent += 1;
        }
        sim.until(sim.now.plus(20 * MS));
    }
    let turns = acts(&mut sim).iter().filter(|act| act.starts_with("start")).count();
    assert!((10..=24).contains(&turns), "{turns}");
    sim.until(at(30.0));
    assert_eq!(sim.served, sent);
}

#[test]
fn one_that_is_woken_while_it_ends_starts_when_it_has_ended() {
    let mut sim = sim();
    sim.stop_takes = Duration::from_secs(2);
    let id = sim.deploy(of("app", 1, &["data"]), 50 * MS);
    sim.until(at(5.0));
    let zero = run_to_zero(&mut sim, &id, 200.0);
    assert!(zero < 200.0);
    sim.until(sim.now.plus(100 * MS));
    assert_eq!(sim.hosted(&id), 1, "it is still ending");
    sim.request(0, &id, 10 * MS);
    sim.until(sim.now.plus(Duration::from_secs(1)));
    assert_eq!((sim.served, sim.hosted(&id)), (0, 1));
    sim.until(sim.now.plus(Duration::from_secs(2)));
    assert_eq!(sim.served, 1);
}

#[test]
fn a_frozen_one_gives_way_and_says_why_others_wait() {
    let mut sim = sim();
    sim.fleet.cx.freezes = true;
    let mut sleeper = of("sleeper", 1, &["data"]);
    sleeper.idle = IdlePolicy::Frozen { delay: Some(1000 * MS) };
    let sleeper = sim.deploy(sleeper, 50 * MS);
    sim.request(0, &sleeper, 10 * MS);
    sim.until(at(10.0));
    assert_eq!(sim.frozen(), 1);
    sim.stop_takes = Duration::from_secs(3);
    let other = sim.deploy(of("other", 2, &["data"]), 50 * MS);
    sim.until(at(11.0));
    assert_eq!(
        sim.sets[&other].trouble.as_deref(),
        Some(
            "Pending: waits for PersistentVolumeClaim default/data, which one sandbox may have: revision \
             default/sleeper-00001 has it"
        )
    );
    sim.until(at(15.0));
    assert_eq!((sim.hosted(&sleeper), sim.endpoints(&other).len()), (0, 1));
}

#[test]
fn a_removed_revision_is_gone_before_the_next_one_starts() {
    let mut sim = sim();
    let old = sim.deploy(of("app", 1, &["data"]), 50 * MS);
    sim.until(at(2.0));
    sim.request(0, &old, Duration::from_secs(3));
    sim.until(at(2.1));
    sim.remove(&old);
    let new = sim.deploy(of("other", 1, &["data"]), 50 * MS);
    sim.until(at(4.0));
    assert_eq!((sim.hosted(&old), sim.hosted(&new)), (1, 0), "its request is not over");
    sim.until(at(8.0));
    assert_eq!((sim.hosted(&old), sim.hosted(&new), sim.served), (0, 1, 1));
}

#[test]
fn random_revisions_share_claims_and_every_request_is_served() {
    for seed in 0..64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sim = Sim::new(2, 2, GIB);
        sim.stop_takes = rng.random_range(1..400) * MS;
        let claims = [&["a"][..], &["b"], &["a", "b"], &["b", "c"]];
        let (mut ids, mut sent) = (Vec::new(), 0);
        for step in 0..400 {
            if step % 80 == 0 {
                let mine = claims[rng.random_range(0..claims.len())];
                let mut revision = of(["x", "y"][rng.random_range(0..2)], step + 1, mine);
                revision.scaling.initial_scale = Replicas(rng.random_range(0..2));
                let (start, fails) = (rng.random_range(1..500) * MS, rng.random_range(0..3));
                let plan = move |nth| {
                    let failed = StartError::Exhausted("not yet".to_owned());
                    (start, if nth < fails { Err(failed) } else { Ok(()) })
                };
                ids.push(sim.deploy_with(revision, Box::new(plan)));
            }
            if rng.random_bool(0.5) {
                let to = &ids[rng.random_range(0..ids.len())];
                sim.request(rng.random_range(0..2), to, rng.random_range(1..50) * MS);
                sent += 1;
            }
            if rng.random_bool(0.02) {
                let (id, unreachable) = (ids[rng.random_range(0..ids.len())].clone(), rng.random_bool(0.5));
                let now = if unreachable {
                    Reachability::Unreachable
                } else {
                    Reachability::Reachable
                };
                reach(&mut sim, &id, now);
            }
            sim.until(sim.now.plus(rng.random_range(0..100) * MS));
        }
        sim.until(sim.now.plus(Duration::from_secs(120)));
        assert_eq!(sim.served, sent, "seed {seed}");
    }
}
