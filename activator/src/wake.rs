//! When a waiting request is worth a report before the second is over. PURE.
//!
//! Knative: the first request of an idle revision is reported at once. Beyond that, so that zero can
//! become many at once: a queue that has doubled since scaling last heard of it.

/// What scaling was last told about a queue; lives beside the queue, under its lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Alarm {
    told: u32,
}

impl Alarm {
    /// Somebody has joined the queue, so that `waiting` stand in it; `slots` requests can run at once (0: nothing is
    /// there to serve). Returns whether scaling must hear of it now.
    ///
    /// While something serves, a queue shorter than what runs says nothing that the periodic report does not say in time.
    pub fn joined(&mut self, waiting: u32, slots: u32) -> bool {
        if slots == 0 && waiting == 1 {
            self.told = 0;
        }
        let worth = waiting >= self.told.saturating_mul(2).max(slots).max(1);
        if worth {
            self.told = waiting;
        }
        worth
    }

    /// The last sandbox is gone while `waiting` wait. Returns whether scaling must hear of it now.
    pub fn deserted(&mut self, waiting: u32) -> bool {
        self.told = waiting;
        waiting > 0
    }

    /// A periodic report said that `waiting` wait.
    pub fn reported(&mut self, waiting: u32) {
        self.told = waiting;
    }
}
