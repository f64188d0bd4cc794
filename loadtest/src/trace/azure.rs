//! The Azure Functions traces: a directory with `invocations.csv` (calls per minute), `durations.csv` (percentiles) and
//! `memory.csv` (megabytes), joined by the hash of the function.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use manifests::units::Bytes;

use super::table::{Column, Table, text};
use super::{Calls, Durations, Function, Trace, TraceError, Trigger};

pub(super) fn open(directory: &Path) -> Result<Trace, TraceError> {
    let optional = |file: &str| match csv(directory, file) {
        Err(TraceError::Read { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    let durations = optional("durations")?
        .map(|read| durations("durations.csv", read))
        .transpose()?;
    let memory = optional("memory")?.map(|read| memory("memory.csv", read)).transpose()?;
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut trace = invocations("invocations.csv", csv(directory, "invocations")?)?;
    trace.name = name.unwrap_or_default();
    for function in &mut trace.functions {
        function.durations = durations.as_ref().and_then(|all| all.get(&function.name).cloned());
        function.memory = memory.as_ref().and_then(|all| all.get(&function.name).copied());
    }
    Ok(trace)
}

/// `file.csv`, or `file.csv.gz`.
fn csv(directory: &Path, file: &str) -> Result<Box<dyn Read>, TraceError> {
    let plain = directory.join(format!("{file}.csv"));
    let packed = directory.join(format!("{file}.csv.gz"));
    if !plain.exists() && packed.exists() {
        let read = File::open(&packed).map_err(|error| TraceError::Read { path: packed, error })?;
        return Ok(Box::new(GzDecoder::new(read)));
    }
    match File::open(&plain) {
        Ok(read) => Ok(Box::new(read)),
        Err(error) => Err(TraceError::Read { path: plain, error }),
    }
}

/// The columns after the named ones are minutes of the day, in order.
fn invocations(file: &str, read: impl Read) -> Result<Trace, TraceError> {
    let mut table = Table::new(file, read)?;
    let (app, name) = (table.column("HashApp")?, table.column("HashFunction")?);
    let trigger = table.column("Trigger")?;
    let mut minutes: Vec<(u32, Column)> = Vec::new();
    for head in table.heads() {
        if let Ok(minute) = head.parse() {
            minutes.push((minute, table.column(head)?));
        }
    }
    let first = minutes.first().map_or(0, |(minute, _)| *minute);
    let missing = (first..)
        .zip(&minutes)
        .find(|(expected, (minute, _))| expected != minute);
    if let Some((expected, _)) = missing {
        return Err(table.missing(&expected.to_string()));
    }
    if minutes.is_empty() {
        return Err(table.missing("0"));
    }
    let mut functions = Vec::new();
    while let Some(row) = table.row()? {
        let counts = minutes.iter();
        let counts = counts.map(|(_, column)| table.number(&row, *column, "a number of invocations"));
        let counts = counts.collect::<Result<Vec<u32>, _>>()?;
        functions.push(Function {
            name: text(&row, name).to_owned(),
            app: text(&row, app).to_owned(),
            trigger: match text(&row, trigger) {
                "http" => Trigger::Http,
                "timer" => Trigger::Timer,
                "" => Trigger::Unknown,
                _ => Trigger::Other,
            },
            calls: Calls::PerMinute(counts),
            durations: None,
            memory: None,
            start: None,
        });
    }
    if functions.is_empty() {
        return Err(TraceError::Empty(file.to_owned()));
    }
    let end = first + u32::try_from(minutes.len()).unwrap_or(u32::MAX);
    Ok(Trace {
        name: String::new(),
        minutes: first..end,
        functions,
    })
}

/// The percentiles of a function's averages over 30 s, weighted by their counts: its tails are flatter than they were.
fn durations(file: &str, read: impl Read) -> Result<HashMap<String, Durations>, TraceError> {
    const SHARES: [(f64, &str); 7] = [
        (0.0, "percentile_Average_0"),
        (0.01, "percentile_Average_1"),
        (0.25, "percentile_Average_25"),
        (0.5, "percentile_Average_50"),
        (0.75, "percentile_Average_75"),
        (0.99, "percentile_Average_99"),
        (1.0, "percentile_Average_100"),
    ];
    const WANTED: &str = "a number of milliseconds, not less than the percentile before it";
    let mut table = Table::new(file, read)?;
    let name = table.column("HashFunction")?;
    let columns = SHARES.iter().map(|(_, column)| table.column(column));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut all = HashMap::new();
    while let Some(row) = table.row()? {
        let mut points = Vec::with_capacity(SHARES.len());
        for ((share, _), column) in SHARES.iter().zip(&columns) {
            let millis: f64 = table.number(&row, *column, WANTED)?;
            if points.last().is_some_and(|(_, before)| millis < *before) || !(0.0..1e12).contains(&millis) {
                return Err(table.cell(&row, *column, WANTED));
            }
            points.push((*share, millis));
        }
        if let Some(durations) = Durations::new(points) {
            all.insert(text(&row, name).to_owned(), durations);
        }
    }
    Ok(all)
}

fn memory(file: &str, read: impl Read) -> Result<HashMap<String, Bytes>, TraceError> {
    const WANTED: &str = "a number of megabytes";
    let mut table = Table::new(file, read)?;
    let (name, average) = (table.column("HashFunction")?, table.column("AverageAllocatedMb")?);
    let mut all = HashMap::new();
    while let Some(row) = table.row()? {
        let megabytes: f64 = table.number(&row, average, WANTED)?;
        if !(0.0..1e9).contains(&megabytes) {
            return Err(table.cell(&row, average, WANTED));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within u64, as just checked"
        )]
        all.insert(text(&row, name).to_owned(), Bytes((megabytes * 1e6) as u64));
    }
    Ok(all)
}
