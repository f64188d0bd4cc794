//! `knarr load`: load on anything that speaks HTTP, and what is made of its results.

mod compare;
mod output;
mod report;

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
    command: LoadCommand,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Make the table, JSON, HTML or .hgrm of a run from its results
    #[command(after_help = "\
Examples:
  knarr load report results.json               the table
  knarr load report results.json -o run.html   pictures
  knarr load report results.json -o run.hgrm   for HdrHistogram's plotters")]
    Report(report::Report),
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
        LoadCommand::Report(args) => report::report(&args),
        LoadCommand::Compare(args) => compare::compare(&args),
    }
}
