//! What can be had: prices per second and what they buy. PURE.

use std::collections::BTreeMap;
use std::time::Duration;

use manifests::instances::{FrozenPrice, InstanceSpec, Instances, Scheduling, StartPrior};
use manifests::units::{Bytes, Millicores};
use serde_json::{Value, json};

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
    pub fn instances(&self, starts: &Starts) -> Instances {
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

    /// The same as the `data` of a ConfigMap `config-instances`, for a Knarr that runs.
    pub fn config_map(&self, starts: &Starts) -> BTreeMap<String, String> {
        let instances = self.instances(starts);
        let specs: Vec<Value> = instances.specs.iter().map(written).collect();
        let frozen = self.frozen.map_or_else(|| "none".into(), |price| format!("{price}/s"));
        let data = [
            ("currency", instances.currency.to_string()),
            ("default", instances.default.to_string()),
            ("frozen", frozen),
            ("specs", Value::from(specs).to_string()),
        ];
        data.map(|(key, value)| (key.to_owned(), value)).into()
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

/// A spec in the words of a catalogue.
fn written(spec: &InstanceSpec) -> Value {
    let mut written = json!({
        "name": &*spec.name,
        "pool": &*spec.pool,
        "price": format!("{}/s", spec.price),
        "granularity": format!("{}ms", spec.granularity.as_millis()),
        "minimum": format!("{}ms", spec.minimum.as_millis()),
        "slow": spec.slow,
        "in-place": spec.in_place,
    });
    if let Some(cpu) = spec.cpu {
        written["cpu"] = format!("{}m", cpu.0).into();
    }
    if let Some(memory) = spec.memory {
        written["memory"] = memory.0.into();
    }
    if let Some(StartPrior { median, sigma }) = spec.start {
        written["start"] = json!({"median": format!("{}ms", median.as_millis()), "sigma": sigma});
    }
    written
}

/// The CPU and memory of a full instance.
pub(super) const FULL: Millicores = Millicores(1000);
pub(super) const MEMORY: Bytes = Bytes(2 << 30);

/// In GiB.
#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
pub(super) fn gib(Bytes(bytes): Bytes) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use manifests::config::ClusterConfig;

    use super::*;

    #[test]
    fn a_knarr_that_reads_it_has_the_same_catalogue() {
        let starts = Starts {
            spread: 0.7,
            sigma: 0.0,
            ..Starts::default()
        };
        for market in Market::all() {
            let billing = Billing {
                granularity: Duration::from_secs(1),
                minimum: Duration::from_secs(60),
            };
            for market in [
                Market {
                    billing,
                    ..market.clone()
                },
                market,
            ] {
                let mut cluster = ClusterConfig::default();
                let data = market.config_map(&starts);
                cluster
                    .apply("config-instances", &data)
                    .unwrap_or_else(|wrong| panic!("{wrong:#?}"));
                let (read, own) = (cluster.instances, market.instances(&starts));
                assert_eq!(
                    (&read.specs, &read.default, read.frozen),
                    (&own.specs, &own.default, own.frozen)
                );
                assert_eq!(read.currency, own.currency);
            }
        }
    }
}
