//! What instances of a revision cost, and their limits.

use super::{FrozenPrice, InstanceSpec, Instances};
use crate::units::{Bytes, Millicores, PricePerHour};
use crate::workload::Workload;

impl InstanceSpec {
    /// What one instance of a revision costs per second.
    pub fn price_of(&self, workload: &Workload) -> f64 {
        self.price + self.memory_price * gib(workload.memory_limit().unwrap_or_default())
    }

    /// [`Self::price_of`] for people.
    pub fn price_per_hour(&self, workload: &Workload) -> PricePerHour {
        per_hour(self.price_of(workload))
    }

    /// The CPU that an instance of a revision gets: never more than the revision's own limit; `None` is no limit.
    pub fn cpu_of(&self, workload: &Workload) -> Option<Millicores> {
        match (self.cpu, workload.cpu_limit()) {
            (Some(spec), Some(own)) => Some(spec.min(own)),
            (spec, own) => spec.or(own),
        }
    }
}

impl Instances {
    /// What a frozen sandbox of a revision costs per second that holds `memory`; `None` where nothing can be frozen.
    pub fn frozen_price(&self, memory: Bytes, workload: &Workload) -> Option<f64> {
        let FrozenPrice { memory_price, whole } = self.frozen?;
        let full = self.full_for(workload, &[]).memory.or(workload.memory_limit());
        let paid = full.filter(|_| whole).unwrap_or(memory);
        Some(memory_price * gib(paid))
    }
}

/// Per second to per hour, to twelve digits behind the point: 0.1/h comes back as it was written.
pub fn per_hour(price: f64) -> PricePerHour {
    PricePerHour((price * SECONDS * 1e12).round() / 1e12)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
fn gib(Bytes(bytes): Bytes) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Of an hour.
pub(super) const SECONDS: f64 = 3600.0;
