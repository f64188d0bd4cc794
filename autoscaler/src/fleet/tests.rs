//! The whole loop in virtual time: idle to zero, bursts, crashes, drains, the ladder.

mod claims;
mod frozen;
mod ladder;
mod memory;
mod mix;
mod probes;
mod seeds;
mod sim;

use std::collections::BTreeMap;

use manifests::exchange::{ConditionStatus, Rung};
use manifests::revision::{ColdStartSla, IdlePolicy, Metric, Reachability};
use manifests::units::{Bytes, Concurrency, ContainerConcurrency, Millicores, Replicas};

use super::event::changes;
use super::*;
use crate::testing::revision;
use sandbox::driver::{DriverError, Reclaimed, StartError, Started};
use sim::{Sim, at};

const MS: Duration = Duration::from_millis(1);
const GIB: Bytes = Bytes(1 << 30);

fn sim() -> Sim {
    Sim::new(1, 2, GIB)
}

/// Seconds from the beginning.
fn seconds(sim: &Sim) -> f64 {
    sim.now.since(at(0.0)).as_secs_f64()
}

/// Lets time pass until no sandbox is in the endpoint set.
fn run_to_zero(sim: &mut Sim, id: &RevisionId, limit: f64) -> f64 {
    while !sim.endpoints(id).is_empty() && seconds(sim) < limit {
        sim.until(sim.now.plus(10 * MS));
    }
    seconds(sim)
}

fn auto(name: &str) -> Revision {
    let mut revision = revision("default", name);
    revision.idle = IdlePolicy::Auto;
    revision.planning.sla = ColdStartSla {
        quantile: 0.99,
        limit: 500 * MS,
    };
    revision
}

#[test]
fn a_new_revision_starts_its_initial_scale_at_once() {
    let mut sim = sim();
    let mut three = revision("default", "three-00001");
    three.scaling.initial_scale = Replicas(3);
    let id = sim.deploy(three, 100 * MS);
    assert_eq!((sim.starting(), sim.statuses[&id].desired), (3, None));
    assert_eq!(sim.statuses[&id].active.reason.as_ref(), "Queued");
    sim.until(at(0.2));
    let status = &sim.statuses[&id];
    assert_eq!(
        (status.actual, status.starting, status.initialized),
        (Replicas(3), Replicas(0), true)
    );
    for condition in [&status.active, &status.resources, &status.container] {
        assert_eq!(condition.status, ConditionStatus::True);
    }
    // Without traffic it falls to one after the first data, and to zero a stable window after it became active.
    sim.until(at(10.0));
    assert_eq!(sim.endpoints(&id).len(), 1);
    sim.until(at(60.0));
    assert_eq!(sim.endpoints(&id).len(), 1);
    let zero = run_to_zero(&mut sim, &id, 100.0);
    assert!((60.0..60.2).contains(&zero), "{zero}");
}

#[test]
fn idle_with_defaults_reaches_zero_at_knatives_instants() {
    // (target burst, replicas kept busy) to seconds after the last request: in Proxy mode all along, zero comes with the
    // stable window; else the grace follows.
    for (burst, extra) in [(Some(211.0), 0.0), (Some(0.0), 30.0), (None, 0.0)] {
        let mut sim = sim();
        let mut hello = revision("default", "hello-00001");
        hello.scaling.target_burst_capacity = burst;
        let id = sim.deploy(hello, 5 * MS);
        sim.until(at(100.0));
        assert_eq!(sim.hosted(&id), 0, "idle since it was deployed");
        sim.request(0, &id, 50 * MS);
        let woken = seconds(&sim);
        sim.until(sim.now.plus(20 * MS));
        assert_eq!(sim.endpoints(&id).len(), 1, "woken");
        sim.until(sim.now.plus(55_000 * MS));
        let zero = run_to_zero(&mut sim, &id, 300.0) - woken;
        // The second in which the request counted leaves the window 60 s later; ticks come every 2 s.
        assert!((60.0 + extra..=62.1 + extra).contains(&zero), "burst {burst:?}: {zero}");
        assert_eq!(sim.statuses[&id].active.reason.as_ref(), "NoTraffic");
        sim.until(sim.now.plus(1000 * MS));
        assert_eq!((sim.hosted(&id), sim.statuses[&id].rung), (0, Rung::Zero));
    }
}

#[test]
fn what_was_learned_is_believed_of_the_same_program_alone() {
    let mut sim = sim();
    let id = sim.deploy(revision("default", "hello-00001"), 400 * MS);
    sim.until(at(1.0));
    let learned = sim.fleet.take_learned(usize::MAX);
    assert_eq!((learned.len(), learned[0].1.starts.median()), (1, Some(400 * MS)));
    assert!(sim.fleet.take_learned(usize::MAX).is_empty(), "nothing new");
    let again = |revision: Revision| {
        let mut sim = self::sim();
        sim.fleet = sim.fleet.with_learned(learned.iter().cloned().collect());
        sim.deploy(revision, 5 * MS);
        let learned = sim.fleet.take_learned(usize::MAX);
        learned.first().and_then(|(_, learned)| learned.starts.median())
    };
    assert_eq!(again(revision("default", "hello-00001")), Some(400 * MS));
    let mut other = revision("default", "hello-00001");
    Arc::make_mut(&mut other.workload).serving.image = manifests::workload::Image::Host("/bin/false".into());
    assert_eq!(again(other), None);
    assert_eq!(learned[0].0, id);
}

#[test]
fn an_idle_revision_costs_no_time() {
    let mut sim = sim();
    let id = sim.deploy(revision("default", "hello-00001"), 5 * MS);
    sim.until(at(200.0));
    assert_eq!(
        (sim.hosted(&id), sim.fleet.active(), sim.fleet.next_timeout()),
        (0, 0, None)
    );
    sim.request(0, &id, 5 * MS);
    sim.until(sim.now.plus(200_000 * MS));
    assert_eq!((sim.hosted(&id), sim.fleet.active(), sim.served), (0, 0, 1));
}

#[test]
fn a_burst_at_zero_starts_what_the_queue_needs() {
    let mut sim = sim();
    let mut one = revision("default", "one-00001");
    one.container_concurrency = ContainerConcurrency(1);
    one.scaling.metric = Metric::Concurrency {
        target: Concurrency(0.7),
        total: Concurrency(1.0),
    };
    one.scaling.max_scale = Some(Replicas(8));
    let id = sim.deploy(one, 5 * MS);
    sim.until(at(200.0));
    for _ in 0..200 {
        sim.request(0, &id, 100 * MS);
    }
    assert_eq!(sim.starting(), 4, "two per core");
    sim.until(sim.now.plus(12 * MS));
    assert_eq!(sim.endpoints(&id).len(), 8, "no tick in between");
    sim.until(sim.now.plus(30_000 * MS));
    assert_eq!(
        (sim.served, sim.endpoints(&id).len()),
        (200, 8),
        "held as panic mode would"
    );
    sim.until(sim.now.plus(100_000 * MS));
    assert_eq!(sim.hosted(&id), 0);
}

#[test]
fn short_requests_do_not_start_a_sandbox_each() {
    let mut sim = sim();
    let id = sim.deploy(revision("default", "hello-00001"), 50 * MS);
    sim.until(at(200.0));
    for _ in 0..10_000 {
        sim.request(0, &id, 2 * MS);
    }
    assert_eq!(sim.starting(), 4);
    sim.until(sim.now.plus(1000 * MS));
    assert_eq!(
        (sim.served, sim.endpoints(&id).len()),
        (10_000, 4),
        "the first that was ready took them all"
    );
}

#[test]
fn what_does_not_fit_is_unschedulable() {
    let mut sim = Sim::new(1, 2, Bytes(100 << 20));
    let mut big = revision("default", "big-00001");
    Arc::get_mut(&mut big.workload).unwrap().serving.resources.memory_limit = Some(Bytes(200 << 20));
    let id = sim.deploy(big, 5 * MS);
    sim.until(at(1.0));
    let status = &sim.statuses[&id];
    assert_eq!(
        (status.resources.status, status.resources.reason.as_ref()),
        (ConditionStatus::False, "Unschedulable")
    );
    let text = "another replica needs 200 MiB of memory, 100 MiB are left: sandboxes use 0 of 100 MiB";
    assert_eq!(status.resources.message.as_ref(), text);
    assert_eq!(
        sim.sets[&id].trouble.as_deref(),
        Some(&*format!("Unschedulable: {text}"))
    );
}

#[test]
fn a_killed_sandbox_leaves_the_set_at_once_and_is_replaced_at_once() {
    let mut sim = sim();
    let mut four = revision("default", "four-00001");
    four.scaling.min_scale = Replicas(4);
    let id = sim.deploy(four, 5 * MS);
    sim.until(at(1.0));
    for round in 0..10 {
        for sandbox in sim.endpoints(&id) {
            sim.kill(&sandbox, ExitStatus::Signal(9));
        }
        assert!(sim.endpoints(&id).is_empty());
        sim.until(sim.now.plus(20 * MS));
        assert_eq!(sim.endpoints(&id).len(), 4, "round {round}");
    }
}

/// Kills its only sandbox; whole seconds until there is another.
fn gone_when_killed(sim: &mut Sim, id: &RevisionId) -> u64 {
    let only = sim.endpoints(id)[0].clone();
    let before = sim.now;
    sim.kill(&only, ExitStatus::Code(1));
    while sim.endpoints(id).is_empty() {
        sim.until(sim.now.plus(5 * MS));
    }
    sim.now.since(before).as_secs()
}

#[test]
fn one_that_had_served_is_replaced_at_once_and_a_loop_of_those_that_had_not_backs_off() {
    let mut sim = sim();
    let mut one = revision("default", "one-00001");
    one.scaling.min_scale = Replicas(1);
    let id = sim.deploy(one, 5 * MS);
    sim.until(at(1.0));
    let mut gone_for = |ready: Duration, rounds: usize| -> Vec<u64> {
        let round = |_| {
            sim.until(sim.now.plus(ready));
            gone_when_killed(&mut sim, &id)
        };
        (0..rounds).map(round).collect()
    };
    // A request of death every three seconds, for a minute.
    assert_eq!(gone_for(3000 * MS, 20), [0; 20]);
    assert_eq!(gone_for(100 * MS, 6), [0, 0, 0, 10, 20, 40]);
    // Those that serve make up for those that did not, one for one.
    assert_eq!(gone_for(3000 * MS, 4), [0; 4]);
    assert_eq!(gone_for(100 * MS, 2), [0, 10]);
}

/// A request of death comes again and again, and each time the next to answer dies of it: those who only wait are not held
/// back for it, however soon it comes.
#[test]
fn one_that_had_answered_is_replaced_at_once_however_soon_it_ended() {
    let mut sim = Sim::new(2, 2, GIB);
    let mut one = revision("default", "one-00001");
    one.scaling.min_scale = Replicas(1);
    let id = sim.deploy(one, 5 * MS);
    sim.until(at(1.0));
    let mut gone_for = |length: Duration, rounds: usize| -> Vec<u64> {
        let round = |round| {
            sim.request(round % 2, &id, length);
            sim.until(sim.now.plus(10 * MS));
            gone_when_killed(&mut sim, &id)
        };
        (0..rounds).map(round).collect()
    };
    assert_eq!(gone_for(3 * MS, 50), [0; 50]);
    // Of those that end before they have answered, three are replaced at once, as ever.
    assert_eq!(gone_for(1000 * MS, 5), [0, 0, 0, 10, 20]);
    // One that answers takes a failure back.
    assert_eq!(gone_for(3 * MS, 3), [0; 3]);
    assert_eq!(gone_for(1000 * MS, 2), [0, 10]);
    let records = sim.explain.for_revision(&id, Timestamp::EPOCH);
    let said = |record: &&crate::explain::Record| record.cause == crate::explain::Cause::HadServed;
    assert!(records.iter().any(|record| said(&record)), "a gateway had to say so");
}

#[test]
fn a_crash_loop_backs_off() {
    let mut sim = sim();
    let exit = || Exit {
        status: ExitStatus::Code(3),
        oom_killed: false,
        requested: false,
        unhealthy: None,
        last_output: "no database".into(),
        peak_memory: None,
    };
    let id = sim.deploy_with(
        revision("default", "bad-00001"),
        Box::new(move |_| (5 * MS, Err(StartError::Exited(exit())))),
    );
    sim.until(at(120.0));
    let starts: Vec<String> = sim.told().into_iter().filter(|line| line.contains("start")).collect();
    let times: Vec<&str> = starts.iter().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(
        times,
        ["0.000", "0.005", "0.010", "0.015", "10.020", "30.025", "70.030"]
    );
    let status = &sim.statuses[&id];
    assert_eq!(status.container.reason.as_ref(), "ExitCode3");
    assert_eq!(status.container.message.as_ref(), "Container failed with: no database");
    let trouble = sim.sets[&id].trouble.clone().unwrap();
    assert!(
        trouble.ends_with("7 starts failed, the next is 80s after the last"),
        "{trouble}"
    );
    // Never ready within the progress deadline and 30 s: given up.
    sim.until(at(700.0));
    let status = &sim.statuses[&id];
    assert_eq!(
        (status.active.reason.as_ref(), sim.statuses[&id].starting),
        ("NoTraffic", Replicas(0))
    );
    assert_eq!(status.container.reason.as_ref(), "ExitCode3");
    sim.told();
    sim.until(at(2000.0));
    assert!(sim.told().is_empty());
}

#[test]
fn a_start_that_hangs_frees_its_slot_for_others() {
    let mut sim = Sim::new(1, 1, GIB);
    for n in 0..2 {
        sim.deploy(revision("default", &format!("hangs-{n}")), Duration::from_secs(1000));
    }
    let id = sim.deploy(revision("default", "well-00001"), 5 * MS);
    sim.until(at(4.9));
    assert_eq!(sim.hosted(&id), 0, "two starts per core are in flight");
    sim.until(at(5.1));
    assert_eq!(sim.endpoints(&id).len(), 1);
}

#[test]
fn a_drain_waits_for_every_gateway_and_every_request() {
    let mut sim = Sim::new(2, 2, GIB);
    let mut two = revision("default", "two-00001");
    two.scaling.min_scale = Replicas(2);
    two.container_concurrency = ContainerConcurrency(1);
    let id = sim.deploy(two.clone(), 5 * MS);
    sim.until(at(3.0));
    sim.request(0, &id, Duration::from_secs(20));
    sim.request(0, &id, Duration::from_secs(10));
    sim.ack_takes = 400 * MS;
    sim.told();
    sim.remove(&id);
    sim.until(at(3.2));
    assert_eq!(sim.told(), ["3.000 0 endpoints, zero"], "nobody has acknowledged yet");
    sim.until(at(12.9));
    assert_eq!(
        (sim.told().len(), sim.hosted(&id)),
        (0, 2),
        "acknowledged, but both have a request"
    );
    sim.until(at(13.1));
    assert_eq!(sim.hosted(&id), 1, "the shorter request has ended");
    assert_eq!(sim.fleet.len(), 1);
    sim.until(at(23.1));
    assert_eq!((sim.host.len(), sim.fleet.len(), sim.served), (0, 0, 2));
}

#[test]
fn a_drain_ends_with_the_request_timeout() {
    let mut sim = sim();
    let mut short = revision("default", "short-00001");
    short.timeouts.request = Duration::from_secs(10);
    let id = sim.deploy(short, 5 * MS);
    sim.until(at(3.0));
    sim.request(0, &id, Duration::from_secs(14));
    sim.remove(&id);
    sim.until(at(16.9));
    assert_eq!(sim.hosted(&id), 1);
    // The request of this test ends before the deadline of 10 s and a margin of 5 s, else the world would object.
    sim.until(at(17.1));
    assert_eq!(sim.hosted(&id), 0);
}

#[test]
fn a_fast_start_goes_to_zero_and_a_slow_one_stays_throttled() {
    let mut sim = sim();
    let fast = sim.deploy(auto("fast-00001"), 5 * MS);
    let slow = sim.deploy(auto("slow-00001"), 2000 * MS);
    sim.until(at(10.0));
    assert_eq!((sim.hosted(&fast), sim.statuses[&fast].rung), (0, Rung::Zero));
    let status = &sim.statuses[&slow];
    assert_eq!(
        (status.actual, status.rung, status.price.0),
        (Replicas(1), Rung::Throttled, 0.1)
    );
    let sandbox = sim.endpoints(&slow)[0].clone();
    assert_eq!(sim.host[&sandbox].limits.cpu, Some(Millicores(50)));
    sim.until(at(200.0));
    let next = sim.fleet.next_timeout();
    assert!(next.is_none_or(|next| next > at(800.0)), "standing idle costs no time");

    for (id, words) in [
        (
            &fast,
            [
                "zero at 0.0000/h, by the plan for p99<500ms: zero; ",
                "% of next requests late",
            ],
        ),
        (
            &slow,
            [
                "throttled at 0.1000/h, by the plan for p99<500ms: throttled",
                "% of next requests late",
            ],
        ),
    ] {
        let records = sim.explain.for_revision(id, Timestamp::EPOCH);
        let reason = &records.last().unwrap().reason;
        assert!(reason.starts_with(words[0]) && reason.ends_with(words[1]), "{reason}");
    }

    // A request upgrades it in place, before anything else, and it goes down again when it is idle.
    sim.told();
    sim.request(0, &slow, 50 * MS);
    assert_eq!(sim.host[&sandbox].limits.cpu, None);
    sim.until(at(200.9));
    assert_eq!(sim.statuses[&slow].rung, Rung::Full);
    sim.until(at(400.0));
    assert_eq!(sim.host[&sandbox].limits.cpu, Some(Millicores(50)));
    assert_eq!(
        sim.told(),
        [
            format!("200.000 limit {sandbox} to None"),
            "200.000 1 endpoints, full".into(),
            "201.000 1 endpoints, throttled".into(),
            // The limit follows when every gateway has the rung.
            format!("202.500 limit {sandbox} to Some(50)"),
        ]
    );
}

#[test]
fn a_slow_start_without_an_sla_goes_to_zero_as_in_knative() {
    let mut sim = sim();
    let id = sim.deploy(revision("default", "slow-00001"), 2000 * MS);
    sim.until(at(100.0));
    assert_eq!((sim.hosted(&id), sim.statuses[&id].rung), (0, Rung::Zero));
}

#[test]
fn an_unreachable_revision_keeps_nothing() {
    let mut sim = sim();
    let mut slow = auto("slow-00001");
    slow.scaling.min_scale = Replicas(2);
    let id = sim.deploy(slow.clone(), 2000 * MS);
    sim.until(at(100.0));
    assert_eq!(sim.endpoints(&id).len(), 2);
    slow.reachability = Reachability::Unreachable;
    sim.change(|revisions| drop(revisions.insert(slow.id.clone(), Arc::new(slow))));
    sim.until(at(103.0));
    assert_eq!(
        sim.hosted(&id),
        0,
        "no minimum, and active for longer than the stable window"
    );
}

#[test]
fn an_ejected_sandbox_is_replaced() {
    let mut sim = sim();
    let mut one = revision("default", "one-00001");
    one.scaling.min_scale = Replicas(1);
    let id = sim.deploy(one, 5 * MS);
    sim.until(at(3.0));
    let bad = sim.endpoints(&id)[0].clone();
    sim.request(0, &id, 10 * MS);
    sim.eject(0, &id, &bad);
    sim.until(at(4.5));
    let now = sim.endpoints(&id);
    assert!(now.len() == 1 && now[0] != bad);
    assert!(!sim.host.contains_key(&bad));
}

#[test]
fn a_revision_made_anew_shares_nothing_with_the_old_one() {
    let mut sim = sim();
    let mut hello = revision("default", "hello-00001");
    let id = sim.deploy(hello.clone(), 5 * MS);
    sim.until(at(3.0));
    let old = sim.endpoints(&id);
    sim.request(0, &id, 5000 * MS);
    sim.remove(&id);
    hello.created = at(3.0);
    sim.deploy(hello, 5 * MS);
    sim.until(at(3.1));
    let new = sim.endpoints(&id);
    assert!(new.len() == 1 && new != old);
    assert_eq!(sim.hosted(&id), 2, "the old one drains");
    sim.until(at(9.0));
    assert_eq!(sim.hosted(&id), 1);
}

#[test]
fn missed_exits_are_found() {
    let mut sim = sim();
    let id = sim.deploy(revision("default", "hello-00001"), 5 * MS);
    sim.until(at(3.0));
    let lost = sim.endpoints(&id)[0].clone();
    sim.host.remove(&lost);
    sim.feed(Event::Running {
        running: Vec::new(),
        unready: Vec::new(),
    });
    sim.until(at(3.1));
    assert!(!sim.endpoints(&id).contains(&lost) && sim.endpoints(&id).len() == 1);
}

#[test]
fn a_hundred_thousand_idle_revisions_stand_in_no_timer() {
    let mut sim = sim();
    sim.change(|revisions| {
        for n in 0..100_000 {
            let mut idle = revision("default", &format!("r{n}"));
            idle.scaling.initial_scale = Replicas(0);
            revisions.insert(idle.id.clone(), Arc::new(idle));
        }
    });
    sim.until(at(5.0));
    assert_eq!((sim.fleet.len(), sim.fleet.active()), (100_000, 0));
}

#[test]
fn a_lower_max_scale_is_kept_at_once() {
    let mut sim = sim();
    let mut four = revision("default", "four-00001");
    four.scaling.min_scale = Replicas(4);
    let id = sim.deploy(four.clone(), 5 * MS);
    sim.until(at(3.0));
    (four.scaling.min_scale, four.scaling.max_scale) = (Replicas(2), Some(Replicas(2)));
    sim.change(|revisions| drop(revisions.insert(four.id.clone(), Arc::new(four))));
    assert_eq!(sim.endpoints(&id).len(), 2);
    sim.until(at(4.0));
    assert_eq!(sim.hosted(&id), 2);
}

#[test]
fn a_snapshot_changes_only_what_differs() {
    let map = |names: &[(&str, u64)]| {
        let mut snapshot = Snapshot::default();
        for (name, created) in names {
            let mut new = revision("default", name);
            new.created = Timestamp::from_millis(*created);
            snapshot.revisions.insert(new.id.clone(), Arc::new(new));
        }
        snapshot
    };
    let (old, mut new) = (
        map(&[("a", 0), ("b", 0), ("c", 0), ("e", 0)]),
        map(&[("b", 0), ("d", 0), ("e", 0), ("f", 0)]),
    );
    let shared = RevisionId::new("default", "e");
    new.revisions
        .insert(shared.clone(), Arc::clone(&old.revisions[&shared]));
    let found: Vec<String> = changes(&old, &new)
        .iter()
        .map(|change| match change {
            Change::New(revision, _) => format!("new {}", revision.id.name()),
            Change::Updated(revision) | Change::Replaced(revision) => format!("other {}", revision.id.name()),
            Change::Gone(id) => format!("gone {}", id.name()),
        })
        .collect();
    assert_eq!(found, ["gone a", "other b", "gone c", "new d", "new f"]);
}
