//! The life of requests at one revision, from the outside: cold start, warm path, order, ends.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use activator::{Limits, Reject, Temperature};
use manifests::exchange::{LoadKind, Rung};
use manifests::units::Timestamp;
use support::World;

const MINUTE: Duration = Duration::from_secs(60);

/// Lets spawned tasks run until all of them wait.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn cold_start_wakes_once_and_tells_the_wait() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 1);
    let entered = pool.enter(0, world.now());
    assert!(pool.try_slot().is_none());
    let deadline = world.now().plus(MINUTE);
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.wait(deadline, 100).await }
    });
    settle().await;
    let reports = world.reported();
    assert_eq!(reports.len(), 1, "{reports:?}");
    let load = &reports[0].revisions[0];
    assert_eq!((load.kind, load.concurrency.0, load.rps.0), (LoadKind::Wake, 1.0, 1.0));
    assert_eq!((load.in_flight, load.waiting), (1, 1));

    world.pass(Duration::from_millis(80));
    world.serve("a", &["s1"]);
    let slot = waiter.await.unwrap().unwrap();
    assert_eq!(slot.temperature(), Temperature::Cold);
    assert_eq!(slot.waited().start, Duration::from_millis(50));
    assert_eq!(slot.waited().queue, Duration::from_millis(30));
    assert_eq!(slot.sandbox().id().as_str(), "s1");

    assert!(pool.try_slot().is_none(), "containerConcurrency is 1");
    drop(slot);
    let warm = pool.try_slot().unwrap();
    assert_eq!(warm.temperature(), Temperature::Warm);
    drop((warm, entered));
}

#[tokio::test(start_paused = true)]
async fn deadline_full_and_trouble() {
    let limits = Limits {
        queue_requests: 2,
        queue_bytes: 100,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let pool = world.deploy("a", 1);
    let mut set = world.set("a", Rung::Zero, &[]);
    set.trouble = Some("Unschedulable: no memory".into());
    assert!(world.pools.apply(&set));
    assert!(!world.pools.apply(&set), "the same set again");

    let deadline = world.now().plus(MINUTE);
    let wait = |deadline: Timestamp, bytes| {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.wait(deadline, bytes).await.map(drop) })
    };
    let first = wait(deadline, 60);
    settle().await;
    assert_eq!(wait(deadline, 60).await.unwrap(), Err(Reject::QueueBytes));
    let second = wait(deadline, 40);
    settle().await;
    assert_eq!(wait(deadline, 0).await.unwrap(), Err(Reject::QueueFull));
    world.pass(MINUTE);
    let why = "Unschedulable: no memory".into();
    assert_eq!(first.await.unwrap(), Err(Reject::Unavailable { why }));
    assert!(matches!(second.await.unwrap(), Err(Reject::Unavailable { .. })));
    assert_eq!(
        (pool.waiting(), pool.queued_bytes(), world.pools.queued_bytes()),
        (0, 0, 0)
    );
}
