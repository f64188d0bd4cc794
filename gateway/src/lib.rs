//! Sockets in, sockets out: listeners, routing, the request path, upstream connections.
//!
//! ```text
//! serve ─▶ listen ─▶ conn ─▶ request ─┬▶ router ─▶ split      who serves this host
//! (threads)        (watch)            ├▶ activator::Pool       a slot, or a place in line
//!                                     ├▶ upstream ─▶ link      a connection, its slot, what becomes of both
//!                                     └▶ body, drain, tunnel   to the last byte, or after the client has gone
//! routes: the one writer of the table        timeouts, headers, probe, respond, timing: what is said, PURE
//! ```
//!
//! One current-thread runtime per core, each with its own listeners and its own connections to sandboxes; what threads
//! share per revision is the pool's atomics. The warm path takes no lock and looks nothing up but the host.
//!
//! Start reading at `request.rs`: the whole path is one function.

mod body;
mod config;
mod conn;
mod drain;
mod headers;
mod ignored;
mod inlet;
mod lease;
mod link;
mod listen;
pub mod metrics;
mod probe;
mod request;
mod respond;
mod router;
mod routes;
mod serve;
mod split;
mod tasks;
mod timeouts;
mod timer;
mod timing;
mod tunnel;
mod upstream;
mod watch;

pub use config::Config;
pub use inlet::Inlet;
pub use serve::{Gateway, StartError};
