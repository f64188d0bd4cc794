//! A lane: whoever sends one request at a time, waits for the next, and loses patience.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// Where a lane without a request waits for its next.
pub(crate) struct Parked<T> {
    request: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
}

impl<T> Parked<T> {
    pub(crate) fn new() -> Self {
        Self {
            request: Cell::new(None),
            waker: Cell::new(None),
        }
    }

    /// Gives it its next request.
    pub(crate) fn give(&self, request: T) {
        self.request.set(Some(request));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for it.
    pub(crate) async fn wait(&self) -> T {
        poll_fn(|context| match self.request.take() {
            Some(request) => Poll::Ready(request),
            None => {
                self.waker.set(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// A deadline that moves: the runtime's timer is set anew only when it fires or would fire too late, not per request.
pub(crate) struct Patience(Pin<Box<Sleep>>);

impl Patience {
    pub(crate) fn new(first: std::time::Instant) -> Self {
        Self(Box::pin(sleep_until(first.into())))
    }

    /// What comes of `work`, or nothing when that is not there by `deadline`.
    pub(crate) async fn within<T>(&mut self, deadline: std::time::Instant, work: impl Future<Output = T>) -> Option<T> {
        let deadline = Instant::from_std(deadline);
        let mut work = pin!(work);
        let sleep = &mut self.0;
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            while sleep.as_mut().poll(context).is_ready() {
                if sleep.deadline() >= deadline {
                    return Poll::Ready(None);
                }
                sleep.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_ends_at_the_deadline_and_not_before_whatever_came_before() {
        #[expect(clippy::disallowed_methods, reason = "the paused clock")]
        let start = Instant::now();
        let at = |millis| (start + Duration::from_millis(millis)).into_std();
        let mut patience = Patience::new(at(10));
        let work = async |millis| tokio::time::sleep_until(start + Duration::from_millis(millis)).await;
        // The timer fires at 10 while the deadline is at 50: it is set anew.
        assert_eq!(patience.within(at(50), work(30)).await, Some(()));
        assert_eq!(patience.within(at(60), work(100)).await, None);
        assert_eq!(start.elapsed(), Duration::from_millis(60));
        // An earlier deadline than the one that is set.
        assert_eq!(patience.within(at(500), work(70)).await, Some(()));
        assert_eq!(patience.within(at(80), work(1_000)).await, None);
        assert_eq!(start.elapsed(), Duration::from_millis(80));
    }

    #[tokio::test]
    async fn a_parked_lane_gets_its_request_given_before_or_after() {
        let parked = Parked::new();
        parked.give(1);
        assert_eq!(parked.wait().await, 1);
        let (got, ()) = tokio::join!(parked.wait(), async { parked.give(2) });
        assert_eq!(got, 2);
    }
}
