//! What can be had: a catalogue of instance specs. PURE.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autoscaler::specs::{Spec, Specs};
use manifests::instances::{FrozenPrice, InstanceSpec, Instances, Scheduling, StartPrior};
use manifests::revision::Revision;
use manifests::units::{Bytes, Millicores};
use serde_json::{Value, json};

use super::bill::Billing;
use super::starts::Starts;

/// A simulated provider.
#[derive(Clone, PartialEq, Debug)]
pub struct Market {
    /// Its name in tables.
    pub name: String,
    /// Its specs, with what the provider says of them.
    pub instances: Arc<Instances>,
}

/// A provider with one spec to serve on and at most one that is cheaper.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Prices {
    /// A full instance, per second.
    pub full: f64,
    /// A cheaper spec that is always running.
    pub reserve: Option<Reserve>,
    /// A frozen instance: for each GiB that it holds, per second.
    pub frozen: Option<f64>,
    /// How bills are rounded.
    pub billing: Billing,
}

/// A cheaper spec: a quarter of a full one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reserve {
    /// Per second.
    pub price: f64,
    /// A call takes so many times as long there.
    pub slowdown: f64,
    /// A running instance can be changed to it and back; else it is another instance.
    pub in_place: bool,
}

/// Alibaba ECI, 1 vCPU and 2 GiB, per second in CNY: 0.000049 per vCPU and 0.00000613 per GiB.
pub const ECI_FULL: f64 = 6.13e-5;
/// The same, "economy" class, 0.25 vCPU and 0.5 GiB.
pub const ECI_RESERVE: f64 = 9.8e-6;
/// The same, a GiB.
pub const ECI_MEMORY: f64 = 6.13e-6;

impl Prices {
    /// ECI: zero, reserve, full; a call takes as long on the reserve as on a full instance.
    pub const fn eci() -> Self {
        Self {
            full: ECI_FULL,
            reserve: Some(Reserve {
                price: ECI_RESERVE,
                slowdown: 1.0,
                in_place: false,
            }),
            frozen: None,
            billing: Billing {
                granularity: Duration::from_secs(1),
                minimum: Duration::ZERO,
            },
        }
    }

    fn instances(&self) -> Instances {
        let spec = |name: &str, size: u32, price, slow, in_place| InstanceSpec {
            name: name.into(),
            pool: "simulated".into(),
            cpu: Some(Millicores(FULL.0 / size)),
            memory: Some(Bytes(MEMORY.0 / u64::from(size))),
            price,
            memory_price: 0.0,
            granularity: self.billing.granularity,
            minimum: self.billing.minimum,
            start: None,
            burst: None,
            stock: None,
            in_place,
            throttled: false,
            slow,
            scheduling: Scheduling::default(),
        };
        let mut specs = vec![spec("full", 1, self.full, 1.0, false)];
        specs.extend(
            self.reserve
                .map(|it| spec("reserve", 4, it.price, it.slowdown, it.in_place)),
        );
        Instances {
            name: "simulated".into(),
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
}

impl Market {
    /// One with these prices.
    pub fn new(name: impl Into<String>, prices: &Prices) -> Self {
        Self::of(name, prices.instances())
    }

    /// A catalogue.
    pub fn of(name: impl Into<String>, instances: Instances) -> Self {
        Self {
            name: name.into(),
            instances: Arc::new(instances),
        }
    }

    /// Zero, reserve, full; a call takes as long on the reserve as on a full instance.
    pub fn equal() -> Self {
        Self::new("equal", &Prices::eci())
    }

    /// The same; a call takes twice as long on the reserve.
    pub fn slow() -> Self {
        Self::new("slow", &Prices::eci().slower(2.0))
    }

    /// The slow reserve, and instances can be frozen; they are charged for the memory that they hold.
    pub fn frozen() -> Self {
        let prices = Prices {
            frozen: Some(ECI_MEMORY),
            ..Prices::eci().slower(2.0)
        };
        Self::new("frozen", &prices)
    }

    /// The same as the `data` of a ConfigMap `config-instances`, for a Knarr that runs.
    pub fn config_map(&self, starts: &Starts) -> BTreeMap<String, String> {
        let instances = self.instances(starts);
        let specs: Vec<Value> = instances.specs.iter().map(written).collect();
        let frozen = instances.frozen.map_or_else(
            || "none".into(),
            |FrozenPrice { memory_price, whole }| format!("{memory_price}/s{}", if whole { " whole" } else { "" }),
        );
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

    /// The same for the fleet to read: `starts` is what is believed of those specs of which the provider says nothing.
    pub fn instances(&self, starts: &Starts) -> Arc<Instances> {
        if self.instances.specs.iter().all(|spec| spec.start.is_some()) {
            return Arc::clone(&self.instances);
        }
        let believed = StartPrior {
            median: starts.median,
            sigma: starts.spread.hypot(starts.sigma),
        };
        let specs = self.instances.specs.iter().map(|spec| InstanceSpec {
            start: spec.start.or(Some(believed)),
            ..spec.clone()
        });
        Arc::new(Instances {
            specs: specs.collect(),
            ..Instances::clone(&self.instances)
        })
    }

    /// What a revision may run on here.
    pub(super) fn specs(&self, revision: &Revision) -> Specs {
        Specs::of(&self.instances, revision)
    }

    /// How long starts take where the provider says so, of the spec that simulated functions serve load on.
    pub fn starts(&self) -> Option<Starts> {
        let full = self.specs(&super::policy::typical());
        full.full().start.map(Starts::as_said)
    }

    /// A simulated function serves load on the same, at the same price.
    pub(super) fn serves_as(&self, other: &Self) -> bool {
        let revision = super::policy::typical();
        self.specs(&revision).full() == other.specs(&revision).full()
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

impl Prices {
    /// A call takes so many times as long on the reserve.
    #[must_use]
    pub fn slower(self, slowdown: f64) -> Self {
        let reserve = self.reserve.map(|reserve| Reserve { slowdown, ..reserve });
        Self { reserve, ..self }
    }
}

/// How much longer starts on a spec take than on the full one, by what the provider says of both.
pub(super) fn start_factor(spec: &Spec, full: &Spec) -> f64 {
    match (spec.start, full.start) {
        (Some(own), Some(full)) => own.median.as_secs_f64() / full.median.as_secs_f64(),
        _ => 1.0,
    }
}

/// Calls at once that a spec has CPU for; with more each takes longer.
pub(super) fn capacity(spec: &Spec, full: &Spec) -> f64 {
    (spec.share(full) * CALLS_AT_ONCE).max(1.0)
}

/// A full instance has CPU for so many calls at once.
const CALLS_AT_ONCE: f64 = 100.0;

/// The CPU and memory that a simulated function may use.
pub(super) const FULL: Millicores = Millicores(1000);
pub(super) const MEMORY: Bytes = Bytes(2 << 30);

#[cfg(test)]
mod tests {
    use manifests::config::ClusterConfig;

    use super::*;

    #[test]
    fn shipped_catalogues_have_something_to_serve_on_and_something_cheaper() {
        for (name, full, cheaper) in [
            ("local", "full", vec!["throttled", "reserve"]),
            (
                "fargate",
                "1-2Gi",
                vec!["0.25-0.5Gi", "0.25-1Gi", "0.25-2Gi", "0.5-1Gi"],
            ),
        ] {
            let market = Market::of(name, Instances::shipped(name).expect(name));
            let specs = market.specs(&super::super::policy::typical());
            assert_eq!(&*specs.full().name, full);
            let names: Vec<&str> = specs.cheaper().iter().map(|spec| &*spec.name).collect();
            assert!(cheaper.iter().any(|name| names.contains(name)), "{name}: {names:?}");
            let starts = market.starts().expect("they say how long starts take");
            assert_eq!(Some(starts.median), specs.full().start.map(|it| it.median));
            let sigma = starts.spread.hypot(starts.sigma);
            assert!((sigma - specs.full().start.expect(name).sigma).abs() < 1e-9, "{sigma}");
        }
    }

    #[test]
    fn what_a_provider_does_not_say_of_starts_is_what_is_simulated() {
        let starts = Starts::default();
        let instances = Market::equal().instances(&starts);
        let said: Vec<_> = instances.specs.iter().map(|spec| spec.start).collect();
        let believed = StartPrior {
            median: starts.median,
            sigma: 0.9_f64.hypot(0.35),
        };
        assert_eq!(said, [Some(believed); 2]);
        assert_eq!(Market::equal().starts(), None);
    }

    #[test]
    fn a_knarr_that_reads_it_has_the_same_catalogue() {
        let starts = Starts {
            spread: 0.7,
            sigma: 0.0,
            ..Starts::default()
        };
        let fargate = Prices {
            billing: Billing {
                granularity: Duration::from_secs(1),
                minimum: Duration::from_secs(60),
            },
            ..Prices::eci()
        };
        for market in Market::all().into_iter().chain([Market::new("fargate", &fargate)]) {
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
