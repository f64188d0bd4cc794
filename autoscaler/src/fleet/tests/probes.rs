//! What the probes of running sandboxes say: out of the endpoint set and back, replaced, backed off.

use super::*;

fn two() -> Revision {
    let mut two = revision("default", "two-00001");
    two.scaling.min_scale = Replicas(2);
    two.scaling.initial_scale = Replicas(2);
    two
}

#[test]
fn one_that_is_not_ready_leaves_the_set_is_not_replaced_and_comes_back() {
    let mut sim = sim();
    let id = sim.deploy(two(), 5 * MS);
    sim.until(at(1.0));
    let both = sim.endpoints(&id);
    assert_eq!(both.len(), 2);
    sim.request(0, &id, 3000 * MS);
    sim.request(0, &id, 3000 * MS);
    sim.told();
    sim.readiness(&both[0], Some("readiness probe failed: GET /ready answered 503"));
    assert_eq!(sim.endpoints(&id), both[1..]);
    sim.until(at(30.0));
    assert_eq!(sim.served, 2, "what ran on it goes on");
    let status = &sim.statuses[&id];
    assert_eq!((status.actual, status.starting), (Replicas(1), Replicas(0)));
    assert_eq!(status.container.status, ConditionStatus::True);
    assert!(sim.sets[&id].trouble.is_none(), "the other one serves");
    sim.request(0, &id, 10 * MS);
    sim.until(at(31.0));
    sim.readiness(&both[0], None);
    assert_eq!(sim.endpoints(&id), both);
    sim.until(at(32.0));
    assert_eq!((sim.served, sim.statuses[&id].actual), (3, Replicas(2)));
    let told = sim.told();
    assert!(
        !told.iter().any(|line| line.contains("start") || line.contains("stop")),
        "{told:?}"
    );
    let causes: Vec<String> = sim
        .explain
        .for_revision(&id, Timestamp::EPOCH)
        .iter()
        .map(|record| record.cause.to_string())
        .collect();
    let unready = "a sandbox is not ready (readiness probe failed: GET /ready answered 503)";
    assert!(causes.iter().any(|cause| cause == unready), "{causes:?}");
    assert!(
        causes.iter().any(|cause| cause == "a sandbox is ready again"),
        "{causes:?}"
    );
}

#[test]
fn when_none_is_ready_requests_wait_and_the_reason_is_told() {
    let mut sim = sim();
    let id = sim.deploy(revision("default", "one-00001"), 5 * MS);
    sim.until(at(1.0));
    let only = sim.endpoints(&id)[0].clone();
    sim.readiness(&only, Some("no database"));
    assert_eq!(sim.sets[&id].trouble.as_deref(), Some("NotReady: no database"));
    let active = &sim.statuses[&id].active;
    assert_eq!(
        (active.status, active.reason.as_ref()),
        (ConditionStatus::Unknown, "Queued")
    );
    assert!(
        active.message.ends_with("A replica is not ready: no database"),
        "{active:?}"
    );
    sim.until(at(1.1));
    for _ in 0..5 {
        sim.request(0, &id, 10 * MS);
    }
    sim.until(at(2.0));
    assert_eq!((sim.served, sim.hosted(&id)), (0, 1), "no other is started beside it");
    sim.readiness(&only, None);
    sim.until(at(3.0));
    assert_eq!((sim.served, sim.sets[&id].trouble.as_deref()), (5, None));
    assert_eq!(sim.statuses[&id].active.status, ConditionStatus::True);
    // It goes to zero from not ready as well, when Knative's time for activating is over.
    sim.readiness(&only, Some("no database"));
    sim.until(at(300.0));
    assert_eq!(sim.hosted(&id), 1);
    sim.until(at(1000.0));
    assert_eq!(sim.hosted(&id), 0);
}

#[test]
fn those_that_are_not_ready_go_first() {
    let mut sim = sim();
    let mut three = two();
    (three.scaling.min_scale, three.scaling.initial_scale) = (Replicas(3), Replicas(3));
    let id = sim.deploy(three.clone(), 5 * MS);
    sim.until(at(1.0));
    let all = sim.endpoints(&id);
    sim.readiness(&all[0], Some("no"));
    (three.scaling.min_scale, three.scaling.max_scale) = (Replicas(2), Some(Replicas(2)));
    sim.change(|revisions| drop(revisions.insert(three.id.clone(), Arc::new(three))));
    sim.until(at(5.0));
    assert_eq!(sim.endpoints(&id), all[1..]);
    assert_eq!(sim.hosted(&id), 2);
}

#[test]
fn news_that_overtakes_the_result_of_the_start_is_kept() {
    let mut sim = sim();
    let id = sim.deploy(revision("default", "one-00001"), 50 * MS);
    sim.until(at(0.01));
    let only = sim.host.keys().next().unwrap().clone();
    sim.readiness(&only, Some("early"));
    sim.until(at(1.0));
    assert!(sim.endpoints(&id).is_empty());
    assert_eq!(sim.statuses[&id].actual, Replicas(0));
    sim.readiness(&only, None);
    assert_eq!(sim.endpoints(&id), [only]);
}

#[test]
fn missed_readiness_is_found() {
    let mut sim = sim();
    let id = sim.deploy(two(), 5 * MS);
    sim.until(at(1.0));
    let both = sim.endpoints(&id);
    sim.host.get_mut(&both[1]).unwrap().unready = true;
    let missed = |unready: &[&SandboxId]| Event::Running {
        running: both.clone(),
        unready: unready.iter().map(|id| ((*id).clone(), "missed".into())).collect(),
    };
    sim.feed(missed(&[&both[1]]));
    assert_eq!(sim.endpoints(&id), both[..1]);
    sim.feed(missed(&[&both[1]]));
    sim.host.get_mut(&both[1]).unwrap().unready = false;
    sim.feed(missed(&[]));
    assert_eq!(sim.endpoints(&id), both);
}

#[test]
fn one_that_is_not_alive_is_replaced_at_once_and_a_loop_backs_off() {
    let mut sim = sim();
    // A hung app takes its whole grace to end.
    sim.stop_takes = 30_000 * MS;
    let id = sim.deploy(revision("default", "one-00001"), 5 * MS);
    let mut one = revision("default", "one-00001");
    one.scaling.min_scale = Replicas(1);
    sim.change(|revisions| drop(revisions.insert(one.id.clone(), Arc::new(one))));
    sim.until(at(100.0));
    sim.told();
    let mut starts = Vec::new();
    for _ in 0..6 {
        let only = sim.endpoints(&id)[0].clone();
        sim.unhealthy(&only, "liveness probe failed: GET /live answered 503");
        assert!(sim.endpoints(&id).is_empty(), "it takes no more requests");
        let before = sim.now;
        while sim.endpoints(&id).is_empty() {
            sim.until(sim.now.plus(5 * MS));
        }
        starts.push(sim.now.since(before).as_secs());
    }
    // The first ran well before; three more are replaced at once, as after crashes.
    assert_eq!(starts, [0, 0, 0, 0, 10, 20]);
    let only = sim.endpoints(&id)[0].clone();
    sim.unhealthy(&only, "hung");
    let status = &sim.statuses[&id];
    assert_eq!(status.container.reason.as_ref(), "Unhealthy");
    assert_eq!(status.container.message.as_ref(), "Container failed with: hung");
    sim.until(sim.now.plus(31_000 * MS));
    assert_eq!(sim.statuses[&id].container.reason.as_ref(), "ExitCode137");
    let trouble = sim.sets[&id].trouble.clone().unwrap();
    assert!(
        trouble.starts_with("ExitCode137: Container failed with: hung; "),
        "{trouble}"
    );
    let stops: Vec<String> = sim.told().into_iter().filter(|line| line.contains("stop")).collect();
    assert!(stops.is_empty(), "their driver ends them: {stops:?}");
}
