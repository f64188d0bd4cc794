//! The timeline as the pictures show it: at most some hundred columns, and the frame of the plots. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scale::Scale;
use crate::histogram::Sparse;
use crate::results::{Observed, Results, Row};
use crate::server_timing::Temperature;

/// A run, cut into columns.
pub(super) struct Columns {
    /// Seconds from the left edge of the plots to the right one.
    pub(super) total: f64,
    /// Seconds.
    pub(super) width: f64,
    pub(super) columns: Vec<Column>,
}

/// A stretch of time.
#[derive(Default)]
pub(super) struct Column {
    /// Seconds since the start.
    pub(super) start: f64,
    pub(super) due: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    /// At most, at the end of a row.
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    /// Latencies of the requests that were due in it.
    pub(super) good: Sparse,
    pub(super) bad: Sparse,
    /// How many of them met something else than a warm sandbox.
    pub(super) woken: BTreeMap<Temperature, u64>,
    /// By target.
    pub(super) servers: BTreeMap<usize, Observed>,
}

impl Columns {
    /// At most `most` of them.
    pub(super) fn of(results: &Results, most: usize) -> Self {
        let rows = results.timeline.rows();
        let group = rows.len().div_ceil(most).max(1);
        let interval = results.timeline.interval().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let (width, end) = (interval * group as f64, interval * rows.len() as f64);
        let columns = rows.chunks(group).map(Column::of).collect();
        Self {
            total: end.max(results.planned().as_secs_f64()).max(interval),
            width,
            columns,
        }
    }

    /// Where a moment lies, 0 to 1.
    pub(super) fn x(&self, seconds: f64) -> f64 {
        Scale::Linear(self.total).at(seconds)
    }

    /// The columns with their edges, 0 to 1.
    pub(super) fn placed(&self) -> impl Iterator<Item = (&Column, f64, f64)> {
        let place = |column: &Column| (self.x(column.start), self.x(column.start + self.width));
        self.columns.iter().map(move |column| {
            let (left, right) = place(column);
            (column, left, right)
        })
    }

    /// Per second of what was counted in a column.
    #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
    pub(super) fn rate(&self, count: u64) -> f64 {
        count as f64 / self.width
    }
}

impl Column {
    fn of(rows: &[Row]) -> Self {
        let mut column = Self::default();
        let mut last = Row::default();
        for row in rows {
            column.due += row.due;
            column.answered += row.answered;
            column.failed += row.failed;
            column.in_flight = column.in_flight.max(row.in_flight);
            column.waiting = column.waiting.max(row.waiting);
            for sample in &row.samples {
                let all = if sample.good { &mut column.good } else { &mut column.bad };
                all.merge(&sample.latency);
                if !matches!(sample.temperature, Temperature::Unknown | Temperature::Warm) {
                    *column.woken.entry(sample.temperature).or_default() += sample.count;
                }
            }
            row.servers.iter().cloned().for_each(|seen| last.observe(seen));
        }
        column.servers = last.servers.into_iter().map(|seen| (seen.target, seen)).collect();
        column.start = rows.first().map_or(Duration::ZERO, |row| row.start).as_secs_f64();
        column
    }

    /// All latencies of the column, good and bad.
    pub(super) fn all(&self) -> Sparse {
        let mut all = self.good.clone();
        all.merge(&self.bad);
        all
    }
}

/// The value in milliseconds that this share does not exceed; `None` of none.
pub(super) fn quantile(sparse: &Sparse, share: f64) -> Option<f64> {
    let total = sparse.count();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 % is all that a picture shows"
    )]
    let rank = ((share * total as f64).ceil() as u64).max(1);
    let mut below = 0;
    sparse.iter().find_map(|(nanos, count)| {
        below += count;
        #[expect(clippy::cast_precision_loss, reason = "a day in nanoseconds is exact in f64")]
        (below >= rank).then_some(nanos as f64 / 1e6)
    })
}
