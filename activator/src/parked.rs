//! Idle upstream connections that belong to a sandbox's slots, and the bound on open ones.
//!
//! A server that serves one connection at a time would answer on thread A's idle connection and leave thread B's request
//! hanging. So with few slots the connections are shared by all threads, and there are never more of them than slots.
//!
//! P1. Every open or dialling connection holds one [`OpenConnection`], and there are at most `most` of these.
//! P2. A sandbox that takes no requests keeps no idle connection.

use std::any::Any;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::outbox::relock;
use crate::sandbox::Sandbox;

/// The place; one per sandbox.
pub(crate) struct Parking {
    most: u32,
    free: Semaphore,
    idle: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// Proof that a connection is counted; keep it inside the connection, so that it is dropped when the socket is closed.
#[must_use = "dropping it says that the connection is closed"]
pub struct OpenConnection {
    sandbox: Arc<Sandbox>,
}

impl Parking {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most,
            free: Semaphore::new(most as usize),
            idle: Mutex::default(),
        }
    }

    pub(crate) fn park(&self, connection: Box<dyn Any + Send>) {
        relock(&self.idle).push(connection);
    }

    pub(crate) fn take(&self) -> Option<Box<dyn Any + Send>> {
        relock(&self.idle).pop()
    }

    /// Drops what is parked.
    pub(crate) fn close(&self) {
        let idle = std::mem::take(&mut *relock(&self.idle));
        drop(idle); // outside the lock: closing runs code of the connection's owner
    }

    pub(crate) fn try_open(&self) -> bool {
        self.free.try_acquire().map(|permit| permit.forget()).is_ok()
    }

    pub(crate) async fn wait_open(&self) {
        // Nobody ever closes the semaphore.
        if let Ok(permit) = self.free.acquire().await {
            permit.forget();
        }
    }

    pub(crate) fn open(&self) -> u32 {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(self.most);
        self.most.saturating_sub(free)
    }

    fn closed(&self) {
        self.free.add_permits(1);
        debug_assert!(
            self.free.available_permits() <= self.most as usize,
            "P1: closed more than was opened"
        );
    }
}

impl OpenConnection {
    pub(crate) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self { sandbox }
    }

    /// Where it leads.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.sandbox.parking().closed();
        self.sandbox.connection_closed();
    }
}
