//! What tests of this crate, and end-to-end tests above it, need to prove that a host is left as it was found.

mod proc_guard;

pub use proc_guard::HostSnapshot;
