//! Every way in which the gateway itself answers instead of an app, as one table.

use std::borrow::Cow;
use std::time::Duration;

use activator::{Facts, Reject};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};

use crate::body::Content;
use crate::timeouts::Expiry;

/// Why a request did not get an app's answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// What it says about its host is missing or makes no sense.
    #[error("{0}")]
    BadHost(&'static str),
    /// `CONNECT`: this is no tunnel.
    #[error("CONNECT is not served here")]
    Connect,
    /// No route has this host.
    #[error("no service has this host")]
    NoRoute,
    /// The route is there, and none of its revisions is ready yet.
    #[error("no revision is ready yet")]
    NotReady,
    /// It got no slot.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// A limit of its revision passed while it waited for a slot.
    #[error("{0:?} timeout while waiting")]
    ExpiredQueued(Expiry),
    /// A limit of its revision passed while the app had it.
    #[error("{0:?} timeout")]
    Expired(Expiry),
    /// The app had it, and closed the connection or answered nonsense; the request may have been done.
    #[error("the app broke off the request")]
    BrokenOff,
    /// The app switched to another protocol without being asked to.
    #[error("the app switched protocols unasked")]
    Unasked,
}

impl Refusal {
    /// The table: status, text, metric label, retry.
    pub(crate) fn facts(&self) -> Facts {
        use StatusCode as S;
        let fact = |status, label, retry: Option<u64>| Facts {
            status,
            body: Cow::Owned(self.to_string()),
            label,
            retry_after: retry.map(Duration::from_secs),
        };
        let said = |status, body, label| Facts {
            status,
            body: Cow::Borrowed(body),
            label,
            retry_after: None,
        };
        match self {
            Self::BadHost(_) => fact(S::BAD_REQUEST, "bad_host", None),
            Self::Connect => fact(S::METHOD_NOT_ALLOWED, "connect", None),
            Self::NoRoute => fact(S::NOT_FOUND, "no_route", None),
            Self::NotReady => fact(S::SERVICE_UNAVAILABLE, "not_ready", Some(1)),
            Self::Rejected(reject) => reject.facts(),
            // Knative: the activator's and queue-proxy's texts (B6, C3).
            Self::ExpiredQueued(_) => said(S::GATEWAY_TIMEOUT, "activator request timeout", "timeout_queued"),
            Self::Expired(_) => said(S::GATEWAY_TIMEOUT, "request timeout", "timeout"),
            Self::BrokenOff => fact(S::BAD_GATEWAY, "broken_off", None),
            Self::Unasked => fact(S::BAD_GATEWAY, "unasked_switch", None),
        }
    }

    /// The response. Errors look as Go's `http.Error` writes them, timeouts are the bare text: as Knative's.
    pub(crate) fn response(&self) -> Response<Content> {
        let facts = self.facts();
        let timeout = matches!(self, Self::Expired(_) | Self::ExpiredQueued(_));
        let text = match facts.body {
            Cow::Borrowed(text) if timeout => Bytes::from_static(text.as_bytes()),
            text => Bytes::from(format!("{text}\n")),
        };
        let mut response = plain(facts.status, text);
        if let Some(after) = facts.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        response
    }
}

/// A short text.
pub(crate) fn plain(status: StatusCode, text: Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Text(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let text = |refusal: &Refusal| match refusal.response().into_body() {
            Content::Text(text) => String::from_utf8(text.to_vec()).expect("text"),
            Content::App(_) => panic!("not an app's"),
        };
        let queue_full = Refusal::Rejected(Reject::QueueFull);
        let queue_deadline = Refusal::Rejected(Reject::Deadline);
        for (refusal, status, label, retry, body) in [
            (
                Refusal::BadHost("no Host header"),
                400,
                "bad_host",
                None,
                "no Host header\n",
            ),
            (Refusal::Connect, 405, "connect", None, "CONNECT is not served here\n"),
            (Refusal::NoRoute, 404, "no_route", None, "no service has this host\n"),
            (
                Refusal::NotReady,
                503,
                "not_ready",
                Some("1"),
                "no revision is ready yet\n",
            ),
            (queue_full, 503, "queue_full", Some("1"), "pending request queue full\n"),
            (
                queue_deadline,
                503,
                "queue_deadline",
                Some("1"),
                "context deadline exceeded\n",
            ),
            (
                Refusal::ExpiredQueued(Expiry::Request),
                504,
                "timeout_queued",
                None,
                "activator request timeout",
            ),
            (
                Refusal::Expired(Expiry::ResponseStart),
                504,
                "timeout",
                None,
                "request timeout",
            ),
            (
                Refusal::BrokenOff,
                502,
                "broken_off",
                None,
                "the app broke off the request\n",
            ),
            (
                Refusal::Unasked,
                502,
                "unasked_switch",
                None,
                "the app switched protocols unasked\n",
            ),
        ] {
            let response = refusal.response();
            assert_eq!(response.status().as_u16(), status, "{refusal:?}");
            assert_eq!(refusal.facts().label, label, "{refusal:?}");
            let after = response
                .headers()
                .get(RETRY_AFTER)
                .map(|value| value.to_str().expect("text"));
            assert_eq!(after, retry, "{refusal:?}");
            assert_eq!(text(&refusal), body, "{refusal:?}");
        }
    }
}
