//! The image store end to end: real archives, the real worker in its jail, real crashes, real full disks.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod crash;
mod full;
mod keeping;
mod mount;
mod ordinary;
mod random;
mod support;
mod tools;
mod transports;
