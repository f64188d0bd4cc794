//! Leaves the runtime's threads alone: blocking work goes to threads of its own.

use crate::error::ImageError;

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ImageError::Unreachable(
                "interrupted: the runtime is shutting down".to_owned(),
            )),
        },
    }
}
