//! An image for a start: ready at once when the store has it, fetched otherwise.

use std::sync::Arc;

use images::{ImageError, Root, Silent};
use manifests::workload::{Container, Workload};

use super::state::Inner;
use crate::driver::{BoxFuture, StartError};

/// The image of `container`.
///
/// # Errors
/// Why it cannot be had, in words for the user.
pub(super) async fn find(inner: &Inner, workload: &Workload, container: &Container) -> Result<Arc<Root>, StartError> {
    let image = &container.image;
    if let Some(root) = inner.images.ready(image) {
        return Ok(root);
    }
    // Of its own and boxed: it is far larger than a start.
    let (store, image, policy) = (inner.images.clone(), image.clone(), container.pull);
    let auth = workload.registry_auth.clone();
    let fetch: BoxFuture<'static, _> = Box::pin(async move { store.ensure(&image, policy, &auth, &Silent).await });
    let fetched = fetch.await;
    fetched.map_err(|error| {
        let text = format!("ErrImagePull: {error}");
        match error {
            ImageError::Unreachable(_) | ImageError::Full { .. } | ImageError::Io { .. } => StartError::Exhausted(text),
            _ => StartError::Refused(text),
        }
    })
}
