//! The `knarr` binary: arguments, role selection, exit codes.

mod args;
mod ask;
mod check;
mod cost;
mod demo;
mod doctor;
mod exec;
mod images_command;
mod inspect;
mod load;
mod out;
mod replay;
mod run;
mod serve;
mod simulate;
mod table;
mod terminal;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    // Three roles start before anything else is set up: the spawner and the unpack worker must be single-threaded, the
    // workload must be quick.
    sandbox::spawner::main_if_asked();
    images::worker::main_if_asked();
    let mut raw = std::env::args_os();
    if raw.nth(1).is_some_and(|first| first == "workload") {
        return workload::main(raw);
    }

    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => serve::serve(args),
        Command::Run(args) => run::run(*args),
        Command::Check(args) => check::check(&args),
        Command::Get(args) => on_this_thread(ask::get(args)),
        Command::Logs(args) => on_this_thread(ask::logs(args)),
        Command::Exec(args) => exec::exec(args),
        Command::Top(args) => on_this_thread(top::top(args)),
        Command::Inspect(args) => on_this_thread(inspect::inspect(args)),
        Command::Explain(args) => on_this_thread(ask::explain(args)),
        Command::Plan(args) => on_this_thread(ask::plan(args)),
        Command::Cost(args) => on_this_thread(cost::cost(args)),
        Command::Doctor(args) => doctor::doctor(args),
        Command::Images(args) => images_command::images(args),
        Command::Replay(args) => replay::run(args),
        Command::Load(args) => load::load(*args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Demo(args) => demo::demo(args),
        Command::Workload { args } => return workload::main(args.into_iter().map(Into::into)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "knarr", &mut script);
            out::print(&script).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", in_full(&error));
        ExitCode::FAILURE
    })
}

/// An error with its causes; most say their cause themselves, and nothing is said twice.
pub(crate) fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Runs a short exchange with a running Knarr.
fn on_this_thread(exchange: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(exchange)?;
    Ok(ExitCode::SUCCESS)
}
