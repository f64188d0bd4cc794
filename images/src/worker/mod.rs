//! The unpack worker: this binary once more, in a jail, that turns the bytes of one layer into files.
//!
//! ```text
//! store ──layer bytes──▶ stdin: worker: gunzip, hash ─▶ tar ─▶ files in the one directory that it can see
//!       ◀──outcome────── stdout
//! ```
//!
//! It decides nothing about images: the store compares what the worker says with what the manifest says.

mod decompress;
mod jail;
mod report;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use report::{Failure, Outcome, Problem, Report, Rules};

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__knarr-unpack";

/// The same, of the process that is in its namespaces already.
const JAILED_ARGUMENT: &str = "__knarr-unpack-jailed";

/// Becomes the unpack worker when this process was started as one, and then never returns.
///
/// Every binary that uses [`crate::Store`] calls this first thing in `main`, before any thread is started.
pub fn main_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(first) = arguments.next() else { return };
    let run = match first.to_str() {
        Some(ARGUMENT) => outside,
        Some(JAILED_ARGUMENT) => inside,
        _ => return,
    };
    let outcome = Order::parse(arguments).and_then(run);
    let code = match outcome {
        Ok(code) => code,
        Err(failure) => {
            say(&Outcome::Failed(failure));
            0
        }
    };
    std::process::exit(code);
}

/// What the worker is told: the directory to fill, and how.
struct Order {
    directory: PathBuf,
    rules: Rules,
    raw: [OsString; 2],
}

impl Order {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let wrong = || Failure::new(Problem::Setup, "the unpack worker needs a directory and rules");
        let directory = arguments.next().ok_or_else(wrong)?;
        let rules = arguments.next().ok_or_else(wrong)?;
        let parsed = rules
            .to_str()
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(wrong)?;
        Ok(Self {
            directory: PathBuf::from(&directory),
            rules: parsed,
            raw: [directory, rules],
        })
    }
}

/// Arguments for the worker beyond its program and what [`ARGUMENT`] stands in.
pub(crate) fn arguments(directory: &std::path::Path, rules: &Rules) -> [OsString; 2] {
    let rules = serde_json::to_string(rules).unwrap_or_default();
    [directory.as_os_str().to_owned(), rules.into()]
}

/// Makes the namespaces and runs itself again in them: only a child is in a new process namespace.
fn outside(order: Order) -> Result<i32, Failure> {
    jail::bind_to_parent()?;
    jail::unshare()?;
    let mut child = std::process::Command::new("/proc/self/exe");
    child.arg(JAILED_ARGUMENT).args(&order.raw).env_clear();
    let status = child
        .status()
        .map_err(|error| Failure::system(Problem::Setup, "cannot run the unpack worker", &error))?;
    // Killed: the store sees that no outcome was said.
    Ok(status.code().unwrap_or(1))
}

fn inside(order: Order) -> Result<i32, Failure> {
    jail::bind_to_parent()?;
    let root = jail::enter(&order.directory, &order.rules)?;
    let report = unpack::unpack(io::stdin(), root, &order.rules)?;
    say(&Outcome::Done(report));
    Ok(0)
}

fn say(outcome: &Outcome) {
    let text = serde_json::to_vec(outcome).unwrap_or_default();
    // Nobody listens any more when this fails.
    let _ = io::stdout().write_all(&text);
    let _ = io::stdout().flush();
}

/// For binaries that are nothing but the worker.
pub fn main() -> ExitCode {
    main_if_asked();
    eprintln!("this program is started by Knarr to unpack images");
    ExitCode::FAILURE
}
