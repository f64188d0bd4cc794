//! `knarr simulate`: what policies would cost over a trace, without a server.

mod scale;
mod study;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use loadtest::simulate::{self, Case, Engine, Market, Policy, Settings, Starts, Summary};
use loadtest::trace::Trace;
use manifests::resources::Quantity;
use manifests::revision::ColdStartSla;
use manifests::units::Bytes;

use crate::args::parse_duration;
use crate::out;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A directory of the Azure Functions traces, or a CSV file with the columns timestamp, service and, where they are
    /// known, duration of the call and start of the service (seconds)
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// What to run: auto, knative, knative-grace, knative-WINDOW (as knative-30s), fixed-TIME (as fixed-10m), always-one, ask,
    /// hybrid, static (tuned on the other half), static-FULL-RESERVE (ages, as static-0s-15m), oracle, auto-without-prewarm,
    /// auto-without-stay-low; with --engine gaps also faascache-SIZE, and faascache (as much memory as knative and as
    /// fixed-10m hold on average); may be repeated [default: all that are compared]
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// What can be had: equal (zero, reserve, full; ECI prices), slow (the reserve takes twice as long), frozen (slow, and
    /// frozen instances charged for resident memory); may be repeated [default: all three]
    #[arg(long, value_name = "MARKET")]
    market: Vec<MarketName>,
    /// Another market: a catalogue of instance specs that comes with Knarr (local, eci, ecs-burstable, fargate), or a file
    /// that holds a ConfigMap config-instances; may be repeated. Functions ask for 1 CPU and 2 GiB; starts take as long as
    /// it says
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["evaluate", "sensitivity"])]
    catalogue: Vec<String>,
    /// The whole verdict: on the half of the functions that nothing was tuned on, with intervals and what is demanded
    #[arg(long, conflicts_with_all = ["policy", "market", "half"])]
    evaluate: bool,
    /// With --evaluate: exit code 1 when a demand does not hold
    #[arg(long, requires = "evaluate")]
    check: bool,
    /// How the result depends on start latency, slowdown, limit, price ratio and menu
    #[arg(long, conflicts_with_all = ["evaluate", "policy", "market"])]
    sensitivity: bool,
    /// What each part of the planner is worth
    #[arg(long, conflicts_with_all = ["evaluate", "sensitivity", "policy"])]
    attribution: bool,
    /// Tick time and memory of the control loop by number of revisions, up to where it breaks
    #[arg(long, conflicts_with_all = ["evaluate", "sensitivity", "attribution"])]
    scale: bool,
    /// With --scale: this number of revisions only, as JSON
    #[arg(long, value_name = "N", requires = "scale", hide = true)]
    revisions: Option<usize>,
    /// Which functions: all, tuned or reported (halves by the hash of the name)
    #[arg(long, value_name = "HALF", default_value = "all")]
    half: Half,
    /// The first seed: of arrivals within minutes, durations and starts
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many seeds [default: 10 with --evaluate, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: Option<u64>,
    /// The trace N times beside itself, each copy with another phase
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tile: u32,
    /// So many hours, the trace again and again [default: its own length]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=24 * 31))]
    hours: Option<u32>,
    /// What must hold: the latency that a start or a slower spec adds, at most
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    limit: Duration,
    /// For this share of the calls that meet an idle function
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, value_parser = parse_share)]
    quantile: f64,
    /// The median function's median start [default: 2s, or what the catalogue says]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    start_median: Option<Duration>,
    /// How functions' medians differ: standard deviation of their logarithms [default: 0.9, or what is left of the
    /// catalogue's]
    #[arg(long, value_name = "SIGMA", value_parser = parse_sigma)]
    start_spread: Option<f64>,
    /// How starts of one function differ: standard deviation of their logarithms [default: 0.35]
    #[arg(long, value_name = "SIGMA", value_parser = parse_sigma)]
    start_sigma: Option<f64>,
    /// Calls that an instance takes at once (containerConcurrency); 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    concurrency: u32,
    /// What all instances together may hold, as in 8Gi [default: as much as they like]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<String>,
    /// What runs it: every request through the real fleet, or idle times only, which is quicker and says less
    #[arg(long, value_name = "ENGINE", default_value = "fleet")]
    engine: EngineName,
    /// How to show it; svg is the picture of cost against late calls
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum MarketName {
    Equal,
    Slow,
    Frozen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum EngineName {
    Fleet,
    Gaps,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Half {
    All,
    Tuned,
    Reported,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Svg,
}

/// Runs it.
pub(crate) fn simulate(args: &Simulate) -> anyhow::Result<ExitCode> {
    let settings = args.settings()?;
    let trace = args.trace()?;
    if args.scale {
        return scale::scale(args, &trace, &settings);
    }
    if args.evaluate {
        return study::evaluate(args, &trace, &settings);
    }
    if args.sensitivity {
        return study::sensitivity(args, &trace, &settings);
    }
    if args.attribution {
        return study::attribution(args, &trace, &settings);
    }
    if args.output == Format::Svg {
        return study::frontier(args, &trace, &settings);
    }
    let (tuned, reported) = simulate::halves(&trace);
    let ran = match args.half {
        Half::All => &trace,
        Half::Tuned => &tuned,
        Half::Reported => &reported,
    };
    let cases = args.cases((&tuned, ran), &settings)?;
    let rows = args.run(ran, cases, args.seeds.unwrap_or(1))?;
    match args.output {
        Format::Table => out::print(simulate::report::rows(&rows).as_bytes())?,
        _ => print_json(&rows)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Simulate {
    fn settings(&self) -> anyhow::Result<Settings> {
        let memory = self.memory_budget.as_deref().map(|text| {
            let bytes = text
                .parse::<Quantity>()
                .ok()
                .and_then(|it| u64::try_from(it.value()).ok());
            let bytes = bytes.filter(|bytes| *bytes > 0).map(Bytes);
            bytes.with_context(|| format!("--memory-budget: {text:?} is not a size, such as 8Gi"))
        });
        Ok(Settings {
            sla: ColdStartSla {
                quantile: self.quantile,
                limit: self.limit,
            },
            starts: self.starts(Starts::default()),
            concurrency: self.concurrency,
            host_memory: memory.transpose()?,
            engine: match self.engine {
                EngineName::Fleet => Engine::Fleet,
                EngineName::Gaps => Engine::Gaps,
            },
            ..Settings::default()
        })
    }

    fn trace(&self) -> anyhow::Result<Trace> {
        let trace = Trace::open(&self.trace)?;
        let minutes = trace.minutes.end - trace.minutes.start;
        if self.tile == 1 && self.hours.is_none() {
            return Ok(trace);
        }
        let copies = usize::try_from(self.tile).unwrap_or(usize::MAX);
        let functions = trace.functions.len().saturating_mul(copies);
        Ok(trace.tiled(functions, self.hours.map_or(minutes, |hours| hours * 60)))
    }

    /// How long starts take: as asked for, else by default.
    fn starts(&self, default: Starts) -> Starts {
        Starts {
            median: self.start_median.unwrap_or(default.median),
            spread: self.start_spread.unwrap_or(default.spread),
            sigma: self.start_sigma.unwrap_or(default.sigma),
        }
    }

    /// What was asked for, each with what is assumed in it: starts take as long as a catalogue says.
    fn markets(&self, settings: &Settings) -> anyhow::Result<Vec<(Market, Settings)>> {
        let all = [MarketName::Equal, MarketName::Slow, MarketName::Frozen];
        let names = if self.market.is_empty() && self.catalogue.is_empty() {
            &all[..]
        } else {
            &self.market
        };
        let of = |name: &MarketName| match name {
            MarketName::Equal => Market::equal(),
            MarketName::Slow => Market::slow(),
            MarketName::Frozen => Market::frozen(),
        };
        let mut markets: Vec<Market> = names.iter().map(of).collect();
        for text in &self.catalogue {
            let instances = control::whatif::catalogue(text).map_err(anyhow::Error::msg);
            markets.push(Market::of(text, instances.context("--catalogue")?));
        }
        let with = |market: Market| {
            let starts = market.starts().map_or(settings.starts, |said| self.starts(said));
            let settings = Settings {
                starts,
                ..settings.clone()
            };
            (market, settings)
        };
        Ok(markets.into_iter().map(with).collect())
    }

    /// Every policy that was asked for in every market.
    fn cases(&self, (tuned, ran): (&Trace, &Trace), settings: &Settings) -> anyhow::Result<Vec<Case>> {
        let mut cases = Vec::new();
        for (market, settings) in self.markets(settings)? {
            let policies = if self.policy.is_empty() {
                let mut all = simulate::policies(tuned, &settings, &market);
                all.extend(simulate::pools(ran, &settings, &market, self.seed));
                all
            } else {
                let parse = |name: &String| match name.as_str() {
                    "static" => Ok(vec![simulate::tuned(tuned, &settings, &market)]),
                    "faascache" if settings.engine == Engine::Gaps => {
                        Ok(simulate::pools(ran, &settings, &market, self.seed))
                    }
                    name if name.starts_with("faascache") && settings.engine == Engine::Fleet => {
                        bail!(
                            "--policy {name} keeps one pool for all functions, which the fleet does not: add --engine gaps"
                        )
                    }
                    name => name
                        .parse()
                        .map(|policy| vec![policy])
                        .map_err(anyhow::Error::msg)
                        .context("--policy"),
                };
                let all: Vec<Vec<Policy>> = self.policy.iter().map(parse).collect::<anyhow::Result<_>>()?;
                all.concat()
            };
            cases.extend(policies.into_iter().map(|policy| Case {
                market: market.clone(),
                policy,
                settings: settings.clone(),
            }));
        }
        Ok(cases)
    }

    /// Runs cases with a progress bar.
    fn run(&self, trace: &Trace, cases: Vec<Case>, seeds: u64) -> anyhow::Result<Vec<Summary>> {
        let bar = self.bar(simulate::minutes(trace, &cases, seeds));
        let rows = simulate::run(trace, cases, self.seed, seeds, &|minutes| {
            bar.inc(minutes);
            true
        });
        bar.finish_and_clear();
        let rows = rows.context("ended early")?;
        Ok(rows.iter().map(|row| Summary::of(row, trace, self.seed)).collect())
    }

    fn bar(&self, minutes: u64) -> ProgressBar {
        if self.quiet || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:30} {pos} of {len} simulated minutes  {elapsed}, {eta} left");
        let bar = ProgressBar::new(minutes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    out::print(&[&serde_json::to_vec_pretty(value)?[..], b"\n"].concat())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok().filter(|value| *value > 0.0 && *value < 1.0);
    value.ok_or_else(|| "must be a number between 0 and 1, such as 0.99".into())
}

fn parse_sigma(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok().filter(|value| (0.0..=5.0).contains(value));
    value.ok_or_else(|| "must be a number from 0 to 5".into())
}
