//! The one clock of a process.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use manifests::units::{Clock, Timestamp};

/// The time of day at the first call, moved on by the monotonic clock: never goes backwards, whoever sets the host's
/// clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the clock is read for everybody else"
)]
pub(crate) fn system() -> Clock {
    let began = Instant::now();
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = Timestamp::EPOCH.plus(epoch);
    std::sync::Arc::new(move || epoch.plus(began.elapsed()))
}
