//! The simulator beside reality: the same calls, policies, prices and start latencies, once through `knarr serve` with
//! real sandboxes, once through virtual time. Started by `compare/reality`.
//!
//! ```text
//! trace ─▶ slice ─▶ calls.csv ─▶ knarr load replay ─▶ knarr serve ─▶ cost, starts, late ──┐
//!                        │                              └─▶ start latencies, memory       ├▶ agreement
//!                        └────────────────────────────────────────┴─▶ simulate ───────────┘
//! ```

mod replayed;
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loadtest::simulate::agreement::{Agreement, Outcome, table};
use loadtest::simulate::{Market, Policy, Settings, Starts, simulate};
use loadtest::trace::{Function, Slice, Taken, Trace};
use manifests::revision::ColdStartSla;
use manifests::units::Bytes;
use replayed::{Lived, Played};
use support::{Programs, Result};

/// The simulator beside reality; what is compared: README.md beside the script
#[derive(clap::Parser)]
#[command(name = "loadtest/compare/reality")]
struct Flags {
    /// A directory of the Azure Functions traces, or a CSV file of calls
    #[arg(long, value_name = "TRACE", default_value = "loadtest/traces/azure2019-236")]
    trace: PathBuf,
    /// Functions, of mixed rates
    #[arg(long, value_name = "N", default_value_t = 40)]
    functions: usize,
    /// Minutes of the trace
    #[arg(long, value_name = "N", default_value_t = 20)]
    minutes: u32,
    /// So many times as fast
    #[arg(long, value_name = "TIMES", default_value_t = 2.5)]
    speed: f64,
    /// Which minutes, which functions, their arrivals, durations and start delays
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Of added latency; the median service's start delay, too
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    limit: u64,
    /// Cost and starts may differ by so much
    #[arg(long, value_name = "PERCENT", default_value_t = 15.0)]
    within: f64,
    /// Keep what was sent, served and found in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Only simulate, beside what an earlier run with the same words left in --keep
    #[arg(long, requires = "keep")]
    again: bool,
    #[command(flatten)]
    programs: Programs,
}

/// A policy in a market, as both sides know it.
struct Case {
    name: String,
    policy: Policy,
    market: Market,
}

fn main() -> ExitCode {
    support::run(compare)
}

fn compare(flags: &Flags) -> Result<()> {
    let work = tempfile::tempdir()?;
    if !flags.again {
        wait_for_midnight(flags);
    }
    let place = match &flags.keep {
        Some(path) => {
            fs::create_dir_all(path)?;
            path.clone()
        }
        None => work.path().to_owned(),
    };
    let slice = Slice {
        functions: flags.functions,
        minutes: flags.minutes,
        speed: flags.speed,
        seed: flags.seed,
        least: 5,
        rate: 3.0,
        longest: Duration::from_secs(10),
    };
    let Taken { minutes, trace, calls } = slice.of(&Trace::open(&flags.trace)?)?;
    let list = place.join("calls.csv");
    fs::write(&list, trace.listed(&calls))?;
    // What both read, with the names that services have.
    let mut trace = Trace::open(&list)?;
    let settings = settings(flags);
    for function in &mut trace.functions {
        function.start = Some(delay(function, &settings, flags.seed));
    }
    println!(
        "{} calls of {} functions in minutes {} to {} of {}, {} times as fast: {} min",
        calls.len(),
        trace.functions.len(),
        minutes.start,
        minutes.end,
        flags.trace.display(),
        flags.speed,
        trace.minutes.end
    );
    let cases = cases();
    let played = cases.iter().map(|case| Played {
        knarr: &flags.programs.knarr,
        workload: &flags.programs.workload,
        list: &list,
        trace: &trace,
        settings: &settings,
        policy: case.policy,
        market: &case.market,
        seed: flags.seed,
        place: place.join(&case.name),
    });
    // Side by side: most of what they do is wait.
    let lived: Vec<Result<Lived>> = thread::scope(|scope| {
        if flags.again {
            let read = |played: Played<'_>| Ok(serde_json::from_slice(&fs::read(played.place.join("lived.json"))?)?);
            return played.map(read).collect();
        }
        let all: Vec<_> = played
            .map(|played| scope.spawn(move || played.play().map_err(|error| error.to_string())))
            .collect();
        let join = |it: thread::ScopedJoinHandle<'_, std::result::Result<Lived, String>>| match it.join() {
            Ok(lived) => lived.map_err(Into::into),
            Err(_) => Err("a thread of the comparison panicked".into()),
        };
        all.into_iter().map(join).collect()
    });
    let mut agreements = Vec::new();
    for (case, lived) in cases.iter().zip(lived) {
        let lived = lived.map_err(|error| format!("{}: {error}", case.name))?;
        agreements.push(beside(case, &lived, &trace, &settings, flags));
    }
    println!("\n{}", table(&agreements));
    let wrong: Vec<String> = agreements.iter().flat_map(Agreement::differs).collect();
    if wrong.is_empty() {
        println!(
            "The simulator agrees with reality: cost and starts within {} %, late idle arrivals with overlapping 95 % intervals.",
            flags.within
        );
        return Ok(());
    }
    Err(wrong.join("\n").into())
}

/// `knarr cost` counts from 00:00 UTC on: a run must not go over it.
fn wait_for_midnight(flags: &Flags) {
    #[expect(clippy::disallowed_methods, reason = "a measuring program is a shell")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = DAY - since.as_secs() % DAY;
    let takes = (f64::from(flags.minutes) / flags.speed.max(0.001)).ceil() * 60.0 + 300.0;
    if f64::from(u32::try_from(left).unwrap_or(u32::MAX)) < takes {
        eprintln!("waiting {left} s for 00:00 UTC, from which knarr cost counts");
        thread::sleep(Duration::from_secs(left + 1));
    }
}

const DAY: u64 = 86_400;

/// When within a second the gateway reports nobody knows: simulated with each of so many instants of it.
const PHASES: u32 = 20;

/// What both sides assume.
fn settings(flags: &Flags) -> Settings {
    let limit = Duration::from_millis(flags.limit);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Settings {
        sla: ColdStartSla { quantile: 0.99, limit },
        // Half of the services start in time.
        starts: Starts {
            median: limit,
            spread: 0.7,
            sigma: 0.0,
        },
        initial_scale: 0,
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        ..Settings::default()
    }
}

/// How long a service's app waits before it listens.
fn delay(function: &Function, settings: &Settings, seed: u64) -> Duration {
    let drawn = settings.starts.median_of(function, seed);
    drawn.clamp(Duration::from_millis(100), Duration::from_secs(8))
}

fn cases() -> Vec<Case> {
    let case = |name: &str, policy, market| Case {
        name: name.into(),
        policy,
        market,
    };
    vec![
        case(
            "knative-10s",
            Policy::KnativeWindow(Duration::from_secs(10)),
            Market::equal(),
        ),
        case("auto-reserve", Policy::Auto, Market::equal()),
        case("auto-frozen", Policy::Auto, Market::frozen()),
    ]
}

/// Simulates with what was measured, and puts both together.
fn beside(case: &Case, lived: &Lived, trace: &Trace, settings: &Settings, flags: &Flags) -> Agreement {
    let mut trace = trace.clone();
    for (function, measured) in trace.functions.iter_mut().zip(&lived.services) {
        function.start = measured.start.or(function.start);
        function.memory = measured.frozen;
    }
    let frozen: Vec<u64> = lived.services.iter().filter_map(|it| Some(it.frozen?.0)).collect();
    let usual = frozen.iter().sum::<u64>().checked_div(frozen.len() as u64);
    let mut overheads: Vec<Duration> = lived.services.iter().map(|it| it.overhead).collect();
    overheads.sort_unstable();
    let (thaw, thaw_sigma) = lived.thaws.unwrap_or((settings.thaw, 0.0));
    let settings = Settings {
        memory_of_app: usual.map_or(settings.memory_of_app, Bytes),
        overhead: overheads[overheads.len() / 2],
        thaw,
        thaw_sigma,
        ..settings.clone()
    };
    let runs: Vec<Vec<Outcome>> = (0..PHASES)
        .map(|nth| {
            let settings = Settings {
                phase: Duration::from_secs(1) * nth / PHASES,
                ..settings.clone()
            };
            let tallies = simulate(&trace, &settings, &case.market, &case.policy, flags.seed, || true);
            tallies.iter().map(Outcome::from).collect()
        })
        .collect();
    if flags.keep.is_some() {
        services(case, lived, &runs, &trace);
    }
    let sums: Vec<Outcome> = runs
        .iter()
        .map(|run| run.iter().copied().fold(Outcome::default(), Outcome::plus))
        .collect();
    let all = lived.services.iter().map(|it| it.outcome);
    Agreement {
        name: case.name.clone(),
        real: all.fold(Outcome::default(), Outcome::plus),
        simulated: Outcome::mean(&sums),
        within: flags.within / 100.0,
    }
}

/// Both sides, service by service: where a difference comes from.
fn services(case: &Case, lived: &Lived, runs: &[Vec<Outcome>], trace: &Trace) {
    println!("\n{}, service by service: really / simulated", case.name);
    for (index, (function, real)) in trace.functions.iter().zip(&lived.services).enumerate() {
        let all: Vec<Outcome> = runs.iter().map(|run| run[index]).collect();
        let (real, simulated) = (real.outcome, Outcome::mean(&all));
        let starts = all.iter().map(|it| it.starts);
        let range = format!("{} to {}", starts.clone().min().unwrap_or(0), starts.max().unwrap_or(0));
        println!(
            "{:<16} start {:>6.3} s  requests {:>4} / {:<4}  starts {:>3} / {:<3} ({range:<8})  idle {:>3} / {:<3}  \
             late {:>3} / {:<3}  cost {:.6} / {:.6}",
            function.name,
            function.start.unwrap_or_default().as_secs_f64(),
            real.arrivals,
            simulated.arrivals,
            real.starts,
            simulated.starts,
            real.idle,
            simulated.idle,
            real.late,
            simulated.late,
            real.cost,
            simulated.cost,
        );
    }
}
