//! Where images come from: the contract of a source, and the local ones.
//!
//! A source only finds and hands over bytes. What they are worth, the store finds out: it hashes, counts and parses.

pub(crate) mod archive;
pub(crate) mod daemon;
pub(crate) mod directory;
pub(crate) mod docker_archive;
pub(crate) mod files;
pub(crate) mod layout;
pub(crate) mod registry;

use std::future::Future;
use std::io::Read;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::Descriptor;

/// What a source's functions return.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ImageError>> + Send + 'a>>;

/// One image at its origin.
pub(crate) trait Source: Send + Sync {
    /// The index or manifest that the image's name stands for.
    ///
    /// With `wanted`: that one, which an index of this source named. The caller verifies the digest.
    fn document<'a>(&'a self, wanted: Option<&'a Descriptor>) -> Answer<'a, Raw>;

    /// Digest of what [`Self::document`] without `wanted` would return, when the source can tell more cheaply.
    fn peek(&self) -> Answer<'_, Option<Digest>> {
        Box::pin(async { Ok(None) })
    }

    /// Digest of the configuration, when that is all the source can tell cheaply.
    fn config(&self) -> Answer<'_, Option<Digest>> {
        Box::pin(async { Ok(None) })
    }

    /// A configuration or layer. The caller verifies length and digest.
    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> Answer<'a, Blob>;

    /// Whether layers have the digests that the manifest gives. False of Docker's archives, whose manifest is made up:
    /// there only the digest of the uncompressed layer is checked.
    fn has_blob_digests(&self) -> bool {
        true
    }
}

/// An index or manifest as the source has it.
pub(crate) struct Raw {
    /// The very bytes: their hash is its name.
    pub(crate) bytes: Vec<u8>,
    /// What the source calls it, outside of the bytes.
    pub(crate) media_type: Option<String>,
}

/// Bytes to come.
pub(crate) enum Blob {
    /// From a file: read on a blocking thread.
    File(Box<dyn Read + Send>),
    /// From the network.
    Stream(BoxStream<'static, Result<Bytes, ImageError>>),
}
