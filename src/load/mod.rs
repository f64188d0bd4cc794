//! `knarr load`: load on anything that speaks HTTP, and what is made of its results.

mod coldstart;
mod compare;
mod go;
mod output;
mod replay;
mod report;
mod scenario;
mod url;
mod view;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// The command line of `knarr load`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct Load {
    #[command(subcommand)]
    command: Option<LoadCommand>,
    #[command(flatten)]
    url: url::Url,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Run a scenario: stages, targets, thresholds; exit code 1 when one of them does not hold
    #[command(after_help = "\
Examples:
  knarr load run scenario.toml                 with the live view, then the table
  knarr load run scenario.toml --json --quiet  for a pipeline")]
    Run(scenario::Run),
    /// Check scenarios without running them
    Check(scenario::Check),
    /// Make the table, JSON, HTML or .hgrm of a run from its results
    #[command(after_help = "\
Examples:
  knarr load report results.json               the table
  knarr load report results.json -o run.html   pictures
  knarr load report results.json -o run.hgrm   for HdrHistogram's plotters")]
    Report(report::Report),
    /// Measure starts from zero, with intervals and phases, on anything that scales to zero
    #[command(after_help = "\
Examples:
  knarr load coldstart http://hello.default.localhost:8080/
  knarr load coldstart http://hello.default.example.com/ --knative hello -n 20
  knarr load coldstart https://app.example.com/ --idle 15m -n 10 -o starts.html

Before each request it waits for zero. Intervals are those of order statistics, at 95 %; where the samples are too few for an
end, there is none. Exit code 1 when no request was cold.")]
    Coldstart(coldstart::Coldstart),
    /// Send the calls of a real trace, at a chosen speed
    #[command(after_help = "\
Examples:
  knarr load replay loadtest/traces/azure2019-236 --sample 25 --seed 64 --from 480 --to 540 --speed 60 --manifests | knarr serve -
  knarr load replay loadtest/traces/azure2019-236 --sample 25 --seed 64 --from 480 --to 540 --speed 60 -o replay.html
  knarr load replay calls.csv --url 'http://{function}.example.com/' --work none")]
    Replay(Box<replay::Replay>),
    /// Say what differs between two runs, and whether it is more than noise
    #[command(after_help = "\
Examples:
  knarr load compare before.json after.json
  knarr load compare before.json after.json --fail-on-regression

Exit code 0, or with --fail-on-regression 1 when anything is worse. An open loop is not compared with a closed one.")]
    Compare(compare::Compare),
}

/// Runs one of them; the exit code says what came of it.
pub(crate) fn load(args: Load) -> anyhow::Result<ExitCode> {
    match args.command {
        None => url::url(&args.url),
        Some(LoadCommand::Run(args)) => scenario::run(&args),
        Some(LoadCommand::Check(args)) => scenario::check(&args),
        Some(LoadCommand::Report(args)) => report::report(&args),
        Some(LoadCommand::Coldstart(args)) => coldstart::coldstart(&args),
        Some(LoadCommand::Replay(args)) => replay::replay(&args),
        Some(LoadCommand::Compare(args)) => compare::compare(&args),
    }
}
