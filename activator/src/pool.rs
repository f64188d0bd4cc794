//! One revision's pool: takes a slot without a lock while one is free, and lets requests wait in line while none is.

mod control;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use manifests::exchange::Rung;
use manifests::revision::Revision;
use manifests::units::Timestamp;
use tokio::sync::oneshot;

use crate::entered::{Entered, Shards};
use crate::gate::{Gate, Joined, Line};
use crate::members::Members;
use crate::outbox::Shared;
use crate::queue::{Full, Queue, Ticket};
use crate::reject::Reject;
use crate::sample::Sampled;
use crate::sandbox::Sandbox;
use crate::slot::Slot;
use crate::state::State;
use crate::wake::Alarm;

/// Where a revision's requests run and wait. Made by [`crate::Pools`], one per revision.
///
/// L1. No two locks are held at once, and neither a slot nor a connection is dropped under one: both run other code.
pub struct Pool {
    this: Weak<Self>,
    state: ArcSwap<State>,
    gate: Arc<Gate<WaitLine>>,
    shards: Shards,
    /// On the list of the periodic report.
    active: AtomicBool,
    /// Scaling has heard of a request at a rung below full since the revision was last idle or the set last changed.
    low_rung_told: AtomicBool,
    /// Scaling has heard of a request that was refused since the last periodic report.
    refusal_told: AtomicBool,
    /// A wake-up has counted one request since the last periodic report, which must subtract it.
    counted_by_wake: AtomicBool,
    retired: AtomicBool,
    members: Mutex<Members>,
    sampled: Mutex<Sampled>,
    shared: Arc<Shared>,
}

/// The queue with what belongs under its lock.
pub(crate) struct WaitLine {
    queue: Queue<Waiter>,
    alarm: Alarm,
    retired: bool,
}

type Waiter = oneshot::Sender<Result<Slot, Reject>>;

impl Pool {
    pub(crate) fn new(revision: Arc<Revision>, shared: Arc<Shared>) -> Arc<Self> {
        let queue = Queue::new(shared.limits.queue_requests, shared.limits.queue_bytes);
        let line = WaitLine {
            queue,
            alarm: Alarm::default(),
            retired: false,
        };
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            state: ArcSwap::from_pointee(State::empty(revision)),
            gate: Arc::new(Gate::new(line)),
            shards: Shards::default(),
            active: AtomicBool::new(false),
            low_rung_told: AtomicBool::new(false),
            refusal_told: AtomicBool::new(false),
            counted_by_wake: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            members: Mutex::default(),
            sampled: Mutex::default(),
            shared,
        })
    }

    /// The revision's current settings.
    pub fn revision(&self) -> Arc<Revision> {
        Arc::clone(&self.state.load().revision)
    }

    /// Where the revision stands on the ladder, as scaling last said.
    pub fn rung(&self) -> Rung {
        self.state.load().rung
    }

    /// Why nothing serves, in words for clients; `None` when something does, or when nothing is meant to.
    pub fn trouble(&self) -> Option<Arc<str>> {
        let state = self.state.load();
        state.trouble.clone().filter(|_| state.serving.is_empty())
    }

    /// Counts a request as in flight from `now` until what it returns is dropped, waiting included. Call it before
    /// [`Self::try_slot`] and [`Self::wait`], so that the report of a wake-up counts the request. `thread` is the
    /// caller's number, below the `threads` that [`crate::Pools::new`] was given; no two threads may use one number.
    ///
    /// # Panics
    /// When `thread` is out of range.
    pub fn enter(self: &Arc<Self>, thread: usize, now: Timestamp) -> Entered {
        self.activate(now);
        self.shards.enter(thread, self.shared.threads, &self.shared.clock, now)
    }

    /// A slot, when one is free and nobody waits. Takes no lock and never awaits.
    pub fn try_slot(self: &Arc<Self>) -> Option<Slot> {
        if self.gate.waiting() > 0 {
            return None;
        }
        let slot = self.acquire()?;
        self.tell_low_rung(&slot);
        Some(slot)
    }

    /// A slot, in the order of arrival, or why there is none. Waits until `deadline` at most, holding `bytes` of the
    /// queue's bound (what the request keeps in memory meanwhile). Wakes scaling when that is due.
    ///
    /// Cancel-safe: dropping the future leaves the queue; a slot that was already on its way goes to the next in line.
    pub async fn wait(self: &Arc<Self>, deadline: Timestamp, bytes: usize) -> Result<Slot, Reject> {
        let since = (self.shared.clock)();
        let mut place = match self.line_up(deadline, bytes, since)? {
            Joined::Slot(slot) => {
                self.tell_low_rung(&slot);
                return Ok(slot);
            }
            Joined::Queued(place) => place,
        };
        let answer = loop {
            let left = deadline.since((self.shared.clock)());
            tokio::select! {
                biased;
                answer = &mut place.answer => break answer,
                // The timer may be a little early by our clock; then some of the wait is left.
                () = tokio::time::sleep(left) => self.expire((self.shared.clock)()),
            }
        };
        place.left = true;
        // The sender is never dropped without an answer: serving, expiring and retiring answer; only `place` cancels.
        let slot = answer.unwrap_or(Err(Reject::Retired))?;
        self.tell_low_rung(&slot);
        Ok(slot.after_waiting(place.from, since, (self.shared.clock)()))
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> u32 {
        self.gate.waiting()
    }

    /// Requests in flight now, those that wait included.
    pub fn in_flight(&self) -> u32 {
        self.shards.sums(&self.shared.clock).in_flight
    }

    /// Bytes that the waiting requests hold.
    pub fn queued_bytes(&self) -> usize {
        self.gate.with(|line| line.queue.bytes())
    }

    /// The ready sandboxes that take requests, sorted by name.
    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.state.load().serving.to_vec()
    }

    fn acquire(&self) -> Option<Slot> {
        let state = self.state.load();
        let sandbox = state.acquire()?;
        Some(Slot::new(Arc::clone(sandbox), state.rung))
    }

    /// Joins the line, or finds a slot on the way.
    fn line_up(
        self: &Arc<Self>,
        deadline: Timestamp,
        bytes: usize,
        now: Timestamp,
    ) -> Result<Joined<Slot, Place>, Reject> {
        if let Some(why) = self.state.load().refused() {
            self.tell_refusal();
            return Err(Reject::Refused { why });
        }
        let (sender, answer) = oneshot::channel();
        let mut wake = false;
        let joined = self.gate.join(
            || self.acquire(),
            |line| {
                if line.retired {
                    return Err(Reject::Retired);
                }
                let state = self.state.load();
                // Looked at again under the lock: a set that came meanwhile has dismissed those before.
                if let Some(why) = state.refused() {
                    return Err(Reject::Refused { why });
                }
                if deadline <= now {
                    return Err(too_late(&state));
                }
                if !self.shared.reserve(bytes) {
                    return Err(Reject::QueueBytes);
                }
                let ticket = line.queue.push(deadline, bytes, sender).map_err(|(full, _)| {
                    self.shared.unreserve(bytes);
                    Reject::from(full)
                })?;
                wake = line.alarm.joined(line.waiting(), state.capacity());
                Ok(Place {
                    pool: Arc::clone(self),
                    ticket,
                    from: state.rung,
                    left: false,
                    answer,
                })
            },
        )?;
        if wake {
            self.wake();
        }
        Ok(joined)
    }

    /// Hands free slots to those who have waited longest, until either runs out.
    pub(crate) fn serve_waiting(&self) {
        self.expire((self.shared.clock)());
        while let Some(((waiter, bytes), slot)) = self.gate.serve(|| self.acquire()) {
            self.shared.unreserve(bytes);
            // A waiter that has just gone away gives the slot back by dropping it.
            let _ = waiter.send(Ok(slot));
        }
    }

    /// Answers all whose deadline has come.
    fn expire(&self, now: Timestamp) {
        while let Some((waiter, bytes)) = self.gate.with(|line| line.queue.expire(now)) {
            self.shared.unreserve(bytes);
            let _ = waiter.send(Err(too_late(&self.state.load())));
        }
    }

    fn leave(&self, ticket: Ticket) {
        if let Some((_, bytes)) = self.gate.with(|line| line.queue.cancel(ticket)) {
            self.shared.unreserve(bytes);
        }
    }
}

/// A place in line; leaves it when dropped early.
struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
    /// Where the revision stood when the wait began.
    from: Rung,
    left: bool,
    /// Dropped after the place has been left: a slot that is in it already goes on from there.
    answer: oneshot::Receiver<Result<Slot, Reject>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left {
            self.pool.leave(self.ticket);
        }
    }
}

impl WaitLine {
    fn waiting(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX)
    }
}

impl Line for WaitLine {
    type Waiter = (Waiter, usize);

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn pop(&mut self) -> Option<Self::Waiter> {
        self.queue.pop()
    }
}

impl From<Full> for Reject {
    fn from(full: Full) -> Self {
        match full {
            Full::Requests => Self::QueueFull,
            Full::Bytes => Self::QueueBytes,
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool of {:?}", self.state.load().revision.id)
    }
}

fn too_late(state: &State) -> Reject {
    match &state.trouble {
        Some(why) if state.serving.is_empty() => Reject::Unavailable { why: Arc::clone(why) },
        _ => Reject::Deadline,
    }
}
