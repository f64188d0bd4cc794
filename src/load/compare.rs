//! `knarr load compare`: whether a second run differs from a first by more than noise.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use loadtest::comparison::{self, Options};

use super::output;
use crate::out;

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Results of the first run, as JSON
    #[arg(value_name = "A.json")]
    first: PathBuf,
    /// Results of the second run, as JSON
    #[arg(value_name = "B.json")]
    second: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// End with exit code 1 when anything is worse in the second run
    #[arg(long)]
    fail_on_regression: bool,
    /// How sure the intervals are, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0)]
    confidence: f64,
    /// Differences of latency up to this many percent are noise, whatever their interval
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    ignore: f64,
    /// Of the resampling: the same number gives the same intervals
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Prints the differences.
pub(crate) fn compare(args: &Compare) -> anyhow::Result<ExitCode> {
    let (first, second) = (output::read(&args.first)?, output::read(&args.second)?);
    let options = Options {
        confidence: args.confidence / 100.0,
        ignore: args.ignore / 100.0,
        seed: args.seed,
        ..Options::default()
    };
    let comparison = comparison::compare(&first, &second, options)?;
    let text = if args.json {
        serde_json::to_string_pretty(&comparison)? + "\n"
    } else {
        comparison.to_string()
    };
    out::print(text.as_bytes())?;
    Ok(if args.fail_on_regression && comparison.regressed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
