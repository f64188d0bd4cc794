//! The unpack worker: this binary once more, in a jail, that turns the bytes of one layer into files.
//!
//! ```text
//! store ──layer bytes──▶ stdin: worker: gunzip, hash ─▶ tar ─▶ files in the one directory that it can see
//!       ◀──outcome────── stdout
//! ```
//!
//! It decides nothing about images: the store compares what the worker says with what the manifest says. The same jail
//! removes what it has made: an ordinary user may not touch files of its own subordinate users from outside.

mod decompress;
mod filter;
mod jail;
mod map;
mod report;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

pub(crate) use report::{Failure, Outcome, Problem, Report, Rules};

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__knarr-unpack";

/// The same, of the process that is in its namespaces already.
const JAILED_ARGUMENT: &str = "__knarr-unpack-jailed";

/// The same, of the process that stays outside to map the users of its namespace.
const MAP_ARGUMENT: &str = "__knarr-unpack-map";

/// Becomes the unpack worker when this process was started as one, and then never returns.
///
/// Every binary that uses [`crate::Store`] calls this first thing in `main`, before any thread is started.
pub fn main_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(first) = arguments.next() else { return };
    let run = match first.to_str() {
        Some(ARGUMENT) => outside,
        Some(JAILED_ARGUMENT) => inside,
        Some(MAP_ARGUMENT) => std::process::exit(map::serve(arguments.next())),
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

/// What the worker does with its directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Fills it with the layer that comes in by standard input.
    Unpack(Rules),
    /// Empties it.
    Remove,
}

impl Task {
    /// Whether files have owners of their own.
    fn owners(&self) -> bool {
        match self {
            Self::Unpack(rules) => rules.owners,
            Self::Remove => true,
        }
    }
}

/// What the worker is told.
struct Order {
    directory: PathBuf,
    task: Task,
}

impl Order {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let wrong = || Failure::new(Problem::Setup, "the unpack worker needs a directory and a task");
        let directory = arguments.next().ok_or_else(wrong)?;
        let task = arguments.next().ok_or_else(wrong)?;
        let task = task
            .to_str()
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(wrong)?;
        Ok(Self {
            directory: PathBuf::from(directory),
            task,
        })
    }
}

/// Arguments for the worker beyond its program and what [`ARGUMENT`] stands in.
pub(crate) fn arguments(directory: &Path, task: &Task) -> [OsString; 2] {
    let task = serde_json::to_string(task).unwrap_or_default();
    [directory.as_os_str().to_owned(), task.into()]
}

/// Removes a directory whose content may belong to this user's subordinate users; `worker` is [`crate::StoreConfig`]'s.
/// Nothing in it is followed.
///
/// # Errors
/// What the worker or the system says.
pub fn remove((program, first): &(PathBuf, Vec<OsString>), directory: &Path) -> io::Result<()> {
    let output = Command::new(program)
        .args(first)
        .args(arguments(directory, &Task::Remove))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    match serde_json::from_slice(&output.stdout) {
        Ok(Outcome::Done(_)) => std::fs::remove_dir(directory),
        Ok(Outcome::Failed(failure)) => Err(match failure.errno {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(failure.message),
        }),
        Err(_) => Err(io::Error::other(format!(
            "the unpack worker ended with {}",
            output.status
        ))),
    }
}

/// Makes the namespaces and runs itself again in them: only a child is in a new process namespace.
fn outside(order: Order) -> Result<i32, Failure> {
    jail::bind_to_parent()?;
    // Whatever Knarr's own parent has left open is none of an archive's business.
    close_fds::set_fds_cloexec(3, &[]);
    let mut task = order.task;
    let mapped = jail::unshare(task.owners())?;
    if let Task::Unpack(rules) = &mut task {
        rules.owners &= mapped;
    }
    let mut child = Command::new("/proc/self/exe");
    child
        .arg(JAILED_ARGUMENT)
        .args(arguments(&order.directory, &task))
        .env_clear();
    let status = child
        .status()
        .map_err(|error| Failure::system(Problem::Setup, "cannot run the unpack worker", &error))?;
    // Killed: the store sees that no outcome was said.
    Ok(status.code().unwrap_or(1))
}

fn inside(order: Order) -> Result<i32, Failure> {
    jail::bind_to_parent()?;
    let limits = match &order.task {
        Task::Unpack(rules) => rules.clone(),
        Task::Remove => Rules::default(),
    };
    let root = jail::enter(&order.directory, &limits)?;
    let report = match order.task {
        Task::Unpack(rules) => unpack::unpack(io::stdin(), root, &rules)?,
        Task::Remove => {
            tree::empty(root.as_fd())
                .map_err(|error| Failure::system(Problem::System, "cannot remove files", &error.into()))?;
            Report::default()
        }
    };
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
