//! Standing frozen instead of at zero: the instants, the way there and back, and what keeps it from being frozen.

use super::*;
use crate::explain::Cause;

fn frozen(name: &str, delay: Option<u32>) -> Revision {
    let mut revision = revision("default", name);
    let delay = delay.map(|millis| millis * MS);
    revision.idle = IdlePolicy::Frozen { delay };
    revision
}

fn world() -> Sim {
    let mut sim = sim();
    sim.fleet.cx.freezes = true;
    sim
}

/// The instant of the first line that was told and begins so.
fn when(told: &[String], what: &str) -> Option<f64> {
    let line = told
        .iter()
        .find(|line| line.split_once(' ').is_some_and(|(_, it)| it.starts_with(what)))?;
    line.split_once(' ')?.0.parse().ok()
}

/// (revision, when it leaves the endpoint set): where Knative would go to zero, or after the delay, counted from the
/// report that tells of the last request.
#[test]
fn a_table_of_instants() {
    let knative = |name: &str| revision("default", name);
    let mut retained = frozen("retained", None);
    retained.scaling.retention = Duration::from_secs(30);
    let mut wide = frozen("wide", None);
    wide.scaling.stable_window = Duration::from_secs(120);
    let mut kept = frozen("kept", Some(2000));
    kept.scaling.min_scale = Replicas(1);
    let mut never = frozen("never", Some(2000));
    never.scaling.scale_to_zero = false;
    let mut unreachable = frozen("unreachable", Some(2000));
    unreachable.reachability = Reachability::Unreachable;
    // The last request is at 100.0 s; reports come at whole seconds.
    let table = [
        (knative("knative"), Some(160.0..163.0), false),
        (frozen("as-knative", None), Some(160.0..163.0), true),
        (retained, Some(190.0..193.0), true),
        (wide, Some(220.0..223.0), true),
        (frozen("at-once", Some(0)), Some(100.0..101.2), true),
        (frozen("two-seconds", Some(2000)), Some(102.0..103.2), true),
        (frozen("a-minute", Some(59_000)), Some(159.0..160.2), true),
        // Its own instant, also when Knative's comes first.
        (frozen("later", Some(90_000)), Some(160.0..163.0), true),
        (kept, None, false),
        (never, None, false),
        (unreachable, Some(102.0..103.2), false),
    ];
    for (revision, leaves, freezes) in table {
        let mut sim = world();
        let name = revision.id.name().to_owned();
        let id = sim.deploy(revision, 10 * MS);
        sim.until(at(99.9));
        sim.request(0, &id, MS);
        sim.until(at(99.95));
        sim.told();
        sim.until(at(100.0));
        sim.request(0, &id, 10 * MS);
        sim.until(at(300.0));
        let told = sim.told();
        let left = when(&told, "0 endpoints");
        match &leaves {
            Some(leaves) => assert!(left.is_some_and(|at| leaves.contains(&at)), "{name}: {told:#?}"),
            None => assert_eq!(left, None, "{name}: {told:#?}"),
        }
        assert_eq!(when(&told, "freeze").is_some(), freezes, "{name}: {told:#?}");
        assert_eq!(sim.frozen(), usize::from(freezes), "{name}");
        let rung = if freezes {
            Rung::Frozen
        } else if leaves.is_some() {
            Rung::Zero
        } else {
            Rung::Full
        };
        assert_eq!(sim.statuses[&id].rung, rung, "{name}");
        let actual = u32::from(leaves.is_none());
        assert_eq!(sim.statuses[&id].actual, Replicas(actual), "{name}");
    }
}

#[test]
fn a_frozen_one_is_out_of_the_set_first_then_disconnected_then_frozen_and_thaws_for_a_request() {
    let mut sim = world();
    let id = sim.deploy(frozen("a", Some(1000)), 20 * MS);
    sim.until(at(1.5));
    sim.request(0, &id, 10 * MS);
    sim.told();
    sim.until(at(10.0));
    let told = sim.told();
    let (out, froze) = (
        when(&told, "0 endpoints, frozen").unwrap(),
        when(&told, "freeze").unwrap(),
    );
    assert!(
        (0.3..0.32).contains(&(froze - out)),
        "connections end after 300 ms: {told:#?}"
    );
    assert_eq!((sim.frozen(), sim.hosted(&id)), (1, 1));
    let status = &sim.statuses[&id];
    assert_eq!(
        (status.actual, status.desired, status.starting),
        (Replicas(0), Some(Replicas(0)), Replicas(0))
    );
    assert_eq!(status.active.reason.as_ref(), "NoTraffic");
    assert!(status.price.0 > 0.0 && status.price.0 < 0.1, "{}", status.price);

    // It costs no time while it stands there, after its windows have run empty.
    sim.until(at(100.0));
    assert_eq!(sim.fleet.active(), 0);
    sim.told();
    sim.request(0, &id, 10 * MS);
    sim.until(at(100.5));
    let sandbox = sim.endpoints(&id)[0].clone();
    assert_eq!(
        sim.told(),
        [format!("100.000 thaw {sandbox}"), "100.001 1 endpoints, full".into()],
        "in the very instant of the request, and no start"
    );
    assert_eq!(
        (sim.frozen(), sim.statuses[&id].actual, sim.served),
        (0, Replicas(1), 2)
    );
    let causes: Vec<Cause> = sim
        .explain
        .for_revision(&id, at(0.0))
        .into_iter()
        .map(|record| record.cause)
        .collect();
    assert!(
        causes.contains(&Cause::Frozen(Bytes(1 << 20))) && causes.contains(&Cause::Thawed(MS)),
        "{causes:?}"
    );
    // And again.
    sim.until(at(110.0));
    assert_eq!(sim.frozen(), 1);
}

#[test]
fn a_request_on_the_way_to_frozen_finds_the_same_sandbox() {
    // (when the request comes after the sandbox has left the set, in ms; whether it was frozen by then)
    for (after, thaws) in [(1, false), (150, false), (301, true), (303, true), (900, true)] {
        let mut sim = world();
        sim.freeze_takes = 50 * MS;
        let id = sim.deploy(frozen("a", Some(1000)), 20 * MS);
        sim.until(at(1.5));
        sim.request(0, &id, 10 * MS);
        let sandbox = sim.endpoints(&id)[0].clone();
        let out = run_to_zero(&mut sim, &id, 10.0);
        sim.until(at(out).plus(after * MS));
        sim.told();
        sim.request(0, &id, 10 * MS);
        sim.until(sim.now.plus(200 * MS));
        let told = sim.told();
        assert_eq!(sim.endpoints(&id), [sandbox], "after {after} ms: {told:#?}");
        assert_eq!(when(&told, "thaw").is_some(), thaws, "after {after} ms: {told:#?}");
        assert_eq!(when(&told, "start"), None, "after {after} ms");
        assert_eq!(sim.served, 2, "after {after} ms");
    }
}

#[test]
fn more_than_one_replica_leaves_one_frozen_and_a_burst_starts_the_others() {
    let mut sim = world();
    let mut revision = frozen("a", Some(3000));
    revision.container_concurrency = ContainerConcurrency(1);
    revision.scaling.metric = Metric::Concurrency {
        target: Concurrency(0.7),
        total: Concurrency(1.0),
    };
    let id = sim.deploy(revision, 20 * MS);
    sim.until(at(1.0));
    for _ in 0..3 {
        sim.request(0, &id, 2000 * MS);
    }
    sim.until(at(4.0));
    let oldest = sim.endpoints(&id)[0].clone();
    assert!(sim.endpoints(&id).len() >= 3, "{:#?}", sim.told());
    sim.until(at(30.0));
    assert_eq!((sim.frozen(), sim.hosted(&id)), (1, 1), "the oldest stays");
    for _ in 0..3 {
        sim.request(0, &id, 2000 * MS);
    }
    sim.until(at(30.5));
    assert!(sim.endpoints(&id).contains(&oldest) && sim.endpoints(&id).len() >= 3);
}

#[test]
fn what_cannot_be_frozen_goes_to_zero_as_knative_would() {
    for host in [false, true] {
        let mut sim = world();
        (sim.fleet.cx.freezes, sim.cannot_freeze) = (host, host);
        let id = sim.deploy(frozen("a", Some(1000)), 20 * MS);
        sim.until(at(1.5));
        sim.request(0, &id, 10 * MS);
        sim.until(at(58.0));
        assert_eq!(
            sim.endpoints(&id).len(),
            1,
            "back in the set after a freeze that failed"
        );
        sim.until(at(70.0));
        assert_eq!((sim.hosted(&id), sim.statuses[&id].rung), (0, Rung::Zero));
    }
}

#[test]
fn a_frozen_one_that_dies_or_loses_its_routes_leaves_nothing() {
    let mut sim = world();
    let id = sim.deploy(frozen("a", Some(1000)), 20 * MS);
    sim.until(at(10.0));
    assert_eq!(sim.frozen(), 1);
    let sandbox = sim.host.keys().next().unwrap().clone();
    sim.kill(&sandbox, ExitStatus::Signal(9));
    sim.until(at(20.0));
    assert_eq!(
        (sim.hosted(&id), sim.statuses[&id].rung),
        (0, Rung::Zero),
        "not restarted while nobody asks"
    );
    // A request starts one, without a back-off.
    sim.request(0, &id, 10 * MS);
    sim.until(at(20.1));
    assert_eq!(sim.served, 1);
    sim.until(at(30.0));
    assert_eq!(sim.frozen(), 1);
    sim.change(|revisions| {
        let mut gone = Revision::clone(&revisions[&id]);
        gone.reachability = Reachability::Unreachable;
        revisions.insert(id.clone(), Arc::new(gone));
    });
    sim.until(at(31.0));
    assert_eq!(sim.hosted(&id), 0);
}

#[test]
fn a_connection_that_does_not_end_is_never_frozen() {
    let mut sim = world();
    sim.close_takes = Duration::from_secs(3600);
    let mut revision = frozen("a", Some(1000));
    revision.timeouts.request = Duration::from_secs(20);
    let id = sim.deploy(revision, 20 * MS);
    sim.until(at(1.5));
    sim.request(0, &id, 10 * MS);
    sim.until(at(20.0));
    assert_eq!((sim.frozen(), sim.hosted(&id)), (0, 1), "it waits");
    sim.until(at(40.0));
    assert_eq!(sim.hosted(&id), 0, "and is stopped in the end");
}

#[test]
fn the_planner_freezes_where_a_start_is_too_slow_and_measures_thaws() {
    let mut sim = world();
    let id = sim.deploy(auto("a"), 2000 * MS);
    sim.until(at(3.0));
    sim.request(0, &id, 10 * MS);
    sim.until(at(80.0));
    assert_eq!((sim.frozen(), sim.statuses[&id].rung), (1, Rung::Frozen));
    for round in 1..4 {
        sim.request(0, &id, 10 * MS);
        sim.until(sim.now.plus(Duration::from_secs(80)));
        assert_eq!(sim.frozen(), 1);
        let records = sim.explain.for_revision(&id, at(0.0));
        let plan = records.iter().rev().find_map(|record| record.plan.as_ref()).unwrap();
        let frozen = plan
            .candidates
            .iter()
            .find(|candidate| candidate.rung == Rung::Frozen)
            .unwrap();
        assert_eq!(frozen.samples, round + 1, "its own measurements");
    }
    // As soon as a thaw takes too long, it stands elsewhere.
    sim.thaw_takes = 3000 * MS;
    sim.request(0, &id, 10 * MS);
    sim.until(sim.now.plus(Duration::from_secs(80)));
    assert_eq!((sim.frozen(), sim.hosted(&id)), (0, 1));
}

#[test]
fn swapped_memory_is_told_and_costs_nothing() {
    let mut sim = world();
    let id = sim.deploy(frozen("a", Some(1000)), 20 * MS);
    sim.until(at(10.0));
    let sandbox = sim.host.keys().next().unwrap().clone();
    let before = sim.statuses[&id].price.0;
    let reclaimed = Reclaimed {
        before: Bytes(1 << 20),
        after: Bytes(1 << 16),
    };
    let revision = id.clone();
    sim.feed(Event::Reclaimed {
        revision,
        id: sandbox,
        reclaimed,
    });
    assert!(sim.statuses[&id].price.0 < before / 10.0);
    let records = sim.explain.for_revision(&id, at(0.0));
    let told = records.last().unwrap().to_string();
    assert!(told.contains("holds 0.0 MiB instead of 1.0 MiB"), "{told}");
    assert_eq!(sim.frozen(), 1);
}
