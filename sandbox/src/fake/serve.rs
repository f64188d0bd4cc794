//! What answers a connection to a fake instance: nothing, a task of the test, or a server that is there already.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use manifests::ids::SandboxId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::driver::BoxFuture;

/// Serves one accepted connection of the named instance; dropped midway when the instance ends, which closes the connection.
pub type Handler = Arc<dyn Fn(SandboxId, TcpStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// Who answers a connection to the instance.
#[derive(Clone, Default)]
pub enum Serve {
    /// Nobody: `dial` is refused.
    #[default]
    Nothing,
    /// A listener of its own on loopback for each instance, and this for each connection.
    Handler(Handler),
    /// A server that runs elsewhere; its connections outlive the instance.
    Address(SocketAddr),
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Handler(_) => f.write_str("Handler"),
            Self::Address(address) => write!(f, "Address({address})"),
        }
    }
}

/// What serves one instance. Dropping it closes the listener and every connection.
pub(super) struct Server {
    address: Option<SocketAddr>,
    accepting: Option<AbortHandle>,
    frozen: watch::Sender<bool>,
}

impl Server {
    pub(super) async fn open(serve: &Serve, id: &SandboxId) -> io::Result<Self> {
        match serve {
            Serve::Nothing => Ok(Self {
                address: None,
                accepting: None,
                frozen: watch::Sender::new(false),
            }),
            Serve::Address(address) => Ok(Self {
                address: Some(*address),
                accepting: None,
                frozen: watch::Sender::new(false),
            }),
            Serve::Handler(handler) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let address = listener.local_addr()?;
                let (frozen, watched) = watch::channel(false);
                let accepting = accept(listener, Arc::clone(handler), id.clone(), watched.clone());
                let task = tokio::spawn(while_warm(watched, accepting));
                Ok(Self {
                    address: Some(address),
                    accepting: Some(task.abort_handle()),
                    frozen,
                })
            }
        }
    }

    /// While it is frozen nothing is accepted or answered; the kernel goes on taking connections.
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// `None` when nobody answers.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.accepting {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, handler: Handler, id: SandboxId, frozen: watch::Receiver<bool>) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(while_warm(frozen.clone(), handler(id.clone(), stream)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Goes on with `work` whenever it is not frozen.
async fn while_warm(mut frozen: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    let mut work = std::pin::pin!(work);
    loop {
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = frozen.changed() => if changed.is_err() { return },
            () = &mut work => return,
        }
    }
}
