//! Load that tells the truth: open loop, latency from the due time.
//!
//! ```text
//! arrivals ─▶ pace: sends when due, never waits for answers ─▶ lanes: a connection, or the line for one
//!   (pure)                                                         │ (pure)
//!                                                                  ▼
//!   report ◀─ results: one document ◀─ record: histograms ◀── send: one request, all its timestamps
//! ```
//!
//! Users do not wait for each other, so neither does the generator: when requests are due is settled before the first
//! answer, and latency counts from there. A server that stalls for a second is then seen by everybody who came in that
//! second, not by one unlucky connection (the error known as coordinated omission). A generator that cannot keep up
//! says so: [`Report::schedule`] tells how late it was and what it never sent.
//!
//! Memory is bounded: at most [`Plan::max_connections`] requests are under way and [`Plan::max_waiting`] wait, whatever
//! the target does; results are histograms.

mod arrivals;
pub mod comparison;
mod histogram;
mod lanes;
mod pace;
mod plan;
mod record;
mod report;
pub mod results;
mod send;
mod server_timing;
pub mod trace;

pub use arrivals::{Abort, Arrivals};
pub use histogram::{Latencies, Sparse};
pub use pace::{Progress, run};
pub use plan::{Plan, PlanError, Target};
pub use record::{ErrorKind, Failures, StatusClass};
pub use report::{Class, Report};
pub use results::Results;
pub use server_timing::{Phase, Temperature, Timing};
