//! The whole of Knarr, from outside: the real binary, real sandboxes, real sockets.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod budget;
mod catalogue;
mod check;
mod claims;
mod commands;
mod concurrency;
mod cost;
mod doctor;
mod exec;
mod frozen;
mod idle;
mod images;
mod inspect;
mod isolation;
mod kubectl;
mod load;
mod load_results;
mod network;
mod ordinary_user;
mod overload;
mod pool;
mod probes;
mod protocols;
mod python;
mod replay;
mod rollout;
mod routing;
mod simulate;

#[path = "../support/mod.rs"]
mod support;
