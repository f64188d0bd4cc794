//! A revision in a recording: what scaling reads of it, and nothing else. No image, no argument, no variable, no secret.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::{ObjectId, RevisionId};
use manifests::revision::{ColdStartSla, IdlePolicy, Planning, Reachability, Reserve, Revision, Scaling};
use manifests::units::{Bytes, ContainerConcurrency, Millicores, Replicas, Timestamp};
use manifests::workload::{Resources, Volume, VolumeSource, Workload};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
struct Manifest {
    id: RevisionId,
    configuration: ObjectId,
    service: Option<ObjectId>,
    created: Timestamp,
    cpu_limit: Option<Millicores>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_request: Option<Millicores>,
    memory_limit: Option<Bytes>,
    memory_request: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclusive: Vec<ObjectId>,
    stop_grace: Duration,
    container_concurrency: ContainerConcurrency,
    timeout: Duration,
    scaling: Scaling,
    idle: IdlePolicy,
    planning: Plan,
    reachability: Reachability,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    sla: ColdStartSla,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    specs: Arc<[Arc<str>]>,
    reserve: Option<(Arc<[Arc<str>]>, Replicas)>,
    min_scale_as: Rung,
    keep_warm: Option<String>,
}

impl Plan {
    fn of(planning: &Planning) -> Self {
        let Planning {
            sla,
            specs,
            reserve,
            min_scale_as,
            keep_warm,
        } = planning;
        let reserve = reserve
            .as_ref()
            .map(|Reserve { specs, replicas }| (Arc::clone(specs), *replicas));
        Self {
            sla: *sla,
            specs: Arc::clone(specs),
            reserve,
            min_scale_as: *min_scale_as,
            keep_warm: keep_warm.as_ref().map(ToString::to_string),
        }
    }

    fn planning(self) -> Planning {
        Planning {
            sla: self.sla,
            specs: self.specs,
            reserve: self.reserve.map(|(specs, replicas)| Reserve { specs, replicas }),
            min_scale_as: self.min_scale_as,
            // What another Knarr has read, this one can read.
            keep_warm: self.keep_warm.and_then(|text| text.parse().ok()),
        }
    }
}

impl Manifest {
    fn of(revision: &Revision) -> Self {
        // All fields by name: whatever is new must be thought of here.
        let Revision {
            id,
            configuration,
            service,
            created,
            workload,
            container_concurrency,
            timeouts,
            scaling,
            idle,
            planning,
            idle_ignore: _,
            server_timing: _,
            upstream_keepalive: _,
            reachability,
        } = revision;
        Self {
            id: id.clone(),
            configuration: configuration.clone(),
            service: service.clone(),
            created: *created,
            cpu_limit: workload.cpu_limit(),
            cpu_request: workload.cpu_request(),
            memory_limit: workload.memory_limit(),
            memory_request: workload.memory_request(),
            exclusive: workload.exclusive_claims().cloned().collect(),
            stop_grace: workload.stop_grace,
            container_concurrency: *container_concurrency,
            timeout: timeouts.request,
            scaling: scaling.clone(),
            idle: idle.clone(),
            planning: Plan::of(planning),
            reachability: *reachability,
        }
    }

    fn revision(self) -> Revision {
        let mut workload = Workload::host("");
        workload.serving.resources = Resources {
            cpu_limit: self.cpu_limit,
            cpu_request: self.cpu_request,
            memory_limit: self.memory_limit,
            memory_request: self.memory_request,
            ..Resources::default()
        };
        workload.stop_grace = self.stop_grace;
        workload.volumes = self.exclusive.into_iter().map(claim).collect();
        let mut revision = Revision::new(self.id, workload);
        revision.configuration = self.configuration;
        revision.service = self.service;
        revision.created = self.created;
        revision.container_concurrency = self.container_concurrency;
        revision.timeouts.request = self.timeout;
        revision.scaling = self.scaling;
        revision.idle = self.idle;
        revision.planning = self.planning.planning();
        revision.reachability = self.reachability;
        revision
    }
}

/// For `#[serde(with = ..)]`.
pub(crate) fn serialize<S: Serializer>(revision: &Arc<Revision>, to: S) -> Result<S::Ok, S::Error> {
    Manifest::of(revision).serialize(to)
}

/// For `#[serde(with = ..)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Revision>, D::Error> {
    Manifest::deserialize(from).map(|manifest| Arc::new(manifest.revision()))
}

fn claim(claim: ObjectId) -> Volume {
    Volume {
        name: claim.name().into(),
        source: VolumeSource::Claim {
            claim,
            read_only: false,
            shared: false,
        },
    }
}
