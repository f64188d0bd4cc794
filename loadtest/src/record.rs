//! What came of the requests, as counts and histograms: the memory does not grow with the length of a run. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::histogram::Latencies;
use crate::results::{Connections, Ended, Fate, PhaseTimes, Request, Results, Schedule, Series, Timeline};
use crate::server_timing::{Phase, Temperature, Timing};

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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No connection.
    Connect,
    /// A connection, but no TLS over it.
    Tls,
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
            Self::Tls => "no TLS",
            Self::Closed => "closed without an answer",
            Self::Cut => "answer cut short",
            Self::Protocol => "not HTTP",
            Self::Timeout => "timeout",
        })
    }
}

/// How often an error came, and its first text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

/// Which requests are counted together, with how they ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct SeriesKey {
    stage: usize,
    target: usize,
    ended: Ended,
    temperature: Temperature,
}

/// A request to come, as far as counting goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    /// Indexes into the run's stages and targets.
    pub(crate) stage: usize,
    pub(crate) target: usize,
    /// When it was due, since the start of the run.
    pub(crate) due: Duration,
}

/// Everything that one generator counts; [`Results::merge`] puts those of several together.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) due: u64,
    pub(crate) aborted: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) connections: Connections,
    /// How late the timer woke the generator.
    pub(crate) timer_late: Latencies,
    errors: BTreeMap<ErrorKind, Failures>,
    series: BTreeMap<SeriesKey, [Latencies; 2]>,
    phases: BTreeMap<(usize, Temperature, Phase), Latencies>,
    schedule: Schedule,
    timeline: Timeline,
    body_bytes: u64,
    last_end: Duration,
    /// Since [`Recorder::take_recent`].
    recent: Latencies,
    /// Every single one, where that is asked for.
    each: Option<Vec<Request>>,
}

/// When there are so many, a status that is new is counted as the first of its kind (599 as 500): a hostile server must
/// not fill our memory.
const MOST_SERIES: usize = 256;

/// A request issued later than this after its due time counts as a miss of the generator.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(1);

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            due: 0,
            aborted: 0,
            statuses: BTreeMap::new(),
            connections: Connections::default(),
            timer_late: Latencies::new(),
            errors: BTreeMap::new(),
            series: BTreeMap::new(),
            phases: BTreeMap::new(),
            schedule: Schedule::default(),
            timeline: Timeline::default(),
            body_bytes: 0,
            last_end: Duration::ZERO,
            recent: Latencies::new(),
            each: None,
        }
    }

    /// Keeps what comes of each single request, too.
    pub(crate) fn with_each(mut self, each: bool) -> Self {
        self.each = each.then(Vec::new);
        self
    }

    /// A request due at `due` is issued: sent, put in line, or given up.
    pub(crate) fn issued(&mut self, due: Duration, now: Duration) {
        let late = now.saturating_sub(due);
        self.due += 1;
        self.schedule.late.record(late);
        self.schedule.missed += u64::from(late > TOLERANCE);
        self.timeline.at(due).due += 1;
    }

    /// A request that was issued will never be sent.
    pub(crate) fn never_sent(&mut self, request: Sent, now: Duration) {
        self.keep(request, Fate::NeverSent, request.due, None, Timing::default());
        self.schedule.never_sent += 1;
        self.timeline.at(now).never_sent += 1;
    }

    /// How many were given up so far.
    pub(crate) fn gave_up(&self) -> u64 {
        self.schedule.never_sent
    }

    /// So many stand in line now.
    pub(crate) fn in_line(&mut self, waiting: usize) {
        self.schedule.longest_line = self.schedule.longest_line.max(waiting);
    }

    /// A request that stood in line since `issued` is sent.
    pub(crate) fn sent(&mut self, issued: Duration, now: Duration) {
        self.schedule.line.record(now.saturating_sub(issued));
        self.timeline.at(now).sent += 1;
    }

    /// A request is over. Latency counts from its due time; that of a failed one too, or a target that answers one request
    /// in two in time would look fast.
    pub(crate) fn over(&mut self, request: Sent, outcome: Outcome, now: Duration) {
        self.last_end = self.last_end.max(now);
        let Sent { stage, target, due } = request;
        let latency = now.saturating_sub(due);
        let (ended, timing, first_byte) = match outcome {
            Outcome::Aborted => {
                self.aborted += 1;
                self.timeline.at(now).aborted += 1;
                return self.keep(request, Fate::Aborted, now, None, Timing::default());
            }
            Outcome::Failed(kind, text) => {
                let new = || Failures { count: 0, first: text };
                self.errors.entry(kind).or_insert_with(new).count += 1;
                self.timeline.at(now).failed += 1;
                (Ended::Error(kind), Timing::default(), None)
            }
            Outcome::Answered(answer) => {
                *self.statuses.entry(answer.status).or_default() += 1;
                self.body_bytes += answer.body_bytes;
                self.timeline.at(now).answered += 1;
                let first_byte = answer.first_byte.saturating_sub(due);
                (Ended::Status(answer.status), answer.timing, Some(first_byte))
            }
        };
        self.keep(request, Fate::Ended(ended), now, first_byte, timing.clone());
        let temperature = timing.temperature;
        let mut key = SeriesKey {
            stage,
            target,
            ended,
            temperature,
        };
        if self.series.len() >= MOST_SERIES
            && !self.series.contains_key(&key)
            && let Ended::Status(status) = ended
        {
            key.ended = Ended::Status(status / 100 * 100);
        }
        let [latencies, first_bytes] = self.series.entry(key).or_default();
        latencies.record(latency);
        if let Some(time) = first_byte {
            first_bytes.record(time);
        }
        for (phase, time) in Phase::ALL.into_iter().zip(timing.phases) {
            if let Some(time) = time {
                self.phases
                    .entry((target, temperature, phase))
                    .or_default()
                    .record(time);
            }
        }
        let row = self.timeline.at(due);
        row.record(target, temperature, ended.is_good(), latency);
        self.recent.record(latency);
    }

    fn keep(&mut self, request: Sent, fate: Fate, now: Duration, first_byte: Option<Duration>, timing: Timing) {
        let Sent { stage, target, due } = request;
        if let Some(each) = &mut self.each {
            each.push(Request {
                stage,
                target,
                due,
                fate,
                latency: now.saturating_sub(due),
                first_byte,
                timing,
            });
        }
    }

    /// The run was broken off: what is still under way or in line counts as aborted by our own client.
    pub(crate) fn break_off(&mut self) {
        let answered: u64 = self.statuses.values().sum();
        let over = answered + self.failures() + self.schedule.never_sent;
        self.aborted = self.due.saturating_sub(over);
    }

    /// The latencies since the last call.
    pub(crate) fn take_recent(&mut self) -> Latencies {
        let recent = self.recent.clone();
        self.recent.clear();
        recent
    }

    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().map(|failures| failures.count).sum()
    }

    /// Everything that was counted, in a document that says what was asked.
    pub(crate) fn fill(self, results: &mut Results) {
        results.elapsed = self.last_end;
        results.clock.late = self.timer_late;
        let series = self.series.into_iter().map(|(key, [latency, first_byte])| Series {
            stage: key.stage,
            target: key.target,
            ended: key.ended,
            temperature: key.temperature,
            latency,
            first_byte,
        });
        results.series = series.collect();
        let phases = self.phases.into_iter();
        let phases = phases.map(|((target, temperature, phase), times)| PhaseTimes {
            target,
            temperature,
            phase,
            times,
        });
        results.phases = phases.collect();
        results.errors = self.errors;
        results.aborted = self.aborted;
        results.body_bytes = self.body_bytes;
        results.connections = self.connections;
        results.schedule = self.schedule;
        results.timeline = self.timeline;
        results.timeline.settle();
        results.requests = self.each.unwrap_or_default();
        results.requests.sort_by_key(|it| it.due);
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
    fn latency_counts_from_the_due_time_and_kinds_are_kept_apart() {
        let mut recorder = Recorder::new().with_each(true);
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
        let timeout = |text: &str| Outcome::Failed(ErrorKind::Timeout, text.to_owned());
        let request = |stage, target| Sent {
            stage,
            target,
            due: ms(100),
        };
        for late in [101, 102, 103, 104, 105] {
            recorder.issued(ms(100), ms(late));
        }
        recorder.sent(ms(101), ms(120));
        recorder.in_line(4);
        recorder.over(request(0, 0), answer(200, cold), ms(150));
        recorder.over(request(1, 0), answer(503, Timing::default()), ms(180));
        recorder.over(request(1, 1), timeout("late"), ms(1_100));
        recorder.over(request(1, 1), timeout("again"), ms(1_100));
        recorder.over(request(0, 0), Outcome::Aborted, ms(5_000));
        recorder.never_sent(request(1, 1), ms(140));
        assert_eq!(
            (recorder.take_recent().count(), recorder.take_recent().count()),
            (4, 0),
            "failed ones too, aborted ones not"
        );
        assert_eq!((recorder.due, recorder.aborted, recorder.failures()), (5, 1, 2));
        assert_eq!(recorder.statuses, BTreeMap::from([(200, 1), (503, 1)]));

        let mut results = Results::new(String::new(), 1, Vec::new(), Vec::new());
        recorder.fill(&mut results);
        let known: Vec<_> = results
            .series
            .iter()
            .map(|it| (it.stage, it.target, it.ended, it.temperature, it.latency.count()))
            .collect();
        assert_eq!(
            known,
            [
                (0, 0, Ended::Status(200), Temperature::Cold, 1),
                (1, 0, Ended::Status(503), Temperature::Unknown, 1),
                (1, 1, Ended::Error(ErrorKind::Timeout), Temperature::Unknown, 2),
            ]
        );
        let failures = &results.errors[&ErrorKind::Timeout];
        assert_eq!((failures.count, failures.first.as_str()), (2, "late"));
        assert!(close(results.series[0].latency.max(), ms(50)));
        assert!(close(results.series[0].first_byte.max(), ms(30)));
        assert!(close(results.series[2].latency.max(), ms(1_000)) && results.series[2].first_byte.is_empty());
        assert_eq!((results.phases.len(), results.phases[0].phase), (1, Phase::Queue));
        assert!(close(results.phases[0].times.max(), ms(7)));
        let schedule = &results.schedule;
        assert_eq!((schedule.missed, schedule.longest_line, schedule.never_sent), (4, 4, 1));
        assert!(close(schedule.line.max(), ms(19)));
        assert_eq!((results.body_bytes, results.elapsed), (10, ms(5_000)));
        let rows = results.timeline.rows();
        assert_eq!((rows[10].due, rows[10].samples.len()), (5, 3));
        assert_eq!(
            (rows[12].sent, rows[14].never_sent, rows[15].answered, rows[110].failed),
            (1, 1, 1, 2)
        );
        assert_eq!(rows[500].aborted, 1);

        let text = String::from_utf8(results.to_csv().expect("fits")).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "due_ms,stage,target,status,error,temperature,latency_ms,first_byte_ms,route_ms,queue_ms,start_ms,\
                 connect_ms,app_ms",
                "100.000,,,200,,cold,50.000,30.000,,7.000,,,",
                "100.000,,,503,,unknown,80.000,30.000,,,,,",
                "100.000,,,,timeout,unknown,1000.000,,,,,,",
                "100.000,,,,timeout,unknown,1000.000,,,,,,",
                "100.000,,,,aborted,unknown,4900.000,,,,,,",
                "100.000,,,,never sent,unknown,0.000,,,,,,",
            ]
        );
    }

    #[test]
    fn a_hostile_server_does_not_fill_the_memory() {
        let mut recorder = Recorder::new();
        for temperature in [Temperature::Cold, Temperature::Warm] {
            for status in 100..=999 {
                let answer = Answer {
                    status,
                    first_byte: ms(1),
                    body_bytes: 0,
                    timing: Timing {
                        temperature,
                        ..Timing::default()
                    },
                };
                let request = Sent {
                    stage: 0,
                    target: 0,
                    due: Duration::ZERO,
                };
                recorder.over(request, Outcome::Answered(answer), ms(1));
            }
        }
        assert!(
            recorder.series.len() <= MOST_SERIES + 2 * 9,
            "{}",
            recorder.series.len()
        );
        let counted = recorder.series.values().map(|[latency, _]| latency.count());
        assert_eq!(counted.sum::<u64>(), 1_800, "and none is lost");
    }

    #[test]
    fn what_is_broken_off_is_counted() {
        let mut recorder = Recorder::new();
        for nth in 0..5 {
            recorder.issued(ms(nth), ms(nth));
        }
        let request = Sent {
            stage: 0,
            target: 0,
            due: ms(0),
        };
        recorder.over(request, Outcome::Failed(ErrorKind::Timeout, String::new()), ms(9));
        recorder.never_sent(request, ms(1));
        recorder.break_off();
        assert_eq!((recorder.due, recorder.aborted), (5, 3));
    }
}
