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

use crate::wire;

/// Asks the dialer for sockets. Descriptor: the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Comes back with the answer.
    pub number: u64,
    /// How many; at most 8.
    pub count: u32,
}

/// The dialer's answer. Descriptors: the sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sockets {
    /// As in the question.
    pub number: u64,
    /// An error number when there are none.
    pub errno: Option<i32>,
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
            Some(netns) => sockets(netns.as_fd(), wanted.count),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        let (sockets, errno) = match made {
            Ok(sockets) => (sockets, None),
            Err(error) => (Vec::new(), Some(error.raw_os_error().unwrap_or(libc::EIO))),
        };
        let answer = Sockets {
            number: wanted.number,
            errno,
        };
        wire::send(
            connection,
            &answer,
            &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>(),
        )?;
    }
}

fn sockets(netns: BorrowedFd<'_>, count: u32) -> io::Result<Vec<OwnedFd>> {
    enter(netns)?;
    (0..count.min(8)).map(|_| socket()).collect()
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
}
