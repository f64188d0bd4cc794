//! The connection to one spawner process.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::spawner::protocol::{Abilities, Event, Request, Setup};
use crate::wire;

use super::config::SetupError;

/// One spawner, as long as it lives.
pub(super) struct Link {
    pub control: Arc<OwnedFd>,
    /// To its dialer; used only where the spawner has a user namespace.
    pub dialer: Arc<OwnedFd>,
    pub abilities: Abilities,
}

impl Link {
    /// Executes a spawner and waits for its first word.
    pub(super) fn start(
        (program, arguments): &(PathBuf, Vec<OsString>),
        setup: Setup,
        lock: &File,
    ) -> Result<(Self, Child), SetupError> {
        let begin = || -> io::Result<_> {
            let (control, theirs) = wire::pair()?;
            let (dialer, dialers) = wire::pair()?;
            let child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::from(dialers))
                .current_dir("/")
                .spawn()?;
            Ok((control, dialer, child))
        };
        let (control, dialer, mut child) = begin().map_err(SetupError::io(format!("execute {}", program.display())))?;
        let answer = wire::send(control.as_fd(), &Request::Setup(setup), &[lock.as_fd()])
            .and_then(|()| wire::wait::<Event>(control.as_fd()));
        let refused = |source| SetupError::Io {
            context: "set up the spawner".to_owned(),
            source,
        };
        let result = match answer {
            Ok((Event::Ready { abilities }, _)) => {
                return Ok((
                    Self {
                        control: Arc::new(control),
                        dialer: Arc::new(dialer),
                        abilities,
                    },
                    child,
                ));
            }
            Ok((Event::Refused { reason }, _)) => SetupError::NoIsolation { reason },
            Ok((other, _)) => refused(io::Error::other(format!("it said {other:?}"))),
            Err(source) => refused(source),
        };
        drop(control);
        // It ends by itself: its socket is closed.
        let _ = child.wait();
        Err(result)
    }

    pub(super) fn send(&self, request: &Request, fds: &[OwnedFd]) -> io::Result<()> {
        wire::send(
            self.control.as_fd(),
            request,
            &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>(),
        )
    }

    /// Tells the spawner that we are gone: it kills everything, cleans up and ends.
    pub(super) fn close(&self) {
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
    }
}
