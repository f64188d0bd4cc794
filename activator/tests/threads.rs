//! Many threads on one pool: the limit holds on every sandbox, through aborts and endpoint generations, and no wake-up
//! is lost. Real threads, no clock in any assertion.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use activator::{Limits, Pool, Slot};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::World;

/// What the apps themselves would count: requests at once in each sandbox.
#[derive(Default)]
struct Apps(HashMap<String, AtomicI64>);

impl Apps {
    fn new(names: &[&str]) -> Arc<Self> {
        Arc::new(Self(
            names.iter().map(|&name| (name.to_owned(), AtomicI64::new(0))).collect(),
        ))
    }

    /// A request begins inside the app; it ends when the returned guard is dropped, before its slot.
    fn run(&self, slot: &Slot, limit: i64) -> Running<'_> {
        let counter = &self.0[slot.sandbox().id().as_str()];
        let others = counter.fetch_add(1, Ordering::SeqCst);
        assert!(others < limit, "{others} others run on {}", slot.sandbox().id());
        Running(counter)
    }
}

struct Running<'a>(&'a AtomicI64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const THREADS: usize = 4;
const WIDTH: usize = 16;
const EACH: usize = 300;
const NAMES: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];
const FOREVER: Duration = Duration::from_secs(100_000);

/// One thread's share: requests with `width` at once, a third of them dropped while they wait or run.
async fn requests(pool: Arc<Pool>, apps: Arc<Apps>, limit: i64, thread: usize, done: Arc<AtomicU64>) {
    let local = tokio::task::LocalSet::new();
    for client in 0..WIDTH {
        let (pool, apps, done) = (Arc::clone(&pool), Arc::clone(&apps), Arc::clone(&done));
        local.spawn_local(async move {
            let mut rng = StdRng::seed_from_u64((thread * WIDTH + client) as u64);
            for _ in 0..EACH {
                let entered = pool.enter(thread, support::START);
                let patience = rng.random_bool(0.33).then(|| rng.random_range(0..5));
                let served = async {
                    let slot = match pool.try_slot() {
                        Some(slot) => slot,
                        None => pool.wait(support::START.plus(FOREVER), 0).await.unwrap(),
                    };
                    let running = apps.run(&slot, limit);
                    for _ in 0..rng.random_range(0..3) {
                        tokio::task::yield_now().await;
                    }
                    drop(running);
                    drop(slot);
                };
                // An abort: the future is dropped wherever it stands.
                let abort = async {
                    match patience {
                        Some(yields) => {
                            for _ in 0..yields {
                                tokio::task::yield_now().await;
                            }
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! { biased; () = served => {}, () = abort => {} }
                drop(entered);
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    local.await;
}

fn run(limit: u32, changes: bool) {
    let mut world = World::new(THREADS, Limits::default());
    let pool = world.deploy("a", limit);
    let apps = Apps::new(&NAMES);
    world.serve("a", &NAMES[..2]);
    let done = Arc::new(AtomicU64::new(0));
    let bound = if limit == 0 { i64::MAX } else { i64::from(limit) };
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (pool, apps, done) = (Arc::clone(&pool), Arc::clone(&apps), Arc::clone(&done));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                runtime.block_on(requests(pool, apps, bound, thread, done));
            })
        })
        .collect();
    let mut rng = StdRng::seed_from_u64(u64::from(limit));
    while changes && threads.iter().any(|thread| !thread.is_finished()) {
        // The same names come and go: each must be the same word as long as anything runs on it.
        let chosen: Vec<&str> = NAMES.into_iter().filter(|_| rng.random_bool(0.5)).collect();
        world.serve("a", &chosen);
        world.pools.publish(support::START);
        world.reported();
        std::thread::yield_now();
    }
    // Whoever waits now needs at least one sandbox.
    world.serve("a", &NAMES[..1]);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(done.load(Ordering::SeqCst), (THREADS * WIDTH * EACH) as u64);
    assert_eq!((pool.in_flight(), pool.waiting(), pool.queued_bytes()), (0, 0, 0));
    for sandbox in pool.sandboxes() {
        assert_eq!(sandbox.in_flight(), 0, "{} leaked", sandbox.id());
    }
}

#[test]
fn one_at_a_time() {
    run(1, false);
}

#[test]
fn one_at_a_time_while_sets_change() {
    run(1, true);
}

#[test]
fn three_at_a_time_while_sets_change() {
    run(3, true);
}

#[test]
fn round_robin_while_sets_change() {
    run(7, true);
}

#[test]
fn without_limit_while_sets_change() {
    run(0, true);
}
