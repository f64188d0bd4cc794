//! The one conversion from Knative's words to ours: defaulted and validated resources to [`Revision`].
//!
//! ```text
//! template (or Revision object) + ClusterConfig + ConfigMaps, Secrets ─▶ Workload, Scaling, Timeouts, ... ─▶ Revision
//! ```

mod downward;
mod env;
mod images;
mod limits;
mod probes;
mod scaling;
mod security;
mod sources;
mod volumes;
mod workload;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::images::parse_image;
pub use self::sources::Sources;
pub use self::workload::NATIVE;

use self::downward::Pod;
use crate::annotations::knarr_settings;
use crate::config::ClusterConfig;
use crate::ids::{ObjectId, RevisionId};
use crate::resources::{self, ObjectMeta, RevisionSpec};
use crate::revision::{Reachability, Revision, Timeouts};
use crate::units::{ContainerConcurrency, Timestamp};

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Label of a Revision: the Configuration that made it.
pub const CONFIGURATION_LABEL: &str = "serving.knative.dev/configuration";
/// Label of a pod: the Revision that it runs.
pub const REVISION_LABEL: &str = "serving.knative.dev/revision";
/// Label of a Revision: the Service above it.
pub const SERVICE_LABEL: &str = "serving.knative.dev/service";

/// Something that keeps a template from becoming a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The field, from the template: `spec.containers[0].image`, `metadata.annotations.knarr.dev/idle`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
}

/// Who a revision is; everything else comes from its template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its name.
    pub id: RevisionId,
    /// The Configuration that makes it.
    pub configuration: ObjectId,
    /// The Service above that.
    pub service: Option<ObjectId>,
    /// When it was created.
    pub created: Timestamp,
}

/// What the cluster adds to a template.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Knative's ConfigMaps.
    pub cluster: &'a ClusterConfig,
    /// What variables, files and pull secrets may come from.
    pub sources: &'a Sources,
}

/// The revision that a template makes under a name. `template` and `spec` are the template's, defaulted and validated.
///
/// # Errors
/// All faults at once: a variable's source that is missing, a relative path, a number that is not finite, ...
pub fn revision_from(
    identity: Identity,
    template: &ObjectMeta,
    spec: &RevisionSpec,
    around: Surroundings<'_>,
) -> Result<Revision, Vec<Fault>> {
    let mut faults = Faults::default();
    let annotations = &template.annotations;
    let settings = knarr_settings(annotations, around.cluster);
    let egress = settings.as_ref().ok().and_then(|settings| settings.egress.clone());
    let egress = egress.or_else(|| around.cluster.sandbox.egress.clone());
    let pod = Pod::new(&identity, template, spec, around.sources);
    let workload = workload::workload(&pod, egress, &mut faults);
    let container_concurrency = whole(spec.container_concurrency, "spec.containerConcurrency", &mut faults);
    let scaling = scaling::scaling(
        annotations,
        container_concurrency,
        &around.cluster.settings.autoscaler,
        &mut faults,
    );
    let scaling = match (&workload, scaling) {
        (Some(workload), Some(scaling)) => scaling::one_at_a_time(workload, scaling, annotations, &mut faults),
        _ => None,
    };
    let settings = settings.map_err(|errors| {
        for (key, message) in errors {
            faults.push(Fault::new(format!("metadata.annotations.{key}"), message, ""));
        }
    });
    let timeouts = timeouts(spec, &mut faults);
    match (workload, scaling, settings, faults.0.is_empty()) {
        (Some(workload), Some(scaling), Ok(settings), true) => Ok(Revision {
            id: identity.id,
            configuration: identity.configuration,
            service: identity.service,
            created: identity.created,
            workload: Arc::new(workload),
            container_concurrency: ContainerConcurrency(container_concurrency),
            timeouts,
            scaling,
            idle: settings.idle,
            planning: settings.planning,
            idle_ignore: settings.idle_ignore,
            server_timing: settings.server_timing,
            upstream_keepalive: settings.upstream_keepalive,
            reachability: Reachability::Unknown,
        }),
        _ => Err(faults.0),
    }
}

/// [`revision_from`] a Revision object, whose labels name its Configuration and Service.
///
/// # Errors
/// As [`revision_from`].
pub fn revision_of(
    object: &resources::Revision,
    created: Timestamp,
    around: Surroundings<'_>,
) -> Result<Revision, Vec<Fault>> {
    let meta = &object.metadata;
    let id = object_id(meta);
    let labelled = |label| {
        meta.labels
            .get(label)
            .map(|name| ObjectId::new(id.namespace(), name.as_str()))
    };
    let identity = Identity {
        id: RevisionId::new(id.namespace(), id.name()),
        configuration: labelled(CONFIGURATION_LABEL).unwrap_or_else(|| id.clone()),
        service: labelled(SERVICE_LABEL),
        created,
    };
    revision_from(identity, meta, &object.spec, around)
}

/// Namespace and name of an object; without a namespace it is in `default`.
pub fn object_id(meta: &ObjectMeta) -> ObjectId {
    let namespace = if meta.namespace.is_empty() {
        DEFAULT_NAMESPACE
    } else {
        &meta.namespace
    };
    ObjectId::new(namespace, meta.name.as_str())
}

fn timeouts(spec: &RevisionSpec, faults: &mut Faults) -> Timeouts {
    let mut seconds = |value: Option<i64>, field: &str| {
        let seconds = whole(value, field, faults);
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    };
    Timeouts {
        request: seconds(spec.timeout_seconds, "spec.timeoutSeconds").unwrap_or(workload::DEFAULT_TIMEOUT),
        response_start: seconds(spec.response_start_timeout_seconds, "spec.responseStartTimeoutSeconds"),
        idle: seconds(spec.idle_timeout_seconds, "spec.idleTimeoutSeconds"),
    }
}

/// Knative leaves some of these numbers unchecked; a negative one cannot be meant.
fn whole(value: Option<i64>, path: &str, faults: &mut Faults) -> u32 {
    let value = value.unwrap_or_default();
    u32::try_from(value).unwrap_or_else(|_| {
        faults.push(Fault::new(
            path,
            format!("invalid value: {value}"),
            format!("must be 0 to {}", u32::MAX),
        ));
        0
    })
}

fn number(port: i32, path: &str, faults: &mut Faults) -> Option<u16> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            faults.push(Fault::new(path, format!("invalid value: {port}"), "must be 1 to 65535"));
            None
        }
    }
}

/// Faults as they are found.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    fn take(&mut self, result: Result<(), Fault>) {
        self.0.extend(result.err());
    }

    #[cfg(test)]
    fn into_inner(self) -> Vec<Fault> {
        self.0
    }
}

impl Fault {
    fn new(path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
