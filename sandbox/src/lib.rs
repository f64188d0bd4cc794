//! Runs one instance of a revision: the driver contract, and the local Linux driver behind it.

pub mod cgroup;
pub mod conformance;
pub mod driver;
pub mod fake;
pub mod logs;
pub mod seccomp;
pub mod test_support;
#[cfg(test)]
mod testing;
