//! Bodies on their way: the client's to the app, and the app's to the client, which frees the slot at its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;

use crate::lease::Lease;
use crate::metrics::Record;
use crate::request::BODY_WINDOW;
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
    Client(ClientBody),
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, version: Version) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Client(ClientBody {
            rest: Some(incoming),
            stream: version == Version::HTTP_2,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// What a client sends. Dropped before its end on HTTP/2, where a response may come first, the rest that is on its way is still
/// read: the library counts data for streams it has forgotten as the client's errors, and after a thousand ends the connection
/// with everything else on it.
pub(crate) struct ClientBody {
    /// `None` when it has come to its end.
    rest: Option<Incoming>,
    /// One of several on its connection.
    stream: bool,
}

impl ClientBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let next = ready!(Pin::new(&mut *rest).poll_frame(cx));
        if !matches!(next, Some(Ok(_))) || rest.is_end_stream() {
            self.rest = None;
        }
        Poll::Ready(next)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if self.stream
            && let Some(rest) = self.rest.take()
            && !rest.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(read_out(rest));
        }
    }
}

/// What was sent before the client can have known that nobody wants it: as much as flow control lets in unread, for a moment.
async fn read_out(mut rest: Incoming) {
    let reading = async {
        let mut left = BODY_WINDOW;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(less) => left = less,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(ON_ITS_WAY, reading).await;
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.rest.as_ref().is_none_or(Incoming::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body
                .rest
                .as_ref()
                .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint),
        }
    }
}

/// Longer than most round trips.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
