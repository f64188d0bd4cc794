//! A connection and a slot, leased for one request: sent, answered, given back or left behind.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use activator::{Sandbox, Slot};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use manifests::units::Timestamp;
use tokio::sync::oneshot;

use crate::body::RequestBody;
use crate::drain::{self, Rest};
use crate::link::{AFTERMATH, End, Link, Switched};
use crate::upstream::{Parked, Upstreams};

/// A connection and a slot, for one request.
pub(crate) struct Lease {
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) wire: Wire,
    /// Whether the app may keep the connection open.
    pub(crate) keep_alive: bool,
    /// Whether the sandbox serves so many requests at once and no more.
    pub(crate) limited: bool,
    /// Whether other requests were sent on this connection before.
    pub(crate) reused: bool,
    /// The end of the request's own time.
    pub(crate) until: Timestamp,
}

/// The connection's side of a lease.
pub(crate) enum Wire {
    /// The slot is in the link: whatever becomes of the request, it comes back when the connection's task says so.
    H1 {
        sender: http1::SendRequest<RequestBody>,
        link: Rc<Link>,
    },
    H2 {
        sender: http2::SendRequest<RequestBody>,
        slot: Slot,
    },
}

type Reply = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;
/// The response to come.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Reply>>>;

/// A request at the app, until its response begins.
pub(crate) struct Flight {
    reply: Option<ReplyFuture>,
    lease: Option<Lease>,
}

/// A request that got no response.
pub(crate) struct Failed {
    /// The request, when nothing of it was sent.
    pub(crate) unsent: Option<Request<RequestBody>>,
    /// Otherwise what it was sent by: [`Lease::broke`] it, or take its slot [`Lease::again`].
    pub(crate) lease: Option<Lease>,
    pub(crate) error: hyper::Error,
}

impl Lease {
    /// Sends the request. If the app changes protocols in return, its connection comes by what this returns beside.
    pub(crate) fn send(
        mut self,
        request: Request<RequestBody>,
        upgrade: bool,
    ) -> (Flight, Option<oneshot::Receiver<Switched>>) {
        let mut switched = None;
        let reply: ReplyFuture = match &mut self.wire {
            Wire::H1 { sender, link } => {
                if upgrade {
                    let (sent, received) = oneshot::channel();
                    link.at_end(End::Switch(sent));
                    switched = Some(received);
                } else if self.limited {
                    // From here on the app works for this slot until it says that it has ended.
                    link.at_end(End::Linger);
                }
                Box::pin(sender.try_send_request(request))
            }
            Wire::H2 { sender, .. } => Box::pin(sender.try_send_request(request)),
        };
        (
            Flight {
                reply: Some(reply),
                lease: Some(self),
            },
            switched,
        )
    }

    /// The app answers in HTTP, whatever it was asked.
    fn not_switched(&self) {
        if let Wire::H1 { link, .. } = &self.wire {
            link.at_end(if self.limited { End::Linger } else { End::Close });
        }
    }

    /// The app has ended: connection and slot are free.
    pub(crate) fn finish(self) {
        let Self {
            upstreams,
            sandbox,
            wire,
            keep_alive,
            ..
        } = self;
        match wire {
            Wire::H1 { sender, link } => {
                let reusable = keep_alive && sender.is_ready() && sandbox.is_open();
                if sandbox.shares_connections() {
                    // The slot comes back when the connection is parked, or closed.
                    link.finish(if reusable { End::Park } else { End::Close });
                    return;
                }
                link.finish(End::Close);
                let slot = link.vacate();
                if reusable {
                    upstreams.shelve(&sandbox, sender, link);
                }
                drop(slot);
            }
            Wire::H2 { sender, slot } => {
                if sandbox.shares_connections() && keep_alive && !sender.is_closed() {
                    sandbox.park(Box::new(Parked::H2(sender)));
                }
                drop(slot);
            }
        }
    }

    /// The connection was closed, perhaps for having been idle: its slot, for another one to the same sandbox.
    pub(crate) fn again(self) -> Option<Slot> {
        match self.wire {
            Wire::H1 { link, .. } => {
                link.finish(End::Close);
                link.vacate()
            }
            Wire::H2 { slot, .. } => Some(slot),
        }
    }

    /// The app has broken off the request. An HTTP/1.1 connection's task looks after the slot.
    pub(crate) fn broke(self) {
        if let (Wire::H2 { slot, .. }, true) = (self.wire, self.limited) {
            self.upstreams.tasks.spawn_background(async move {
                tokio::time::sleep(AFTERMATH).await;
                drop(slot);
            });
        }
    }

    /// The client is gone, or its time is over, in the middle of the response.
    pub(crate) fn abandon(self, rest: Incoming) {
        self.leave(Rest::Body(rest));
    }

    /// With a limit on concurrency the slot stays taken until the app has ended; without one the connection is closed.
    fn leave(self, rest: Rest) {
        if !self.limited || self.upstreams.tasks.closing() {
            if let Wire::H1 { link, .. } = &self.wire {
                link.at_end(End::Close);
            }
            return;
        }
        let tasks = Rc::clone(&self.upstreams.tasks);
        tasks.spawn_background(drain::run(self, rest));
    }

    /// Drops the connection's sender; its task then waits for the app to close, until `until`, and frees the slot.
    pub(crate) fn hang_up(self, until: Timestamp) {
        match self.wire {
            Wire::H1 { link, .. } => link.linger_until(until),
            // RST_STREAM tells the app to stop, and nothing tells whether it has.
            Wire::H2 { slot, .. } => {
                slot.sandbox().eject();
                drop(slot);
            }
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.upstreams.clock)()
    }

    /// By when the app must have ended; later than now by the drain bound at least.
    pub(crate) fn bound(&self) -> Timestamp {
        self.until.max(self.now().plus(self.upstreams.drain_bound()))
    }
}

impl Future for Flight {
    type Output = Result<(Response<Incoming>, Lease), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = self.reply.as_mut().expect("polled after it was ready");
        let reply = ready!(reply.as_mut().poll(cx));
        self.reply = None;
        let lease = self.lease.take().expect("there until it is ready");
        Poll::Ready(match reply {
            Ok(response) => {
                lease.sandbox.answers();
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    lease.not_switched();
                }
                Ok((response, lease))
            }
            Err(mut failed) => {
                let (unsent, error) = (failed.take_message(), failed.into_error());
                let lease = match &lease.wire {
                    _ if unsent.is_none() => Some(lease),
                    Wire::H1 { link, .. } => {
                        link.at_end(End::Close);
                        None
                    }
                    Wire::H2 { .. } => None,
                };
                Err(Failed { unsent, lease, error })
            }
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let (Some(reply), Some(lease)) = (self.reply.take(), self.lease.take()) {
            lease.leave(Rest::Reply(reply));
        }
    }
}
