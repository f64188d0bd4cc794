//! Random lives of a queue and of a whole pool against a shadow; every seed ends in a drain. The seed is in each panic.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use activator::queue::{Full, Queue};
use activator::{Entered, Limits, Pool, Reject, Slot};
use manifests::exchange::{LoadKind, Rung};
use manifests::units::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{START, World};

const SEEDS: u64 = 256;
const HOUR: Duration = Duration::from_secs(3600);

/// The pure queue against a list in order of arrival.
#[test]
fn queue() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let (depth, bytes) = (rng.random_range(1..20), rng.random_range(0..500));
        let mut queue = Queue::new(depth, bytes);
        let mut shadow = VecDeque::new(); // (ticket, name, deadline, bytes)
        let mut now = START;
        for step in 0..400 {
            let context = format!("seed {seed} step {step}");
            match rng.random_range(0..10) {
                0..=4 => {
                    let deadline = now.plus(Duration::from_millis(rng.random_range(0..200)));
                    let own = rng.random_range(0..60);
                    let held: usize = shadow.iter().map(|&(_, _, _, bytes)| bytes).sum();
                    match queue.push(deadline, own, step) {
                        Ok(ticket) => shadow.push_back((ticket, step, deadline, own)),
                        Err((Full::Requests, _)) => assert_eq!(shadow.len(), depth, "{context}"),
                        Err((Full::Bytes, _)) => assert!(held + own > bytes, "{context}"),
                    }
                }
                5 | 6 => {
                    let want = shadow.pop_front().map(|(_, name, _, bytes)| (name, bytes));
                    assert_eq!(queue.pop(), want, "{context}: Q3");
                }
                7 => {
                    if let Some(place) = (!shadow.is_empty()).then(|| rng.random_range(0..shadow.len())) {
                        let (ticket, name, _, bytes) = shadow.remove(place).unwrap();
                        assert_eq!(queue.cancel(ticket), Some((name, bytes)), "{context}");
                        assert_eq!(queue.cancel(ticket), None, "{context}: Q2");
                    }
                }
                _ => {
                    now = now.plus(Duration::from_millis(rng.random_range(0..50)));
                    assert_eq!(
                        queue.next_deadline(),
                        shadow.iter().map(|place| place.2).min(),
                        "{context}"
                    );
                    while let Some((name, _)) = queue.expire(now) {
                        let place = shadow.iter().position(|place| place.1 == name).unwrap();
                        let (_, _, deadline, _) = shadow.remove(place).unwrap();
                        assert!(deadline <= now, "{context}: expired early");
                    }
                    assert!(shadow.iter().all(|place| place.2 > now), "{context}: not expired");
                }
            }
            assert_eq!(queue.len(), shadow.len(), "{context}");
        }
        now = now.plus(HOUR);
        let left = std::iter::from_fn(|| queue.expire(now)).count();
        assert_eq!(left, shadow.len(), "seed {seed}: Q2");
        assert!(queue.is_empty() && queue.bytes() == 0, "seed {seed}: Q4");
    }
}

/// A pool under one thread: requests come, wait, get slots, end, are aborted and expire, while endpoint sets change,
/// sandboxes are ejected and reports are made.
struct Life {
    seed: u64,
    step: usize,
    world: World,
    pool: Arc<Pool>,
    limit: u32,
    rng: StdRng,
    waiting: VecDeque<Waiting>,
    running: Vec<(Entered, Slot)>,
    /// What the newest set has, and what this test has ejected.
    set: BTreeSet<String>,
    ejected: BTreeSet<String>,
    /// Sandboxes that are out of the set, until a report says 0 or is silent about them.
    draining: BTreeSet<String>,
}

type WaitFuture = Pin<Box<dyn Future<Output = Result<Slot, Reject>>>>;

struct Waiting {
    name: usize,
    deadline: Timestamp,
    entered: Entered,
    future: WaitFuture,
}

#[tokio::test(start_paused = true)]
async fn pool() {
    for seed in 0..SEEDS {
        let mut life = Life::new(seed);
        for step in 0..300 {
            life.step = step;
            life.act().await;
            life.poll_all();
            life.check();
        }
        life.drain().await;
    }
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let limit = [0, 1, 1, 2, 3, 4, 10][rng.random_range(0..7)];
        let limits = Limits {
            queue_requests: 12,
            queue_bytes: 400,
            total_queue_bytes: 300,
            ..Limits::default()
        };
        let mut world = World::new(1, limits);
        let pool = world.deploy("a", limit);
        let (waiting, running) = (VecDeque::new(), Vec::new());
        let (set, ejected, draining) = Default::default();
        Self {
            seed,
            step: 0,
            world,
            pool,
            limit,
            rng,
            waiting,
            running,
            set,
            ejected,
            draining,
        }
    }

    async fn act(&mut self) {
        match self.rng.random_range(0..20) {
            0..=7 => self.arrive(),
            8..=11 => drop(self.take_running()),
            12 => {
                if let Some(place) = (!self.waiting.is_empty()).then(|| self.rng.random_range(0..self.waiting.len())) {
                    drop(self.waiting.remove(place)); // the client has gone
                }
            }
            13..=15 => self.change_set(),
            16 => {
                if let Some((_, slot)) = self.running.last() {
                    slot.sandbox().eject();
                    self.ejected.insert(slot.sandbox().id().to_string());
                }
            }
            17 => self.look_at_reports(),
            _ => {
                let by = Duration::from_millis(self.rng.random_range(0..300));
                self.pass(by).await
            }
        }
    }

    /// Lets our clock and tokio's timers go on together.
    async fn pass(&self, by: Duration) {
        self.world.pass(by);
        tokio::time::advance(by).await;
    }

    fn arrive(&mut self) {
        let (now, pool) = (self.world.now(), Arc::clone(&self.pool));
        let entered = pool.enter(0, now);
        if let Some(slot) = pool.try_slot() {
            assert!(self.waiting.is_empty(), "{}: overtook the queue", self.at());
            self.running.push((entered, slot));
            return;
        }
        let deadline = now.plus(Duration::from_millis(self.rng.random_range(1..2_000)));
        let bytes = self.rng.random_range(0..60);
        let future: WaitFuture = Box::pin(async move { pool.wait(deadline, bytes).await });
        self.waiting.push_back(Waiting {
            name: self.step,
            deadline,
            entered,
            future,
        });
    }

    fn change_set(&mut self) {
        let names = ["s0", "s1", "s2", "s3"].map(|name| format!("{name}-{}", self.step / 100));
        let chosen: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|_| self.rng.random_bool(0.6))
            .collect();
        self.world.serve("a", &chosen);
        let set: BTreeSet<String> = chosen.iter().map(ToString::to_string).collect();
        self.draining.extend(self.set.difference(&set).cloned());
        self.draining.retain(|name| !set.contains(name));
        self.set = set;
    }

    fn take_running(&mut self) -> Option<(Entered, Slot)> {
        let place = (!self.running.is_empty()).then(|| self.rng.random_range(0..self.running.len()))?;
        Some(self.running.swap_remove(place))
    }

    /// Polls every waiter; those with an answer leave. Slots must go to the oldest, in order.
    fn poll_all(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut skipped = false;
        let at = self.at();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match waiting.future.as_mut().poll(&mut context) {
                Poll::Ready(Ok(slot)) => {
                    assert!(!skipped, "{at}: {} got a slot before an older one", waiting.name);
                    self.running.push((waiting.entered, slot));
                }
                Poll::Ready(Err(Reject::Deadline)) => {
                    assert!(waiting.deadline <= self.world.now(), "{at}: {} too early", waiting.name);
                }
                Poll::Ready(Err(Reject::QueueFull | Reject::QueueBytes)) => {
                    assert_eq!(waiting.name, self.step, "{at}: rejected after it had joined");
                }
                Poll::Ready(Err(other)) => panic!("{at}: {other:?}"),
                Poll::Pending => {
                    skipped = true;
                    self.waiting.push_back(waiting);
                }
            }
        }
    }

    fn check(&mut self) {
        let at = self.at();
        // One that left the set and has finished is forgotten; if its name came again it would be a new sandbox.
        let runs = |name: &String| {
            self.running
                .iter()
                .any(|(_, slot)| slot.sandbox().id().as_str() == name)
        };
        self.ejected.retain(|name| self.set.contains(name) || runs(name));
        let mut load = BTreeMap::new();
        for (_, slot) in &self.running {
            *load.entry(slot.sandbox().id().to_string()).or_insert(0) += 1;
            assert_eq!(
                slot.sandbox().is_ejected(),
                self.ejected.contains(slot.sandbox().id().as_str()),
                "{at}"
            );
        }
        for (_, slot) in &self.running {
            let want = load[slot.sandbox().id().as_str()];
            assert_eq!(
                slot.sandbox().in_flight(),
                want,
                "{at}: the word of {} is wrong",
                slot.sandbox().id()
            );
            assert!(
                self.limit == 0 || want <= self.limit,
                "{at}: {want} at once on {}",
                slot.sandbox().id()
            );
        }
        let open = self.pool.sandboxes();
        for sandbox in &open {
            assert!(
                self.set.contains(sandbox.id().as_str()) && sandbox.is_open(),
                "{at}: {sandbox:?} serves"
            );
        }
        let free = open
            .iter()
            .any(|sandbox| self.limit == 0 || sandbox.in_flight() < self.limit);
        assert!(
            !free || self.waiting.is_empty(),
            "{at}: {} wait while a slot is free",
            self.waiting.len()
        );
        let late = self
            .waiting
            .iter()
            .filter(|waiting| waiting.deadline <= self.world.now())
            .count();
        assert_eq!(late, 0, "{at}: wait past their deadline");
        assert_eq!(
            self.pool.in_flight() as usize,
            self.running.len() + self.waiting.len(),
            "{at}"
        );
        assert_eq!(self.pool.waiting() as usize, self.waiting.len(), "{at}");
        assert_eq!(self.pool.queued_bytes(), self.world.pools.queued_bytes(), "{at}");
    }

    /// What drains is reported until it has reached 0, and no longer.
    fn look_at_reports(&mut self) {
        let now = self.world.now();
        self.world.pools.publish(now);
        let reports = self.world.reported();
        assert!(
            reports.is_sorted_by_key(|report| report.generation),
            "{}: out of order",
            self.at()
        );
        let periodic = reports
            .iter()
            .flat_map(|report| &report.revisions)
            .find(|load| load.kind == LoadKind::Periodic);
        let Some(load) = periodic else { return };
        let at = self.at();
        let said: BTreeMap<String, u32> = load
            .draining
            .iter()
            .map(|left| (left.sandbox.to_string(), left.in_flight))
            .collect();
        for name in std::mem::take(&mut self.draining) {
            let real = self
                .running
                .iter()
                .filter(|(_, slot)| slot.sandbox().id().as_str() == name)
                .count();
            let real = u32::try_from(real).unwrap();
            assert_eq!(said.get(&name).copied().unwrap_or(0), real, "{at}: {name} drains");
            if real > 0 {
                self.draining.insert(name);
            }
        }
        assert_eq!(load.acked, self.world.acked(), "{at}");
        assert_eq!(load.in_flight as usize, self.running.len() + self.waiting.len(), "{at}");
    }

    /// Everything ends: all slots come back, all waiters leave, nothing stays counted.
    async fn drain(&mut self) {
        self.world.serve("a", &["last"]);
        self.set = BTreeSet::from(["last".to_owned()]);
        for _ in 0..10_000 {
            self.poll_all();
            if self.running.is_empty() {
                break;
            }
            drop(self.take_running());
        }
        self.pass(HOUR).await;
        self.poll_all();
        self.check();
        assert!(
            self.waiting.is_empty(),
            "{}: {} waiters never left",
            self.at(),
            self.waiting.len()
        );
        assert_eq!(
            (self.pool.in_flight(), self.pool.queued_bytes()),
            (0, 0),
            "{}",
            self.at()
        );
        let empty = self.world.set("a", Rung::Zero, &[]);
        self.world.pools.apply(&empty);
        for _ in 0..3 {
            self.pass(Duration::from_secs(1)).await;
            self.world.pools.publish(self.world.now());
        }
        self.world.reported();
        self.world.pools.publish(self.world.now());
        assert!(
            self.world.reported()[0].revisions.is_empty(),
            "{}: an idle pool still reports",
            self.at()
        );
    }

    fn at(&self) -> String {
        format!("seed {} step {} (limit {})", self.seed, self.step, self.limit)
    }
}
