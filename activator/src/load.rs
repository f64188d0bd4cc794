//! How much runs: the exact integral of concurrency in one word per (revision, thread). PURE.
//!
//! With `n` requests in flight and `s` = sum of end instants - sum of start instants, the integral of concurrency up to
//! `t` is `s + n * t`. Two separate atomics would be wrong: a torn read errs by the absolute clock. So `n` stands in the
//! high 20 bits of one word and `s`, in microseconds modulo 2^44, in the low 44:
//!
//! ```text
//! start at t   n += 1, s -= t
//! end at t     n -= 1, s += t
//! area at t    s + n * t   (mod 2^44)
//! ```
//!
//! One thread writes a word, with plain loads and stores; any thread reads it. The reader loads the word first and the
//! clock afterwards, so that no event in the word lies in its future. Only differences of consecutive areas mean
//! something. They are signed: a reader may count a request up to an instant after the one at which it turns out to have
//! ended, when the writer had read its clock but not stored yet. What a sample has too much, the next has too little. A
//! difference is exact below 2^43 microseconds: 8.8e6 request-seconds between two reads.

use std::sync::atomic::{AtomicU64, Ordering};

use manifests::units::Timestamp;

const AREA_BITS: u32 = 44;
const AREA_MASK: u64 = (1 << AREA_BITS) - 1;
const ONE: u64 = 1 << AREA_BITS;

/// One thread's share of a revision's load.
#[derive(Default)]
pub struct LoadWord(AtomicU64);

/// What a reader saw of a [`LoadWord`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen(u64);

/// An integral of concurrency, in microseconds of requests, modulo 2^44.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Area(u64);

impl LoadWord {
    /// A request begins at `now`. Only the word's own thread may call this.
    pub fn start(&self, now: Timestamp) {
        let word = self.0.load(Ordering::Relaxed);
        let area = word.wrapping_sub(now.as_micros()) & AREA_MASK;
        self.0
            .store((word & !AREA_MASK).wrapping_add(ONE) | area, Ordering::Release);
    }

    /// A request ends at `now`. Only the word's own thread may call this.
    pub fn end(&self, now: Timestamp) {
        let word = self.0.load(Ordering::Relaxed);
        debug_assert!(word >= ONE, "a request ended that did not begin here");
        let area = word.wrapping_add(now.as_micros()) & AREA_MASK;
        self.0
            .store((word & !AREA_MASK).wrapping_sub(ONE) | area, Ordering::Release);
    }

    /// What it holds now. Read the clock after this, and give that time to [`Seen::area`].
    pub fn see(&self) -> Seen {
        Seen(self.0.load(Ordering::Acquire))
    }
}

impl Seen {
    /// Requests in flight; at most 2^20 - 1.
    pub fn in_flight(self) -> u32 {
        (self.0 >> AREA_BITS) as u32
    }

    /// The integral of concurrency up to `now`.
    pub fn area(self, now: Timestamp) -> Area {
        let running = u64::from(self.in_flight()).wrapping_mul(now.as_micros());
        Area(self.0.wrapping_add(running) & AREA_MASK)
    }
}

impl Area {
    /// Both together; what the threads of a revision add up to.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0) & AREA_MASK)
    }

    /// Microseconds of requests since an `earlier` sample of the same words; a little below zero when that one had too
    /// much.
    pub fn since(self, earlier: Self) -> i64 {
        let difference = self.0.wrapping_sub(earlier.0) << (64 - AREA_BITS);
        difference.cast_signed() >> (64 - AREA_BITS)
    }
}
