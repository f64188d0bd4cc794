//! What came of each single request, for whoever wants more than histograms; a line of CSV for each. Pure.

use std::time::Duration;

use super::{Ended, Endpoint, Stage};
use crate::server_timing::{Phase, Timing};

/// One request. Times count from the start of the run, latencies from the due time.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// Index into the stages.
    pub stage: usize,
    /// Index into the targets.
    pub target: usize,
    /// When it was due.
    pub due: Duration,
    /// What came of it.
    pub fate: Fate,
    /// From the due time until that was known; 0 for one that was never sent.
    pub latency: Duration,
    /// From the due time to the head of the answer; `None` where none came.
    pub first_byte: Option<Duration>,
    /// In the server's words.
    pub timing: Timing,
}

/// How a request ended, if it was sent at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// With an answer, or without one.
    Ended(Ended),
    /// Aborted by our own client, as planned.
    Aborted,
    /// Never sent: the line was full, or the generator later than the timeout.
    NeverSent,
}

/// A head, and a line for each of them; durations are milliseconds.
pub(super) fn csv(requests: &[Request], stages: &[Stage], targets: &[Endpoint]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let phases = Phase::ALL.map(|phase| format!("{}_ms", phase.name()));
    writer.write_record(HEADS.into_iter().chain(phases.iter().map(String::as_str)))?;
    let ms = |time: Duration| format!("{:.3}", time.as_secs_f64() * 1e3);
    let maybe = |time: Option<Duration>| time.map(ms).unwrap_or_default();
    for request in requests {
        let (status, error) = match request.fate {
            Fate::Ended(Ended::Status(status)) => (status.to_string(), String::new()),
            Fate::Ended(Ended::Error(kind)) => (String::new(), kind.to_string()),
            Fate::Aborted => (String::new(), "aborted".to_owned()),
            Fate::NeverSent => (String::new(), "never sent".to_owned()),
        };
        let name = |name: Option<&String>| name.cloned().unwrap_or_default();
        let mut row = vec![
            ms(request.due),
            name(stages.get(request.stage).map(|it| &it.name)),
            name(targets.get(request.target).map(|it| &it.name)),
            status,
            error,
            request.timing.temperature.name().to_owned(),
            ms(request.latency),
            maybe(request.first_byte),
        ];
        row.extend(request.timing.phases.map(maybe));
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

const HEADS: [&str; 8] = [
    "due_ms",
    "stage",
    "target",
    "status",
    "error",
    "temperature",
    "latency_ms",
    "first_byte_ms",
];
