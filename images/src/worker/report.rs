//! What the store tells the worker and what it hears from it.

use std::io;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::subordinate::Subordinate;

/// How a layer is to be unpacked, with bounds against archives that are small and unpack to something huge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// Bytes of the uncompressed archive, and bytes on disk.
    pub(crate) bytes: u64,
    /// Files, directories, links.
    pub(crate) entries: u64,
    /// Directories in each other.
    pub(crate) depth: usize,
    /// Bytes that the worker itself may have in memory.
    pub(crate) memory: u64,
    /// Files get the archive's owners; otherwise all belong to this user.
    pub(crate) owners: bool,
    /// The attribute that marks opaque directories, where the worker may set it.
    pub(crate) mark: Option<String>,
}

impl Default for Rules {
    /// Room for the largest images in use (tens of gigabytes, about a million files), and far less than harm.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 4_000_000,
            depth: 256,
            memory: 2 << 30,
            owners: rustix::process::geteuid().is_root() || Subordinate::find().is_ok(),
            mark: None,
        }
    }
}

/// The worker's last and only word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done(Report),
    Failed(Failure),
}

/// A layer is unpacked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: Option<Digest>,
    /// Bytes on disk, by whole blocks.
    pub(crate) disk: u64,
    /// Files, directories, links.
    pub(crate) entries: u64,
    /// Whether files have the archive's owners.
    pub(crate) owners: bool,
    /// Directories, relative to the root, that hide what is below them in lower layers; `.` is the root.
    pub(crate) opaque: Vec<Vec<u8>>,
    /// Device nodes that were left out.
    pub(crate) devices: u64,
    /// Extended attributes that were left out.
    pub(crate) attributes: u64,
}

/// A layer is not unpacked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) message: String,
    /// The number of the system's error.
    pub(crate) errno: Option<i32>,
}

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Problem {
    /// The archive breaks rules.
    Archive,
    /// More bytes than allowed.
    TooLarge,
    /// The disk or the user's share of it is full.
    Full,
    /// Another system call failed.
    System,
    /// The jail cannot be made.
    Setup,
}

impl Failure {
    pub(crate) fn new(problem: Problem, message: impl Into<String>) -> Self {
        Self {
            problem,
            message: message.into(),
            errno: None,
        }
    }

    /// The archive breaks a rule.
    pub(crate) fn archive(message: impl Into<String>) -> Self {
        Self::new(Problem::Archive, message)
    }

    /// A system call failed; a full disk is told apart whatever `otherwise` says.
    pub(crate) fn system(otherwise: Problem, context: &str, error: &io::Error) -> Self {
        let problem = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::Full,
            _ => otherwise,
        };
        Self {
            problem,
            message: format!("{context}: {error}"),
            errno: error.raw_os_error(),
        }
    }
}

/// Of reading the archive: what the system did not say is the archive's fault.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<LimitReached>()) {
            Some(limit) => Self::new(Problem::TooLarge, limit.to_string()),
            None if error.raw_os_error().is_some() => Self::system(Problem::System, "cannot read the layer", &error),
            None => Self::archive(format!("cannot read the layer: {error}")),
        }
    }
}

/// The archive is longer than allowed.
#[derive(Debug, thiserror::Error)]
#[error("the layer unpacks to more than {0} bytes")]
pub(crate) struct LimitReached(pub(crate) u64);
