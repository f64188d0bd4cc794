//! When a connection or a request has been silent for too long.
//!
//! One timer for each task: an HTTP/1.1 connection, which has one request at a time, or one HTTP/2 stream. It stands
//! outside of what it watches, so it also ends what nobody polls: a response whose client does not read. The timer is set
//! again only when it fires before its time; a request in between costs no timer.
//!
//! ```text
//! Idle ──asked──▶ Asked ──begun──▶ Begun ──idle──▶ Idle
//!   │ closed        │ told: 504      │ cut              (what happens at the deadline)
//! ```

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use manifests::units::{Clock, Timestamp};
use tokio::time::Sleep;

/// The deadline of one task, and what happens then.
pub(crate) struct Watch {
    deadline: Cell<Timestamp>,
    stage: Cell<Stage>,
    /// The deadline of a request whose response has not begun has passed; it answers by itself.
    expired: Cell<bool>,
    /// The connection should take no more requests.
    draining: Cell<bool>,
    /// Requests of this connection that have not ended.
    requests: Cell<u32>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Asked,
    Begun,
}

impl Watch {
    /// For a connection that must bring its first request before `deadline`.
    pub(crate) fn connection(deadline: Timestamp) -> Rc<Self> {
        Rc::new(Self {
            deadline: Cell::new(deadline),
            stage: Cell::new(Stage::Idle),
            expired: Cell::new(false),
            draining: Cell::new(false),
            requests: Cell::new(0),
            waker: RefCell::new(None),
        })
    }

    /// For one stream of a connection: no deadline until it is asked something.
    pub(crate) fn stream() -> Rc<Self> {
        Self::connection(NEVER)
    }

    /// The watch of the task that is being polled. Outside of any, one that nothing looks at.
    pub(crate) fn current() -> Rc<Self> {
        CURRENT.with_borrow(Clone::clone).unwrap_or_else(Self::stream)
    }

    /// A request has come, and must have its answer begun by `deadline`.
    pub(crate) fn asked(&self, deadline: Timestamp) {
        self.set(Stage::Asked, deadline);
        self.expired.set(false);
    }

    /// The answer has begun (or has gone on), and goes on or ends by `deadline`.
    pub(crate) fn begun(&self, deadline: Timestamp) {
        self.set(Stage::Begun, deadline);
    }

    /// Nothing is asked; the next request must be there by `deadline`.
    pub(crate) fn idle(&self, deadline: Timestamp) {
        self.set(Stage::Idle, deadline);
    }

    /// Whether the request's deadline has passed before its answer had begun.
    pub(crate) fn expired(&self) -> bool {
        self.expired.get()
    }

    /// Asks the connection to take no more requests and to end when it has none.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether [`Self::drain`] has been called.
    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    fn wake_by(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    fn set(&self, stage: Stage, deadline: Timestamp) {
        self.stage.set(stage);
        self.deadline.set(deadline);
    }
}

/// A request of a connection that has not ended; when the last one has, the connection is idle.
pub(crate) struct Request {
    connection: Rc<Watch>,
    clock: Clock,
    keep_alive: Duration,
}

impl Request {
    /// One more request; an idle connection waits `keep_alive` for the next.
    pub(crate) fn begin(connection: &Rc<Watch>, clock: &Clock, keep_alive: Duration) -> Self {
        connection.requests.set(connection.requests.get() + 1);
        connection.idle(NEVER);
        Self {
            connection: Rc::clone(connection),
            clock: Clock::clone(clock),
            keep_alive,
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let left = self.connection.requests.get() - 1;
        self.connection.requests.set(left);
        if left == 0 {
            self.connection.idle((self.clock)().plus(self.keep_alive));
        }
    }
}

/// A task with its watch: ends, and so drops the task, when the deadline of an idle or a begun one passes.
pub(crate) struct Watched<F> {
    inner: Option<Pin<Box<F>>>,
    watch: Rc<Watch>,
    clock: Clock,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires.
    armed: Timestamp,
}

impl<F: Future<Output = ()>> Watched<F> {
    pub(crate) fn new(inner: F, watch: Rc<Watch>, clock: Clock) -> Self {
        Self {
            inner: Some(Box::pin(inner)),
            watch,
            clock,
            sleep: None,
            armed: NEVER,
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.inner {
            Some(inner) => inner.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }

    /// Whether the deadline has passed; if not, wakes the task when it does.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let deadline = self.watch.deadline.get();
            if self.armed == NEVER || deadline < self.armed {
                if deadline == NEVER {
                    return false;
                }
                let sleep = tokio::time::sleep(deadline.since((self.clock)()));
                match &mut self.sleep {
                    Some(old) => old.as_mut().set(sleep),
                    None => self.sleep = Some(Box::pin(sleep)),
                }
                self.armed = deadline;
            }
            let Some(sleep) = &mut self.sleep else { return false };
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.armed = NEVER;
            if (self.clock)() >= self.watch.deadline.get() {
                return true;
            }
        }
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let _current = Scope::enter(&this.watch);
        this.watch.wake_by(cx.waker());
        if this.poll_inner(cx).is_ready() {
            return Poll::Ready(());
        }
        while this.poll_deadline(cx) {
            match this.watch.stage.get() {
                Stage::Asked => {
                    this.watch.expired.set(true);
                    this.watch.deadline.set(NEVER);
                }
                // First politely (HTTP/2: GOAWAY), so that the client knows that nothing it just sent was taken.
                Stage::Idle if !this.watch.draining() => {
                    this.watch.draining.set(true);
                    this.watch.deadline.set((this.clock)().plus(PARTING));
                }
                Stage::Idle | Stage::Begun => {
                    this.inner = None;
                    return Poll::Ready(());
                }
            }
            if this.poll_inner(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Watch>>> = const { RefCell::new(None) };
}

/// While it lives, its watch is [`Watch::current`].
struct Scope {
    before: Option<Rc<Watch>>,
}

impl Scope {
    fn enter(watch: &Rc<Watch>) -> Self {
        Self {
            before: CURRENT.replace(Some(Rc::clone(watch))),
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// No deadline.
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);
/// How long an idle connection has to close after it was asked to.
const PARTING: Duration = Duration::from_secs(1);
