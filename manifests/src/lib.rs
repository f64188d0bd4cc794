//! The words of Knarr: Knative's resources, checked types, and the four exchange types between the planes.
//!
//! Everything here is pure: no I/O, no clock, no task. The way of a manifest:
//!
//! ```text
//! text ─▶ read (positions, unknown fields) ─▶ Knative's defaulting and validation ─▶ what Knarr supports ─▶ Revision, routes
//! ```

pub mod exchange;
pub mod ids;
pub mod problem;
pub mod resources;
pub mod revision;
pub mod units;
