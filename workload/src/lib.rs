//! The small HTTP app behind every example, test and benchmark.
