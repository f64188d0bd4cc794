//! A run in stretches of time: what was due, sent and answered when, how long it took, and how the server stood. Bounded:
//! when a run outlasts its rows, two become one and the interval doubles. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::millis;
use crate::histogram::Sparse;
use crate::server_timing::Temperature;

/// The most rows that are kept: a run of any length has at most these, and half as many at least once it had them.
const MOST_ROWS: usize = 600;

/// The first interval. Runs of up to six seconds keep it.
const FINEST: Duration = Duration::from_millis(10);

/// Rows of equal length, from the start of the run, without gaps.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Timeline {
    /// The length of a row.
    #[serde(rename = "interval_ms", with = "millis")]
    interval: Duration,
    rows: Vec<Row>,
}

/// One stretch of time. The counts are of what happened in it; the samples are of the requests that were due in it,
/// whenever they ended.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// When it begins.
    #[serde(rename = "start_ms", with = "millis")]
    pub start: Duration,
    /// Requests that were due.
    pub due: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Whole answers that came, of any status.
    pub answered: u64,
    /// Requests that ended without a whole answer.
    pub failed: u64,
    /// Requests that our own client aborted, as planned.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub aborted: u64,
    /// Requests that will never be sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub never_sent: u64,
    /// Under way at its end. Follows from the counts: [`Timeline::settle`] writes it.
    pub in_flight: u64,
    /// Due and not yet sent at its end. Follows from the counts as well.
    pub waiting: u64,
    /// Latencies of the requests that were due in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// How the server stood, where it says so: the most replicas and the longest queue of the stretch, the last rung.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Observed>,
}

/// Latencies of one stretch of time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Index into the targets.
    pub target: usize,
    /// In the server's words.
    pub temperature: Temperature,
    /// Whether these ended with an answer below 400.
    pub good: bool,
    /// How many.
    pub count: u64,
    /// From the due time to the end.
    #[serde(rename = "hdr")]
    pub latency: Sparse,
}

/// How a server said it stood with one target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Observed {
    /// Index into the targets.
    pub target: usize,
    /// Replicas that were ready.
    pub replicas: u32,
    /// Replicas that were being started, beside those.
    pub starting: u32,
    /// Where an idle one stood: `zero`, `frozen`, `throttled` or `full`.
    pub rung: String,
    /// Requests that waited for a replica.
    pub queue: u64,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            interval: FINEST,
            rows: Vec::new(),
        }
    }
}

impl Timeline {
    /// The length of a row.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// All rows, in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row of this moment.
    pub fn at(&mut self, time: Duration) -> &mut Row {
        while self.index(time) >= MOST_ROWS {
            self.coarsen();
        }
        let index = self.index(time);
        while self.rows.len() <= index {
            let start = self.interval * u32::try_from(self.rows.len()).expect("few rows");
            self.rows.push(Row {
                start,
                ..Row::default()
            });
        }
        &mut self.rows[index]
    }

    /// Adds what another generator counted in the same run.
    pub fn merge(&mut self, mut other: Self) {
        while self.interval < other.interval {
            self.coarsen();
        }
        while other.interval < self.interval {
            other.coarsen();
        }
        for row in other.rows {
            self.at(row.start).add(row);
        }
        self.settle();
    }

    /// The same, so much later.
    pub(super) fn shifted(self, by: Duration) -> Self {
        let mut later = Self {
            interval: self.interval,
            rows: Vec::new(),
        };
        for row in self.rows {
            later.at(row.start + by).add(row);
        }
        later.settle();
        later
    }

    /// Writes what follows from the counts.
    pub fn settle(&mut self) {
        let (mut waiting, mut in_flight) = (0_u64, 0_u64);
        for row in &mut self.rows {
            waiting = (waiting + row.due).saturating_sub(row.sent + row.never_sent);
            in_flight = (in_flight + row.sent).saturating_sub(row.answered + row.failed + row.aborted);
            (row.waiting, row.in_flight) = (waiting, in_flight);
        }
    }

    fn index(&self, time: Duration) -> usize {
        usize::try_from(time.as_nanos() / self.interval.as_nanos()).unwrap_or(usize::MAX)
    }

    /// Two rows become one.
    fn coarsen(&mut self) {
        self.interval *= 2;
        let mut rows = std::mem::take(&mut self.rows).into_iter();
        while let Some(mut row) = rows.next() {
            if let Some(next) = rows.next() {
                row.add(next);
            }
            self.rows.push(row);
        }
    }
}

impl Row {
    /// A request that was due in this row has ended.
    pub fn record(&mut self, target: usize, temperature: Temperature, good: bool, latency: Duration) {
        let sample = self.sample(target, temperature, good);
        sample.count += 1;
        sample.latency.record(latency);
    }

    /// The server was seen to stand like this.
    pub fn observe(&mut self, seen: Observed) {
        match self.servers.iter_mut().find(|known| known.target == seen.target) {
            Some(known) => {
                // Both together at most as many as there were at once.
                let all = (known.replicas + known.starting).max(seen.replicas + seen.starting);
                known.replicas = known.replicas.max(seen.replicas);
                known.starting = all.saturating_sub(known.replicas);
                known.queue = known.queue.max(seen.queue);
                known.rung = seen.rung;
            }
            None => self.servers.push(seen),
        }
    }

    /// Requests due in this row that ended at this temperature.
    pub fn count(&self, temperature: Temperature) -> u64 {
        let samples = self.samples.iter().filter(|sample| sample.temperature == temperature);
        samples.map(|sample| sample.count).sum()
    }

    fn sample(&mut self, target: usize, temperature: Temperature, good: bool) -> &mut Sample {
        let known = self
            .samples
            .iter()
            .position(|it| (it.target, it.temperature, it.good) == (target, temperature, good));
        let index = known.unwrap_or_else(|| {
            self.samples.push(Sample {
                target,
                temperature,
                good,
                count: 0,
                latency: Sparse::default(),
            });
            self.samples.len() - 1
        });
        &mut self.samples[index]
    }

    fn add(&mut self, later: Self) {
        self.due += later.due;
        self.sent += later.sent;
        self.answered += later.answered;
        self.failed += later.failed;
        self.aborted += later.aborted;
        self.never_sent += later.never_sent;
        for theirs in later.samples {
            let ours = self.sample(theirs.target, theirs.temperature, theirs.good);
            ours.count += theirs.count;
            ours.latency.merge(&theirs.latency);
        }
        for seen in later.servers {
            self.observe(seen);
        }
        // The last state of the two; merging two generators settles it anew.
        (self.in_flight, self.waiting) = (later.in_flight, later.waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_run_of_any_length_keeps_every_count_in_few_rows() {
        let mut timeline = Timeline::default();
        for second in 0..86_400 {
            let row = timeline.at(Duration::from_secs(second));
            row.due += 1;
            row.record(0, Temperature::Warm, true, ms(second % 50));
        }
        assert!((300..=MOST_ROWS).contains(&timeline.rows().len()));
        assert_eq!(timeline.rows().iter().map(|row| row.due).sum::<u64>(), 86_400);
        let samples = timeline.rows().iter().flat_map(|row| &row.samples);
        let (told, held) = samples.fold((0, 0), |(told, held), it| (told + it.count, held + it.latency.count()));
        assert_eq!((told, held), (86_400, 86_400));
        let interval = timeline.interval();
        for (nth, row) in timeline.rows().iter().enumerate() {
            assert_eq!(row.start, interval * u32::try_from(nth).expect("few"));
        }
    }

    #[test]
    fn what_is_under_way_follows_from_the_counts_also_of_two_generators() {
        let one = |offset: u64| {
            let mut timeline = Timeline::default();
            timeline.at(ms(offset)).due += 3;
            timeline.at(ms(offset)).sent += 2;
            timeline.at(ms(offset + 20)).answered += 1;
            timeline.at(ms(offset + 20)).sent += 1;
            timeline.at(ms(offset + 40)).failed += 1;
            timeline.at(ms(offset + 40)).aborted += 1;
            timeline
        };
        let mut both = one(0);
        // The other one ran longer, and has coarser rows.
        let mut long = one(10);
        long.at(Duration::from_secs(10)).due += 1;
        long.at(Duration::from_secs(10)).never_sent += 1;
        both.merge(long);
        assert_eq!(both.interval(), ms(20));
        let standing: Vec<_> = both
            .rows()
            .iter()
            .take(4)
            .map(|row| (row.in_flight, row.waiting))
            .collect();
        assert_eq!(standing, [(4, 2), (4, 0), (0, 0), (0, 0)]);
        assert_eq!(both.rows().last().map(|row| (row.in_flight, row.waiting)), Some((0, 0)));
    }

    #[test]
    fn the_server_is_told_of_by_its_peaks_and_its_last_rung() {
        let seen = |replicas, queue, rung: &str| Observed {
            target: 0,
            replicas,
            starting: 0,
            rung: rung.to_owned(),
            queue,
        };
        let mut row = Row::default();
        row.observe(seen(0, 9, "zero"));
        row.observe(Observed {
            starting: 4,
            ..seen(0, 3, "zero")
        });
        row.observe(seen(4, 0, "full"));
        assert_eq!(row.servers, [seen(4, 9, "full")]);
    }
}
