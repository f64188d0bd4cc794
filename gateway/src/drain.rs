//! After a client has gone or its time is over, the app goes on: its slot stays taken until it has ended.
//!
//! What follows is read and thrown away. An app that has not answered yet gets the rest of its request's own time, and
//! the drain bound at least; one that is already sending, perhaps without an end, is soon told that nobody listens.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};

use crate::lease::{Lease, ReplyFuture};

/// What the app still has to say.
pub(crate) enum Rest {
    /// All of it.
    Reply(ReplyFuture),
    /// The rest of the body.
    Body(Incoming),
}

/// Holds on to the slot until the app has ended.
pub(crate) async fn run(lease: Lease, rest: Rest) {
    let (now, bound) = (lease.now(), lease.bound());
    let quiet = match rest {
        Rest::Reply(_) => bound.since(now),
        Rest::Body(_) => BODY_GRACE,
    };
    match tokio::time::timeout(quiet, to_end(rest)).await {
        Ok(true) => lease.finish(),
        Ok(false) => lease.broke(),
        Err(_) => lease.hang_up(bound),
    }
}

/// Reads what is left; false when it breaks off.
async fn to_end(rest: Rest) -> bool {
    let mut body = match rest {
        Rest::Body(body) => body,
        Rest::Reply(reply) => match reply.await {
            Ok(response) => response.into_body(),
            Err(_) => return false,
        },
    };
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
            None => return true,
        }
    }
}

/// How long the rest of a body is read before the app is told that nobody listens.
const BODY_GRACE: Duration = Duration::from_secs(1);
