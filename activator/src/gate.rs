//! Where those who free slots meet those who wait for one, so that no wake-up is lost.
//!
//! Acquiring and releasing a slot touch only the sandbox's own [word](crate::word). The queue is behind a lock, which
//! the warm path never takes. The two sides meet like this:
//!
//! ```text
//! waiter   lock, waiting = n + 1, FENCE, try the words once more, else join the queue, unlock
//! releaser word -= 1,             FENCE, waiting > 0? then lock and serve the head
//! ```
//!
//! With both fences sequentially consistent at least one side sees the other: the waiter the freed word, or the releaser
//! the waiter. Without either of them a waiter can sleep beside a free slot; the loom tests below show it.

use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering, fence, lock};
use crate::word::{Released, Word};

/// A queue as the gate needs to know it.
pub(crate) trait Line {
    /// What stands in it.
    type Waiter;
    /// How many stand in it.
    fn len(&self) -> usize;
    /// Takes out the one who is next.
    fn pop(&mut self) -> Option<Self::Waiter>;
}

/// A queue behind a lock, with its length readable without the lock.
///
/// G1. Outside the lock `waiting` equals the queue's length; inside it may be one more, while somebody is joining.
pub(crate) struct Gate<Q> {
    waiting: AtomicU32,
    queue: Mutex<Q>,
}

/// How joining ended.
pub(crate) enum Joined<S, T> {
    /// A slot was free after all.
    Slot(S),
    /// In the queue; what `enqueue` returned.
    Queued(T),
}

impl<Q: Line> Gate<Q> {
    pub(crate) fn new(queue: Q) -> Self {
        Self {
            waiting: AtomicU32::new(0),
            queue: Mutex::new(queue),
        }
    }

    /// How many wait. The warm path asks this before it takes a slot, so that newcomers do not overtake the queue.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes a slot when nobody waits and one is free, else a place in the queue.
    pub(crate) fn join<S, T, E>(
        &self,
        acquire: impl FnOnce() -> Option<S>,
        enqueue: impl FnOnce(&mut Q) -> Result<T, E>,
    ) -> Result<Joined<S, T>, E> {
        let mut queue = lock(&self.queue);
        self.waiting.store(length(&*queue) + 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slot = if queue.len() == 0 { acquire() } else { None };
        let joined = match slot {
            Some(slot) => Ok(Joined::Slot(slot)),
            None => enqueue(&mut queue).map(Joined::Queued),
        };
        self.settle(queue);
        joined
    }

    /// Gives a place on `word` back. True: somebody waits, see [`Self::freed`].
    pub(crate) fn give_back(&self, word: &Word) -> (Released, bool) {
        let released = word.release();
        (released, self.freed())
    }

    /// Says that a slot may have become free; true when somebody waits, and then the caller must call [`Self::serve`].
    pub(crate) fn freed(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes a slot on behalf of the head of the queue. The caller hands it over after this has returned, outside the
    /// lock: a waiter that has gone away then gives it on by dropping it. Call again until it returns `None`.
    pub(crate) fn serve<S>(&self, acquire: impl FnOnce() -> Option<S>) -> Option<(Q::Waiter, S)> {
        let mut queue = lock(&self.queue);
        if queue.len() == 0 {
            return None;
        }
        let slot = acquire()?;
        let waiter = queue.pop()?;
        self.settle(queue);
        Some((waiter, slot))
    }

    /// Does something to the queue under its lock.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Q) -> R) -> R {
        let mut queue = lock(&self.queue);
        let result = act(&mut queue);
        self.settle(queue);
        result
    }

    fn settle(&self, queue: MutexGuard<'_, Q>) {
        self.waiting.store(length(&*queue), Ordering::Relaxed);
    }
}

fn length<Q: Line>(queue: &Q) -> u32 {
    u32::try_from(queue.len()).unwrap_or(u32::MAX)
}

#[cfg(all(test, loom))]
mod loom_tests;
