//! Load that tells the truth: open loop, latency from the due time.
//!
//! ```text
//! scenario ─▶ engine: threads, stages, Knarr's status
//!               │ one per thread
//!               ▼
//! arrivals ─▶ worker: sends when due, never waits for answers ─▶ lanes: a connection, or the line for one
//!   (pure)                                                         │ (pure)
//!                                                                  ▼
//!   report ◀─ results: one document ◀─ record: histograms ◀── exchange: one request, all its timestamps
//!                                                                http1 (pure), hyper for HTTP/2; connect, tls
//! ```
//!
//! Users do not wait for each other, so neither does the generator: when requests are due is settled before the first
//! answer, and latency counts from there. A server that stalls for a second is then seen by everybody who came in that
//! second, not by one unlucky connection (the error known as coordinated omission). A generator that cannot keep up
//! says so: [`Report::schedule`] tells how late it was and what it never sent.
//!
//! Memory is bounded: at most [`Target::connections`] times [`Target::streams`] requests are under way at a target and
//! [`Scenario::max_waiting`] wait, whatever it does; results are histograms.

mod arrivals;
pub mod coldstart;
pub mod comparison;
mod connect;
mod course;
mod data;
mod engine;
mod exchange;
mod histogram;
mod http1;
mod knarr;
mod lane;
mod lanes;
mod page;
mod plan;
mod record;
mod report;
pub mod results;
mod run;
mod scenario;
pub mod scenario_file;
mod server_timing;
pub mod simulate;
mod target;
mod template;
mod thresholds;
mod timer;
mod tls;
pub mod trace;
mod worker;

pub use arrivals::{Abort, Arrival, Arrivals, Gaps, Given, Rate};
pub use data::Data;
pub use engine::{Progress, run_scenario};
pub use histogram::{Latencies, Sparse};
pub use knarr::{Condition, KnarrState, Looked, Watch};
pub use plan::{Plan, PlanError};
pub use record::{ErrorKind, Failures, StatusClass};
pub use report::{Class, Part, Report};
pub use results::Results;
pub use run::run;
pub use scenario::{Knarr, Length, Load, Scenario, Stage};
pub use server_timing::{Phase, Temperature, Timing};
pub use target::{Address, Protocol, Target, Tls};
pub use thresholds::Threshold;
