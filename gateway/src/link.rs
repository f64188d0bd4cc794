//! An HTTP/1.1 connection's task, and what it does with the socket and the slot when the connection is done.
//!
//! While a request runs, its slot is in here: however the request ends, the slot is free only when the app is known to
//! have ended, or has been given up on.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use activator::{OpenConnection, Sandbox, Slot};
use bytes::Bytes;
use hyper::client::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use manifests::units::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};

use crate::body::RequestBody;
use crate::upstream::{self, Upstreams};

/// What a connection's task and the request on it know of each other.
pub(crate) struct Link {
    sandbox: Arc<Sandbox>,
    slot: Cell<Option<Slot>>,
    end: Cell<End>,
    until: Cell<Option<Timestamp>>,
    finished: Notify,
}

/// What happens to the socket when HTTP is done with it.
#[derive(Default)]
pub(crate) enum End {
    /// It is closed.
    #[default]
    Close,
    /// It is parked at the sandbox, for the slot's next holder.
    Park,
    /// The app may still be at work: it is told that nobody listens (FIN), and has until the link's instant to close.
    Linger,
    /// It speaks another protocol now.
    Switch(oneshot::Sender<Switched>),
}

/// A connection that is HTTP's no more.
pub(crate) struct Switched {
    pub(crate) stream: TcpStream,
    /// What the app has already said in the new protocol.
    pub(crate) read: Bytes,
    // After the socket: dropped when it is closed.
    pub(crate) open: OpenConnection,
    pub(crate) slot: Option<Slot>,
}

impl Link {
    pub(crate) fn new(sandbox: Arc<Sandbox>) -> Rc<Self> {
        Rc::new(Self {
            sandbox,
            slot: Cell::new(None),
            end: Cell::default(),
            until: Cell::new(None),
            finished: Notify::new(),
        })
    }

    /// A request with this slot is going to run.
    pub(crate) fn occupy(&self, slot: Slot) {
        self.slot.set(Some(slot));
    }

    /// Takes the slot out.
    pub(crate) fn vacate(&self) -> Option<Slot> {
        self.slot.take()
    }

    /// The whole response is there: should the connection be closed already, there is nothing to wait for.
    pub(crate) fn finish(&self, end: End) {
        self.at_end(end);
        self.finished.notify_waiters();
    }

    /// Says what is to happen at the end.
    pub(crate) fn at_end(&self, end: End) {
        self.end.set(end);
    }

    /// Gives the app until this instant, if it is to linger.
    pub(crate) fn linger_until(&self, until: Timestamp) {
        self.until.set(Some(until));
    }
}

/// Runs a connection to its end.
pub(crate) async fn drive(
    mut connection: Connection<TokioIo<TcpStream>, RequestBody>,
    open: OpenConnection,
    link: Rc<Link>,
    upstreams: Rc<Upstreams>,
) {
    let done = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    if let Err(error) = &done {
        tracing::debug!(sandbox = %link.sandbox.id(), %error, "connection to a sandbox ended");
    }
    let parts = connection.into_parts();
    let (stream, read) = (parts.io.into_inner(), parts.read_buf);
    match link.end.take() {
        End::Park if done.is_ok() && read.is_empty() => upstream::park(stream, open),
        End::Switch(to) => {
            let switched = Switched {
                stream,
                read,
                open,
                slot: link.vacate(),
            };
            // Nobody takes it: the request has ended before the app answered.
            if let Err(back) = to.send(switched) {
                if let Some(slot) = back.slot {
                    link.occupy(slot);
                }
                linger(back.stream, &link, &upstreams).await;
            }
        }
        End::Linger => {
            linger(stream, &link, &upstreams).await;
            drop(link.vacate());
        }
        // Whoever has the lease has the slot, until its drop.
        End::Close | End::Park => drop(stream),
    }
}

/// Waits until the app closes; gives up on the sandbox when it does not. When it has closed without a whole response, the
/// slot stays back for a moment more: see [`AFTERMATH`].
async fn linger(mut stream: TcpStream, link: &Link, upstreams: &Upstreams) {
    let mut finished = pin!(link.finished.notified());
    finished.as_mut().enable();
    let now = (upstreams.clock)();
    let until = link.until.get().unwrap_or_else(|| now.plus(upstreams.drain_bound()));
    let closed = tokio::time::timeout(until.since(now), async {
        stream.shutdown().await?;
        let mut buffer = [0; 8 << 10];
        while stream.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    });
    if closed.await.is_err() {
        tracing::warn!(sandbox = %link.sandbox.id(), "an app did not end a request that nobody waits for");
        link.sandbox.eject();
        return;
    }
    drop(stream);
    let _ = tokio::time::timeout(AFTERMATH, finished).await;
}

/// How long the slot of a request that an app broke off stays back. Most often the app has died, and its kernel closes
/// this connection before its listener: whoever got the slot at once could connect once more, and fail, too. Within this
/// time scaling hears of the death and takes the sandbox out.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(200);
