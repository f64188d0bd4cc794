//! What can be had: prices per second and what they buy. PURE.

use std::time::Duration;

use manifests::instances::{FrozenPrice, InstanceSpec, Instances, Scheduling, StartPrior};
use manifests::units::{Bytes, Millicores};

use super::bill::Billing;
use super::starts::Starts;

/// The specs of a simulated provider.
#[derive(Clone, PartialEq, Debug)]
pub struct Market {
    /// Its name in tables.
    pub name: String,
    /// A full instance, per second.
    pub full: f64,
    /// A cheaper spec that is always running.
    pub reserve: Option<Reserve>,
    /// A frozen instance: for each GiB that it holds, per second.
    pub frozen: Option<f64>,
    /// How bills are rounded.
    pub billing: Billing,
}

/// A cheaper spec.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reserve {
    /// Per second.
    pub price: f64,
    /// A call takes so many times as long there.
    pub slowdown: f64,
    /// With more calls than this at once it slows down further, in proportion.
    pub capacity: u32,
    /// A running instance can be changed to it and back; else it is another instance.
    pub in_place: bool,
}

/// Alibaba ECI, 1 vCPU and 2 GiB, per second in CNY: 0.000049 per vCPU and 0.00000613 per GiB.
pub const ECI_FULL: f64 = 6.13e-5;
/// The same, "economy" class, 0.25 vCPU and 0.5 GiB.
pub const ECI_RESERVE: f64 = 9.8e-6;
/// The same: its share of a vCPU, of the 100 calls that an instance takes at once.
pub const ECI_RESERVE_CAPACITY: u32 = 25;
/// The same, a GiB.
pub const ECI_MEMORY: f64 = 6.13e-6;

impl Market {
    /// Zero, reserve, full; a call takes as long on the reserve as on a full instance.
    pub fn equal() -> Self {
        Self {
            name: "equal".into(),
            full: ECI_FULL,
            reserve: Some(Reserve {
                price: ECI_RESERVE,
                slowdown: 1.0,
                capacity: ECI_RESERVE_CAPACITY,
                in_place: false,
            }),
            frozen: None,
            billing: Billing {
                granularity: Duration::from_secs(1),
                minimum: Duration::ZERO,
            },
        }
    }

    /// The same; a call takes twice as long on the reserve.
    pub fn slow() -> Self {
        let equal = Self::equal();
        Self {
            name: "slow".into(),
            reserve: equal.reserve.map(|reserve| Reserve {
                slowdown: 2.0,
                ..reserve
            }),
            ..equal
        }
    }

    /// The slow reserve, and instances can be frozen; they are charged for the memory that they hold.
    pub fn frozen() -> Self {
        Self {
            name: "frozen".into(),
            frozen: Some(ECI_MEMORY),
            ..Self::slow()
        }
    }

    /// The same as a catalogue, which the fleet reads. `starts` is what is believed of starts before any was seen.
    pub(super) fn instances(&self, starts: &Starts) -> Instances {
        let spec = |name: &str, cpu, memory, price, slow, in_place| InstanceSpec {
            name: name.into(),
            pool: "simulated".into(),
            cpu: Some(cpu),
            memory: Some(memory),
            price,
            memory_price: 0.0,
            granularity: self.billing.granularity,
            minimum: self.billing.minimum,
            start: Some(StartPrior {
                median: starts.median,
                sigma: starts.spread.hypot(starts.sigma),
            }),
            burst: None,
            stock: None,
            in_place,
            throttled: false,
            slow,
            scheduling: Scheduling::default(),
        };
        let mut specs = vec![spec("full", FULL, MEMORY, self.full, 1.0, false)];
        specs.extend(self.reserve.map(|it| {
            let (cpu, memory) = (Millicores(FULL.0 / 4), Bytes(MEMORY.0 / 4));
            spec("reserve", cpu, memory, it.price, it.slowdown, it.in_place)
        }));
        Instances {
            name: self.name.as_str().into(),
            currency: "CNY".into(),
            source: "".into(),
            date: "".into(),
            specs: specs.into(),
            default: "full".into(),
            frozen: self.frozen.map(|memory_price| FrozenPrice {
                memory_price,
                whole: false,
            }),
        }
    }

    /// All three.
    pub fn all() -> Vec<Self> {
        vec![Self::equal(), Self::slow(), Self::frozen()]
    }

    /// A frozen instance that holds `memory`, per second; never more than a full one.
    pub fn frozen_price(&self, memory: Bytes) -> Option<f64> {
        let price = self.frozen? * gib(memory);
        Some(price.min(self.full))
    }
}

/// The CPU and memory of a full instance.
pub(super) const FULL: Millicores = Millicores(1000);
pub(super) const MEMORY: Bytes = Bytes(2 << 30);

/// In GiB.
#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
pub(super) fn gib(Bytes(bytes): Bytes) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
