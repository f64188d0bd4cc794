//! The thread that goes into network namespaces to open doors there, one after the other.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tokio::sync::oneshot;

use super::inside::{self, Doors};

/// Asks that thread. It ends when this is dropped.
pub(super) struct Setup(Sender<Wanted>);

struct Wanted {
    netns: OwnedFd,
    answer: oneshot::Sender<io::Result<Doors>>,
}

impl Setup {
    /// Starts it. Where that fails every door stays shut, with the thread's absence as the reason.
    pub(super) fn start() -> Self {
        let (wanted, asked) = channel();
        let started = thread::Builder::new()
            .name("knarr-netns".to_owned())
            .spawn(move || serve(&asked));
        if let Err(error) = started {
            tracing::error!(%error, "cannot start a thread");
        }
        Self(wanted)
    }

    /// Has the doors of a namespace opened.
    pub(super) fn open(&self, netns: OwnedFd) -> oneshot::Receiver<io::Result<Doors>> {
        let (answer, answered) = oneshot::channel();
        // A thread that is gone drops the answer's sender, which is an answer.
        let _ = self.0.send(Wanted { netns, answer });
        answered
    }
}

fn serve(asked: &Receiver<Wanted>) {
    let home = open(
        "/proc/thread-self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let enter = |netns: &OwnedFd| move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network));
    for Wanted { netns, answer } in asked {
        let opened = match (&home, enter(&netns)) {
            (Ok(home), Ok(())) => {
                let opened = inside::open();
                // Not staying: a thread keeps the namespace that it is in.
                let _ = enter(home);
                opened
            }
            (Err(error), _) => Err((*error).into()),
            (_, Err(error)) => Err(error.into()),
        };
        // Nobody waits for a shell that has died meanwhile.
        let _ = answer.send(opened);
    }
}

/// Tries it all once in a network namespace of a thread. Root only.
/// Says what does not work, in words for the user.
pub(crate) fn trial() -> Option<String> {
    let tried = thread::Builder::new().name("knarr-netns".to_owned()).spawn(|| {
        // SAFETY: a network namespace belongs to a thread; neither memory nor descriptors are unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        inside::open()
    });
    let problem = match tried.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(doors))) if doors.first_packets.is_some() => return None,
        Ok(Ok(Ok(_))) => {
            return Some(
                "egress: the kernel has no packet queues (nfnetlink_queue), so an app's connection is accepted before \
                 the destination has answered, and reset when it does not"
                    .to_owned(),
            );
        }
        Ok(Ok(Err(error))) | Err(error) => error.to_string(),
        Ok(Err(_)) => "the trial ended without a word".to_owned(),
    };
    Some(format!(
        "egress: sandboxes have no way out and no names but localhost ({problem})"
    ))
}
