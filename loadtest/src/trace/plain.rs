//! A list of calls: CSV with the columns `timestamp` (seconds, or a UTC time such as 2026-01-31T12:00:00.5Z) and `service`;
//! others are passed over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::table::{Table, text};
use super::{Calls, Function, MINUTE, Trace, TraceError, Trigger};

pub(super) fn open(path: &Path) -> Result<Trace, TraceError> {
    let file = path.display().to_string();
    let read = File::open(path).map_err(|error| TraceError::Read {
        path: path.to_owned(),
        error,
    })?;
    let mut trace = calls(&file, read)?;
    trace.name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or(file);
    Ok(trace)
}

/// Times count from the first call, in whatever order the calls stand.
fn calls(file: &str, read: impl Read) -> Result<Trace, TraceError> {
    let mut table = Table::new(file, read)?;
    let (timestamp, service) = (table.column("timestamp")?, table.column("service")?);
    let mut by_service = BTreeMap::<String, Vec<Duration>>::new();
    while let Some(row) = table.row()? {
        let name = text(&row, service);
        if name.is_empty() {
            return Err(table.cell(&row, service, "the name of a service"));
        }
        let Some(at) = time(text(&row, timestamp)) else {
            return Err(table.cell(
                &row,
                timestamp,
                "a number of seconds, or a UTC time such as 2026-01-31T12:00:00Z",
            ));
        };
        by_service.entry(name.to_owned()).or_default().push(at);
    }
    let all = || by_service.values().flatten().copied();
    let (Some(first), Some(last)) = (all().min(), all().max()) else {
        return Err(TraceError::Empty(file.to_owned()));
    };
    let minutes = u32::try_from((last - first).as_secs() / MINUTE.as_secs() + 1).unwrap_or(u32::MAX);
    let functions = by_service.into_iter().map(|(name, mut times)| {
        times.sort_unstable();
        times.iter_mut().for_each(|at| *at -= first);
        Function {
            name,
            app: String::new(),
            trigger: Trigger::Unknown,
            calls: Calls::Times(times),
            durations: None,
            memory: None,
        }
    });
    Ok(Trace {
        name: String::new(),
        minutes: 0..minutes,
        functions: functions.collect(),
    })
}

/// Since whenever, as long as it is the same moment for all.
fn time(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok().filter(|at| *at < CENTURIES),
        Err(_) => humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok(),
    }
}

const CENTURIES: Duration = Duration::from_secs(10_000_000_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_first_call_in_any_order_and_form() {
        let text = "timestamp,region,service\n1700000061.5, eu ,b\n1700000000,eu,a\n2023-11-14T22:13:21.25Z,eu,a\n";
        let trace = calls("calls.csv", text.as_bytes()).expect("reads");
        assert_eq!(trace.minutes, 0..2);
        let at = |millis: &[u64]| Calls::Times(millis.iter().copied().map(Duration::from_millis).collect());
        let known: Vec<_> = trace
            .functions
            .iter()
            .map(|it| (it.name.as_str(), it.calls.clone()))
            .collect();
        assert_eq!(known, [("a", at(&[0, 1_250])), ("b", at(&[61_500]))]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("", "calls.csv: no column \"timestamp\"; there are "),
            (
                "time,service\n",
                "calls.csv: no column \"timestamp\"; there are time, service",
            ),
            ("timestamp,service\n", "calls.csv: nothing is called in it"),
            (
                "timestamp,service\n1,a\nsoon,a\n",
                "calls.csv, line 3, timestamp: \"soon\" is not a number of seconds",
            ),
            (
                "timestamp,service\n-1,a\n",
                "line 2, timestamp: \"-1\" is not a number of seconds",
            ),
            (
                "timestamp,service\n1,\n",
                "line 2, service: \"\" is not the name of a service",
            ),
            ("timestamp,service\n1\n", "CSV error: record 1"),
        ] {
            let error = calls("calls.csv", text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
