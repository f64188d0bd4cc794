//! The spawner: a second, small, single-threaded process that is the parent of every sandbox.
//!
//! It is this same binary executed again with a hidden first argument, so that nothing of Knarr's memory and threads is
//! in it: forking a large process costs tens of milliseconds, and a process with threads may not enter a user namespace.
//! It must know nothing of revisions, requests or manifests.
//!
//! ```text
//! Knarr ──Setup, Prepare, Go, Kill──▶ spawner ──clone──▶ shell ──plan──▶ sandbox ◀──command (forked, enters it)
//!       ◀──Prepared (pidfd, output, netns), Executed, Exited──┘
//!       ──netns──▶ dialer (ordinary user only) ──sockets made in there──▶ Knarr
//! ```
//!
//! When Knarr's end of the socket closes, for whatever reason, the spawner kills every sandbox, removes their cgroups and
//! ends. When the spawner dies, the kernel kills every sandbox (`PR_SET_PDEATHSIG`).

mod child;
pub(crate) mod command;
mod compile;
mod descendants;
mod dialer;
mod identities;
mod kid;
pub(crate) mod protocol;
mod raw;
mod server;
mod setup;

pub(crate) use dialer::{Sockets, Wanted, What, socket, socket_in};
pub use protocol::UidRanges;

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__knarr-spawner";

/// What it is called in process lists; its shells too, until they execute their app.
pub(crate) const NAME: &str = "knarr-spawner";

/// Becomes the spawner when this process was started as one, and then never returns.
///
/// Every binary that uses [`crate::LocalDriver`] calls this first thing in `main`, before any thread is started.
pub fn main_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT) {
        std::process::exit(server::run());
    }
}
