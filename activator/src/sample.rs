//! From sums of load to what a periodic report says of one revision. PURE.
//!
//! Knative: the activator keeps a table of revisions with something in flight. The first request of a
//! revision that is not in the table counts as an average of 1 and a count of 1 at once, and the next periodic report has
//! these subtracted, at least down to zero: together max(average, 1). A revision leaves the table when a whole period was
//! empty. Here that first statement is only sent when it wakes somebody; otherwise the periodic report says both.

use std::time::Duration;

use manifests::exchange::Work;
use manifests::units::{Concurrency, Rps, Timestamp};

use crate::entered::Sums;
use crate::load::Area;

/// Where the last sample ended.
#[derive(Default)]
pub(crate) struct Sampled {
    area: Area,
    arrivals: u64,
    /// The last sample, or the beginning of activity after a rest.
    since: Timestamp,
    in_table: bool,
}

/// What happened between two samples.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Taken {
    pub(crate) concurrency: Concurrency,
    pub(crate) rps: Rps,
    pub(crate) work: Work,
    /// There was something.
    pub(crate) busy: bool,
}

impl Sampled {
    /// Activity begins at `now` after a rest.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.since = now;
    }

    /// Whether something has happened since the last sample.
    pub(crate) fn behind(&self, sums: Sums) -> bool {
        sums.in_flight > 0 || sums.arrivals != self.arrivals
    }

    /// Ends a sample at `now`. `woken`: a wake-up has counted one of these requests already. `period`: the time since the
    /// last periodic report of the gateway, which request counts are divided by.
    pub(crate) fn take(&mut self, sums: Sums, woken: bool, now: Timestamp, period: Duration) -> Taken {
        let arrivals = sums.arrivals - self.arrivals;
        // Below zero when the last sample had a little too much: then the two are taken together next time.
        let (base, area) = match u64::try_from(sums.area.since(self.area)) {
            Ok(area) => (sums.area, area),
            Err(_) => (self.area, 0),
        };
        let busy = area > 0 || self.behind(sums);
        let elapsed = now.since(self.since).as_secs_f64();
        let average = if elapsed > 0.0 {
            seconds(area) / elapsed
        } else {
            f64::from(sums.in_flight)
        };
        let counted = if woken { 1.0 } else { 0.0 };
        let concurrency = match (woken, busy && !self.in_table) {
            (true, _) => (average - 1.0).max(0.0),
            (false, true) => average.max(1.0),
            (false, false) => average,
        };
        let rps = match period.as_secs_f64() {
            0.0 => 0.0,
            period => (count(arrivals) - counted).max(0.0) / period,
        };
        *self = Self {
            area: base,
            arrivals: sums.arrivals,
            since: now,
            in_table: busy,
        };
        Taken {
            concurrency: Concurrency(concurrency),
            rps: Rps(rps),
            work: Work {
                arrivals: u32::try_from(arrivals).unwrap_or(u32::MAX),
                time: Duration::from_micros(area),
                first: None,
            },
            busy,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^44 microseconds at most")]
fn seconds(area: u64) -> f64 {
    area as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "requests of one second")]
fn count(arrivals: u64) -> f64 {
    arrivals as f64
}
