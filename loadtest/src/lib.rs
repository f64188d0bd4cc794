//! Load that tells the truth: open loop, latency from the due time.
