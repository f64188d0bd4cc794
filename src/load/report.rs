//! `knarr load report`: other forms of the results of a run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::{self, Outputs};

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Results of a run, as JSON; `-` for standard input
    #[arg(value_name = "RESULTS.json")]
    results: PathBuf,
    #[command(flatten)]
    outputs: Outputs,
}

/// Reads and writes.
pub(crate) fn report(args: &Report) -> anyhow::Result<ExitCode> {
    args.outputs.check()?;
    let results = output::read(&args.results)?;
    args.outputs.write(&results)?;
    Ok(ExitCode::SUCCESS)
}
