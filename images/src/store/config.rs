//! Settings of the store.

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;

use manifests::units::Bytes;

use crate::platform::Platform;
use crate::{registry, worker};

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Most bytes on disk, unpacked. Default none: until the disk is full. To make room the images go first that were not
    /// used for the longest time; those in use never do. One image may be unpacked in place of those that will go: for that
    /// time the sum of both is on disk.
    pub quota: Option<Bytes>,
    /// Which image of an index is chosen. Default this machine's.
    pub platform: Platform,
    /// What is executed as the unpack worker: a program whose `main` begins with [`crate::worker::main_if_asked`], and
    /// arguments. Default this very binary.
    pub worker: (PathBuf, Vec<OsString>),
    /// How registries are reached.
    pub registry: registry::Settings,
    /// Layers that are fetched and unpacked at once. Default one more than cores, from 2 to 8: while one waits for its
    /// bytes or for the disk another computes.
    pub unpackers: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            quota: None,
            platform: Platform::host(),
            registry: registry::Settings::default(),
            worker: (PathBuf::from("/proc/self/exe"), vec![worker::ARGUMENT.into()]),
            unpackers: thread::available_parallelism().map_or(2, |cores| (cores.get() + 1).clamp(2, 8)),
        }
    }
}

impl StoreConfig {
    /// Executes another binary as the worker: for tests, whose own `main` is the test harness's.
    #[must_use]
    pub fn with_worker(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker.0 = program.into();
        self
    }
}
