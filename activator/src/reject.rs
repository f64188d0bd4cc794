//! Why a request got no slot, and one table of what each reason means to clients, metrics and retries.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// A request that got no slot. Nothing of it was sent to any sandbox.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reject {
    /// As many requests of the revision wait as may: [`crate::Limits::queue_requests`].
    #[error("pending request queue full")]
    QueueFull,
    /// The waiting requests would hold more bytes than they may: [`crate::Limits::queue_bytes`] of the revision, or
    /// [`crate::Limits::total_queue_bytes`] of the gateway.
    #[error("pending request queue full")]
    QueueBytes,
    /// Its deadline came while it waited.
    #[error("context deadline exceeded")]
    Deadline,
    /// Its deadline came while it waited, and scaling has said why nothing can run.
    #[error("context deadline exceeded: {why}")]
    Unavailable {
        /// `EndpointSet::trouble`, in words for the client.
        why: Arc<str>,
    },
    /// Nothing will run soon, as scaling has said.
    #[error("{why}")]
    Refused {
        /// `EndpointSet::trouble`, in words for the client.
        why: Arc<str>,
    },
    /// The revision was deleted while it waited.
    #[error("revision was deleted")]
    Retired,
}

/// What a [`Reject`] means outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Status of the response.
    pub status: StatusCode,
    /// Text of the response, without the newline that Go's `http.Error` (and so Knative) puts behind it.
    pub body: Cow<'static, str>,
    /// Value of the metric label `reason`.
    pub label: &'static str,
    /// `Retry-After`, when another try can help.
    pub retry_after: Option<Duration>,
}

impl Reject {
    /// The table. Status and texts of a full queue and of a deadline are Knative's.
    pub fn facts(&self) -> Facts {
        use StatusCode as S;
        let (status, label, retry_seconds) = match self {
            Self::QueueFull => (S::SERVICE_UNAVAILABLE, "queue_full", Some(1)),
            Self::QueueBytes => (S::SERVICE_UNAVAILABLE, "queue_bytes", Some(1)),
            Self::Deadline => (S::SERVICE_UNAVAILABLE, "queue_deadline", Some(1)),
            Self::Unavailable { .. } => (S::SERVICE_UNAVAILABLE, "unavailable", Some(10)),
            Self::Refused { .. } => (S::SERVICE_UNAVAILABLE, "refused", Some(10)),
            Self::Retired => (S::SERVICE_UNAVAILABLE, "retired", Some(1)),
        };
        let body = match self {
            Self::QueueFull | Self::QueueBytes => Cow::Borrowed("pending request queue full"),
            Self::Deadline => Cow::Borrowed("context deadline exceeded"),
            Self::Unavailable { .. } | Self::Refused { .. } | Self::Retired => Cow::Owned(self.to_string()),
        };
        Facts {
            status,
            body,
            label,
            retry_after: retry_seconds.map(Duration::from_secs),
        }
    }
}
