//! An endpoint set in a recording: its durations to the nanosecond, which gateways do not need.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{Endpoint, EndpointSet, Rung};
use manifests::ids::{Generation, RevisionId, SandboxId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
struct Exact {
    revision: RevisionId,
    generation: Generation,
    rung: Rung,
    endpoints: Vec<(SandboxId, Duration, u32)>,
    trouble: Option<Arc<str>>,
    refuses: bool,
}

/// For `#[serde(with = ..)]`.
pub(crate) fn serialize<S: Serializer>(set: &EndpointSet, to: S) -> Result<S::Ok, S::Error> {
    let EndpointSet {
        revision,
        generation,
        rung,
        endpoints,
        trouble,
        refuses,
    } = set;
    let endpoints = endpoints
        .iter()
        .map(|it| (it.sandbox.clone(), it.start, it.weight))
        .collect();
    Exact {
        revision: revision.clone(),
        generation: *generation,
        rung: *rung,
        endpoints,
        trouble: trouble.clone(),
        refuses: *refuses,
    }
    .serialize(to)
}

fn endpoint((sandbox, start, weight): (SandboxId, Duration, u32)) -> Endpoint {
    Endpoint { sandbox, start, weight }
}

/// For `#[serde(with = ..)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EndpointSet, D::Error> {
    let exact = Exact::deserialize(from)?;
    let endpoints = exact.endpoints.into_iter();
    Ok(EndpointSet {
        revision: exact.revision,
        generation: exact.generation,
        rung: exact.rung,
        endpoints: endpoints.map(endpoint).collect(),
        trouble: exact.trouble,
        refuses: exact.refuses,
    })
}
