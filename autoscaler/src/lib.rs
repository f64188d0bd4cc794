//! Numbers in, plan out, then do it: windows, the KPA decider, the planner with prices and SLA, the scaler.

mod admission;
mod backoff;
pub mod bounds;
pub mod catalogue;
pub mod collect;
pub mod conditions;
pub mod decider;
pub mod explain;
pub mod fleet;
pub mod gate;
mod go_pow;
mod metrics;
mod names;
pub mod planner;
pub mod run;
mod scaler;
pub mod start_latency;
pub mod window;
pub mod zero_to_n;

pub use admission::CapacityOf;
pub use scaler::Output;

#[cfg(test)]
mod testing;
