//! Desired state, and the wiring of the planes.

pub mod api;
pub mod client;
pub mod config;
pub mod datadir;
pub mod objects;
pub mod reconcile;
pub mod source;
pub mod status;
