//! What probes ask of the app, and how a test makes it ill: not ready for a while, hung, gRPC health.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::sleep;

/// How the process feels.
pub(crate) struct Moods {
    /// So many `/unready` are in force.
    unready: AtomicU32,
    /// So many `/hang` are in force.
    hanging: watch::Sender<u32>,
}

impl Default for Moods {
    fn default() -> Self {
        Self {
            unready: AtomicU32::new(0),
            hanging: watch::Sender::new(0),
        }
    }
}

impl Moods {
    pub(crate) fn is_ready(&self) -> bool {
        self.unready.load(Ordering::Relaxed) == 0
    }

    /// Not ready for this long from now on.
    pub(crate) fn become_unready(self: &Arc<Self>, time: Duration) {
        self.unready.fetch_add(1, Ordering::Relaxed);
        let moods = Arc::clone(self);
        tokio::spawn(async move {
            sleep(time).await;
            moods.unready.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Answers nothing for this long from now on; zero is for ever.
    pub(crate) fn hang(self: &Arc<Self>, time: Duration) {
        self.hanging.send_modify(|count| *count += 1);
        if time.is_zero() {
            return;
        }
        let moods = Arc::clone(self);
        tokio::spawn(async move {
            sleep(time).await;
            moods.hanging.send_modify(|count| *count -= 1);
        });
    }

    /// Waits while it hangs.
    pub(crate) async fn answers(&self) {
        if *self.hanging.borrow() > 0 {
            // The sender is `self`, so it is there.
            let _ = self.hanging.subscribe().wait_for(|count| *count == 0).await;
        }
    }

    /// The answer of `grpc.health.v1.Health/Check` for the whole server, in its frame: field 1 is 1 for `SERVING`, 2 for
    /// `NOT_SERVING`.
    pub(crate) fn grpc_health(&self) -> Bytes {
        let status = if self.is_ready() { 1 } else { 2 };
        Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status])
    }
}
