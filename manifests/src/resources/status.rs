//! What the resources report: conditions and each kind's own fields (Knative: the `status` of serving/v1 types).

use std::collections::BTreeMap;

use super::TrafficTarget;
use super::mirror::mirror;

mirror! {
    /// One thing that is true, false or not yet known (Knative: Condition).
    pub struct Condition {
        kind: String = "type" always,
        /// `True`, `False` or `Unknown`.
        status: String = "status" always,
        /// Empty is an error when false; `Info` does not decide readiness.
        severity: String = "severity",
        /// RFC 3339, whole seconds.
        last_transition_time: Option<String> = "lastTransitionTime" time,
        reason: String = "reason",
        message: String = "message",
    }

    /// What a Service reports.
    pub struct ServiceStatus {
        observed_generation: i64 = "observedGeneration",
        conditions: Vec<Condition> = "conditions",
        annotations: BTreeMap<String, String> = "annotations",
        latest_ready_revision_name: String = "latestReadyRevisionName",
        latest_created_revision_name: String = "latestCreatedRevisionName",
        url: Option<String> = "url",
        address: Option<Addressable> = "address",
        traffic: Vec<TrafficTarget> = "traffic",
    }

    /// What a Configuration reports.
    pub struct ConfigurationStatus {
        observed_generation: i64 = "observedGeneration",
        conditions: Vec<Condition> = "conditions",
        annotations: BTreeMap<String, String> = "annotations",
        latest_ready_revision_name: String = "latestReadyRevisionName",
        latest_created_revision_name: String = "latestCreatedRevisionName",
    }

    /// What a Revision reports.
    pub struct RevisionStatus {
        observed_generation: i64 = "observedGeneration",
        conditions: Vec<Condition> = "conditions",
        annotations: BTreeMap<String, String> = "annotations",
        log_url: String = "logUrl",
        container_statuses: Vec<ContainerStatus> = "containerStatuses",
        init_container_statuses: Vec<ContainerStatus> = "initContainerStatuses",
        actual_replicas: Option<i32> = "actualReplicas",
        desired_replicas: Option<i32> = "desiredReplicas",
    }

    /// The image one container runs.
    pub struct ContainerStatus {
        name: String = "name",
        image_digest: String = "imageDigest",
    }

    /// What a Route reports.
    pub struct RouteStatus {
        observed_generation: i64 = "observedGeneration",
        conditions: Vec<Condition> = "conditions",
        annotations: BTreeMap<String, String> = "annotations",
        url: Option<String> = "url",
        address: Option<Addressable> = "address",
        traffic: Vec<TrafficTarget> = "traffic",
    }

    /// What a DomainMapping reports.
    pub struct DomainMappingStatus {
        observed_generation: i64 = "observedGeneration",
        conditions: Vec<Condition> = "conditions",
        annotations: BTreeMap<String, String> = "annotations",
        url: Option<String> = "url",
        address: Option<Addressable> = "address",
    }

    /// Where something can be reached from within the cluster (Knative: Addressable).
    pub struct Addressable {
        name: Option<String> = "name",
        url: Option<String> = "url",
        ca_certs: Option<String> = "CACerts",
        audience: Option<String> = "audience",
    }
}
