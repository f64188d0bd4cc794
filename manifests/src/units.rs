//! Numbers with their units: no bare `f64`, `u64` or `-1` crosses a module.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Requests in flight, averaged over a window. Not a count, and not a rate: see [`Rps`].
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default, Serialize, Deserialize)]
pub struct Concurrency(pub f64);

/// Requests per second.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default, Serialize, Deserialize)]
pub struct Rps(pub f64);

/// A number of instances of a revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Replicas(pub u32);

/// CPU in thousandths of a core, as Kubernetes writes `250m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Millicores(pub u32);

/// A size in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Bytes(pub u64);

/// A share of a route's traffic, 0 to 100.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Percent(u8);

impl Percent {
    /// All of it.
    pub const FULL: Self = Self(100);

    /// `None` above 100.
    pub const fn new(value: u8) -> Option<Self> {
        if value <= 100 { Some(Self(value)) } else { None }
    }
    /// 0 to 100.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Money per hour in the catalogue's own currency. Prices are only ever compared and added within one catalogue.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default, Serialize, Deserialize)]
pub struct PricePerHour(pub f64);

/// How many requests one replica may have in flight at once; Knative's `containerConcurrency`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ContainerConcurrency(pub u32);

impl ContainerConcurrency {
    /// `None` for 0, which means no limit.
    pub const fn limit(self) -> Option<u32> {
        if self.0 == 0 { None } else { Some(self.0) }
    }
}

/// A point in time: nanoseconds since the Unix epoch, read from one clock that never goes backwards within a process.
///
/// Pure code takes `now: Timestamp`; only shells read a [`Clock`].
///
/// Kept one too large, so that an `Option` of it is no larger: an idle revision has many that are not set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Timestamp(NonZeroU64);

/// Reads the time. Made once, by whoever wires the process (or the test), and handed to every shell.
pub type Clock = std::sync::Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(NonZeroU64::MIN);

    /// From nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis * 1_000_000)
    }
    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }
    /// Whole microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.as_nanos() / 1_000
    }
    /// Whole milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.as_nanos() / 1_000_000
    }
    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.as_nanos() / 1_000_000_000
    }
    /// The time since `earlier`; zero when `earlier` lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.as_nanos().saturating_sub(earlier.as_nanos()))
    }
    /// This time plus `by`, at most the end of time.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "584 years of nanoseconds fit in 64 bits")]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_nanos() as u64))
    }
    /// This time minus `by`, at least the epoch.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "584 years of nanoseconds fit in 64 bits")]
    pub const fn minus(self, by: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_sub(by.as_nanos() as u64))
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::EPOCH
    }
}

impl From<u64> for Timestamp {
    fn from(nanos: u64) -> Self {
        Self::from_nanos(nanos)
    }
}

impl From<Timestamp> for u64 {
    fn from(time: Timestamp) -> Self {
        time.as_nanos()
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.as_secs(), self.as_nanos() % 1_000_000_000)
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

impl fmt::Display for PricePerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4}/h", self.0)
    }
}
