//! A list of calls: CSV with the columns `timestamp` (seconds, or a UTC time such as 2026-01-31T12:00:00.5Z) and `service`;
//! where it is known also `duration` (seconds that the call ran) and `start` (seconds that an instance of the service takes
//! to start; the median of what its rows say). Both may be empty; other columns are passed over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::table::{Column, Table, text};
use super::{Call, Calls, Function, Invocation, MINUTE, Trace, TraceError, Trigger};

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
    let (duration, start) = (table.column("duration").ok(), table.column("start").ok());
    let mut by_service = BTreeMap::<String, Service>::new();
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
        let seconds = |column: Option<Column>| {
            let Some((column, said)) = column
                .map(|it| (it, text(&row, it)))
                .filter(|(_, said)| !said.is_empty())
            else {
                return Ok(None);
            };
            let time = said.parse().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
            let short = time.filter(|time| *time < YEAR);
            let wrong = || table.cell(&row, column, "a number of seconds, 0 or more");
            short.map(Some).ok_or_else(wrong)
        };
        let call = Call {
            at,
            duration: seconds(duration)?,
        };
        let start = seconds(start)?;
        let service = by_service.entry(name.to_owned()).or_default();
        service.calls.push(call);
        service.starts.extend(start);
    }
    let all = || by_service.values().flat_map(|it| &it.calls).map(|it| it.at);
    let (Some(first), Some(last)) = (all().min(), all().max()) else {
        return Err(TraceError::Empty(file.to_owned()));
    };
    let minutes = u32::try_from((last - first).as_secs() / MINUTE.as_secs() + 1).unwrap_or(u32::MAX);
    let functions = by_service.into_iter().map(|(name, Service { mut calls, mut starts })| {
        calls.sort_by_key(|call| call.at);
        calls.iter_mut().for_each(|call| call.at -= first);
        starts.sort_unstable();
        Function {
            name,
            app: String::new(),
            trigger: Trigger::Unknown,
            calls: Calls::Times(calls),
            durations: None,
            memory: None,
            start: starts.get(starts.len().saturating_sub(1) / 2).copied(),
        }
    });
    Ok(Trace {
        name: String::new(),
        minutes: 0..minutes,
        functions: functions.collect(),
    })
}

/// What its rows say.
#[derive(Default)]
struct Service {
    calls: Vec<Call>,
    starts: Vec<Duration>,
}

impl Trace {
    /// These calls as such a list, each service by its function's [`Function::service`]. Times are exact to the microsecond,
    /// durations to the millisecond, so that a replay, which asks for whole ones, and a simulation have the same.
    pub fn listed(&self, calls: &[Invocation]) -> String {
        let mut text = String::from("timestamp,service,duration\n");
        for call in calls {
            let at = call.at.as_micros();
            let duration = call.duration.map_or_else(String::new, |it| {
                let millis = it.as_millis();
                format!("{}.{:03}", millis / 1_000, millis % 1_000)
            });
            let service = self.functions[call.function].service();
            let _ = writeln!(text, "{}.{:06},{service},{duration}", at / 1_000_000, at % 1_000_000);
        }
        text
    }
}

/// Since whenever, as long as it is the same moment for all.
fn time(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok().filter(|at| *at < CENTURIES),
        Err(_) => humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok(),
    }
}

const CENTURIES: Duration = Duration::from_secs(10_000_000_000);
const YEAR: Duration = Duration::from_secs(31_536_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_first_call_in_any_order_and_form() {
        let text = "timestamp,region,service\n1700000061.5, eu ,b\n1700000000,eu,a\n2023-11-14T22:13:21.25Z,eu,a\n";
        let trace = calls("calls.csv", text.as_bytes()).expect("reads");
        assert_eq!(trace.minutes, 0..2);
        let at = |millis: &[u64]| Calls::Times(millis.iter().map(|it| Duration::from_millis(*it).into()).collect());
        let known: Vec<_> = trace
            .functions
            .iter()
            .map(|it| (it.name.as_str(), it.calls.clone()))
            .collect();
        assert_eq!(known, [("a", at(&[0, 1_250])), ("b", at(&[61_500]))]);
    }

    #[test]
    fn durations_and_starts_are_read_where_they_are_said() {
        let text = "timestamp,service,duration,start\n3,a,0.25,2\n1,a,,\n2,b,,\n4,a,1,9\n5,a,,1.5\n";
        let trace = calls("calls.csv", text.as_bytes()).expect("reads");
        let [a, b] = &trace.functions[..] else {
            panic!("{trace:?}")
        };
        let ms = Duration::from_millis;
        let Calls::Times(times) = &a.calls else { panic!("{a:?}") };
        let durations: Vec<_> = times.iter().map(|it| (it.at, it.duration)).collect();
        let all = [(0, None), (2_000, Some(250)), (3_000, Some(1_000)), (4_000, None)];
        assert_eq!(durations, all.map(|(at, duration)| (ms(at), duration.map(ms))));
        assert_eq!(
            (a.start, b.start),
            (Some(ms(2_000)), None),
            "the median of 1.5, 2 and 9"
        );
        assert_eq!((a.mean_duration(), b.mean_duration()), (Some(ms(625)), None));
        let drawn: Vec<_> = trace
            .invocations(trace.minutes.clone(), 7)
            .map(|it| it.duration)
            .collect();
        assert_eq!(drawn, [None, None, Some(ms(250)), Some(ms(1_000)), None]);
    }

    #[test]
    fn what_is_listed_is_read_again() {
        let text = "timestamp,service,duration\n0,a,0.0419\n0.5,b,\n61.123456,a,12.5\n";
        let trace = calls("calls.csv", text.as_bytes()).expect("reads");
        let all: Vec<_> = trace.invocations(trace.minutes.clone(), 1).collect();
        let listed = trace.listed(&all);
        assert_eq!(
            listed,
            "timestamp,service,duration\n0.000000,a,0.041\n0.500000,b,\n61.123456,a,12.500\n"
        );
        let again = calls("calls.csv", listed.as_bytes()).expect("reads");
        assert_eq!(again.listed(&again.invocations(0..2, 2).collect::<Vec<_>>()), listed);
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
            (
                "timestamp,service,duration\n1,a,-2\n",
                "line 2, duration: \"-2\" is not a number of seconds, 0 or more",
            ),
            (
                "timestamp,service,start\n1,a,fast\n",
                "line 2, start: \"fast\" is not a number of seconds, 0 or more",
            ),
            ("timestamp,service\n1\n", "CSV error: record 1"),
        ] {
            let error = calls("calls.csv", text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
