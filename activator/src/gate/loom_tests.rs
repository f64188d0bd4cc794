//! Every interleaving of the slot and waiting protocol, under the C11 memory model. Run with
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p knarr-activator --lib --release loom
//! ```
//!
//! A lost wake-up shows as a deadlock. Removing either fence of [`super::Gate`] must make `one_waiter` or `two_waiters`
//! fail.

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use super::{Gate, Joined, Line};
use crate::word::{Released, Word};

/// One sandbox, its gate, and how many run on it in truth.
struct World {
    word: Word,
    limit: u32,
    gate: Gate<VecDeque<Arc<Place>>>,
    running: AtomicU32,
}

/// A place in the queue. Loom wakes it now and then for nothing, hence the flag.
struct Place {
    wake: Notify,
    served: AtomicBool,
}

/// As the real slot: dropping it gives it back and serves who waits.
struct Slot(Option<Arc<World>>);

impl Line for VecDeque<Arc<Place>> {
    type Waiter = Arc<Place>;

    fn len(&self) -> usize {
        self.len()
    }

    fn pop(&mut self) -> Option<Arc<Place>> {
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

    fn acquire(world: &Arc<Self>) -> Option<Slot> {
        world
            .word
            .try_acquire(world.limit)
            .then(|| Slot(Some(Arc::clone(world))))
    }

    /// A slot, whatever it takes.
    fn wait(world: &Arc<Self>) -> Slot {
        let warm = if world.gate.waiting() == 0 {
            Self::acquire(world)
        } else {
            None
        };
        if let Some(slot) = warm {
            return slot;
        }
        let place = Arc::new(Place {
            wake: Notify::new(),
            served: AtomicBool::new(false),
        });
        let enqueue = |queue: &mut VecDeque<Arc<Place>>| {
            queue.push_back(Arc::clone(&place));
            Ok::<_, ()>(())
        };
        match world.gate.join(|| Self::acquire(world), enqueue) {
            Ok(Joined::Slot(slot)) => slot,
            _ => {
                while !place.served.load(Ordering::Acquire) {
                    place.wake.wait();
                }
                Slot(Some(Arc::clone(world))) // the releaser has acquired it for us
            }
        }
    }

    fn serve(world: &Arc<Self>) {
        while let Some((waiter, slot)) = world.gate.serve(|| Self::acquire(world)) {
            slot.hand_over(); // the waiter makes its own
            waiter.served.store(true, Ordering::Release);
            waiter.wake.notify();
        }
    }

    /// What a request does with its slot.
    fn run(&self) {
        let others = self.running.fetch_add(1, Ordering::Relaxed);
        assert!(others < self.limit, "W1: {others} others run");
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    /// Runs the request, then gives the slot back.
    fn run(self) {
        if let Some(world) = &self.0 {
            world.run();
        }
    }

    /// Lets go of it without giving it back.
    fn hand_over(mut self) {
        self.0 = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(world) = &self.0
            && world.gate.give_back(&world.word).1
        {
            World::serve(world);
        }
    }
}

#[test]
fn one_waiter() {
    loom::model(|| {
        let world = World::new(1);
        let slot = World::acquire(&world).expect("free");
        let waiter = thread::spawn({
            let world = Arc::clone(&world);
            move || World::wait(&world).run()
        });
        drop(slot);
        waiter.join().expect("served");
        assert_eq!((world.word.in_flight(), world.gate.waiting()), (0, 0));
    });
}

#[test]
fn two_waiters() {
    // Three threads with a lock have too many interleavings for all of them; a lost wake-up needs two preemptions.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new(1);
        let slot = World::acquire(&world).expect("free");
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || World::wait(&world).run())
            })
            .collect();
        slot.run();
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
            move || World::wait(&world).run()
        });
        world.word.undrain();
        if world.gate.freed() {
            World::serve(&world);
        }
        waiter.join().expect("served");
    });
}

/// "It may stop" is said exactly once, by the drain or by the last release, and nothing is acquired after it.
#[test]
fn drained_once() {
    loom::model(|| {
        let world = World::new(2);
        let slot = World::acquire(&world).expect("free");
        let other = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                let taken = world.word.try_acquire(2);
                taken && world.gate.give_back(&world.word).0 == Released::Drained
            }
        });
        slot.hand_over();
        let releaser = thread::spawn({
            let world = Arc::clone(&world);
            move || world.gate.give_back(&world.word).0 == Released::Drained
        });
        let at_drain = world.word.drain() == 0;
        let said = [at_drain, other.join().expect("ran"), releaser.join().expect("ran")];
        assert_eq!(said.iter().filter(|said| **said).count(), 1, "{said:?}");
        assert!(!world.word.try_acquire(2));
        assert_eq!(world.word.in_flight(), 0);
    });
}
