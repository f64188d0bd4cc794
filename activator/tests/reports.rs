//! What scaling hears, and when: wake-ups, drains, ejections, acknowledgements, deleted revisions.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use activator::{Limits, Pool, Reject, Slot, Temperature};
use manifests::exchange::{Draining, LoadKind, RevisionLoad, Rung, Work};
use manifests::ids::{RevisionId, SandboxId};
use support::World;

type WaitFuture = Pin<Box<dyn Future<Output = Result<Slot, Reject>> + Send>>;

/// A request that waits; polled once, so that it stands in the queue.
fn wait(world: &World, pool: &Arc<Pool>) -> WaitFuture {
    let deadline = world.now().plus(Duration::from_secs(60));
    let pool = Arc::clone(pool);
    let mut future: WaitFuture = Box::pin(async move { pool.wait(deadline, 0).await });
    assert!(poll(&mut future).is_pending());
    future
}

fn poll(future: &mut WaitFuture) -> Poll<Result<Slot, Reject>> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn said(world: &mut World) -> Vec<RevisionLoad> {
    world
        .reported()
        .into_iter()
        .flat_map(|report| report.revisions)
        .collect()
}

fn waiting(loads: &[RevisionLoad]) -> Vec<(LoadKind, u32, f64)> {
    loads
        .iter()
        .map(|load| (load.kind, load.waiting, load.concurrency.0))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_growing_queue_wakes_at_each_doubling() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 1);
    let mut entered = Vec::new();
    let mut futures = Vec::new();
    for _ in 0..100 {
        entered.push(pool.enter(0, world.now()));
        futures.push(wait(&world, &pool));
    }
    let loads = said(&mut world);
    let told = [1, 2, 4, 8, 16, 32, 64];
    let want: Vec<_> = told
        .iter()
        .map(|&n| (LoadKind::Wake, n, if n == 1 { 1.0 } else { 0.0 }))
        .collect();
    assert_eq!(waiting(&loads), want);
    assert_eq!(loads.iter().map(|load| load.in_flight).collect::<Vec<_>>(), told);

    world.pass(Duration::from_secs(1));
    world.pools.publish(world.now());
    let periodic = said(&mut world).remove(0);
    assert_eq!(
        (periodic.kind, periodic.waiting, periodic.in_flight),
        (LoadKind::Periodic, 100, 100)
    );
    assert_eq!(
        (periodic.concurrency.0, periodic.rps.0),
        (99.0, 99.0),
        "the wake-up has said the first"
    );
    let all = Work {
        arrivals: 100,
        time: Duration::from_secs(100),
        first: None,
    };
    assert_eq!(periodic.work, all, "what came, whoever has said so before");
    assert!(loads.iter().all(|load| load.work == Work::default()), "and only once");
    for _ in 0..100 {
        entered.push(pool.enter(0, world.now()));
        futures.push(wait(&world, &pool));
    }
    assert_eq!(
        waiting(&said(&mut world)),
        [(LoadKind::Wake, 200, 1.0)],
        "doubled since the periodic report"
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_queue_behind_running_sandboxes_waits_for_the_second() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 4);
    world.serve("a", &["s"]);
    let slots: Vec<_> = (0..4).map(|_| pool.try_slot().unwrap()).collect();
    let mut futures: Vec<_> = (0..3).map(|_| wait(&world, &pool)).collect();
    assert_eq!(waiting(&said(&mut world)), []);
    futures.push(wait(&world, &pool));
    assert_eq!(
        waiting(&said(&mut world)),
        [(LoadKind::Wake, 4, 1.0)],
        "as many wait as can run"
    );
    drop(slots);
    for future in &mut futures {
        let Poll::Ready(Ok(slot)) = poll(future) else {
            panic!("not served")
        };
        assert_eq!((slot.temperature(), slot.waited().cold), (Temperature::Warm, None));
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_sandbox_gone_wakes_for_those_who_wait() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 2);
    world.serve("a", &["s"]);
    let slots = [pool.try_slot().unwrap(), pool.try_slot().unwrap()];
    let _future = wait(&world, &pool);
    said(&mut world);
    slots[0].sandbox().eject();
    slots[0].sandbox().eject();
    let loads = said(&mut world);
    assert_eq!(
        loads.iter().map(|load| load.kind).collect::<Vec<_>>(),
        [LoadKind::Sandboxes, LoadKind::Wake]
    );
    assert_eq!(loads[0].ejected, [slots[0].sandbox().id().clone()]);
    assert!(pool.try_slot().is_none());
    // Scaling answers that nothing can run: no further wake-up, or the two would chase each other.
    world.serve("a", &[]);
    assert!(said(&mut world).iter().all(|load| load.kind == LoadKind::Sandboxes));
}

#[tokio::test(start_paused = true)]
async fn a_rung_below_full_wakes_once() {
    for (rung, temperature) in [
        (Rung::Throttled, Temperature::Throttled),
        (Rung::Reserve, Temperature::Reserve),
    ] {
        let mut world = World::new(1, Limits::default());
        let pool = world.deploy("a", 0);
        let set = world.set("a", rung, &["s"]);
        world.pools.apply(&set);
        let entered = pool.enter(0, world.now());
        let slot = pool.try_slot().unwrap();
        assert_eq!((slot.rung(), slot.temperature()), (rung, temperature));
        drop(pool.try_slot().unwrap());
        assert_eq!(waiting(&said(&mut world)), [(LoadKind::Wake, 0, 1.0)]);
        drop((slot, entered));
        // Idle again, and still there: the next request wakes again.
        for _ in 0..3 {
            world.pass(Duration::from_secs(1));
            world.pools.publish(world.now());
        }
        said(&mut world);
        let _entered = pool.enter(0, world.now());
        drop(pool.try_slot().unwrap());
        assert_eq!(waiting(&said(&mut world)), [(LoadKind::Wake, 0, 1.0)]);
        // Full: nothing to wake for.
        world.serve("a", &["s"]);
        drop(pool.try_slot().unwrap());
        assert_eq!(waiting(&said(&mut world)), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_said_when_it_begins_and_when_it_ends() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 2);
    world.serve("a", &["s1", "s2"]);
    let (one, two) = (pool.try_slot().unwrap(), pool.try_slot().unwrap());
    let id = one.sandbox().id().clone();
    assert_eq!(id.as_str(), "s1");
    world.serve("a", &["s2"]);
    let loads = said(&mut world);
    assert_eq!(loads.len(), 1);
    assert_eq!((loads[0].kind, loads[0].acked), (LoadKind::Sandboxes, world.acked()));
    assert_eq!(loads[0].draining, [draining(&id, 2, 0)]);
    drop(one);
    assert_eq!(said(&mut world), []);
    drop(two);
    assert_eq!(said(&mut world)[0].draining, [draining(&id, 0, 0)]);

    // In the set again while it still runs something: the same word, so its limit holds.
    world.serve("a", &["s1"]);
    let (one, two) = (pool.try_slot().unwrap(), pool.try_slot().unwrap());
    world.serve("a", &[]);
    assert!(pool.try_slot().is_none());
    world.serve("a", &["s1"]);
    assert!(pool.try_slot().is_none(), "two still run");
    drop(one);
    assert_eq!(pool.try_slot().unwrap().sandbox().in_flight(), 2);
    drop(two);
}

/// Requests that follow it may be of another kind.
#[tokio::test(start_paused = true)]
async fn the_request_that_ends_an_idle_time_is_reported_by_itself() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 4);
    let first = |world: &mut World| {
        world.pools.publish(world.now());
        said(world).last().and_then(|load| load.work.first)
    };
    let one = pool.enter(0, world.now());
    world.pass(Duration::from_secs(1));
    let two = pool.enter(0, world.now());
    assert_eq!(first(&mut world), None, "it goes on");
    drop(two);
    world.pass(Duration::from_secs(2));
    assert_eq!(first(&mut world), None, "the other was not alone");
    drop(one);
    drop(pool.enter(0, world.now()));
    assert_eq!(first(&mut world), Some(Duration::from_secs(3)), "of the two, the first");
    assert_eq!(first(&mut world), None, "once");
}

fn draining(sandbox: &SandboxId, in_flight: u32, connections: u32) -> Draining {
    Draining {
        sandbox: sandbox.clone(),
        in_flight,
        connections,
        answered: false,
    }
}

/// Scaling hears whether what has ended had served: see its back-off.
#[tokio::test(start_paused = true)]
async fn a_dropped_sandbox_is_reported_with_whether_it_had_answered() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 1);
    world.serve("a", &["s1", "s2"]);
    let slot = pool.try_slot().unwrap();
    let id = slot.sandbox().id().clone();
    slot.sandbox().answers();
    drop(slot);
    said(&mut world);
    world.serve("a", &[]);
    let told = said(&mut world).remove(0).draining;
    let answered: Vec<_> = told.iter().map(|left| (left.sandbox == id, left.answered)).collect();
    assert_eq!(answered, [(true, true), (false, false)]);
}

/// A frozen app's pooled connections would be lost requests: their end is part of what is acknowledged.
#[tokio::test(start_paused = true)]
async fn a_drain_is_over_when_its_connections_are_closed_too() {
    for limit in [0, 2] {
        let mut world = World::new(1, Limits::default());
        let pool = world.deploy("a", limit);
        world.serve("a", &["s"]);
        let slot = pool.try_slot().unwrap();
        let sandbox = Arc::clone(slot.sandbox());
        let id = sandbox.id().clone();
        let (one, two) = (sandbox.open().await, sandbox.open().await);
        said(&mut world);
        world.serve("a", &[]);
        assert_eq!(said(&mut world)[0].draining, [draining(&id, 1, 2)]);
        drop(one);
        assert_eq!(said(&mut world), [], "something is left");
        drop(slot);
        assert_eq!(said(&mut world)[0].draining, [draining(&id, 0, 1)]);
        // The periodic report says it until it is over.
        world.pass(Duration::from_secs(1));
        world.pools.publish(world.now());
        assert_eq!(said(&mut world)[0].draining, [draining(&id, 0, 1)]);
        drop(two);
        assert_eq!(said(&mut world)[0].draining, [draining(&id, 0, 0)]);
        world.pass(Duration::from_secs(1));
        world.pools.publish(world.now());
        assert!(said(&mut world).iter().all(|load| load.draining.is_empty()));
        // Served again under its name, it is another object: nothing of the past is open.
        world.serve("a", &["s"]);
        let again = pool.try_slot().unwrap();
        assert!(!Arc::ptr_eq(again.sandbox(), &sandbox));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_refused_while_nothing_will_run_and_still_wake() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 1);
    let deadline = world.now().plus(Duration::from_secs(60));
    let refusal = Reject::Refused {
        why: "no memory".into(),
    };
    let _waits = pool.enter(0, world.now());
    let waiting = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.wait(deadline, 10).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let mut set = world.set("a", Rung::Zero, &[]);
    (set.trouble, set.refuses) = (Some("no memory".into()), true);
    assert!(world.pools.apply(&set));
    assert_eq!(waiting.await.unwrap(), Err(refusal.clone()), "who waits is answered");
    assert_eq!(pool.queued_bytes(), 0);
    said(&mut world);
    for wakes in [1, 0, 0] {
        let _entered = pool.enter(0, world.now());
        assert_eq!(pool.wait(deadline, 10).await.map(drop), Err(refusal.clone()));
        let said = said(&mut world);
        assert_eq!(said.len(), wakes);
        assert!(
            said.iter()
                .all(|load| load.kind == LoadKind::Wake && load.in_flight > 0)
        );
    }
    assert_eq!(refusal.facts().retry_after, Some(Duration::from_secs(10)));
    // The next second wakes once more; what runs serves, whatever was said before.
    world.pass(Duration::from_secs(1));
    world.pools.publish(world.now());
    said(&mut world);
    let _entered = pool.enter(0, world.now());
    assert_eq!(pool.wait(deadline, 10).await.map(drop), Err(refusal));
    assert_eq!(said(&mut world).len(), 1);
    world.serve("a", &["s"]);
    assert!(pool.wait(deadline, 10).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn sets_and_snapshots_may_come_in_any_order() {
    let mut world = World::new(1, Limits::default());
    let (old, new) = (world.set("a", Rung::Full, &["s1"]), world.set("a", Rung::Full, &["s2"]));
    assert!(world.pools.apply(&new));
    assert!(!world.pools.apply(&old));
    let pool = world.deploy("a", 1);
    assert_eq!(pool.try_slot().unwrap().sandbox().id().as_str(), "s2");
    assert!(!world.pools.apply(&old));

    // An older snapshot changes nothing.
    let mut older = world.snapshot.clone();
    older.generation.counter -= 1;
    older.revisions.clear();
    assert!(!world.pools.apply_snapshot(&older));
    assert_eq!(world.pools.len(), 1);

    // The same set again is refused, and acknowledged in the next report.
    said(&mut world);
    world.pools.apply(&new);
    world.pools.publish(world.now());
    assert_eq!(said(&mut world)[0].acked, new.generation);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_revision_finishes_what_runs() {
    let mut world = World::new(1, Limits::default());
    let id = RevisionId::new("default", "a");
    let pool = world.deploy("a", 1);
    world.serve("a", &["s"]);
    let entered = pool.enter(0, world.now());
    let slot = pool.try_slot().unwrap();
    let mut waiter = wait(&world, &pool);
    world.remove("a");
    assert!(world.pools.get(&id).is_none());
    assert!(matches!(poll(&mut waiter), Poll::Ready(Err(Reject::Retired))));
    let mut late: WaitFuture = {
        let (pool, deadline) = (Arc::clone(&pool), world.now().plus(Duration::from_secs(1)));
        Box::pin(async move { pool.wait(deadline, 0).await })
    };
    assert!(matches!(poll(&mut late), Poll::Ready(Err(Reject::Retired))));

    // Back before it has ended: the same pool, with its sandbox.
    assert!(Arc::ptr_eq(&world.deploy("a", 1), &pool));
    assert!(pool.try_slot().is_none());
    world.remove("a");

    world.serve("a", &[]);
    assert_eq!(world.pools.len(), 1, "a request still runs");
    drop((slot, entered));
    for _ in 0..3 {
        world.pass(Duration::from_secs(1));
        world.pools.publish(world.now());
    }
    assert_eq!(world.pools.len(), 0);

    // Its sets find nobody, and are acknowledged all the same.
    said(&mut world);
    let empty = world.set("a", Rung::Zero, &[]);
    assert!(world.pools.apply(&empty));
    assert_eq!(said(&mut world)[0].acked, empty.generation);
}

#[tokio::test(start_paused = true)]
async fn never_more_connections_than_slots() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 2);
    world.serve("a", &["s"]);
    let sandbox = Arc::clone(pool.try_slot().unwrap().sandbox());
    assert!(sandbox.shares_connections());
    let (one, two) = (sandbox.try_open().unwrap(), sandbox.try_open().unwrap());
    assert!(sandbox.try_open().is_none());
    let opening = tokio::spawn({
        let sandbox = Arc::clone(&sandbox);
        async move { sandbox.open().await }
    });
    tokio::task::yield_now().await;
    assert!(!opening.is_finished());
    sandbox.park(Box::new(one)); // an idle connection is an open one
    tokio::task::yield_now().await;
    assert!(!opening.is_finished());
    drop(two);
    let two = opening.await.unwrap();
    assert_eq!(sandbox.open_connections(), 2);
    // Another thread takes the idle one over.
    let one = sandbox.take().unwrap();
    assert!(sandbox.take().is_none());
    sandbox.park(one);
    sandbox.park(Box::new(two));
    // What leaves the set keeps no idle connection, nor takes one.
    world.serve("a", &[]);
    assert_eq!(sandbox.open_connections(), 0);
    sandbox.park(Box::new(sandbox.try_open().unwrap()));
    assert_eq!(sandbox.open_connections(), 0);

    let free = world.deploy("b", 0);
    world.serve("b", &["s"]);
    let slot = free.try_slot().unwrap();
    assert!(!slot.sandbox().shares_connections());
    let many: Vec<_> = (0..100).map(|_| slot.sandbox().try_open().unwrap()).collect();
    assert_eq!(slot.sandbox().open_connections(), 100);
    drop(many);
}
