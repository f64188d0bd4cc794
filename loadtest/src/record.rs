//! What came of the requests, as counts and histograms: the memory does not grow with the length of a run. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::server_timing::{Phase, Temperature, Timing};

/// A distribution of durations, exact to 0.1 %; what is longer than a day counts as a day. At most 300 KiB.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

const LONGEST: Duration = Duration::from_secs(86_400);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).expect("3 digits are within what the histogram can do"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.min(LONGEST).as_nanos()).expect("a day fits");
        self.0.record(nanos).expect("the histogram grows as needed");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
    /// The smallest; zero when there are none, as for all that follow.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.0.min())
    }
    /// The largest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
    /// The average.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e9)
    }
    /// The smallest recorded value that at least this share of all values do not exceed; `share` is 0 to 1.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }
}

/// `count`, and milliseconds: `min_ms`, `mean_ms`, `p50_ms`, `p90_ms`, `p99_ms`, `p999_ms`, `max_ms`.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        let mut fields = serializer.serialize_struct("Latencies", 8)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("min_ms", &millis(self.min()))?;
        fields.serialize_field("mean_ms", &millis(self.mean()))?;
        fields.serialize_field("p50_ms", &millis(self.quantile(0.5)))?;
        fields.serialize_field("p90_ms", &millis(self.quantile(0.9)))?;
        fields.serialize_field("p99_ms", &millis(self.quantile(0.99)))?;
        fields.serialize_field("p999_ms", &millis(self.quantile(0.999)))?;
        fields.serialize_field("max_ms", &millis(self.max()))?;
        fields.end()
    }
}

/// The first digit of a status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StatusClass(u8);

impl StatusClass {
    /// 200 to 299.
    pub const SUCCESS: Self = Self(2);

    /// Of a status code, 100 to 999.
    pub fn of(status: u16) -> Self {
        Self(u8::try_from(status / 100).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for StatusClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}xx", self.0)
    }
}

impl Serialize for StatusClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a request that was sent (or tried to be) got no whole answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No connection.
    Connect,
    /// The connection ended before the answer's head.
    Closed,
    /// The answer's head came, its end did not.
    Cut,
    /// Not HTTP.
    Protocol,
    /// Nothing whole before the timeout.
    Timeout,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection",
            Self::Closed => "closed without an answer",
            Self::Cut => "answer cut short",
            Self::Protocol => "not HTTP",
            Self::Timeout => "timeout",
        })
    }
}

/// How often an error came, and its first text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failures {
    /// How often.
    pub count: u64,
    /// What was said the first time.
    pub first: String,
}

/// What came of one request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered(Answer),
    Failed(ErrorKind, String),
    /// By our own client, as planned.
    Aborted,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When the head was here, since the start of the run.
    pub(crate) first_byte: Duration,
    pub(crate) body_bytes: u64,
    pub(crate) timing: Timing,
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) due: u64,
    pub(crate) refused: u64,
    pub(crate) missed: u64,
    pub(crate) aborted: u64,
    pub(crate) body_bytes: u64,
    pub(crate) last_end: Duration,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) errors: BTreeMap<ErrorKind, Failures>,
    pub(crate) latency: Latencies,
    pub(crate) first_byte: Latencies,
    pub(crate) classes: BTreeMap<(StatusClass, Temperature), Latencies>,
    pub(crate) phases: BTreeMap<(Temperature, Phase), Latencies>,
    pub(crate) late: Latencies,
    pub(crate) line: Latencies,
    /// Since [`Recorder::take_recent`].
    recent: Latencies,
}

/// A request issued later than this after its due time counts as a miss of the generator.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(1);

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            due: 0,
            refused: 0,
            missed: 0,
            aborted: 0,
            body_bytes: 0,
            last_end: Duration::ZERO,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            latency: Latencies::new(),
            first_byte: Latencies::new(),
            classes: BTreeMap::new(),
            phases: BTreeMap::new(),
            late: Latencies::new(),
            line: Latencies::new(),
            recent: Latencies::new(),
        }
    }

    /// A request due at `due` is issued: sent, put in line, or refused.
    pub(crate) fn issued(&mut self, due: Duration, now: Duration) {
        let late = now.saturating_sub(due);
        self.due += 1;
        self.late.record(late);
        self.missed += u64::from(late > TOLERANCE);
    }

    /// A request will never be sent.
    pub(crate) fn refused(&mut self) {
        self.refused += 1;
    }

    /// A request that stood in line since `issued` is sent.
    pub(crate) fn sent(&mut self, issued: Duration, now: Duration) {
        self.line.record(now.saturating_sub(issued));
    }

    /// A request is over. Latency counts from `due`; that of a failed one too, or a target that answers one request in
    /// two in time would look fast.
    pub(crate) fn over(&mut self, due: Duration, outcome: Outcome, now: Duration) {
        self.last_end = now;
        let latency = now.saturating_sub(due);
        match outcome {
            Outcome::Aborted => {
                self.aborted += 1;
                return;
            }
            Outcome::Failed(kind, text) => {
                self.errors
                    .entry(kind)
                    .or_insert_with(|| Failures { count: 0, first: text })
                    .count += 1;
            }
            Outcome::Answered(answer) => self.answered(due, latency, &answer),
        }
        self.latency.record(latency);
        self.recent.record(latency);
    }

    fn answered(&mut self, due: Duration, latency: Duration, answer: &Answer) {
        let temperature = answer.timing.temperature;
        *self.statuses.entry(answer.status).or_default() += 1;
        self.body_bytes += answer.body_bytes;
        self.first_byte.record(answer.first_byte.saturating_sub(due));
        let class = (StatusClass::of(answer.status), temperature);
        self.classes.entry(class).or_insert_with(Latencies::new).record(latency);
        for (phase, time) in Phase::ALL.into_iter().zip(answer.timing.phases) {
            if let Some(time) = time {
                self.phases
                    .entry((temperature, phase))
                    .or_insert_with(Latencies::new)
                    .record(time);
            }
        }
    }

    /// The latencies since the last call.
    pub(crate) fn take_recent(&mut self) -> Latencies {
        let recent = self.recent.clone();
        self.recent.0.reset();
        recent
    }

    pub(crate) fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().map(|failures| failures.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn close(left: Duration, right: Duration) -> bool {
        left.abs_diff(right) <= right / 1000
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut latencies = Latencies::new();
        // Once each of 1 to 1000 ms, in an order that is not sorted.
        (0..1000).for_each(|i| latencies.record(ms(i * 37 % 1000 + 1)));
        for (share, expected) in [
            (0.0, 1),
            (0.001, 1),
            (0.5, 500),
            (0.9, 900),
            (0.99, 990),
            (0.999, 999),
            (1.0, 1000),
        ] {
            let got = latencies.quantile(share);
            assert!(close(got, ms(expected)), "{share}: {got:?}");
        }
        assert!(close(latencies.mean(), Duration::from_micros(500_500)));
        assert_eq!(latencies.count(), 1000);
        assert_eq!(Latencies::new().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn holds_nanoseconds_and_a_day() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_nanos(900));
        latencies.record(Duration::from_secs(90_000));
        assert_eq!(latencies.min(), Duration::from_nanos(900));
        assert!(close(latencies.max(), Duration::from_secs(86_400)));
    }

    #[test]
    fn latency_counts_from_the_due_time_and_classes_are_kept_apart() {
        let mut recorder = Recorder::new();
        let cold = Timing {
            temperature: Temperature::Cold,
            phases: [None, Some(ms(7)), None, None, None],
        };
        let answer = |status, timing| {
            Outcome::Answered(Answer {
                status,
                first_byte: ms(130),
                body_bytes: 5,
                timing,
            })
        };
        recorder.issued(ms(100), ms(101));
        recorder.issued(ms(100), ms(102));
        recorder.sent(ms(101), ms(120));
        recorder.over(ms(100), answer(200, cold), ms(150));
        recorder.over(ms(100), answer(503, Timing::default()), ms(180));
        recorder.over(
            ms(100),
            Outcome::Failed(ErrorKind::Timeout, "late".to_owned()),
            ms(1_100),
        );
        recorder.over(
            ms(100),
            Outcome::Failed(ErrorKind::Timeout, "again".to_owned()),
            ms(1_100),
        );
        recorder.over(ms(100), Outcome::Aborted, ms(5_000));

        assert_eq!(
            (recorder.due, recorder.missed, recorder.aborted, recorder.body_bytes),
            (2, 1, 1, 10)
        );
        assert_eq!(recorder.statuses, BTreeMap::from([(200, 1), (503, 1)]));
        assert_eq!(
            recorder.errors[&ErrorKind::Timeout],
            Failures {
                count: 2,
                first: "late".to_owned()
            }
        );
        assert!(close(
            recorder.classes[&(StatusClass::SUCCESS, Temperature::Cold)].max(),
            ms(50)
        ));
        assert!(close(
            recorder.classes[&(StatusClass::of(503), Temperature::Unknown)].max(),
            ms(80)
        ));
        assert!(close(recorder.phases[&(Temperature::Cold, Phase::Queue)].max(), ms(7)));
        assert!(close(recorder.first_byte.max(), ms(30)) && close(recorder.line.max(), ms(19)));
        assert_eq!(recorder.latency.count(), 4, "failed ones too, aborted ones not");
        assert!(close(recorder.latency.quantile(0.75), ms(1_000)));
        assert_eq!((recorder.take_recent().count(), recorder.take_recent().count()), (4, 0));
    }
}
