//! Numbers in, plan out, then do it: windows, decider, planner, scaler.
