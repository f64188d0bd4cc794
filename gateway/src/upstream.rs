//! Connections to sandboxes: found idle or dialled, used for one request, given back.
//!
//! HTTP/1.1 connections stand idle in a stack per thread and sandbox, the last used on top. Where few requests share a
//! sandbox (`containerConcurrency` 1 to 3) they belong to its slots instead and are parked at the sandbox, so that a
//! server that serves one connection at a time never has two. HTTP/2 connections carry many requests.
//!
//! ```text
//! checkout ─▶ Lease ─send─▶ Flight ─response─▶ Lease ─▶ finish    the app is done: connection and slot come back
//!                             └─────dropped─────┴─────▶ abandon   the client is gone: see `drain`
//! ```

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use activator::{Dial, OpenConnection, Sandbox, Slot};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use manifests::units::{Clock, Timestamp};
use manifests::workload::Protocol;
use tokio::net::TcpStream;

use crate::body::RequestBody;
use crate::lease::{Lease, Wire};
use crate::link::{Link, drive};
use crate::tasks::{OnThisThread, Tasks};

/// One thread's connections.
pub(crate) struct Upstreams {
    dial: Arc<dyn Dial>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Rc<Tasks>,
    settings: Settings,
    shelves: RefCell<HashMap<*const Sandbox, Shelf>>,
    sweeping: Cell<bool>,
}

/// How connections are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// An idle connection is closed after this long.
    pub(crate) idle: Duration,
    /// Idle connections per thread and sandbox.
    pub(crate) most_idle: usize,
    /// A dial that takes longer has failed.
    pub(crate) dial: Duration,
    /// How long an app may go on with a request whose client is gone.
    pub(crate) drain_bound: Duration,
}

/// A sandbox's own among this thread's connections.
struct Shelf {
    /// Keeps the address from being used again.
    _sandbox: Arc<Sandbox>,
    idle: Vec<Idle>,
    h2: Option<http2::SendRequest<RequestBody>>,
    /// Dials that failed since the last that did not.
    refused: u32,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    link: Rc<Link>,
    since: Timestamp,
}

/// A connection parked at its sandbox, for any thread.
pub(crate) enum Parked {
    H1 {
        stream: std::net::TcpStream,
        open: OpenConnection,
    },
    H2(http2::SendRequest<RequestBody>),
}

impl Upstreams {
    pub(crate) fn new(dial: Arc<dyn Dial>, clock: Clock, tasks: Rc<Tasks>, settings: Settings) -> Rc<Self> {
        Rc::new(Self {
            dial,
            clock,
            tasks,
            settings,
            shelves: RefCell::default(),
            sweeping: Cell::new(false),
        })
    }

    /// A connection to the slot's sandbox, an idle one unless `fresh` is asked for. An error means that nothing was sent;
    /// the slot is free again, and the sandbox ejected when it has refused too often.
    pub(crate) async fn checkout(self: &Rc<Self>, slot: Slot, how: Checkout) -> io::Result<Lease> {
        let sandbox = Arc::clone(slot.sandbox());
        if !how.fresh
            && how.keep_alive
            && let Some(wire) = self.idle(&sandbox, how.protocol)
        {
            return Ok(self.lease(sandbox, wire.carry(slot), how, true));
        }
        // Where connections belong to slots, a parked one is used up before another is opened.
        if sandbox.shares_connections() {
            while let Some(parked) = unpark(&sandbox) {
                match parked {
                    Parked::H1 { stream, open } if !how.fresh && is_quiet(&stream) => {
                        if let Ok(stream) = TcpStream::from_std(stream) {
                            let wire = Box::pin(self.shake_h1(stream, open)).await?;
                            return Ok(self.lease(sandbox, wire.carry(slot), how, true));
                        }
                    }
                    Parked::H2(sender) if !how.fresh && !sender.is_closed() => {
                        return Ok(self.lease(sandbox, Connected::H2(sender).carry(slot), how, true));
                    }
                    // It is stale: dropping it closes it.
                    Parked::H1 { .. } | Parked::H2(_) => {}
                }
            }
        }
        // Boxed, as is every step that is not taken each time: the request's own future stays small.
        let wire = Box::pin(self.connect(&sandbox, how.protocol)).await?;
        Ok(self.lease(sandbox, wire.carry(slot), how, false))
    }

    fn lease(self: &Rc<Self>, sandbox: Arc<Sandbox>, wire: Wire, how: Checkout, reused: bool) -> Lease {
        let Checkout {
            keep_alive,
            limited,
            until,
            ..
        } = how;
        Lease {
            upstreams: Rc::clone(self),
            sandbox,
            wire,
            keep_alive,
            limited,
            reused,
            until,
        }
    }

    /// An idle connection of this thread.
    fn idle(&self, sandbox: &Arc<Sandbox>, protocol: Protocol) -> Option<Connected> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(&Arc::as_ptr(sandbox))?;
        match protocol {
            Protocol::Http1 => loop {
                let Idle { sender, link, .. } = shelf.idle.pop()?;
                if sender.is_ready() {
                    return Some(Connected::H1(sender, link));
                }
            },
            Protocol::H2c => shelf
                .h2
                .take_if(|sender| sender.is_closed())
                .map_or_else(|| shelf.h2.clone().map(Connected::H2), |_closed| None),
        }
    }

    async fn connect(self: &Rc<Self>, sandbox: &Arc<Sandbox>, protocol: Protocol) -> io::Result<Connected> {
        let open = match sandbox.try_open() {
            Some(open) => open,
            None => sandbox.open().await,
        };
        let dialled = match tokio::time::timeout(self.settings.dial, self.dial.dial(sandbox.id())).await {
            Ok(dialled) => dialled,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the sandbox did not accept the connection in time",
            )),
        };
        let connected = match dialled {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                match protocol {
                    Protocol::Http1 => self.shake_h1(stream, open).await,
                    Protocol::H2c => self.shake_h2(stream, open).await,
                }
            }
            Err(error) => Err(error),
        };
        self.count_refusals(sandbox, connected.is_err());
        if let (Ok(Connected::H2(sender)), false) = (&connected, sandbox.shares_connections()) {
            self.with_shelf(sandbox, |shelf| shelf.h2 = Some(sender.clone()));
        }
        connected
    }

    /// Makes an HTTP/1.1 connection of a stream.
    async fn shake_h1(self: &Rc<Self>, stream: TcpStream, open: OpenConnection) -> io::Result<Connected> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let link = Link::new(Arc::clone(open.sandbox()));
        self.tasks
            .spawn_background(drive(connection, open, Rc::clone(&link), Rc::clone(self)));
        Ok(Connected::H1(sender, link))
    }

    async fn shake_h2(self: &Rc<Self>, stream: TcpStream, open: OpenConnection) -> io::Result<Connected> {
        let handshake = http2::Builder::new(OnThisThread).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        self.tasks.spawn_background(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to a sandbox ended");
            }
            drop(open);
        });
        Ok(Connected::H2(sender))
    }

    /// A sandbox that refuses again and again is given up on.
    fn count_refusals(self: &Rc<Self>, sandbox: &Arc<Sandbox>, refused: bool) {
        let known = self.shelves.borrow().contains_key(&Arc::as_ptr(sandbox));
        if !refused && !known {
            return;
        }
        let count = self.with_shelf(sandbox, |shelf| {
            shelf.refused = if refused { shelf.refused + 1 } else { 0 };
            shelf.refused
        });
        if count >= REFUSALS {
            sandbox.eject();
        }
    }

    /// Keeps an idle connection, on top of the others.
    pub(crate) fn shelve(
        self: &Rc<Self>,
        sandbox: &Arc<Sandbox>,
        sender: http1::SendRequest<RequestBody>,
        link: Rc<Link>,
    ) {
        let since = (self.clock)();
        let most = self.settings.most_idle;
        self.with_shelf(sandbox, |shelf| {
            if shelf.idle.len() < most {
                shelf.idle.push(Idle { sender, link, since });
            }
        });
    }

    fn with_shelf<T>(self: &Rc<Self>, sandbox: &Arc<Sandbox>, act: impl FnOnce(&mut Shelf) -> T) -> T {
        if !self.sweeping.replace(true) {
            self.tasks.spawn_background(sweep(Rc::downgrade(self)));
        }
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(Arc::as_ptr(sandbox)).or_insert_with(|| Shelf {
            _sandbox: Arc::clone(sandbox),
            idle: Vec::new(),
            h2: None,
            refused: 0,
        });
        act(shelf)
    }

    /// Closes what has been idle for too long or leads nowhere any more. True when nothing is left.
    fn tidy(&self, now: Timestamp) -> bool {
        let mut closed = Vec::new();
        let mut shelves = self.shelves.borrow_mut();
        shelves.retain(|_, shelf| {
            let open = shelf._sandbox.is_open();
            // The stack is in order of return: what has been idle longest is at the bottom.
            let stale = |idle: &Idle| !open || idle.sender.is_closed() || now.since(idle.since) >= self.settings.idle;
            let keep = shelf
                .idle
                .iter()
                .position(|idle| !stale(idle))
                .unwrap_or(shelf.idle.len());
            closed.extend(shelf.idle.drain(..keep));
            if !open {
                shelf.h2 = None;
            }
            shelf.h2.take_if(|sender| sender.is_closed());
            open && (!shelf.idle.is_empty() || shelf.h2.is_some() || shelf.refused > 0)
        });
        let empty = shelves.is_empty();
        drop(shelves);
        drop(closed); // wakes their tasks
        empty
    }

    pub(crate) fn drain_bound(&self) -> Duration {
        self.settings.drain_bound
    }
}

/// Tidies up every second, while there is anything.
async fn sweep(upstreams: std::rc::Weak<Upstreams>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(upstreams) = upstreams.upgrade() else { return };
        if upstreams.tidy((upstreams.clock)()) {
            upstreams.sweeping.set(false);
            return;
        }
    }
}

/// What kind of connection a request needs.
#[derive(Clone, Copy)]
pub(crate) struct Checkout {
    pub(crate) protocol: Protocol,
    /// Whether connections may be kept.
    pub(crate) keep_alive: bool,
    /// Whether the revision limits concurrency.
    pub(crate) limited: bool,
    /// Not one that was idle: those have just failed.
    pub(crate) fresh: bool,
    /// The end of the request's own time: what the app has at least, should the client go away.
    pub(crate) until: Timestamp,
}

enum Connected {
    H1(http1::SendRequest<RequestBody>, Rc<Link>),
    H2(http2::SendRequest<RequestBody>),
}

impl Connected {
    fn carry(self, slot: Slot) -> Wire {
        match self {
            Self::H1(sender, link) => {
                link.occupy(slot);
                Wire::H1 { sender, link }
            }
            Self::H2(sender) => Wire::H2 { sender, slot },
        }
    }
}

/// Gives a stream back to its sandbox; called by the connection's task.
pub(crate) fn park(stream: TcpStream, open: OpenConnection) {
    let sandbox = Arc::clone(open.sandbox());
    if let Ok(stream) = stream.into_std() {
        sandbox.park(Box::new(Parked::H1 { stream, open }));
    }
}

fn unpark(sandbox: &Sandbox) -> Option<Parked> {
    let parked: Box<dyn Any + Send> = sandbox.take()?;
    parked.downcast().ok().map(|parked| *parked)
}

/// Whether an idle connection is still open and the app has said nothing on it unasked.
fn is_quiet(stream: &std::net::TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A sandbox that refuses this many dials of one thread in a row is ejected.
const REFUSALS: u32 = 3;
const SWEEP: Duration = Duration::from_secs(1);
