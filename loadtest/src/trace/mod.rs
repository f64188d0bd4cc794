//! Traces of real invocations: which function was called when, how long it ran and what memory its app had. Pure, but for
//! [`Trace::open`]; who replays a trace and who simulates with it read the same arrivals for the same seed.
//!
//! Traces count invocations per minute (the Azure traces) or name the time of each (a plain list). Where inside a minute an
//! invocation fell is made up: an even grid with a phase of its own for a timer, uniform for everything else. What is drawn
//! depends on the seed, the function's name and the minute alone: leaving functions or minutes out moves no other arrival.

mod azure;
mod durations;
mod plain;
mod replay;
mod slice;
mod table;
mod tile;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::units::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom as _;
use rand::{RngExt, SeedableRng};

pub use durations::Durations;
pub use replay::{Replay, Services, Work};
pub use slice::{Slice, Taken};

/// Invocations of some functions over some minutes.
#[derive(Clone, PartialEq, Debug)]
pub struct Trace {
    /// Where it came from.
    pub name: String,
    /// The minutes that it covers, counted from midnight of its day, or from its first invocation.
    pub minutes: Range<u32>,
    /// In the order of the trace.
    pub functions: Vec<Function>,
}

/// One function (or service) of a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct Function {
    /// Unique within the trace.
    pub name: String,
    /// The app that it is a part of; empty where the trace does not say.
    pub app: String,
    /// What calls it.
    pub trigger: Trigger,
    /// When it is called.
    pub calls: Calls,
    /// How long it runs, cold start not included; `None` where the trace does not say.
    pub durations: Option<Durations>,
    /// Its share of the memory that its app had allocated, on average; `None` where the trace does not say.
    pub memory: Option<Bytes>,
    /// How long its instances take to start: the median; `None` where the trace does not say.
    pub start: Option<Duration>,
}

/// What calls a function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Trigger {
    /// A client that waits.
    Http,
    /// The clock.
    Timer,
    /// Messages, events, files, workflows.
    Other,
    /// The trace does not say.
    #[default]
    Unknown,
}

/// When a function is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Calls {
    /// How often in each minute of the trace, from its first one on.
    PerMinute(Vec<u32>),
    /// One by one; ascending in time.
    Times(Vec<Call>),
}

/// A call that a trace names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// When, since minute 0.
    pub at: Duration,
    /// How long it ran, cold start not included; `None` for one drawn from its function's [`Durations`].
    pub duration: Option<Duration>,
}

impl From<Duration> for Call {
    fn from(at: Duration) -> Self {
        Self { at, duration: None }
    }
}

/// One call of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// Since minute 0 of the trace.
    pub at: Duration,
    /// Index into the functions.
    pub function: usize,
    /// How long it runs; `None` where the trace does not say.
    pub duration: Option<Duration>,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// No such file, or no right to read it.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// Not CSV.
    #[error("{file}: {error}")]
    Csv {
        /// Which file.
        file: String,
        /// What and where.
        error: csv::Error,
    },
    /// A column is missing.
    #[error("{file}: no column {column:?}; there are {there}")]
    Column {
        /// Which file.
        file: String,
        /// The missing one.
        column: String,
        /// The names that are there.
        there: String,
    },
    /// A cell holds something else than it should.
    #[error("{file}, line {line}, {column}: {said:?} is not {wanted}")]
    Cell {
        /// Which file.
        file: String,
        /// Counted from 1.
        line: u64,
        /// Which column.
        column: String,
        /// What stands there.
        said: String,
        /// What should.
        wanted: &'static str,
    },
    /// A trace without a function.
    #[error("{0}: nothing is called in it")]
    Empty(String),
}

impl Trace {
    /// Reads a trace: a directory as the Azure Functions traces have it (`invocations.csv`, and where they are there
    /// `durations.csv` and `memory.csv`; each may be compressed as `.csv.gz`), or a list of calls with the columns
    /// `timestamp`, `service` and, where they are known, `duration` and `start`.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        if path.is_dir() {
            azure::open(path)
        } else {
            plain::open(path)
        }
    }

    /// How often each function is called in these minutes.
    pub fn totals(&self, minutes: &Range<u32>) -> Vec<u64> {
        self.functions
            .iter()
            .map(|function| self.total(function, minutes))
            .collect()
    }

    /// Keeps the functions that are called most in these minutes, at most `count`; in the order of the trace.
    #[must_use]
    pub fn top(mut self, count: usize, minutes: &Range<u32>) -> Self {
        let totals = self.totals(minutes);
        let mut order: Vec<usize> = (0..totals.len()).collect();
        order.sort_by_key(|index| (std::cmp::Reverse(totals[*index]), *index));
        order.truncate(count);
        self.keep(&order);
        self
    }

    /// Keeps `count` functions, drawn with equal chances; in the order of the trace.
    #[must_use]
    pub fn sample(mut self, count: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.functions.len()).collect();
        order.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
        order.truncate(count);
        self.keep(&order);
        self
    }

    fn keep(&mut self, wanted: &[usize]) {
        let mut index = 0;
        self.functions.retain(|_| {
            index += 1;
            wanted.contains(&(index - 1))
        });
    }

    /// The calls in these minutes, in order of time. The same seed gives the same calls; holds one minute at a time.
    pub fn invocations(&self, minutes: Range<u32>, seed: u64) -> impl Iterator<Item = Invocation> {
        minutes.flat_map(move |minute| self.minute(minute, seed))
    }

    /// The calls in one minute, in order of time.
    pub fn minute(&self, minute: u32, seed: u64) -> Vec<Invocation> {
        let mut calls = Vec::new();
        for function in 0..self.functions.len() {
            self.calls(function, minute, seed, &mut calls);
        }
        calls.sort_by_key(|call| (call.at, call.function));
        calls
    }

    /// The calls of one function in one minute, in order of time.
    pub fn minute_of(&self, function: usize, minute: u32, seed: u64) -> Vec<Invocation> {
        let mut calls = Vec::new();
        self.calls(function, minute, seed, &mut calls);
        calls.sort_by_key(|call| call.at);
        calls
    }

    /// Adds the calls of one function in one minute, in any order.
    fn calls(&self, index: usize, minute: u32, seed: u64, calls: &mut Vec<Invocation>) {
        let Some(function) = self.functions.get(index) else {
            return;
        };
        let begin = MINUTE * minute;
        let mut draws = function.draws(seed, minute);
        let first = calls.len();
        let mut call = |Call { at, duration }| {
            calls.push(Invocation {
                at,
                function: index,
                duration,
            });
        };
        match &function.calls {
            Calls::Times(times) => {
                let from = times.partition_point(|it| it.at < begin);
                let to = times.partition_point(|it| it.at < begin + MINUTE);
                times[from..to].iter().copied().for_each(&mut call);
            }
            Calls::PerMinute(counts) => {
                let count = self.offset(minute).and_then(|index| counts.get(index)).copied();
                let Some(count) = count.filter(|count| *count > 0) else {
                    return;
                };
                // For all minutes alike, so that a timer keeps its period across them.
                let phase: Option<f64> =
                    (function.trigger == Trigger::Timer).then(|| function.draws(seed, u32::MAX).random());
                for nth in 0..count {
                    let offset = match phase {
                        Some(phase) => (f64::from(nth) + phase) / f64::from(count),
                        None => draws.random(),
                    };
                    call((begin + MINUTE.mul_f64(offset)).into());
                }
            }
        }
        if let Some(durations) = &function.durations {
            for call in &mut calls[first..] {
                let drawn = durations.quantile(draws.random());
                call.duration.get_or_insert(drawn);
            }
        }
    }

    fn total(&self, function: &Function, minutes: &Range<u32>) -> u64 {
        match &function.calls {
            Calls::Times(times) => {
                let within = |it: &&Call| (MINUTE * minutes.start..MINUTE * minutes.end).contains(&it.at);
                times.iter().filter(within).count() as u64
            }
            Calls::PerMinute(counts) => {
                let counts = minutes.clone().filter_map(|minute| counts.get(self.offset(minute)?));
                counts.copied().map(u64::from).sum()
            }
        }
    }

    fn offset(&self, minute: u32) -> Option<usize> {
        minute.checked_sub(self.minutes.start)?.try_into().ok()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

impl Function {
    /// How long its calls run on average; `None` where the trace does not say.
    pub fn mean_duration(&self) -> Option<Duration> {
        let listed = match &self.calls {
            Calls::Times(times) => times.iter().filter_map(|it| it.duration).collect(),
            Calls::PerMinute(_) => Vec::new(),
        };
        match u32::try_from(listed.len()) {
            Ok(count @ 1..) => Some(listed.iter().sum::<Duration>() / count),
            _ => self.durations.as_ref().map(Durations::mean),
        }
    }

    /// A stream of random numbers of its own for each function and minute. Minutes that no trace has stand for what is drawn
    /// once for all of it.
    pub(crate) fn draws(&self, seed: u64, minute: u32) -> Xoshiro256PlusPlus {
        // FNV-1a, which is what it is in every version of everything.
        let bytes = self.name.bytes().chain(minute.to_le_bytes()).chain(seed.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Xoshiro256PlusPlus::seed_from_u64(hash)
    }
}

#[cfg(test)]
mod tests;
