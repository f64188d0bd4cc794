//! Makes sockets inside the network namespaces of sandboxes.
//!
//! Root does it in place: enter, make, go back, 2 us. An ordinary user's Knarr may not enter a namespace that belongs to
//! the spawner's user namespace, so there a process of its own does it, and never stands behind a sandbox start. It
//! cannot go back to the host's network either, and need not: it hops from sandbox to sandbox.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::egress::{self, Doors};
use crate::wire;

/// Asks the dialer for sockets, or to open the doors. Descriptor: the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Comes back with the answer.
    pub number: u64,
    /// What.
    pub what: What,
}

/// What is made in a network namespace.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// So many TCP sockets; at most 8.
    Sockets(u32),
    /// The sandbox's way out.
    Doors,
}

/// The dialer's answer. Descriptors: the sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sockets {
    /// As in the question.
    pub number: u64,
    /// An error number when there are none.
    pub errno: Option<i32>,
    /// That in words, where there are better ones than the number's.
    pub problem: Option<String>,
}

/// A TCP socket, non-blocking, of the namespace this thread is in.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

/// A TCP socket of the namespace `netns`; this thread is back in `home` afterwards. Root only.
pub(crate) fn socket_in(netns: BorrowedFd<'_>, home: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    enter(netns)?;
    let socket = socket();
    if enter(home).is_err() {
        // This thread would listen and dial in a sandbox from now on. It cannot happen to a process that could enter.
        std::process::abort();
    }
    socket
}

/// Serves until the other end is gone.
pub(super) fn serve(connection: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        let (wanted, fds): (Wanted, _) = match wire::wait(connection) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let made = match fds.first() {
            Some(netns) => make(netns.as_fd(), wanted.what),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        let (sockets, error) = match made {
            Ok(sockets) => (sockets, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let answer = Sockets {
            number: wanted.number,
            errno: error.as_ref().map(|error| error.raw_os_error().unwrap_or(libc::EIO)),
            problem: error
                .filter(|error| error.raw_os_error().is_none())
                .map(|error| error.to_string()),
        };
        wire::send(
            connection,
            &answer,
            &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>(),
        )?;
    }
}

fn make(netns: BorrowedFd<'_>, what: What) -> io::Result<Vec<OwnedFd>> {
    enter(netns)?;
    match what {
        What::Sockets(count) => (0..count.min(8)).map(|_| socket()).collect(),
        What::Doors => egress::open_doors().map(Doors::into_fds),
    }
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
}
