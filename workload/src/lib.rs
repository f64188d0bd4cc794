//! The small HTTP app behind every example, test and benchmark.
//!
//! ```text
//! main ─▶ flags ─▶ serve: listen ─▶ accept ─▶ connection ─▶ app: one function per path
//!                                                            └─ burn, overlap, websocket
//! ```
//!
//! It is what a user's app would be, so it knows nothing of Knarr. It starts as fast as a hyper server can: the socket
//! listens before the runtime exists, one thread, no argument parser beyond [`flags`]. The `knarr` binary shows it as
//! `knarr workload`, this crate's own binary as `knarr-workload`.

mod app;
mod burn;
mod flags;
mod journal;
mod moods;
mod overlap;
mod serve;
mod websocket;

use std::ffi::OsString;
use std::process::ExitCode;

use flags::{Parsed, USAGE};
use journal::Journal;

/// Runs the app until SIGTERM or SIGINT; `args` are those after the program's (and subcommand's) name.
///
/// Call it before anything else is set up: it makes its own single-threaded runtime. Exit codes: 0 after a graceful end
/// or `--help`, 1 when the port or the journal cannot be had, 2 for arguments it does not understand, and whatever `--fail-start` or
/// `/exit` say.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match flags::parse(args, |name| std::env::var_os(name)) {
        Ok(Parsed::Run(flags)) => flags,
        Ok(Parsed::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("error: {why}\n\nFor what is understood: --help");
            return ExitCode::from(2);
        }
    };
    std::thread::sleep(flags.start_delay);
    if let Some(code) = flags.fail_start {
        eprintln!("error: told to fail at start (--fail-start {code})");
        return ExitCode::from(code);
    }
    let journal = match flags
        .journal
        .as_deref()
        .map(|path| Journal::open(path, writer()))
        .transpose()
    {
        Ok(journal) => journal,
        Err(error) => {
            eprintln!("error: --journal: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Written to, so that it is really there; kept to the end of the process.
    let held = vec![1_u8; flags.hold << 20];
    let ended = serve::run(&flags, journal);
    drop(std::hint::black_box(held));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot listen on port {}: {error}", flags.port);
            ExitCode::FAILURE
        }
    }
}

/// What the journal calls this process.
fn writer() -> String {
    let or = |name| std::env::var(name).unwrap_or_else(|_| "none".to_owned());
    format!("{} {}", or("K_REVISION"), or("HOSTNAME"))
}
