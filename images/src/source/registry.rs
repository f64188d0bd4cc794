//! An image at its registry: [`crate::registry`] as a source.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::{Answer, Blob, Raw, Source};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::Descriptor;
use crate::registry::Repository;

/// One repository, for one pull.
pub(crate) struct Remote(pub(crate) Arc<Repository>);

impl Source for Remote {
    fn document<'a>(&'a self, wanted: Option<&'a Descriptor>) -> Answer<'a, Raw> {
        Box::pin(async move {
            let manifest = match wanted {
                Some(wanted) => self.0.manifest(&wanted.digest.to_string()).await,
                None => match self.0.image_manifest().await {
                    Err(error) => Err(hinted(error, self.0.image()).await),
                    found => found,
                },
            }?;
            Ok(Raw {
                bytes: manifest.bytes,
                media_type: Some(manifest.media_type).filter(|it| !it.is_empty()),
            })
        })
    }

    fn peek(&self) -> Answer<'_, Option<Digest>> {
        Box::pin(async move {
            let digest = match self.0.digest().await {
                Err(error) => Err(hinted(error, self.0.image()).await),
                found => found,
            }?;
            Ok(digest.parse().ok())
        })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> Answer<'a, Blob> {
        Box::pin(async move {
            let blob = self.0.blob(&descriptor.digest.to_string(), descriptor.size).await?;
            let pieces = stream::try_unfold(blob, |mut blob| async move {
                Ok(blob.chunk().await?.map(|bytes| (bytes, blob)))
            });
            Ok(Blob::Stream(pieces.boxed()))
        })
    }
}

/// An error with what to write instead, when the image is on this machine under that name.
pub(crate) async fn hinted(error: ImageError, image: &manifests::reference::Reference) -> ImageError {
    if !matches!(
        error,
        ImageError::NotFound(_) | ImageError::Unauthorized { .. } | ImageError::Unreachable(_)
    ) {
        return error;
    }
    let Some(hint) = crate::docker::hint(image).await else {
        return error;
    };
    match error {
        ImageError::NotFound(reason) => ImageError::NotFound(format!("{reason}; {hint}")),
        ImageError::Unreachable(reason) => ImageError::Unreachable(format!("{reason}; {hint}")),
        ImageError::Unauthorized {
            registry,
            image,
            reason,
        } => ImageError::Unauthorized {
            registry,
            image,
            reason: format!("{reason}; {hint}"),
        },
        other => other,
    }
}
