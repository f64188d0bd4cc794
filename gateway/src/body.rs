//! Bodies on their way: the client's to the app, and the app's to the client, which frees the slot at its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::lease::Lease;
use crate::metrics::Record;
use crate::timer::Timer;
use crate::watch;

/// What a client gets, with what ends when it has got it, or when it goes away before.
pub(crate) struct ResponseBody {
    // In this order: the slot comes back before the request stops counting.
    content: Content,
    _record: Record,
    _request: watch::Request,
}

/// What a response says.
pub(crate) enum Content {
    /// The gateway's own words.
    Text(Bytes),
    /// An app's.
    App(AppBody),
}

/// The body of an app's response. It holds the slot until the last byte has come from the app; dropped before that, it
/// leaves slot and connection to a detached drain.
pub(crate) struct AppBody {
    /// `None` when it has come to its end.
    running: Option<(Incoming, Lease)>,
    timer: Timer,
}

impl ResponseBody {
    pub(crate) fn new(response: Response<Content>, record: Record, request: watch::Request) -> Response<Self> {
        response.map(|content| Self {
            content,
            _record: record,
            _request: request,
        })
    }
}

impl Content {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::Text(Bytes::new())
    }
}

impl AppBody {
    /// The rest of a response that has begun. Where there is no rest, the slot is free at once.
    pub(crate) fn content(incoming: Incoming, lease: Lease, timer: Timer) -> Content {
        if incoming.is_end_stream() {
            lease.finish();
            return Content::empty();
        }
        Content::App(Self {
            running: Some((incoming, lease)),
            timer,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some((incoming, _)) = &mut self.running else {
            return Poll::Ready(None);
        };
        let next = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        let ended = match &next {
            Some(Ok(_)) => {
                self.timer.wrote();
                incoming.is_end_stream()
            }
            Some(Err(_)) | None => true,
        };
        if ended && let Some((_, lease)) = self.running.take() {
            match &next {
                Some(Err(_)) => lease.broke(),
                _ => lease.finish(),
            }
        }
        Poll::Ready(next)
    }
}

impl Drop for AppBody {
    fn drop(&mut self) {
        if let Some((incoming, lease)) = self.running.take() {
            lease.abandon(incoming);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.content {
            Content::Text(text) if text.is_empty() => Poll::Ready(None),
            Content::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Content::App(app) => app.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_empty(),
            Content::App(app) => app
                .running
                .as_ref()
                .is_none_or(|(incoming, _)| incoming.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::App(app) => app
                .running
                .as_ref()
                .map_or_else(SizeHint::default, |(rest, _)| rest.size_hint()),
        }
    }
}

/// What an app gets.
pub(crate) enum RequestBody {
    /// Nothing; can be sent again.
    Empty,
    /// What the client sends, as it comes.
    Client(Incoming),
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            Self::Empty
        } else {
            Self::Client(incoming)
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(incoming) => Pin::new(incoming).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(incoming) => incoming.size_hint(),
        }
    }
}
