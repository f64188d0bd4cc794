//! Numbers in, plan out, then do it: windows, the KPA decider, the planner with prices and SLA, the scaler.

pub mod bounds;
pub mod collect;
pub mod conditions;
pub mod decider;
pub mod gate;
mod go_pow;
pub mod window;
pub mod zero_to_n;

#[cfg(test)]
mod testing;
