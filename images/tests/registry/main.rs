//! The registry client against a server that misbehaves on purpose, and against Debian's registry.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod docker;
mod misbehaving;
#[path = "../store/support.rs"]
mod pictures;
mod real;
mod support;
