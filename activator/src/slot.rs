//! The right to have one request in flight on one sandbox.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::units::Timestamp;

use crate::pool::Pool;
use crate::sandbox::Sandbox;
use crate::word::Released;

/// A place on a sandbox. Dropping it is the only way in which it comes back, so whoever needs the place holds it: to the
/// end of the response body, of the upgraded connection, or of the detached drain after an abort.
#[must_use = "dropping a slot gives it back"]
pub struct Slot {
    sandbox: Arc<Sandbox>,
    rung: Rung,
    waited: Waited,
}

/// How long a request waited for its slot, split into what `Server-Timing` reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waited {
    /// In the queue for something that already ran.
    pub queue: Duration,
    /// For the start of the very sandbox that serves it; zero when it did not wait for a start.
    pub start: Duration,
    /// Whether it waited for a start, and from which rung.
    pub cold: Option<Rung>,
}

/// What state the request found its revision in; the `desc` of `Server-Timing`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Temperature {
    /// It waited for a sandbox to start.
    Cold,
    /// It waited for a frozen sandbox to thaw.
    Frozen,
    /// It met a sandbox under a small CPU limit.
    Throttled,
    /// It met a sandbox on a cheaper spec, and ran there.
    Reserve,
    /// It met a full sandbox.
    Warm,
}

impl Slot {
    /// Of a word that has just been acquired.
    pub(crate) fn new(sandbox: Arc<Sandbox>, rung: Rung) -> Self {
        Self {
            sandbox,
            rung,
            waited: Waited::default(),
        }
    }

    /// Notes that the request had waited from `since`, when the revision stood on `from`, until `now`.
    pub(crate) fn after_waiting(mut self, from: Rung, since: Timestamp, now: Timestamp) -> Self {
        self.waited = Waited::split(&self.sandbox, from, since, now);
        self
    }

    /// Where the request runs.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// Whose slot it is; `None` once the revision is gone.
    pub fn pool(&self) -> Option<Arc<Pool>> {
        self.sandbox.pool.upgrade()
    }

    /// Where the revision stood when the slot was granted.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// How long the request waited; all zero when the slot was free.
    pub fn waited(&self) -> Waited {
        self.waited
    }

    /// What the request met.
    pub fn temperature(&self) -> Temperature {
        match (self.waited.cold, self.rung) {
            (Some(Rung::Frozen), _) | (None, Rung::Frozen) => Temperature::Frozen,
            (Some(_), _) => Temperature::Cold,
            (None, Rung::Throttled) => Temperature::Throttled,
            (None, Rung::Reserve) => Temperature::Reserve,
            (None, _) => Temperature::Warm,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (released, waited_for) = self.sandbox.gate.give_back(&self.sandbox.word);
        if released == Released::Running && !waited_for {
            return;
        }
        let Some(pool) = self.sandbox.pool.upgrade() else {
            return;
        };
        if released == Released::Drained {
            pool.drained(&self.sandbox);
        }
        if waited_for {
            pool.serve_waiting();
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot on {:?}", self.sandbox)
    }
}

impl Waited {
    /// A sandbox that this gateway first heard of after the request had begun to wait was waited for: the wait up to
    /// then is its start (as far as it lasted), the rest is queueing.
    fn split(sandbox: &Sandbox, from: Rung, since: Timestamp, now: Timestamp) -> Self {
        let all = now.since(since);
        if sandbox.since <= since {
            return Self {
                queue: all,
                start: Duration::ZERO,
                cold: None,
            };
        }
        let start = sandbox.start().min(sandbox.since.since(since)).min(all);
        Self {
            queue: all - start,
            start,
            cold: Some(from),
        }
    }
}

impl Temperature {
    /// The word users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Frozen => "frozen",
            Self::Throttled => "throttled",
            Self::Reserve => "reserve",
            Self::Warm => "warm",
        }
    }
}
