//! What tests of this crate, and end-to-end tests above it, need: the host as it was found, and another machine.

pub mod outside;
mod proc_guard;

pub use proc_guard::HostSnapshot;
