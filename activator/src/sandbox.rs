//! One sandbox as the data plane knows it: its word, where its requests wait, and its idle connections.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Timestamp;

use crate::gate::Gate;
use crate::parked::{OpenConnection, Parking};
use crate::pool::{Pool, WaitLine};
use crate::word::Word;

/// A running instance. It is one and the same object in every endpoint set that has it, so that what runs on it stays
/// counted, whatever scaling says in the meantime.
pub struct Sandbox {
    // First, to share a cache line with the reference count: both are touched by every request.
    pub(crate) word: Word,
    /// `containerConcurrency`, or [`Word::UNLIMITED`].
    pub(crate) limit: u32,
    pub(crate) gate: Arc<Gate<WaitLine>>,
    pub(crate) pool: Weak<Pool>,
    /// When this gateway first heard of it.
    pub(crate) since: Timestamp,
    /// What it takes of the requests beside others; 0 where all are alike.
    weight: AtomicU32,
    id: SandboxId,
    start: Duration,
    answered: AtomicBool,
    parking: Parking,
}

impl Sandbox {
    pub(crate) fn new(
        id: SandboxId,
        start: Duration,
        limit: u32,
        since: Timestamp,
        gate: Arc<Gate<WaitLine>>,
        pool: Weak<Pool>,
    ) -> Self {
        // Connections belong to slots only where few requests share a sandbox; otherwise threads keep their own.
        let connections = if limit <= MOST_SLOT_CONNECTIONS {
            limit
        } else {
            Word::UNLIMITED
        };
        Self {
            word: Word::new(),
            limit,
            gate,
            pool,
            since,
            weight: AtomicU32::new(0),
            id,
            start,
            answered: AtomicBool::new(false),
            parking: Parking::new(connections),
        }
    }

    /// Its name; what [`crate::Dial`] takes.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// From the decision to start it to ready.
    pub fn start(&self) -> Duration {
        self.start
    }

    /// When this gateway first heard of it, ready.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// It has begun to answer a request: should it end soon, it had not failed to start.
    pub fn answers(&self) {
        if !self.has_answered() {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Requests in flight from this gateway.
    pub fn in_flight(&self) -> u32 {
        self.word.in_flight()
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// As the newest endpoint set says.
    pub(crate) fn weigh(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Whether it takes new requests: it is in the newest endpoint set and has not been ejected. Connections to one that
    /// is not open need not be kept.
    pub fn is_open(&self) -> bool {
        self.word.is_open()
    }

    /// Whether [`Self::eject`] has been called.
    pub fn is_ejected(&self) -> bool {
        self.word.is_ejected()
    }

    /// Gives up on it: it refuses connections, or a request on it never ends. It takes no new request from this gateway,
    /// and scaling hears at once that it wants to be replaced. What runs on it goes on. Idempotent.
    pub fn eject(&self) {
        if !self.word.eject() {
            return;
        }
        self.parking.close();
        if let Some(pool) = self.pool.upgrade() {
            pool.ejected(self);
        }
    }

    /// Whether idle connections belong to its slots (`containerConcurrency` 1 to 3) and must be parked here, so that any
    /// thread finds them. Otherwise every thread keeps its own.
    pub fn shares_connections(&self) -> bool {
        self.limit <= MOST_SLOT_CONNECTIONS
    }

    /// Keeps an idle connection for whoever holds a slot next; drops (closes) it when the sandbox is not open any more.
    /// The connection must own the [`OpenConnection`] it was counted with.
    pub fn park(&self, connection: Box<dyn Any + Send>) {
        if self.is_open() {
            self.parking.park(connection);
        }
        // Drained or ejected between the two lines above: nobody will come for it.
        if !self.is_open() {
            self.parking.close();
        }
    }

    /// Takes a parked connection, the most recently used one first. It may have been parked by another thread; the taker
    /// uses it or drops it.
    pub fn take(&self) -> Option<Box<dyn Any + Send>> {
        self.parking.take()
    }

    /// Counts a connection that is about to be dialled; `None` while as many are open as may be (`containerConcurrency`
    /// where that is 1 to 3, no bound otherwise).
    pub fn try_open(self: &Arc<Self>) -> Option<OpenConnection> {
        self.parking.try_open().then(|| OpenConnection::new(Arc::clone(self)))
    }

    /// As [`Self::try_open`], but waits until another connection is closed. Whoever holds a slot and finds nothing parked
    /// waits here only for a connection that is just being closed: as many others as there are slots have one each.
    /// Cancel-safe.
    pub async fn open(self: &Arc<Self>) -> OpenConnection {
        self.parking.wait_open().await;
        OpenConnection::new(Arc::clone(self))
    }

    /// Connections that are open or being dialled.
    pub fn open_connections(&self) -> u32 {
        self.parking.open()
    }

    /// The last connection to one that drains is closed: it may be frozen.
    pub(crate) fn connection_closed(&self) {
        if self.word.is_open() || self.in_flight() > 0 || self.open_connections() > 0 {
            return;
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.drained(self);
        }
    }

    pub(crate) fn parking(&self) -> &Parking {
        &self.parking
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} in flight)", self.id, self.in_flight())
    }
}

/// Up to this `containerConcurrency` an idle connection belongs to the slot.
const MOST_SLOT_CONNECTIONS: u32 = 3;
