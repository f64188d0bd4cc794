//! Finds specs: by name, by size as Alibaba writes it, and the one that a revision runs on when it is not saved on.

use std::sync::Arc;

use super::{InstanceSpec, Instances};
use crate::resources::Quantity;
use crate::units::{Bytes, Millicores};
use crate::workload::Workload;

impl Instances {
    /// The spec of this name.
    pub fn get(&self, name: &str) -> Option<&InstanceSpec> {
        self.specs.iter().find(|spec| &*spec.name == name)
    }

    /// What a word in a list of specs means: a name, or a size as `CPU-MEMORY` (`2-4Gi`), which is every spec of that size.
    /// Empty when there is none.
    pub fn named(&self, word: &str) -> Vec<&InstanceSpec> {
        if let Some(spec) = self.get(word) {
            return vec![spec];
        }
        let Some((cpu, memory)) = word.split_once('-').and_then(|(cpu, memory)| size(cpu, memory)) else {
            return Vec::new();
        };
        let of_size = |spec: &&InstanceSpec| (spec.cpu, spec.memory) == (Some(cpu), Some(memory));
        self.specs.iter().filter(of_size).collect()
    }

    /// The cheapest spec with at least this much of both; specs that have the revision's own limits are not meant.
    pub fn least(&self, cpu: Millicores, memory: Bytes) -> Option<&InstanceSpec> {
        let fits =
            |spec: &&InstanceSpec| spec.cpu.is_some_and(|has| has >= cpu) && !spec.throttled && has(spec, memory);
        let fitting = self.specs.iter().filter(fits);
        fitting.min_by(|a, b| a.price.total_cmp(&b.price))
    }

    /// The spec that a revision runs on under load, of those that are `listed` (of all when none is): that with the
    /// revision's own limits where there is one; else the first listed (or the cheapest of all) that has what the revision
    /// asks for; else the first listed that does not burst, or the default. Never one that is only to stand idle on.
    pub fn full_for(&self, workload: &Workload, listed: &[Arc<str>]) -> &InstanceSpec {
        let serves = |spec: &&InstanceSpec| !spec.throttled;
        let listed: Vec<&InstanceSpec> = listed.iter().filter_map(|name| self.get(name)).filter(serves).collect();
        let own = |spec: &&InstanceSpec| spec.cpu.is_none();
        let own = if listed.is_empty() {
            self.specs.iter().find(own)
        } else {
            listed.iter().copied().find(own)
        };
        if let Some(own) = own {
            return own;
        }
        let (cpu, memory) = (wanted_cpu(workload), wanted_memory(workload));
        if cpu.is_some() || memory.is_some() {
            let (cpu, memory) = (cpu.unwrap_or_default(), memory.unwrap_or_default());
            let fits = |spec: &&&InstanceSpec| spec.cpu.is_none_or(|has| has >= cpu) && has(spec, memory);
            let found = if listed.is_empty() {
                self.least(cpu, memory)
            } else {
                listed.iter().find(fits).copied()
            };
            if let Some(found) = found {
                return found;
            }
        }
        let steady = listed.iter().find(|spec| spec.burst.is_none()).copied();
        let first = listed.first().copied();
        let default = self.get(&self.default).unwrap_or(&self.specs[0]);
        steady.or(first).unwrap_or(default)
    }

    /// The names of all specs.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.specs.iter().map(|spec| &*spec.name)
    }
}

fn has(spec: &InstanceSpec, memory: Bytes) -> bool {
    spec.memory.is_none_or(|has| has >= memory)
}

fn wanted_cpu(workload: &Workload) -> Option<Millicores> {
    workload.cpu_limit().or_else(|| workload.cpu_request())
}

fn wanted_memory(workload: &Workload) -> Option<Bytes> {
    workload.memory_limit().or_else(|| workload.memory_request())
}

/// `2` and `4Gi`; Alibaba writes CPU with and without a unit.
pub(crate) fn size(cpu: &str, memory: &str) -> Option<(Millicores, Bytes)> {
    Some((millicores(cpu)?, bytes(memory)?))
}

/// An amount of CPU from a thousandth up.
pub(crate) fn millicores(text: &str) -> Option<Millicores> {
    let quantity: Quantity = text.parse().ok()?;
    let millis = u32::try_from(quantity.milli_value()).ok()?;
    (millis > 0).then_some(Millicores(millis))
}

/// An amount of memory from a byte up.
pub(crate) fn bytes(text: &str) -> Option<Bytes> {
    let quantity: Quantity = text.parse().ok()?;
    let bytes = u64::try_from(quantity.value()).ok()?;
    (bytes > 0).then_some(Bytes(bytes))
}
