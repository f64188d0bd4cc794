//! `knarr load replay`: the calls of a real trace, at a chosen speed.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use loadtest::Scenario;
use loadtest::results::Ended;
use loadtest::trace::{Calls, Services, Trace, Trigger};

use super::go::{go, knarr};
use super::output::Outputs;
use crate::args::parse_duration;
use crate::out;
use crate::table::table;

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A directory of the Azure Functions traces, or a CSV file with the columns timestamp, service and, where it is known,
    /// duration (seconds)
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// So many times as fast: 60 makes a minute a second. Durations of calls stay as they are
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    speed: f64,
    /// From this minute of the trace on [default: its first]
    #[arg(long, value_name = "MINUTE")]
    from: Option<u32>,
    /// Until before this minute [default: its end]
    #[arg(long, value_name = "MINUTE")]
    to: Option<u32>,
    /// Only the N functions with the most calls in that time
    #[arg(long, value_name = "N", conflicts_with = "sample")]
    top: Option<usize>,
    /// Only N functions, drawn by the seed
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// URL of a function's service; {function} is its name, or f- and 12 digits of its hash. With --services, {n} is the
    /// number of the service
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://{function}.default.localhost:8080",
        default_value_if(
            "services",
            clap::builder::ArgPredicate::IsPresent,
            "http://svc-{n}.default.localhost:8080"
        )
    )]
    url: String,
    /// All functions on N services, one after the other
    #[arg(long, value_name = "N")]
    services: Option<usize>,
    /// How the workload app imitates a call
    #[arg(long, default_value = "sleep")]
    work: Work,
    /// Each request also holds its function's memory while it sleeps
    #[arg(long)]
    memory: bool,
    /// Of arrivals within their minutes, durations and --sample: the same number gives the same load
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Print Services for all of it, which run the workload app, and end
    #[arg(long)]
    manifests: bool,
    /// Print what would be sent, and end
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for an answer, from when its request was due
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
    /// Admin address of the Knarr behind, for replicas, rung and queue; none for no Knarr [default: 127.0.0.1:9090 when it
    /// serves a target]
    #[arg(long, value_name = "ADDRESS")]
    status: Option<String>,
    /// No live view
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Work {
    /// Wait as long as the call took
    Sleep,
    /// Burn CPU as long
    Cpu,
    /// Answer at once: for servers that know nothing of this
    None,
}

/// Sends it. Fails when there was no answer at all.
pub(crate) fn replay(args: &Replay) -> anyhow::Result<ExitCode> {
    args.outputs.check()?;
    if args.memory && args.work != Work::Sleep {
        bail!("--memory needs --work sleep: the workload app holds memory while it waits");
    }
    let trace = Trace::open(&args.trace)?;
    let replay = loadtest::trace::Replay {
        minutes: args.from.unwrap_or(trace.minutes.start)..args.to.unwrap_or(trace.minutes.end),
        speed: args.speed,
        seed: args.seed,
        services: match args.services {
            Some(count) => Services::Modulo(args.url.clone(), count),
            None => Services::Each(args.url.clone()),
        },
        work: match args.work {
            Work::Sleep => loadtest::trace::Work::Sleep,
            Work::Cpu => loadtest::trace::Work::Cpu,
            Work::None => loadtest::trace::Work::None,
        },
        memory: args.memory,
    };
    let trace = match (args.top, args.sample) {
        (Some(count), _) => trace.top(count, &replay.minutes),
        (_, Some(count)) => trace.sample(count, replay.seed),
        _ => trace,
    };
    let about = about(&trace, &replay);
    let functions = args.dry_run.then(|| functions(&trace, &replay));
    let mut scenario = replay.scenario(trace).map_err(anyhow::Error::msg)?;
    if args.manifests {
        out::print(manifests(&scenario)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(functions) = functions {
        out::print((about + &functions).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    scenario.timeout = args.timeout;
    scenario.each = args.outputs.wants_each();
    scenario.knarr = knarr(args.status.as_deref(), &scenario.targets)?;
    if !args.quiet {
        eprint!("{about}");
    }
    let mut results = go(scenario, args.quiet)?;
    results.asked = about.lines().next().unwrap_or_default().to_owned();
    args.outputs.write(&results)?;
    let answers = results.count(|series| matches!(series.ended, Ended::Status(_)));
    Ok(if answers > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What would be sent.
fn about(trace: &Trace, replay: &loadtest::trace::Replay) -> String {
    let totals = trace.totals(&replay.minutes);
    let calls: u64 = totals.iter().sum();
    let seconds = replay.duration().as_secs_f64();
    let by_minute = replay.minutes.clone().map(|minute| {
        let calls: u64 = trace.totals(&(minute..minute + 1)).iter().sum();
        calls
    });
    let per_second = |calls: u64, seconds: f64| {
        #[expect(clippy::cast_precision_loss, reason = "2^53 calls are out of reach")]
        let rate = calls as f64 / seconds;
        rate
    };
    let peak = per_second(by_minute.max().unwrap_or_default(), 60.0 / replay.speed);
    let mut text = format!(
        "{}: {calls} calls of {} functions in minutes {} to {}, at {} times their speed: {seconds:.1} s, {:.1}/s on \
         average, {peak:.1}/s in the busiest minute\n",
        trace.name,
        trace.functions.len(),
        replay.minutes.start,
        replay.minutes.end,
        replay.speed,
        per_second(calls, seconds),
    );
    let of = |trigger: Trigger| trace.functions.iter().filter(|it| it.trigger == trigger).count();
    if trace.functions.iter().any(|it| matches!(it.calls, Calls::PerMinute(_))) {
        let _ = writeln!(
            text,
            "within each minute: {} timers on an even grid, the others anywhere (seed {})",
            of(Trigger::Timer),
            replay.seed
        );
    }
    text
}

/// The functions, those with the most calls first.
fn functions(trace: &Trace, replay: &loadtest::trace::Replay) -> String {
    let totals = trace.totals(&replay.minutes);
    let mut order: Vec<_> = trace.functions.iter().zip(totals).collect();
    order.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    let rows: Vec<Vec<String>> = order
        .into_iter()
        .map(|(function, calls)| {
            let millis = |share| {
                let of = function.durations.as_ref().map(|it| it.quantile(share));
                of.map_or("-".to_owned(), |time| format!("{:.0}ms", time.as_secs_f64() * 1e3))
            };
            let memory = function
                .memory
                .map_or("-".to_owned(), |it| format!("{}MB", it.0 / 1_000_000));
            vec![
                function.service(),
                format!("{:?}", function.trigger).to_lowercase(),
                calls.to_string(),
                millis(0.5),
                millis(0.99),
                memory,
            ]
        })
        .collect();
    table(&["FUNCTION", "TRIGGER", "CALLS", "P50", "P99", "MEMORY"], &rows)
}

/// A Service for each target, in the namespace that its host names.
fn manifests(scenario: &Scenario) -> anyhow::Result<String> {
    let mut text = "# The services of a replayed trace, each with the workload app of this knarr.\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-autoscaler\n  namespace: knative-serving\n\
         data:\n  allow-zero-initial-scale: \"true\"\n"
        .to_owned();
    for target in &scenario.targets {
        let host = target.host.split(':').next().unwrap_or_default();
        let mut labels = host.split('.');
        let names = labels.next().zip(labels.next()).filter(|_| labels.next().is_some());
        let (name, namespace) = names.with_context(|| {
            format!("the host {host:?} names no service, as NAME.NAMESPACE.localhost does; change --url")
        })?;
        let _ = write!(
            text,
            "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
             spec:\n  template:\n    metadata:\n      annotations:\n        autoscaling.knative.dev/initial-scale: \"0\"\n        \
             knarr.dev/server-timing: enabled\n    spec:\n      containers:\n        - image: host:knarr\n          \
             args: [workload]\n"
        );
    }
    Ok(text)
}
