//! Runs one instance of a revision: the driver contract, and the local Linux driver behind it.

pub mod cgroup;
pub mod conformance;
pub mod details;
pub mod doctor;
pub mod driver;
pub mod egress;
pub mod exec;
pub mod fake;
mod inside;
mod local;
pub mod logs;
mod probe;
mod program;
mod rootfs;
pub mod seccomp;
pub mod spawner;
pub mod test_support;
#[cfg(test)]
mod testing;
mod volumes;
mod wire;

pub use local::{
    Expected, Freezing, LocalConfig, LocalDriver, POOL_METRICS, PoolStats, Runtime, SetupError, describe_pool,
    is_hopeless, refused, share_of_memory,
};
