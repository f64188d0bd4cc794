//! Who waits: a bounded FIFO queue with a deadline for each waiter. PURE: takes `now`, knows no clock, task or lock.
//!
//! The shell pushes, pops when a slot is free, cancels when a waiter goes away, and expires at deadlines; for each ticket
//! that `push` returned exactly one of `pop`, `cancel` and `expire` returns the waiter.

use std::collections::{BTreeMap, BTreeSet};

use manifests::units::Timestamp;

/// A place in the queue; older tickets are smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// As many wait as may.
    Requests,
    /// They would hold more bytes than they may.
    Bytes,
}

/// The waiting requests of one revision.
///
/// Q1. `len() <= max_requests` and `bytes() <= max_bytes`, always.
/// Q2. A ticket leaves exactly once: popped, expired or cancelled.
/// Q3. Tickets are popped in the order in which they were pushed.
/// Q4. An empty queue holds no bytes and, after it has shrunk, no memory.
pub struct Queue<T> {
    next: u64,
    bytes: usize,
    max_requests: usize,
    max_bytes: usize,
    waiting: BTreeMap<Ticket, Entry<T>>,
    deadlines: BTreeSet<(Timestamp, Ticket)>,
}

struct Entry<T> {
    deadline: Timestamp,
    bytes: usize,
    waiter: T,
}

impl<T> Queue<T> {
    /// An empty queue; allocates nothing.
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self {
            next: 0,
            bytes: 0,
            max_requests,
            max_bytes,
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many bytes they hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When [`Self::expire`] has something to do next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Joins at the end, holding `bytes`, until `deadline`. Gives the waiter back when there is no place.
    pub fn push(&mut self, deadline: Timestamp, bytes: usize, waiter: T) -> Result<Ticket, (Full, T)> {
        if self.waiting.len() >= self.max_requests {
            return Err((Full::Requests, waiter));
        }
        if bytes > self.max_bytes - self.bytes {
            return Err((Full::Bytes, waiter));
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.bytes += bytes;
        self.deadlines.insert((deadline, ticket));
        self.waiting.insert(
            ticket,
            Entry {
                deadline,
                bytes,
                waiter,
            },
        );
        self.check();
        Ok(ticket)
    }

    /// Takes out the one who has waited longest, with the bytes it held.
    pub fn pop(&mut self) -> Option<(T, usize)> {
        let (&ticket, _) = self.waiting.first_key_value()?;
        self.cancel(ticket)
    }

    /// Takes out this one; `None` when it has left already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<(T, usize)> {
        let entry = self.waiting.remove(&ticket)?;
        self.deadlines.remove(&(entry.deadline, ticket));
        self.bytes -= entry.bytes;
        self.check();
        Some((entry.waiter, entry.bytes))
    }

    /// Takes out one whose deadline has come, the earliest first; `None` when there is no other.
    pub fn expire(&mut self, now: Timestamp) -> Option<(T, usize)> {
        let &(deadline, ticket) = self.deadlines.first()?;
        if deadline <= now { self.cancel(ticket) } else { None }
    }

    fn check(&self) {
        debug_assert!(self.waiting.len() <= self.max_requests, "Q1: {}", self.sizes());
        debug_assert!(self.bytes <= self.max_bytes, "Q1: {}", self.sizes());
        debug_assert!(self.waiting.len() == self.deadlines.len(), "Q2: {}", self.sizes());
        debug_assert!(!self.waiting.is_empty() || self.bytes == 0, "Q4: {}", self.sizes());
    }

    fn sizes(&self) -> String {
        format!(
            "{} of {} waiting, {} deadlines, {} of {} bytes",
            self.waiting.len(),
            self.max_requests,
            self.deadlines.len(),
            self.bytes,
            self.max_bytes
        )
    }
}
