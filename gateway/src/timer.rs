//! A request's limits, kept: [`Deadlines`] with the clock and the task's [`Watch`].

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use manifests::revision::Timeouts;
use manifests::units::{Clock, Timestamp};

use crate::timeouts::{Deadlines, Expiry};
use crate::watch::Watch;

/// The limits of the request that the current task serves.
pub(crate) struct Timer {
    deadlines: Deadlines,
    /// Writes change the deadline only where there is an idle limit.
    idle_limit: bool,
    watch: Rc<Watch>,
    clock: Clock,
}

impl Timer {
    /// For a request that came in at `now`; called in the task that serves it.
    pub(crate) fn start(now: Timestamp, timeouts: &Timeouts, clock: &Clock) -> Self {
        let deadlines = Deadlines::new(now, timeouts);
        let watch = Watch::current();
        watch.asked(deadlines.next());
        Self {
            deadlines,
            idle_limit: timeouts.idle.is_some(),
            watch,
            clock: Clock::clone(clock),
        }
    }

    /// Does `work` within the limits.
    pub(crate) async fn limit<F: Future>(&self, work: F) -> Result<F::Output, Expiry> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if self.watch.expired() => Poll::Ready(Err(self.passed())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The response begins at `now`: from here on a passed limit cuts it.
    pub(crate) fn begun(&mut self, now: Timestamp) {
        self.deadlines.wrote(now);
        self.watch.begun(self.deadlines.next());
    }

    /// More of the response goes to the client.
    pub(crate) fn wrote(&mut self) {
        if self.idle_limit {
            self.begun((self.clock)());
        }
    }

    /// The limits as they are now.
    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    fn passed(&self) -> Expiry {
        // The watch has seen that a limit has passed; the clock does not go backwards.
        self.deadlines.expired((self.clock)()).unwrap_or(Expiry::Request)
    }
}
