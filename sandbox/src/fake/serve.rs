//! What answers a connection to a fake instance: nothing, a task of the test, or a server that is there already.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use manifests::ids::SandboxId;
use tokio::net::{TcpListener, TcpStream};
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
}

impl Server {
    pub(super) async fn open(serve: &Serve, id: &SandboxId) -> io::Result<Self> {
        match serve {
            Serve::Nothing => Ok(Self {
                address: None,
                accepting: None,
            }),
            Serve::Address(address) => Ok(Self {
                address: Some(*address),
                accepting: None,
            }),
            Serve::Handler(handler) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let address = listener.local_addr()?;
                let task = tokio::spawn(accept(listener, Arc::clone(handler), id.clone()));
                Ok(Self {
                    address: Some(address),
                    accepting: Some(task.abort_handle()),
                })
            }
        }
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

async fn accept(listener: TcpListener, handler: Handler, id: SandboxId) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => { connections.spawn(handler(id.clone(), stream)); }
            Some(_) = connections.join_next() => {}
        }
    }
}
