//! From an image reference to a root directory on disk.
//!
//! ```text
//! Image ─▶ resolve: registry, layout, archive, daemon ─▶ digest ─▶ blobs (verified) ─▶ layers (unpacked once) ─▶ Root
//! ```

pub mod docker;
mod error;
pub mod registry;

pub use error::ImageError;
