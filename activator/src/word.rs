//! One sandbox's word: how many requests run on it and whether it takes more, in 32 bits that every thread shares.
//!
//! ```text
//! bit 31 DRAINING   the newest endpoint set does not have it
//! bit 30 EJECTED    this gateway has given up on it; never cleared
//! bits 0..30        requests in flight
//! ```
//!
//! W1. The count never passes the limit given to [`Word::try_acquire`], whoever calls it.
//! W2. While a flag is set the count only falls.

use crate::sync::{AtomicU32, Ordering};

/// In-flight count with its flags.
pub(crate) struct Word(AtomicU32);

/// What a release left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Released {
    /// Nothing to say.
    Running,
    /// It drains, and this was its last request: it may stop.
    Drained,
}

const DRAINING: u32 = 1 << 31;
const EJECTED: u32 = 1 << 30;
const COUNT: u32 = EJECTED - 1;

impl Word {
    /// The limit that stands for "none": more than fit into memory.
    pub(crate) const UNLIMITED: u32 = COUNT;

    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Takes one place when fewer than `limit` are taken and it neither drains nor is ejected.
    pub(crate) fn try_acquire(&self, limit: u32) -> bool {
        let limit = limit.min(COUNT);
        let mut seen = self.0.load(Ordering::Relaxed);
        // Both flags lie above any limit, so that this one comparison covers them.
        while seen < limit {
            match self
                .0
                .compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Gives one place back; only [`crate::gate::Gate::give_back`] calls it, which looks for waiters.
    pub(crate) fn release(&self) -> Released {
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before & COUNT > 0, "released a slot that nobody held");
        if before & DRAINING != 0 && before & COUNT == 1 {
            Released::Drained
        } else {
            Released::Running
        }
    }

    /// Takes no request from now on; returns how many still run.
    pub(crate) fn drain(&self) -> u32 {
        self.0.fetch_or(DRAINING, Ordering::AcqRel) & COUNT
    }

    /// Takes requests again: it is back in the endpoint set.
    pub(crate) fn undrain(&self) {
        self.0.fetch_and(!DRAINING, Ordering::AcqRel);
    }

    /// Takes no request ever again; whether this call was the first to say so.
    pub(crate) fn eject(&self) -> bool {
        self.0.fetch_or(EJECTED, Ordering::AcqRel) & EJECTED == 0
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.0.load(Ordering::Acquire) & COUNT
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.0.load(Ordering::Acquire) & EJECTED != 0
    }

    /// Neither draining nor ejected.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) & (DRAINING | EJECTED) == 0
    }
}
