//! From an image reference to a root directory on disk.
//!
//! ```text
//! Image ─▶ resolve: registry, layout, archive, daemon ─▶ digest ─▶ blobs (verified) ─▶ layers (unpacked once) ─▶ Root
//! ```

mod config;
mod digest;
pub mod docker;
mod error;
mod inside;
mod manifest;
mod platform;
mod progress;
pub mod registry;
mod source;
mod store;
pub mod subordinate;
mod tar_reader;
mod tasks;
pub mod worker;

pub use config::ImageConfig;
pub use digest::{Digest, NotADigest};
pub use error::ImageError;
pub use platform::Platform;
pub use progress::{Progress, Silent, Stage};
pub use store::{ImageInfo, Pruned, Removed, Root, Store, StoreConfig, Usage};
