//! PURE  The catalogue as this machine's sandboxes use it: the spec that serves load, those to stand idle on, and prices
//! per hour. Made from [`Instances`], which is what the user wrote.

use std::sync::Arc;

use manifests::exchange::Rung;
use manifests::instances::{InstanceSpec, Instances, per_hour};
use manifests::units::{Bytes, PricePerHour};
use manifests::workload::Workload;
use sandbox::driver::Limits;
use serde::{Deserialize, Serialize};

/// What can be had. Cheap to clone.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Catalogue(Arc<Instances>);

impl From<Arc<Instances>> for Catalogue {
    fn from(instances: Arc<Instances>) -> Self {
        Self(instances)
    }
}

impl Catalogue {
    /// The spec that serves a revision's load.
    pub fn full(&self, workload: &Workload) -> &InstanceSpec {
        self.0.full_for(workload, &[])
    }

    /// Specs that an idle instance can be throttled to in place and that are cheaper than full, cheapest first.
    pub fn throttled(&self, workload: &Workload) -> Vec<&InstanceSpec> {
        let full = self.full(workload).price_of(workload);
        let cheaper = |spec: &&InstanceSpec| spec.throttled && spec.price_of(workload) < full;
        let mut specs: Vec<&InstanceSpec> = self.0.specs.iter().filter(cheaper).collect();
        specs.sort_by(|a, b| a.price_of(workload).total_cmp(&b.price_of(workload)));
        specs
    }

    /// What a running instance on a rung costs. Below full it is the cheapest spec of the rung.
    pub fn price(&self, rung: Rung, workload: &Workload) -> PricePerHour {
        match rung {
            Rung::Zero => PricePerHour(0.0),
            Rung::Full | Rung::Reserve => self.full(workload).price_per_hour(workload),
            Rung::Throttled => self.cheapest_running(workload).price_per_hour(workload),
            Rung::Frozen => self.frozen_price(workload.memory_limit().unwrap_or_default(), workload),
        }
    }

    /// What a frozen instance costs that holds `memory`: never more than one that runs on the cheapest spec, which holds
    /// as much. Where the catalogue has no price for it, as much as that one.
    pub fn frozen_price(&self, memory: Bytes, workload: &Workload) -> PricePerHour {
        let running = self.price(Rung::Throttled, workload);
        match self.0.frozen_price(memory, workload).map(per_hour) {
            Some(frozen) if frozen < running => frozen,
            _ => running,
        }
    }

    /// The limits of an instance on the cheapest throttled spec; on full where there is none.
    pub fn throttled_limits(&self, workload: &Workload) -> Limits {
        limits(self.cheapest_running(workload), workload)
    }

    fn cheapest_running(&self, workload: &Workload) -> &InstanceSpec {
        let throttled = self.throttled(workload);
        throttled.first().copied().unwrap_or_else(|| self.full(workload))
    }
}

/// The limits of an instance of a revision on a spec: never more CPU than the revision's own limit.
pub fn limits(spec: &InstanceSpec, workload: &Workload) -> Limits {
    Limits {
        cpu: spec.cpu_of(workload),
        memory: workload.memory_limit(),
        pids: None,
    }
}

#[cfg(test)]
mod tests {
    use manifests::units::Millicores;

    use super::*;
    use crate::testing::revision;

    fn read(data: &[(&str, &str)]) -> Catalogue {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Catalogue(Arc::new(manifests::config::instances(&data.collect()).unwrap()))
    }

    #[test]
    fn prices_and_limits_follow_the_revision() {
        let specs = "\
- {name: big, price: 1/h, memory-price: 0.5/h}
- {name: small, cpu: 0.2, price: 0.1/h, memory-price: 0.5/h, throttled: true}
- {name: tiny, cpu: 50m, price: 0.05/h, memory-price: 0.5/h, throttled: true}
- {name: dear, cpu: 100m, price: 0.01/h, in-place: true}";
        let catalogue = read(&[("specs", specs), ("frozen", "0.4/h")]);
        let mut revision = revision("default", "a");
        let workload = std::sync::Arc::get_mut(&mut revision.workload).unwrap();
        workload.serving.resources.memory_limit = Some(Bytes(512 << 20));
        workload.serving.resources.cpu_limit = Some(Millicores(100));
        let near =
            |PricePerHour(price): PricePerHour, want: f64| assert!((price - want).abs() < 1e-9, "{price} {want}");
        near(catalogue.price(Rung::Zero, workload), 0.0);
        near(catalogue.price(Rung::Full, workload), 1.25);
        near(catalogue.price(Rung::Throttled, workload), 0.05 + 0.25);
        near(catalogue.frozen_price(Bytes(128 << 20), workload), 0.05);
        // All of it is in swap; and never dearer than one that runs.
        near(catalogue.frozen_price(Bytes(0), workload), 0.0);
        near(catalogue.frozen_price(Bytes(4 << 30), workload), 0.05 + 0.25);
        let cpus: Vec<_> = catalogue
            .throttled(workload)
            .iter()
            .map(|spec| limits(spec, workload).cpu)
            .collect();
        assert_eq!(cpus, [Some(Millicores(50)), Some(Millicores(100))]);
        assert_eq!(limits(catalogue.full(workload), workload).cpu, Some(Millicores(100)));
        assert_eq!(catalogue.throttled_limits(workload).cpu, Some(Millicores(50)));
    }

    #[test]
    fn without_a_rung_of_its_own_idle_costs_as_much_as_running() {
        let revision = revision("default", "a");
        let catalogue = read(&[("catalogue", "eci")]);
        let full = catalogue.price(Rung::Full, &revision.workload);
        assert!((full.0 - 0.000_122_52 * 3600.0).abs() < 1e-9, "{full}");
        assert_eq!(catalogue.price(Rung::Throttled, &revision.workload), full);
        assert_eq!(catalogue.frozen_price(Bytes(1), &revision.workload), full);
    }
}
