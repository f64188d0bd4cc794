//! The ways out of sandboxes: their doors are opened while they are shells, and served from the start of the app to its
//! end.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::dial::Dialer;
use super::shell::Opening;
use super::state::{Inner, Sandbox};
use crate::driver::SandboxSpec;
use crate::egress::{Doors, Owner};
use crate::spawner::What;

/// Has the doors of a shell's network opened, off everybody's path.
pub(super) fn open(inner: &Arc<Inner>, netns: &OwnedFd) -> Opening {
    let (answer, opening) = oneshot::channel();
    let netns = match netns.try_clone() {
        Ok(netns) => netns,
        Err(error) => {
            let _ = answer.send(Err(error));
            return opening;
        }
    };
    if matches!(inner.dialer, Dialer::InPlace { .. }) {
        return inner.network.open(netns);
    }
    let own = Arc::clone(inner);
    inner.runtime.spawn(async move {
        if let Dialer::Remote(remote) = &own.dialer {
            let made = remote.make(&netns, What::Doors).await;
            let _ = answer.send(made.and_then(|fds| Ok(Doors::from_fds(fds).ok_or(std::io::ErrorKind::InvalidData)?)));
        }
    });
    opening
}

/// Serves a sandbox, whose app has not begun yet, as soon as its doors are open. One whose doors cannot be opened has
/// loopback alone.
pub(super) async fn attach(inner: &Inner, sandbox: &Sandbox, spec: &SandboxSpec) {
    let Some(opening) = sandbox.shell.take_doors() else {
        return;
    };
    let problem = match opening.await {
        Ok(Ok(doors)) => {
            let owner = Owner {
                revision: spec.revision.clone(),
                policy: inner.network.policy(spec.workload.egress.as_ref()),
            };
            let attached = inner.network.attach(doors, owner);
            *sandbox.attached.lock().unwrap_or_else(PoisonError::into_inner) = Some(attached);
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nobody opens them".to_owned(),
    };
    tracing::warn!(sandbox = %sandbox.id, problem, "no way out and no names: the doors of its network stay shut");
    let _ = sandbox.shut_in.set(problem);
}

/// Ends every connection of a sandbox.
pub(super) async fn detach(sandbox: &Sandbox) {
    let attached = sandbox.attached.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(attached) = attached {
        attached.close().await;
    }
}
