//! Who runs and who waits: per-revision pools, slots, bounded queues and load accounting.
