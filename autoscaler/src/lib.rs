//! Numbers in, plan out, then do it: windows, the KPA decider, the planner with prices and SLA, the scaler.
//!
//! ```text
//! LoadReport ─▶ collect ─▶ window ─▶ decider ─▶ bounds ─▶ zero_to_n ─▶ gate ─▶ planner ─▶ scaler ─▶ Driver
//!  (gateways)   merged     averages  KPA        min, max  the queue    to zero  idle rung   │
//!                                                                                           ├─▶ EndpointSet (gateways)
//! Snapshot (control) ─▶ fleet: every revision, one timer set, one line for starts            └─▶ RevisionStatus (control)
//! ```
//!
//! Everything but [`run`] is pure: it takes `now` and returns what to do. [`run`] is the only clock and the only tasks.
//! A revision without any annotation of ours is scaled exactly as Knative would (the vectors under `tests/vectors` were made
//! by running it), with one deliberate addition: a waiting queue may raise the count before the next tick.
//!
//! | file | what |
//! |---|---|
//! | `window`, `go_pow` | time buckets and their averages, to the last bit of Knative's |
//! | `decider` | Knative's KPA |
//! | `collect` | reports of many gateways, merged; who has acknowledged what |
//! | `bounds`, `gate`, `conditions` | min, max and initial scale; scale to zero; `Active` and its siblings |
//! | `zero_to_n`, `admission`, `backoff` | what a queue may ask for; how many starts at once; when to start again |
//! | `specs`, `start_latency`, `slowdown` | what instances may be, and cost; how long a wake-up may take; how much slower a cheaper one is |
//! | `planner` | where to stand idle, by age |
//! | `evict` | which idle sandbox goes first when memory is short |
//! | `claims` | whose turn it is with a claim that one sandbox may have at a time |
//! | `scaler`, `fleet` | one revision; all of them |
//! | `cost` | what each revision costs today, beside Knative and always on |
//! | `explain`, `metrics` | why |
//! | `learned` | what revisions have taught, over a restart |
//! | `flight` | what happened, to be decided again |

mod admission;
mod backoff;
pub mod bounds;
mod claims;
pub mod collect;
pub mod conditions;
pub mod cost;
pub mod decider;
pub mod evict;
pub mod explain;
pub mod fleet;
pub mod flight;
pub mod gate;
mod go_pow;
pub mod learned;
mod metrics;
mod names;
pub mod planner;
pub mod run;
mod scaler;
mod slowdown;
pub mod specs;
pub mod start_latency;
pub mod window;
pub mod zero_to_n;

pub use admission::CapacityOf;
pub use scaler::{Output, Planners};

#[cfg(test)]
mod testing;
