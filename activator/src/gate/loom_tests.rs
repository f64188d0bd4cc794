//! Every interleaving of the slot and waiting protocol, under the C11 memory model. Run with
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p knarr-activator --lib --release loom
//! ```
//!
//! A lost wake-up shows as a deadlock. Removing either fence of [`super::Gate`] must make `one_waiter` or `two_waiters`
//! fail.

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use super::{Gate, Joined, Line};
use crate::word::{Released, Word};

/// One sandbox, its gate, and how many run on it in truth.
struct World {
    word: Word,
    limit: u32,
    gate: Gate<VecDeque<Arc<Notify>>>,
    running: AtomicU32,
}

/// As the real slot: dropping it gives it back and serves who waits.
struct Slot(Arc<World>);

impl Line for VecDeque<Arc<Notify>> {
    type Waiter = Arc<Notify>;

    fn len(&self) -> usize {
        self.len()
    }

    fn pop(&mut self) -> Option<Arc<Notify>> {
        self.pop_front()
    }
}

impl World {
    fn new(limit: u32) -> Arc<Self> {
        let gate = Gate::new(VecDeque::new());
        Arc::new(Self {
            word: Word::new(),
            limit,
            gate,
            running: AtomicU32::new(0),
        })
    }

    fn acquire(self: &Arc<Self>) -> Option<Slot> {
        self.word.try_acquire(self.limit).then(|| Slot(Arc::clone(self)))
    }

    /// A slot, whatever it takes.
    fn wait(self: &Arc<Self>) -> Slot {
        let warm = if self.gate.waiting() == 0 { self.acquire() } else { None };
        if let Some(slot) = warm {
            return slot;
        }
        let place = Arc::new(Notify::new());
        let enqueue = |queue: &mut VecDeque<Arc<Notify>>| {
            queue.push_back(Arc::clone(&place));
            Ok::<_, ()>(())
        };
        match self.gate.join(|| self.acquire(), enqueue) {
            Ok(Joined::Slot(slot)) => slot,
            _ => {
                place.wait();
                Slot(Arc::clone(self)) // the releaser has acquired it for us
            }
        }
    }

    fn serve(self: &Arc<Self>) {
        while let Some((waiter, slot)) = self.gate.serve(|| self.acquire()) {
            std::mem::forget(slot); // handed over: the waiter makes its own handle
            waiter.notify();
        }
    }

    /// What a request does with its slot.
    fn run(&self) {
        let others = self.running.fetch_add(1, Ordering::Relaxed);
        assert!(others < self.limit, "W1: {others} others run");
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.0.gate.give_back(&self.0.word).1 {
            self.0.serve();
        }
    }
}

#[test]
fn one_waiter() {
    loom::model(|| {
        let world = World::new(1);
        let slot = world.acquire().expect("free");
        let waiter = thread::spawn({
            let world = Arc::clone(&world);
            move || world.wait().0.run()
        });
        drop(slot);
        waiter.join().expect("served");
        assert_eq!((world.word.in_flight(), world.gate.waiting()), (0, 0));
    });
}

#[test]
fn two_waiters() {
    loom::model(|| {
        let world = World::new(1);
        let slot = world.acquire().expect("free");
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.wait().0.run())
            })
            .collect();
        slot.0.run();
        drop(slot);
        for waiter in waiters {
            waiter.join().expect("served");
        }
        assert_eq!((world.word.in_flight(), world.gate.waiting()), (0, 0));
    });
}

/// A sandbox that appears (its word opens) while somebody joins the queue.
#[test]
fn new_endpoint() {
    loom::model(|| {
        let world = World::new(1);
        world.word.drain();
        let waiter = thread::spawn({
            let world = Arc::clone(&world);
            move || world.wait().0.run()
        });
        world.word.undrain();
        if world.gate.freed() {
            world.serve();
        }
        waiter.join().expect("served");
    });
}

/// "It may stop" is said exactly once, by the drain or by the last release, and nothing is acquired after it.
#[test]
fn drained_once() {
    loom::model(|| {
        let world = World::new(2);
        let slot = world.acquire().expect("free");
        let other = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                let taken = world.word.try_acquire(2);
                taken && world.gate.give_back(&world.word).0 == Released::Drained
            }
        });
        let releaser = thread::spawn(move || {
            let released = slot.0.gate.give_back(&slot.0.word).0;
            std::mem::forget(slot);
            released == Released::Drained
        });
        let at_drain = world.word.drain() == 0;
        let said = [at_drain, other.join().expect("ran"), releaser.join().expect("ran")];
        assert_eq!(said.iter().filter(|said| **said).count(), 1, "{said:?}");
        assert!(!world.word.try_acquire(2));
        assert_eq!(world.word.in_flight(), 0);
    });
}
