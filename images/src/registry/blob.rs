//! A blob on its way from a registry: goes on where it broke off.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};

use super::Repository;
use super::retry::{self, Failure};
use crate::ImageError;

/// A blob's bytes, in order. Nobody has looked at their digest yet; there are never more than promised.
#[derive(Debug)]
pub struct Blob {
    repository: Arc<Repository>,
    digest: String,
    /// How long it is, by its descriptor.
    size: u64,
    /// How much of it has been given out.
    at: u64,
    /// Of a server that does not know ranges: what has been given out before.
    skip: u64,
    response: Option<Response>,
    /// Breaks without much progress between them.
    breaks: u32,
    /// Where it broke last.
    broke_at: u64,
}

impl Blob {
    pub(super) async fn open(repository: Arc<Repository>, digest: &str, size: u64) -> Result<Self, ImageError> {
        let mut blob = Self {
            repository,
            digest: digest.to_owned(),
            size,
            at: 0,
            skip: 0,
            response: None,
            breaks: 0,
            broke_at: 0,
        };
        blob.connect().await?;
        Ok(blob)
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the registry fails for good, or gives more than the descriptor says.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ImageError> {
        loop {
            let Some(response) = &mut self.response else {
                self.connect().await?;
                continue;
            };
            let failure = match response.chunk().await {
                Ok(Some(mut bytes)) => {
                    let skipped = self.skip.min(bytes.len() as u64);
                    self.skip -= skipped;
                    drop(bytes.split_to(usize::try_from(skipped).unwrap_or(bytes.len())));
                    if bytes.is_empty() {
                        continue;
                    }
                    self.at += bytes.len() as u64;
                    if self.at > self.size {
                        return Err(self.invalid(format!(
                            "{} is longer than the {} bytes promised",
                            self.digest, self.size
                        )));
                    }
                    return Ok(Some(bytes));
                }
                Ok(None) if self.at == self.size => return Ok(None),
                Ok(None) => format!("it ends after {} of {} bytes", self.at, self.size),
                Err(error) => super::problem::chain(&error.without_url()),
            };
            self.broken(failure).await?;
        }
    }

    /// Waits before the next try, or gives up when it breaks again and again within little.
    async fn broken(&mut self, failure: String) -> Result<(), ImageError> {
        if self.at >= self.broke_at.saturating_add(PROGRESS) {
            self.breaks = 0;
        }
        (self.response, self.broke_at, self.breaks) = (None, self.at, self.breaks + 1);
        let Some(wait) = retry::wait_before_next(self.breaks, None, rand::random()) else {
            let registry = &self.repository.image().registry;
            return Err(ImageError::Unreachable(format!(
                "the download of {} from {registry} breaks off again and again: {failure}",
                self.digest
            )));
        };
        tracing::debug!(
            digest = self.digest,
            at = self.at,
            failure,
            "a download broke off; going on"
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), ImageError> {
        let mut headers = HeaderMap::new();
        if self.at > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.at));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let path = format!("blobs/{}", self.digest);
        let response = match self.repository.send(reqwest::Method::GET, &path, &headers).await? {
            Ok(response) => response,
            // All of it is there: it broke off between the last byte and the end.
            Err(Failure::Status {
                status: StatusCode::RANGE_NOT_SATISFIABLE,
                ..
            }) if self.at > 0 => {
                return Err(self.invalid(format!(
                    "{} is shorter than the {} bytes promised",
                    self.digest, self.size
                )));
            }
            Err(failure) => return Err(self.repository.failed(failure)),
        };
        let from = (response.status() == StatusCode::PARTIAL_CONTENT)
            .then(|| starts_at(response.headers()))
            .flatten();
        match from {
            Some(from) if from <= self.at => self.skip = self.at - from,
            Some(from) => {
                return Err(self.invalid(format!(
                    "asked for {} from byte {}, the registry gives it from {from}",
                    self.digest, self.at
                )));
            }
            None => self.skip = self.at,
        }
        self.response = Some(response);
        Ok(())
    }

    fn invalid(&self, reason: String) -> ImageError {
        ImageError::Invalid {
            image: self.repository.image().to_string(),
            reason,
        }
    }
}

/// `Content-Range: bytes 5-9/10` starts at 5.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// A break after this much is a new one, not the old one again.
const PROGRESS: u64 = 1 << 20;
