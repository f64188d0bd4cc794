//! Desired state, and the wiring of the planes.
//!
//! ```text
//! source ─▶ run: the control loop ─▶ desired: objects, reconcile ─▶ Snapshot ─▶ the other planes (server wires them)
//!                     ▲ RevisionStatus                answers, api, status: what a running Knarr says of itself
//! ```

mod answers;
pub mod api;
mod claims;
pub mod client;
mod clock;
pub mod config;
pub mod cost;
pub mod datadir;
pub mod desired;
pub mod exec;
mod expect;
pub mod frames;
mod gc;
pub mod happened;
mod inside;
mod inspect;
mod learned;
pub mod logs;
mod metrics;
pub mod objects;
mod plan;
pub mod pulls;
pub mod reconcile;
pub mod replay;
mod run;
pub mod server;
pub mod source;
pub mod status;
pub mod tell;
pub mod top;
pub mod whatif;
