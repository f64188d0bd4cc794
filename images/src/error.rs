//! Why an image cannot be had: whose fault it is, and whether another try may work.

use std::io;
use std::path::PathBuf;

/// An image cannot be found, fetched or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It does not exist, or not for this machine's architecture: the manifest must change.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants other credentials.
    #[error("{registry} refuses access to {image}: {reason}")]
    Unauthorized {
        /// Host with an optional port.
        registry: String,
        /// As the user wrote it.
        image: String,
        /// What the registry said.
        reason: String,
    },
    /// The image breaks the rules of its format, or its content does not have its digest.
    #[error("{image} is not a valid image: {reason}")]
    Invalid {
        /// As the user wrote it.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry or daemon cannot be reached, or failed: another try may work.
    #[error("{0}")]
    Unreachable(String),
    /// No room: on the disk, or within the store's quota.
    #[error("no room for {what} in {}: {reason}", store.display())]
    Full {
        /// What was to be stored.
        what: String,
        /// The store's directory.
        store: PathBuf,
        /// How much is there and how much is wanted.
        reason: String,
    },
    /// A system call failed.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ImageError {
    /// The image breaks a rule.
    pub(crate) fn invalid(image: impl ToString, reason: impl ToString) -> Self {
        Self::Invalid {
            image: image.to_string(),
            reason: reason.to_string(),
        }
    }

    /// A system call failed; `context` says what was tried.
    pub(crate) fn io(context: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            context: context.into(),
            source: source.into(),
        }
    }

    /// The same once more, for everybody who waited for the same work.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::NotFound(reason) => Self::NotFound(reason.clone()),
            Self::Unauthorized {
                registry,
                image,
                reason,
            } => Self::Unauthorized {
                registry: registry.clone(),
                image: image.clone(),
                reason: reason.clone(),
            },
            Self::Invalid { image, reason } => Self::invalid(image, reason),
            Self::Unreachable(reason) => Self::Unreachable(reason.clone()),
            Self::Full { what, store, reason } => Self::Full {
                what: what.clone(),
                store: store.clone(),
                reason: reason.clone(),
            },
            Self::Io { context, source } => Self::Io {
                context: context.clone(),
                source: match source.raw_os_error() {
                    Some(number) => io::Error::from_raw_os_error(number),
                    None => io::Error::new(source.kind(), source.to_string()),
                },
            },
        }
    }
}
