//! `knarr load run` and `knarr load check`: scenarios from files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use loadtest::scenario_file::{Planned, read};

use super::go::{go, knarr};
use super::output::Outputs;
use crate::out;

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Scenario (TOML)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Send to this address (HOST:PORT) instead of those of the targets' URLs; hosts and paths stay
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Admin address of the Knarr behind, instead of the scenario's; none for no Knarr
    #[arg(long, value_name = "ADDRESS")]
    status: Option<String>,
    /// No live view
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Scenarios (TOML)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs a scenario. Fails when a threshold does not hold.
pub(crate) fn run(args: &Run) -> anyhow::Result<ExitCode> {
    args.outputs.check()?;
    let Planned {
        mut scenario,
        thresholds,
    } = load(&args.file)?;
    if let Some(address) = &args.to {
        for target in &mut scenario.targets {
            target.send_to(address).map_err(anyhow::Error::msg)?;
        }
    }
    let asked = scenario.knarr.take();
    let said = args
        .status
        .clone()
        .or_else(|| asked.as_ref().map(|knarr| knarr.admin.clone()));
    scenario.knarr = knarr(said.as_deref(), &scenario.targets)?;
    if let (Some(knarr), Some(asked)) = (&mut scenario.knarr, asked) {
        knarr.services = asked.services;
    }
    scenario.each = args.outputs.wants_each();
    let mut results = go(scenario, args.quiet)?;
    results.judge(&thresholds);
    args.outputs.write(&results)?;
    let held = results.verdicts.iter().all(|verdict| verdict.held);
    Ok(if held && !results.interrupted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Says of each file whether it can be run, and what is wrong.
pub(crate) fn check(args: &Check) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in &args.files {
        match load(file) {
            Ok(planned) => {
                let scenario = &planned.scenario;
                let seconds: f64 = scenario.stages.iter().map(|stage| stage.longest().as_secs_f64()).sum();
                let text = format!(
                    "{}: {} stages, {} targets, {} thresholds, at most {seconds:.0}s\n",
                    file.display(),
                    scenario.stages.len(),
                    scenario.targets.len(),
                    planned.thresholds.len()
                );
                out::print(text.as_bytes())?;
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn load(file: &Path) -> anyhow::Result<Planned> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let directory = file.parent().unwrap_or(Path::new("."));
    read(&text, &file.display().to_string(), directory).map_err(anyhow::Error::msg)
}
