//! Memory is short: idle sandboxes go, starts wait, requests are refused with the numbers.

use super::*;
use crate::explain::Cause;

const MIB: u64 = 1 << 20;

/// A budget of `mib`, of which every sandbox takes 60 MiB and is promised 64.
fn world(mib: u64) -> Sim {
    let mut sim = Sim::new(1, 4, Bytes(mib * MIB));
    sim.memory = Bytes(60 * MIB);
    sim.fleet.cx.freezes = true;
    sim
}

fn frozen(name: &str) -> Revision {
    let mut revision = revision("default", name);
    revision.idle = IdlePolicy::Frozen { delay: Some(1000 * MS) };
    revision.scaling.initial_scale = Replicas(0);
    revision
}

fn evicted(sim: &Sim, id: &RevisionId) -> bool {
    let records = sim.explain.for_revision(id, at(0.0));
    records.iter().any(|record| record.cause == Cause::Evicted)
}

#[test]
fn the_least_valuable_frozen_one_makes_room_for_a_start() {
    let mut sim = world(200);
    let [rare, often, new] = ["rare", "often", "new"].map(|name| sim.deploy(frozen(name), 100 * MS));
    sim.request(0, &rare, 10 * MS);
    for _ in 0..5 {
        sim.request(0, &often, 10 * MS);
        sim.until(sim.now.plus(Duration::from_secs(10)));
    }
    sim.until(sim.now.plus(Duration::from_secs(5)));
    assert_eq!(sim.frozen(), 2);
    let order = sim.fleet.cx.evictions.order(sim.now);
    let names: Vec<&str> = order.iter().map(|standing| standing.revision.name()).collect();
    assert_eq!(names, ["rare", "often"]);
    // The third fits beside two; the fourth does not.
    sim.request(0, &new, 10 * MS);
    sim.until(sim.now.plus(Duration::from_secs(10)));
    assert_eq!((sim.frozen(), sim.served), (3, 7));
    let more = sim.deploy(frozen("more"), 100 * MS);
    sim.request(0, &more, 10 * MS);
    sim.until(sim.now.plus(500 * MS));
    assert!(evicted(&sim, &rare) && !evicted(&sim, &often) && !evicted(&sim, &new));
    assert_eq!(
        (sim.served, sim.hosted(&rare), sim.statuses[&rare].rung),
        (8, 0, Rung::Zero)
    );
    // It is served from zero next time, and stays frozen again after it, with room or by another's.
    sim.request(0, &rare, 10 * MS);
    sim.until(sim.now.plus(Duration::from_secs(5)));
    assert_eq!((sim.served, sim.hosted(&rare), sim.frozen()), (9, 1, 3));
}

#[test]
fn nothing_is_evicted_in_vain_and_the_numbers_are_told() {
    let mut sim = world(200);
    let idle = sim.deploy(frozen("idle"), 100 * MS);
    sim.request(0, &idle, 10 * MS);
    sim.until(at(10.0));
    assert_eq!(sim.frozen(), 1);
    let mut large = revision("default", "large");
    large.scaling.initial_scale = Replicas(0);
    let workload = Arc::get_mut(&mut large.workload).unwrap();
    workload.serving.resources.memory_request = Some(Bytes(300 * MIB));
    let large = sim.deploy(large, 100 * MS);
    sim.request(0, &large, 10 * MS);
    sim.until(at(10.5));
    assert_eq!(sim.frozen(), 1, "it would not be enough");
    let set = &sim.sets[&large];
    let trouble = set.trouble.as_deref().unwrap();
    assert_eq!(
        trouble,
        "Unschedulable: another replica needs 300 MiB of memory, 140 MiB are left: sandboxes use 60 of 200 MiB"
    );
    assert!(set.refuses, "it will never fit");
    let status = &sim.statuses[&large];
    assert_eq!(status.resources.reason.as_ref(), "Unschedulable");
}

#[test]
fn a_start_that_may_fit_later_waits_and_is_refused_only_after_a_while() {
    let mut sim = world(100);
    let busy = sim.deploy(frozen("busy"), 100 * MS);
    sim.request(0, &busy, 30_000 * MS);
    sim.until(at(1.0));
    let other = sim.deploy(frozen("other"), 100 * MS);
    sim.request(0, &other, 10 * MS);
    sim.until(at(5.0));
    let set = &sim.sets[&other];
    assert!(set.trouble.is_some() && !set.refuses, "it waits");
    sim.until(at(12.5));
    assert!(sim.sets[&other].refuses, "long enough");
    // The one that was in its way ends, is frozen, and is evicted for it.
    sim.until(at(34.0));
    assert!(evicted(&sim, &busy));
    assert_eq!((sim.served, sim.sets[&other].refuses), (2, false));
}

#[test]
fn what_grows_after_its_start_is_relieved_by_idle_ones() {
    let mut sim = world(1000);
    let ids: Vec<RevisionId> = (0..8).map(|n| sim.deploy(frozen(&format!("s{n}")), 100 * MS)).collect();
    for id in &ids {
        sim.request(0, id, 10 * MS);
        sim.until(sim.now.plus(Duration::from_secs(3)));
    }
    sim.until(sim.now.plus(Duration::from_secs(3)));
    assert_eq!(sim.frozen(), 8);
    // 8 times 120 is over 95 % of 1000; without one of them it is below 90 %.
    sim.memory = Bytes(120 * MIB);
    let busy = sim.deploy(frozen("busy"), 100 * MS);
    sim.request(0, &busy, 10 * MS);
    sim.until(sim.now.plus(Duration::from_secs(30)));
    assert!(
        sim.hosted(&ids[0]) == 0 && evicted(&sim, &ids[0]),
        "the one that was used least lately"
    );
    let used = sim.host.len() * 120;
    assert!(used <= 950, "{used} MiB");
    assert!(sim.frozen() >= 6, "and no more than needed: {} are left", sim.frozen());
}

#[test]
fn a_promise_is_what_is_requested_or_was_measured_and_at_most_the_limit() {
    // (request, limit, measured peak, promise), MiB of a budget of 1000
    let table = [
        (None, None, None, 64),
        (None, Some(500), None, 500),
        (Some(100), None, None, 100),
        (Some(100), Some(500), None, 100),
        (None, Some(500), Some(20), 20),
        (Some(100), Some(500), Some(20), 100),
        (Some(100), Some(500), Some(300), 300),
        (None, Some(100), Some(300), 100),
        // A leak counts for half of the budget at most.
        (None, None, Some(990), 500),
    ];
    for (request, limit, peak, promise) in table {
        let mut sim = world(1000);
        sim.memory = Bytes(0);
        let mut revision = revision("default", "a");
        let resources = &mut Arc::get_mut(&mut revision.workload).unwrap().serving.resources;
        resources.memory_request = request.map(|mib| Bytes(mib * MIB));
        resources.memory_limit = limit.map(|mib| Bytes(mib * MIB));
        let id = sim.deploy(revision, 10 * MS);
        sim.until(at(1.0));
        if let Some(peak) = peak {
            sim.peak = Some(Bytes(peak * MIB));
            let sandbox = sim.endpoints(&id)[0].clone();
            sim.kill(&sandbox, ExitStatus::Code(0));
        }
        let entry = &sim.fleet.revisions[&id];
        let promised = entry.scaler.promise(&sim.fleet.cx).0 / MIB;
        assert_eq!(promised, promise, "{request:?} {limit:?} {peak:?}");
    }
}
