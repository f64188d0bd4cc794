//! Load accounting of one revision: who is in flight, on which thread, since when.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifests::units::{Clock, Timestamp};

use crate::load::{Area, LoadWord};

/// One thread's share of a revision's accounting; a cache line that only this thread writes.
#[repr(align(64))]
struct Shard {
    load: LoadWord,
    arrivals: AtomicU64,
    /// [`manifests::exchange::Work::first`] in microseconds; 0 is none. Writes of its thread, taken by the reader.
    first: AtomicU64,
    clock: Clock,
}

/// A request in flight, from [`crate::Pool::enter`] until this is dropped. Waiting counts as being in flight, as in
/// Knative. Not `Send`: it must end on the thread on which it began.
#[must_use = "dropping it ends the request"]
pub struct Entered {
    shard: Arc<Shard>,
    /// When it came, when nothing was in flight on its thread.
    first: Option<Timestamp>,
    not_send: PhantomData<*const ()>,
}

/// The shards of a revision; allocated on first use, the outer list too.
#[derive(Default)]
pub(crate) struct Shards(OnceLock<Box<[OnceLock<Arc<Shard>>]>>);

/// Sums over all shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) in_flight: u32,
    pub(crate) arrivals: u64,
    pub(crate) area: Area,
}

impl Shards {
    /// A request begins at `now` on thread number `thread` of `threads`.
    pub(crate) fn enter(&self, thread: usize, threads: usize, clock: &Clock, now: Timestamp) -> Entered {
        let shards = self.0.get_or_init(|| (0..threads).map(|_| OnceLock::new()).collect());
        let shard = shards[thread].get_or_init(|| {
            let clock = Arc::clone(clock);
            Arc::new(Shard {
                load: LoadWord::default(),
                arrivals: AtomicU64::new(0),
                first: AtomicU64::new(0),
                clock,
            })
        });
        let first = (shard.load.see().in_flight() == 0).then_some(now);
        shard.load.start(now);
        // One writer, so that a load and a store are enough.
        shard
            .arrivals
            .store(shard.arrivals.load(Ordering::Relaxed) + 1, Ordering::Release);
        Entered {
            shard: Arc::clone(shard),
            first,
            not_send: PhantomData,
        }
    }

    /// What all threads together have done so far; reads the clock after each word.
    pub(crate) fn sums(&self, clock: &Clock) -> Sums {
        let mut sums = Sums::default();
        for shard in self.0.get().into_iter().flatten().filter_map(OnceLock::get) {
            let seen = shard.load.see();
            sums.in_flight += seen.in_flight();
            sums.arrivals += shard.arrivals.load(Ordering::Acquire);
            sums.area = sums.area.plus(seen.area(clock()));
        }
        sums
    }

    /// How long a request was here that came while nothing was in flight on its thread, and has ended since this was asked
    /// last; the longest of several threads'.
    pub(crate) fn take_first(&self) -> Option<Duration> {
        let shards = self.0.get().into_iter().flatten().filter_map(OnceLock::get);
        let longest = shards.map(|shard| shard.first.swap(0, Ordering::Relaxed)).max();
        longest.filter(|micros| *micros > 0).map(Duration::from_micros)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let now = (self.shard.clock)();
        self.shard.load.end(now);
        if let Some(since) = self.first
            && self.shard.first.load(Ordering::Relaxed) == 0
        {
            let micros = now.as_micros().saturating_sub(since.as_micros());
            self.shard.first.store(micros.max(1), Ordering::Relaxed);
        }
    }
}
