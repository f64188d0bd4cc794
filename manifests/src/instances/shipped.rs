//! The catalogues that come with Knarr, each the ConfigMap that a user would write, with source and date.

use std::sync::LazyLock;

use super::Instances;
use crate::config;
use crate::problem::Problem;
use crate::read;
use crate::resources::Resource;
use crate::units::Bytes;

/// Their names.
pub const SHIPPED: [&str; 4] = ["local", "eci", "ecs-burstable", "fargate"];

const LOCAL: &str = include_str!("../../catalogues/local.yaml");
const ECI: &str = include_str!("../../catalogues/eci.yaml");
const ECS_BURSTABLE: &str = include_str!("../../catalogues/ecs-burstable.yaml");
const FARGATE: &str = include_str!("../../catalogues/fargate.yaml");

impl Instances {
    /// The catalogue of this name that comes with Knarr.
    pub fn shipped(name: &str) -> Option<Self> {
        static ALL: [LazyLock<Option<Instances>>; 4] = [
            LazyLock::new(|| read_shipped("local", LOCAL)),
            LazyLock::new(|| read_shipped("eci", ECI)),
            LazyLock::new(|| read_shipped("ecs-burstable", ECS_BURSTABLE)),
            LazyLock::new(|| read_shipped("fargate", FARGATE)),
        ];
        let nth = SHIPPED.iter().position(|shipped| *shipped == name)?;
        ALL[nth].as_ref().cloned()
    }

    /// The text of the catalogue of this name that comes with Knarr: a manifest.
    pub fn shipped_text(name: &str) -> Option<&'static str> {
        let texts = [LOCAL, ECI, ECS_BURSTABLE, FARGATE];
        let nth = SHIPPED.iter().position(|shipped| *shipped == name)?;
        Some(texts[nth])
    }

    /// What a file says: one that holds a ConfigMap `config-instances`, and nothing else that matters here.
    ///
    /// # Errors
    /// Everything that is wrong with it, with `name` and lines.
    pub fn from_text(name: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let (documents, mut problems) = read::read(name, text);
        let mut found = None;
        for document in &documents {
            let Resource::ConfigMap(map) = &document.resource else {
                continue;
            };
            if map.metadata.name != NAME {
                continue;
            }
            if map.metadata.namespace != config::SYSTEM_NAMESPACE {
                let message = format!("is the catalogue only in namespace {}", config::SYSTEM_NAMESPACE);
                let hint = format!("write namespace: {}", config::SYSTEM_NAMESPACE);
                problems.push(document.problem("metadata.name", message).hint(hint));
                continue;
            }
            match config::instances(&map.data) {
                Ok(instances) => found = Some(instances),
                Err(errors) => problems.extend(errors.into_iter().map(|error| document.config_problem(error))),
            }
        }
        match found {
            Some(found) if problems.is_empty() => Ok(found),
            None if problems.is_empty() => {
                let problem = Problem::new(&name.into(), 0, "has no catalogue");
                Err(vec![problem.hint("write a ConfigMap called config-instances")])
            }
            _ => Err(problems),
        }
    }

    /// `local` on a machine: all memory of the budget costs as much as all CPUs, so that memory is dear where there is
    /// little of it. Other catalogues have prices of their own.
    #[must_use]
    pub fn on_machine(mut self, cpus: u32, Bytes(budget): Bytes) -> Self {
        let unchanged = Self::default().frozen;
        if &*self.name == "local"
            && self.frozen == unchanged
            && let Some(frozen) = &mut self.frozen
        {
            #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
            let gib = budget.max(1) as f64 / f64::from(1 << 30);
            frozen.memory_price = f64::from(cpus) / gib / super::price::SECONDS;
        }
        self
    }
}

impl Default for Instances {
    /// `local`.
    fn default() -> Self {
        // A test reads every shipped catalogue.
        Self::shipped("local").expect("the shipped catalogue `local` is right")
    }
}

fn read_shipped(name: &str, text: &str) -> Option<Instances> {
    let read = Instances::from_text(name, text).ok()?;
    Some(Instances {
        name: name.into(),
        ..read
    })
}

/// The ConfigMap.
const NAME: &str = "config-instances";
