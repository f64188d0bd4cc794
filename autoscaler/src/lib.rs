//! Numbers in, plan out, then do it: windows, the KPA decider, the planner with prices and SLA, the scaler.

pub mod decider;
mod go_pow;
pub mod window;
