//! What a run found, as one document that every reader of results starts from: the table, the pictures, the comparison,
//! other people's tools. JSON both ways, nothing lost. Pure.
//!
//! Durations are milliseconds in fields that end in `_ms`; times count from the start of the run. Histograms carry their
//! whole distribution (see [`Latencies`]). Documents of several generators of one run can be merged: [`Results::merge`].

pub(crate) mod millis;
mod requests;
mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use manifests::units::Rps;
use serde::{Deserialize, Serialize};

pub use requests::{Fate, Request};
pub use timeline::{Observed, Row, Sample, Timeline};

use crate::histogram::Latencies;
use crate::record::{ErrorKind, Failures};
use crate::report::Report;
use crate::server_timing::{Phase, Temperature};

/// The version of the document that this code writes. It reads no newer one.
pub const FORMAT: u32 = 1;

/// Everything that is known of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Version of this document: [`FORMAT`].
    pub format: u32,
    /// What made it, with its version.
    pub tool: String,
    /// When the run began, in milliseconds since the Unix epoch; 0 when the caller has no clock.
    pub started_ms: u64,
    /// What was asked for, in words: `poisson 200/s for 10s, seed 1`.
    pub asked: String,
    /// Of everything that was drawn.
    pub seed: u64,
    /// Whether clients waited for answers before they asked again. Then latency tells nothing of those who would have
    /// come meanwhile, and nothing here may be compared with an open loop.
    pub closed_loop: bool,
    /// Whether the run was ended before its end.
    pub interrupted: bool,
    /// From the start to the last answer.
    #[serde(rename = "elapsed_ms", with = "millis")]
    pub elapsed: Duration,
    /// What the generator waited with.
    pub clock: Clock,
    /// The parts of the run, in their order; at least one.
    pub stages: Vec<Stage>,
    /// What was asked; at least one.
    pub targets: Vec<Endpoint>,
    /// Latencies by stage, target, outcome and temperature.
    pub series: Vec<Series>,
    /// Where the time went, in the words of `Server-Timing`.
    pub phases: Vec<PhaseTimes>,
    /// Requests without a whole answer: how often, and the first text of each kind.
    pub errors: BTreeMap<ErrorKind, Failures>,
    /// Requests that our own client aborted, as planned; they are in no series.
    pub aborted: u64,
    /// Of all answers' bodies.
    pub body_bytes: u64,
    /// How connections were come by.
    pub connections: Connections,
    /// How well the generator kept its schedule.
    pub schedule: Schedule,
    /// The run in stretches of time.
    pub timeline: Timeline,
    /// What the thresholds said; empty without any.
    pub verdicts: Vec<Verdict>,
    /// Every single request in the order in which they were due, when [`Scenario::each`](crate::Scenario::each) asked for
    /// them; not part of the JSON.
    #[serde(skip)]
    pub requests: Vec<Request>,
}

/// The generator's timer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Clock {
    /// Its name: `timerfd`.
    pub timer: String,
    /// How much later than asked it woke the generator. Part of [`Schedule::late`], not of what the target did.
    pub late: Latencies,
}

/// A part of the run with one way of arriving.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// When its first request could be due.
    #[serde(rename = "start_ms", with = "millis")]
    pub start: Duration,
    /// When its last request could be due.
    #[serde(rename = "end_ms", with = "millis")]
    pub end: Duration,
    /// How requests come, in words.
    pub arrivals: String,
    /// Requests per second that were asked for, over the whole stage; `None` for a burst and for a closed loop.
    pub asked_rate: Option<Rps>,
    /// Whether clients waited for answers before they asked again.
    #[serde(default)]
    pub closed_loop: bool,
    /// Whether it ran beside the stage before it.
    #[serde(default)]
    pub beside: bool,
}

/// A target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// What it is called here.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// `h1`, `h2c` or `h2`.
    pub protocol: String,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With a whole answer of this status.
    Status(u16),
    /// Without one.
    Error(ErrorKind),
}

impl Ended {
    /// Whether it is an answer below 400.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Status(..400))
    }
}

/// Requests of one stage at one target that ended alike.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Index into the stages.
    pub stage: usize,
    /// Index into the targets.
    pub target: usize,
    /// As `status` or `error`.
    #[serde(flatten)]
    pub ended: Ended,
    /// In the server's words.
    pub temperature: Temperature,
    /// From the due time to the end of the answer, or to the error.
    pub latency: Latencies,
    /// From the due time to the head of the answer; empty where none came.
    pub first_byte: Latencies,
}

/// One part of the time of requests, by `Server-Timing`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// Index into the targets.
    pub target: usize,
    /// Of the requests.
    pub temperature: Temperature,
    /// Which part.
    pub phase: Phase,
    /// How long it took.
    pub times: Latencies,
}

/// How connections were come by; their times are part of latency and told apart here.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// Connections that were opened.
    pub opened: u64,
    /// Requests that went over one that stood already.
    pub reused: u64,
    /// Resolving the name.
    pub dns: Latencies,
    /// The TCP handshake.
    pub connect: Latencies,
    /// The TLS handshake.
    pub tls: Latencies,
}

/// The generator's own lateness: when it is large, the figures tell of the generator, not of the target.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Schedule {
    /// From the due time to the moment the generator got to it; as many as were due.
    pub late: Latencies,
    /// Requests that were late by more than a millisecond.
    pub missed: u64,
    /// From there to a free connection.
    pub line: Latencies,
    /// The most that stood in line at once.
    pub longest_line: usize,
    /// Requests that were never sent: the line was full, or the generator later than the timeout.
    pub never_sent: u64,
}

/// What became of a threshold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The stage that it is about, by name; `None` for the whole run.
    pub stage: Option<String>,
    /// The target that it is about, by name; `None` for all.
    pub target: Option<String>,
    /// As it was written: `p99 < 300ms`.
    pub threshold: String,
    /// What was measured, in the threshold's unit.
    pub seen: String,
    /// Whether it held.
    pub held: bool,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// Not JSON, or not this document.
    #[error("not results of a load run: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("the format is {0}, but this version reads {FORMAT}: use a newer knarr")]
    Newer(u32),
    /// Something in it names what is not there.
    #[error("{field} is {index}, but there are only {count}")]
    Index {
        /// The path of the field.
        field: String,
        /// What it says.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A run has at least one of each.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Rows need a length.
    #[error("timeline.interval_ms is 0")]
    Interval,
}

impl Results {
    /// An empty document.
    pub fn new(asked: String, seed: u64, stages: Vec<Stage>, targets: Vec<Endpoint>) -> Self {
        Self {
            format: FORMAT,
            tool: concat!("knarr ", env!("CARGO_PKG_VERSION")).to_owned(),
            started_ms: 0,
            asked,
            seed,
            closed_loop: false,
            interrupted: false,
            elapsed: Duration::ZERO,
            clock: Clock::default(),
            stages,
            targets,
            series: Vec::new(),
            phases: Vec::new(),
            errors: BTreeMap::new(),
            aborted: 0,
            body_bytes: 0,
            connections: Connections::default(),
            schedule: Schedule::default(),
            timeline: Timeline::default(),
            verdicts: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// The figures for people.
    pub fn report(&self) -> Report {
        Report::of(self)
    }

    /// The document as JSON, with the report's figures beside it under `summary`, for programs that want no more.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            summary: Report,
            #[serde(flatten)]
            results: &'a Results,
        }
        let summary = self.report();
        serde_json::to_string(&Document { summary, results: self }).map(|text| text + "\n")
    }

    /// A line of CSV for each of [`Results::requests`].
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn to_csv(&self) -> Result<Vec<u8>, csv::Error> {
        requests::csv(&self.requests, &self.stages, &self.targets)
    }

    /// Reads what [`Results::to_json`] wrote; unknown fields are passed over.
    pub fn from_json(text: &[u8]) -> Result<Self, ResultsError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_slice(text)?;
        if format > FORMAT {
            return Err(ResultsError::Newer(format));
        }
        let results: Self = serde_json::from_slice(text)?;
        results.check()?;
        Ok(results)
    }

    /// Every index must lead somewhere.
    fn check(&self) -> Result<(), ResultsError> {
        let (stages, targets) = (self.stages.len(), self.targets.len());
        for (field, count) in [("stages", stages), ("targets", targets)] {
            if count == 0 {
                return Err(ResultsError::Empty(field));
            }
        }
        if self.timeline.interval().is_zero() {
            return Err(ResultsError::Interval);
        }
        let within = |field: String, index: usize, count: usize| {
            if index < count {
                Ok(())
            } else {
                Err(ResultsError::Index { field, index, count })
            }
        };
        for (nth, series) in self.series.iter().enumerate() {
            within(format!("series[{nth}].stage"), series.stage, stages)?;
            within(format!("series[{nth}].target"), series.target, targets)?;
        }
        for (nth, phase) in self.phases.iter().enumerate() {
            within(format!("phases[{nth}].target"), phase.target, targets)?;
        }
        for (nth, row) in self.timeline.rows().iter().enumerate() {
            for sample in &row.samples {
                within(format!("timeline.rows[{nth}].samples[].target"), sample.target, targets)?;
            }
            for seen in &row.servers {
                within(format!("timeline.rows[{nth}].servers[].target"), seen.target, targets)?;
            }
        }
        Ok(())
    }

    /// Adds what another generator of the same run found: same stages, same targets. Nothing is lost. What is said once
    /// of a run (what was asked, the verdicts) stays as it is here.
    pub fn merge(&mut self, other: Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.interrupted |= other.interrupted;
        self.clock.late.merge(&other.clock.late);
        for theirs in other.series {
            let same = |ours: &&mut Series| {
                (ours.stage, ours.target, ours.ended, ours.temperature)
                    == (theirs.stage, theirs.target, theirs.ended, theirs.temperature)
            };
            match self.series.iter_mut().find(same) {
                Some(ours) => {
                    ours.latency.merge(&theirs.latency);
                    ours.first_byte.merge(&theirs.first_byte);
                }
                None => self.series.push(theirs),
            }
        }
        self.series
            .sort_by_key(|it| (it.stage, it.target, it.ended, it.temperature));
        for theirs in other.phases {
            let same = |ours: &&mut PhaseTimes| {
                (ours.target, ours.temperature, ours.phase) == (theirs.target, theirs.temperature, theirs.phase)
            };
            match self.phases.iter_mut().find(same) {
                Some(ours) => ours.times.merge(&theirs.times),
                None => self.phases.push(theirs),
            }
        }
        self.phases.sort_by_key(|it| (it.target, it.temperature, it.phase));
        for (kind, failures) in other.errors {
            self.errors
                .entry(kind)
                .and_modify(|ours| ours.count += failures.count)
                .or_insert(failures);
        }
        self.aborted += other.aborted;
        self.body_bytes += other.body_bytes;
        self.connections.merge(&other.connections);
        self.schedule.merge(&other.schedule);
        self.timeline.merge(other.timeline);
        self.requests.extend(other.requests);
        self.requests.sort_by_key(|it| it.due);
    }

    /// Adds another run of the same stages and targets that began `after` the start of this one.
    pub fn append(&mut self, mut other: Self, after: Duration) {
        other.elapsed += after;
        other.timeline = other.timeline.shifted(after);
        other.requests.iter_mut().for_each(|it| it.due += after);
        self.merge(other);
    }

    /// Latencies of the series that are wanted, together.
    pub fn latency(&self, wanted: impl Fn(&Series) -> bool) -> Latencies {
        let mut all = Latencies::new();
        for series in self.series.iter().filter(|series| wanted(series)) {
            all.merge(&series.latency);
        }
        all
    }

    /// The same for the time to the first byte.
    pub fn first_byte(&self, wanted: impl Fn(&Series) -> bool) -> Latencies {
        let mut all = Latencies::new();
        for series in self.series.iter().filter(|series| wanted(series)) {
            all.merge(&series.first_byte);
        }
        all
    }

    /// How many requests of the series that are wanted.
    pub fn count(&self, wanted: impl Fn(&Series) -> bool) -> u64 {
        let wanted = self.series.iter().filter(|series| wanted(series));
        wanted.map(|series| series.latency.count()).sum()
    }

    /// When the last stage ends by plan.
    pub fn planned(&self) -> Duration {
        self.stages.iter().map(|stage| stage.end).max().unwrap_or_default()
    }
}

impl Connections {
    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.opened += other.opened;
        self.reused += other.reused;
        self.dns.merge(&other.dns);
        self.connect.merge(&other.connect);
        self.tls.merge(&other.tls);
    }
}

impl Schedule {
    /// Adds all of another. The longest lines of two generators are added up: they may have stood at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.late.merge(&other.late);
        self.missed += other.missed;
        self.line.merge(&other.line);
        self.longest_line += other.longest_line;
        self.never_sent += other.never_sent;
    }
}

#[cfg(test)]
mod tests;
