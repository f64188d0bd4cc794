//! How much a gateway lets wait, and for how long it waits for apps that do not end.

use std::time::Duration;

/// Bounds of one gateway process. Each is enforced before memory is taken, so the worst case is a number:
/// `total_queue_bytes` of buffered requests, and about 400 bytes for each of `queue_requests` waiters of a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Requests that may wait per revision. Default 10,000, the depth of Knative's breaker; unlike Knative's activator,
    /// whose bound is 10,000 + 2^31, this one holds.
    pub queue_requests: usize,
    /// Bytes that the waiting requests of one revision may hold. Default 64 MiB.
    pub queue_bytes: usize,
    /// Bytes that all waiting requests of this gateway may hold. Default 256 MiB.
    pub total_queue_bytes: usize,
    /// How long a slot may stay taken after its client has gone or its timeout has fired, while the app still works
    /// (`containerConcurrency` > 0). Past it the sandbox is ejected and replaced. Default 30 s.
    pub drain_bound: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_requests: 10_000,
            queue_bytes: 64 << 20,
            total_queue_bytes: 256 << 20,
            drain_bound: Duration::from_secs(30),
        }
    }
}
