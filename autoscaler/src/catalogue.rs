//! PURE  The catalogue: what an instance of a revision may be, and what each costs.
//!
//! Read once from the configuration file and checked as a whole; prices are in whatever currency the file uses and are
//! only ever compared with each other.
//!
//! ```toml
//! [[spec]]
//! name = "full"
//! cpu = "limit"          # the revision's own CPU limit
//! price-per-hour = 1.0
//!
//! [[spec]]
//! name = "throttled"
//! cpu = "50m"            # this much CPU, changed in place
//! price-per-hour = 0.1
//! memory-price-per-gib-hour = 0.0
//!
//! [frozen]
//! memory-price-per-gib-hour = 0.4   # of what a frozen sandbox really holds; it uses no CPU
//! ```

use std::sync::Arc;

use manifests::exchange::Rung;
use manifests::units::{Bytes, Millicores, PricePerHour};
use manifests::workload::Workload;
use sandbox::driver::Limits;
use serde::Deserialize;

/// The catalogue as written in the configuration file.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCatalogue {
    /// Every spec.
    #[serde(default, rename = "spec")]
    pub specs: Vec<RawSpec>,
    /// What a frozen sandbox costs; the default when it is absent.
    pub frozen: Option<RawFrozen>,
}

/// The price of a frozen sandbox as written.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawFrozen {
    /// Per GiB that it holds in memory; what was moved to swap costs nothing.
    pub memory_price_per_gib_hour: f64,
}

/// One spec as written.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawSpec {
    /// A word of the user's own, shown in plans.
    pub name: String,
    /// `limit` for the revision's own CPU limit, or CPU as Kubernetes writes it: `50m`, `0.05`, `2`.
    pub cpu: String,
    /// Price of a running instance.
    pub price_per_hour: f64,
    /// Added per GiB of the revision's memory limit; 0 by default.
    #[serde(default)]
    pub memory_price_per_gib_hour: f64,
}

/// A checked catalogue: exactly one full spec, any number of cheaper throttled ones.
#[derive(Clone, PartialEq, Debug)]
pub struct Catalogue {
    full: Spec,
    /// Cheapest first.
    throttled: Vec<Spec>,
    /// Of a GiB that a frozen sandbox holds.
    frozen_memory_price: f64,
}

/// What an instance may be.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    /// Its name in plans.
    pub name: Arc<str>,
    /// The CPU it gets; `None` is the revision's own limit.
    pub cpu: Option<Millicores>,
    price: f64,
    memory_price: f64,
}

impl Catalogue {
    /// The spec that serves load.
    pub fn full(&self) -> &Spec {
        &self.full
    }

    /// Specs an idle instance can be changed to in place, cheapest first.
    pub fn throttled(&self) -> &[Spec] {
        &self.throttled
    }

    /// What a running instance on a rung costs. Below full it is the cheapest spec of the rung.
    pub fn price(&self, rung: Rung, workload: &Workload) -> PricePerHour {
        match rung {
            Rung::Zero => PricePerHour(0.0),
            Rung::Full => self.full.price(workload),
            Rung::Throttled => self.throttled.first().unwrap_or(&self.full).price(workload),
            Rung::Frozen => self.frozen_price(workload.memory_limit().unwrap_or_default(), workload),
        }
    }

    /// What a frozen instance costs that holds `memory`: never more than one that runs on the cheapest spec, which holds
    /// as much.
    pub fn frozen_price(&self, Bytes(memory): Bytes, workload: &Workload) -> PricePerHour {
        let running = self.price(Rung::Throttled, workload).0;
        PricePerHour((self.frozen_memory_price * gib(memory)).min(running))
    }
}

impl Default for RawCatalogue {
    /// What a file would say to get [`Catalogue::default`].
    fn default() -> Self {
        let spec = |name: &str, cpu: &str, price_per_hour| RawSpec {
            name: name.into(),
            cpu: cpu.into(),
            price_per_hour,
            memory_price_per_gib_hour: 0.0,
        };
        Self {
            specs: vec![spec("full", "limit", 1.0), spec("throttled", "50m", 0.1)],
            frozen: None,
        }
    }
}

impl Default for Catalogue {
    /// Full at 1 per hour; a throttled one with a twentieth of a core at a tenth of that: its CPU share, and as much again
    /// for the memory it keeps, taken as 128 MiB; a frozen one at that price for the memory it really holds.
    fn default() -> Self {
        let spec = |name: &str, cpu, price| Spec {
            name: name.into(),
            cpu,
            price,
            memory_price: 0.0,
        };
        Self {
            full: spec("full", None, 1.0),
            throttled: vec![spec("throttled", Some(Millicores(50)), 0.1)],
            frozen_memory_price: FROZEN_MEMORY_PRICE,
        }
    }
}

impl Spec {
    /// What one instance of a revision costs on it.
    pub fn price(&self, workload: &Workload) -> PricePerHour {
        let Bytes(memory) = workload.memory_limit().unwrap_or_default();
        PricePerHour(self.price + self.memory_price * gib(memory))
    }

    /// The limits of an instance on it: never more CPU than the revision's own limit.
    pub fn limits(&self, workload: &Workload) -> Limits {
        let cpu = match (self.cpu, workload.cpu_limit()) {
            (Some(spec), Some(own)) => Some(spec.min(own)),
            (spec, own) => spec.or(own),
        };
        Limits {
            cpu,
            memory: workload.memory_limit(),
            pids: None,
        }
    }
}

impl TryFrom<RawCatalogue> for Catalogue {
    type Error = CatalogueError;

    fn try_from(raw: RawCatalogue) -> Result<Self, CatalogueError> {
        let mut problems = Vec::new();
        let frozen_memory_price = raw
            .frozen
            .map_or(FROZEN_MEMORY_PRICE, |frozen| frozen.memory_price_per_gib_hour);
        if !frozen_memory_price.is_finite() || frozen_memory_price < 0.0 {
            problems.push(format!(
                "frozen.memory-price-per-gib-hour: {frozen_memory_price} must be a number of 0 or more"
            ));
        }
        let mut specs: Vec<Spec> = Vec::new();
        for (n, raw) in raw.specs.into_iter().enumerate() {
            if raw.name.is_empty() || specs.iter().any(|spec| *spec.name == *raw.name) {
                problems.push(format!(
                    "spec[{n}].name: {:?} must be a name that no other spec has",
                    raw.name
                ));
            }
            for (field, value) in [
                ("price-per-hour", raw.price_per_hour),
                ("memory-price-per-gib-hour", raw.memory_price_per_gib_hour),
            ] {
                if !value.is_finite() || value < 0.0 {
                    problems.push(format!("spec[{n}].{field}: {value} must be a number of 0 or more"));
                }
            }
            let cpu = parse_cpu(&raw.cpu).unwrap_or_else(|| {
                problems.push(format!(
                    "spec[{n}].cpu: {:?} must be \"limit\" or an amount of CPU from 1m up, such as 50m or 0.5",
                    raw.cpu
                ));
                None
            });
            let (price, memory_price) = (raw.price_per_hour, raw.memory_price_per_gib_hour);
            specs.push(Spec {
                name: raw.name.into(),
                cpu,
                price,
                memory_price,
            });
        }
        let (mut full, mut throttled): (Vec<_>, Vec<_>) = specs.into_iter().partition(|spec| spec.cpu.is_none());
        throttled.sort_by(|a, b| a.price.total_cmp(&b.price));
        if problems.is_empty() && full.len() != 1 {
            problems.push(format!("{} specs have cpu: \"limit\", exactly one must", full.len()));
        }
        let Some(full) = full.pop().filter(|_| problems.is_empty()) else {
            return Err(CatalogueError(problems));
        };
        for spec in &throttled {
            if spec.price >= full.price || spec.memory_price > full.memory_price {
                let message = "must cost less than the full spec, in CPU price, and no more in memory price";
                problems.push(format!("spec {}: {message}", spec.name));
            }
        }
        if problems.is_empty() {
            Ok(Self {
                full,
                throttled,
                frozen_memory_price,
            })
        } else {
            Err(CatalogueError(problems))
        }
    }
}

/// Everything that is wrong with a catalogue, with the field and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the price catalogue is not valid: {}", .0.join("; "))]
pub struct CatalogueError(pub Vec<String>);

/// `Some(None)` is the revision's own limit.
fn parse_cpu(text: &str) -> Option<Option<Millicores>> {
    if text == "limit" {
        return Some(None);
    }
    let millis = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<u32>().ok()?,
        None => {
            let cores: f64 = text.parse().ok().filter(|cores| (0.0..=1e6).contains(cores))?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e9")]
            let millis = (cores * 1000.0).round() as u32;
            millis
        }
    };
    (millis > 0).then_some(Some(Millicores(millis)))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// See [`Catalogue::default`].
const FROZEN_MEMORY_PRICE: f64 = 0.4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::revision;

    fn spec(name: &str, cpu: &str, price: f64, memory: f64) -> RawSpec {
        RawSpec {
            name: name.into(),
            cpu: cpu.into(),
            price_per_hour: price,
            memory_price_per_gib_hour: memory,
        }
    }

    fn read(specs: Vec<RawSpec>) -> Result<Catalogue, CatalogueError> {
        RawCatalogue { specs, frozen: None }.try_into()
    }

    #[test]
    fn the_default_is_what_a_file_would_say() {
        let specs = vec![spec("throttled", "50m", 0.1, 0.0), spec("full", "limit", 1.0, 0.0)];
        assert_eq!(read(specs), Ok(Catalogue::default()));
        assert_eq!(RawCatalogue::default().try_into(), Ok(Catalogue::default()));
    }

    #[test]
    fn prices_and_limits_follow_the_revision() {
        let specs = vec![
            spec("big", "limit", 1.0, 0.5),
            spec("small", "0.2", 0.1, 0.5),
            spec("tiny", "50m", 0.05, 0.5),
        ];
        let catalogue = read(specs).unwrap();
        let mut revision = revision("default", "a");
        let workload = std::sync::Arc::get_mut(&mut revision.workload).unwrap();
        workload.serving.resources.memory_limit = Some(Bytes(512 << 20));
        workload.serving.resources.cpu_limit = Some(Millicores(100));
        assert_eq!(catalogue.price(Rung::Zero, workload), PricePerHour(0.0));
        assert_eq!(catalogue.price(Rung::Full, workload), PricePerHour(1.25));
        assert_eq!(catalogue.price(Rung::Throttled, workload).0, 0.05 + 0.25);
        assert_eq!(catalogue.frozen_price(Bytes(128 << 20), workload).0, 0.05);
        assert_eq!(
            catalogue.frozen_price(Bytes(0), workload).0,
            0.0,
            "all of it is in swap"
        );
        assert_eq!(
            catalogue.frozen_price(Bytes(4 << 30), workload),
            catalogue.price(Rung::Throttled, workload),
            "never dearer than one that runs"
        );
        let cpus = |spec: &Spec| spec.limits(workload).cpu;
        assert_eq!(
            catalogue.throttled().iter().map(cpus).collect::<Vec<_>>(),
            [Some(Millicores(50)), Some(Millicores(100))]
        );
        assert_eq!(cpus(catalogue.full()), Some(Millicores(100)));
    }

    #[test]
    fn every_problem_at_once() {
        let specs = vec![
            spec("", "0", -1.0, f64::NAN),
            spec("b", "limit", 1.0, 0.0),
            spec("b", "1x", 0.1, 0.0),
        ];
        let CatalogueError(problems) = read(specs).unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert_eq!(
            read(vec![]).unwrap_err().0,
            ["0 specs have cpu: \"limit\", exactly one must"]
        );
        let mut raw = RawCatalogue {
            specs: vec![spec("full", "limit", 1.0, 0.0)],
            frozen: Some(RawFrozen {
                memory_price_per_gib_hour: -1.0,
            }),
        };
        let CatalogueError(problems) = Catalogue::try_from(raw.clone()).unwrap_err();
        assert_eq!(
            problems,
            ["frozen.memory-price-per-gib-hour: -1 must be a number of 0 or more"]
        );
        raw.frozen = None;
        assert!(Catalogue::try_from(raw).is_ok());
        let dear = vec![spec("full", "limit", 1.0, 0.0), spec("dear", "50m", 1.0, 0.0)];
        assert!(read(dear).unwrap_err().0[0].contains("must cost less"));
    }
}
