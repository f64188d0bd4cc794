//! The way in for connections that the gateway has not accepted itself: those of sandboxes to services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Gives connections to the gateway's threads, in turn. Clones are the same.
#[derive(Clone, Debug)]
pub struct Inlet {
    threads: Arc<[UnboundedSender<Guest>]>,
    next: Arc<AtomicUsize>,
}

/// A connection that somebody else has accepted.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) from: SocketAddr,
    /// What every request on it is for, whatever its `Host` says.
    pub(crate) host: Arc<str>,
}

impl Inlet {
    /// An inlet to so many threads, with each thread's end.
    pub(crate) fn new(threads: usize) -> (Self, Vec<UnboundedReceiver<Guest>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| unbounded_channel()).unzip();
        let inlet = Self {
            threads: senders.into(),
            next: Arc::default(),
        };
        (inlet, receivers)
    }

    /// Serves a non-blocking connection as if `host` were the authority of every request on it. A gateway that drains closes
    /// it.
    pub fn serve(&self, stream: std::net::TcpStream, from: SocketAddr, host: Arc<str>) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let _ = self.threads[turn].send(Guest { stream, from, host });
    }
}
