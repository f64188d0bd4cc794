//! Knative's own resources: Service, Configuration, Revision, Route (`serving.knative.dev/v1`), DomainMapping (`v1beta1`).

use super::mirror::mirror;
use super::{
    ConfigurationStatus, DomainMappingStatus, ObjectMeta, RevisionSpec, RevisionStatus, RouteStatus, ServiceStatus,
    Shared,
};

mirror! {
    /// A Configuration and a Route under one name (Knative: Service).
    pub struct Service {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        spec: ServiceSpec = "spec",
        status: ServiceStatus = "status",
    }

    /// What a Service wants: a template and where traffic goes.
    pub struct ServiceSpec {
        template: RevisionTemplate = "template",
        traffic: Vec<TrafficTarget> = "traffic",
    }

    /// What the next revision looks like (Knative: RevisionTemplateSpec).
    pub struct RevisionTemplate {
        metadata: ObjectMeta = "metadata",
        spec: Shared<RevisionSpec> = "spec",
    }

    /// One share of a route's traffic.
    pub struct TrafficTarget {
        /// A name for this target's own host; a DNS-1035 label.
        tag: String = "tag",
        revision_name: String = "revisionName",
        configuration_name: String = "configurationName",
        /// Follow the newest ready revision.
        latest_revision: Option<bool> = "latestRevision",
        /// 0 to 100; all targets of a route sum to 100.
        percent: Option<i64> = "percent",
        /// Output only.
        url: Option<String> = "url",
    }

    /// The wanted state of a line of revisions (Knative: Configuration).
    pub struct Configuration {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        spec: ConfigurationSpec = "spec",
        status: ConfigurationStatus = "status",
    }

    /// What a Configuration wants.
    pub struct ConfigurationSpec {
        template: RevisionTemplate = "template",
    }

    /// One immutable version of code and configuration (Knative: Revision).
    pub struct Revision {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        spec: Shared<RevisionSpec> = "spec",
        status: RevisionStatus = "status",
    }

    /// A host and where its traffic goes (Knative: Route).
    pub struct Route {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        spec: RouteSpec = "spec",
        status: RouteStatus = "status",
    }

    /// What a Route wants.
    pub struct RouteSpec {
        traffic: Vec<TrafficTarget> = "traffic",
    }

    /// A domain of the user's for a Service or Route; its name is the domain (Knative: DomainMapping).
    pub struct DomainMapping {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        spec: DomainMappingSpec = "spec",
        status: DomainMappingStatus = "status",
    }

    /// What a DomainMapping wants.
    pub struct DomainMappingSpec {
        target: KReference = "ref",
        tls: Option<SecretTls> = "tls",
    }

    /// A reference to an addressable object (Knative: KReference).
    pub struct KReference {
        kind: String = "kind" always,
        namespace: String = "namespace",
        name: String = "name" always,
        api_version: String = "apiVersion",
        group: String = "group",
        address: Option<String> = "address",
    }

    /// A certificate of the user's.
    pub struct SecretTls {
        secret_name: String = "secretName" always,
    }
}
