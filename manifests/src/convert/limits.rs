//! `resources`: limits and requests as numbers.

use std::collections::BTreeMap;

use super::{Fault, Faults};
use crate::resources::{Container, Quantity};
use crate::units::{Bytes, Millicores};
use crate::workload::Resources;

/// A limit of 0 is none, as in Kubernetes. A request above its limit would be refused by a cluster.
pub(super) fn resources(container: &Container, path: &str, faults: &mut Faults) -> Resources {
    let (limits, requests) = (&container.resources.limits, &container.resources.requests);
    for (name, limit) in limits {
        if requests.get(name).is_some_and(|request| request > limit) {
            let path = format!("{path}.resources.requests.{name}");
            let message = format!("is more than its limit {limit}");
            faults.push(Fault::new(path, message, "raise the limit"));
        }
    }
    let mut read = |map: &BTreeMap<String, Quantity>, kind: &str, name: &str| {
        let quantity = map.get(name).filter(|quantity| !quantity.is_zero())?;
        let (amount, most) = if name == "cpu" {
            (quantity.milli_value(), i128::from(u32::MAX))
        } else {
            (quantity.value(), i128::from(u64::MAX))
        };
        if !(1..=most).contains(&amount) {
            let path = format!("{path}.resources.{kind}.{name}");
            faults.push(Fault::new(
                path,
                format!("invalid value: {quantity}"),
                "must be above 0",
            ));
        }
        u64::try_from(amount).ok()
    };
    let cpu = |amount: Option<u64>| amount.and_then(|millis| u32::try_from(millis).ok()).map(Millicores);
    Resources {
        cpu_request: cpu(read(requests, "requests", "cpu")),
        cpu_limit: cpu(read(limits, "limits", "cpu")),
        memory_request: read(requests, "requests", "memory").map(Bytes),
        memory_limit: read(limits, "limits", "memory").map(Bytes),
        ephemeral_limit: read(limits, "limits", "ephemeral-storage").map(Bytes),
    }
}
