//! How the control loop does with many revisions. Each size is measured in a process of its own, so that its memory is its own.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use loadtest::simulate::{Market, Policy, Scale, Settings, report};
use loadtest::trace::Trace;
use manifests::units::{Clock, Timestamp};

use super::{Format, MarketName, Simulate, print_json};
use crate::out;

pub(super) fn scale(args: &Simulate, trace: &Trace, settings: &Settings) -> anyhow::Result<ExitCode> {
    if let Some(revisions) = args.revisions {
        print_json(&measure(args, trace, settings, revisions)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut sizes = Vec::new();
    for revisions in SIZES {
        let size = in_own_process(args, revisions)?;
        let broken = size.tick[1] > TICK_MILLIS;
        if args.output == Format::Table {
            eprintln!("{revisions} revisions: {:.1} ms at 99 % of ticks", size.tick[1]);
        }
        sizes.push(size);
        if broken {
            break;
        }
    }
    if args.output != Format::Table {
        print_json(&sizes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells = sizes.iter().map(|size| {
        let millis = |value: f64| format!("{value:.1}ms");
        vec![
            size.revisions.to_string(),
            size.calls.to_string(),
            millis(size.tick[0]),
            millis(size.tick[1]),
            millis(size.tick[2]),
            format!("{:.1}us", size.each),
            format!("{:.1}KiB", kib(size.memory)),
            format!("{:.0}s", size.took),
        ]
    });
    let heads = [
        "REVISIONS",
        "CALLS",
        "TICK P50",
        "TICK P99",
        "TICK MOST",
        "PER EVENT",
        "MEMORY EACH",
        "SIMULATED IN",
    ];
    out::print(report::aligned(&heads, &cells.collect::<Vec<_>>()).as_bytes())?;
    if let Some(last) = sizes.last().filter(|size| size.tick[1] > TICK_MILLIS) {
        let text = format!(
            "\nAt {} revisions a tick takes longer than the two seconds that it has: there the loop breaks.\n",
            last.revisions
        );
        out::print(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Simulate, trace: &Trace, settings: &Settings, revisions: usize) -> anyhow::Result<Scale> {
    let policy = match args.policy.as_slice() {
        [] => Policy::Auto,
        [one] => one.parse().map_err(anyhow::Error::msg).context("--policy")?,
        _ => bail!("--scale takes one --policy"),
    };
    let minutes = args.hours.map_or(MINUTES, |hours| hours * 60);
    let market = args.markets(settings)?.into_iter().next();
    let (market, settings) = market.unwrap_or_else(|| (Market::equal(), settings.clone()));
    #[expect(clippy::disallowed_methods, reason = "the shell's clock")]
    let begun = std::time::Instant::now();
    let clock: Clock = std::sync::Arc::new(move || Timestamp::EPOCH.plus(begun.elapsed()));
    let of = (&settings, &market, &policy);
    Ok(loadtest::simulate::scale(
        trace,
        (revisions, minutes),
        of,
        &clock,
        resident,
        || true,
    ))
}

/// The same command for one size.
fn in_own_process(args: &Simulate, revisions: usize) -> anyhow::Result<Scale> {
    let program = std::env::current_exe().context("where this program is")?;
    let mut command = Command::new(program);
    command
        .arg("simulate")
        .arg(&args.trace)
        .args(["--scale", "--revisions", &revisions.to_string()]);
    command.args(args.policy.iter().flat_map(|policy| ["--policy", policy]));
    command.args(args.catalogue.iter().flat_map(|catalogue| ["--catalogue", catalogue]));
    let market = |name: &MarketName| name.to_possible_value().map(|value| value.get_name().to_owned());
    for name in args.market.iter().filter_map(market) {
        command.args(["--market", &name]);
    }
    if let Some(hours) = args.hours {
        command.args(["--hours", &hours.to_string()]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("start the measurement")?;
    if !output.status.success() {
        bail!(
            "the measurement with {revisions} revisions ended with {}",
            output.status
        );
    }
    serde_json::from_slice(&output.stdout).context("the measurement's own words")
}

/// Memory that this process has.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

fn kib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1024.0
}

const SIZES: [usize; 8] = [100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000];
const MINUTES: u32 = 10;

/// What Knative's autoscaler has for one.
const TICK_MILLIS: f64 = 2000.0;
