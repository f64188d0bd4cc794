//! The spec of a revision: a pod's spec as `k8s.io/api/core/v1` prints it, and Knative's four fields.

use std::collections::BTreeMap;

use serde_json::Value;

use super::mirror::mirror;
use super::{Container, LocalObjectReference, PodSecurityContext, Quantity, Volume};

impl RevisionSpec {
    /// The names of PersistentVolumeClaims that it uses, each with its place among the volumes.
    pub fn claims(&self) -> impl Iterator<Item = (usize, &str)> {
        self.volumes.iter().enumerate().filter_map(|(nth, volume)| {
            let claim = volume.persistent_volume_claim.as_ref()?;
            Some((nth, claim.claim_name.as_str()))
        })
    }
}

mirror! {
    /// What a revision runs (Knative: RevisionSpec, with Kubernetes' PodSpec inlined).
    pub struct RevisionSpec {
        volumes: Vec<Volume> = "volumes",
        init_containers: Vec<Container> = "initContainers",
        /// `None` prints as `null`. Read through [`RevisionSpec::containers`].
        container_list: Option<Vec<Container>> = "containers" always,
        ephemeral_containers: Vec<Value> = "ephemeralContainers",
        restart_policy: String = "restartPolicy",
        termination_grace_period_seconds: Option<i64> = "terminationGracePeriodSeconds",
        active_deadline_seconds: Option<i64> = "activeDeadlineSeconds",
        dns_policy: String = "dnsPolicy",
        node_selector: BTreeMap<String, String> = "nodeSelector",
        service_account_name: String = "serviceAccountName",
        service_account: String = "serviceAccount",
        automount_service_account_token: Option<bool> = "automountServiceAccountToken",
        node_name: String = "nodeName",
        host_network: bool = "hostNetwork",
        host_pid: bool = "hostPID",
        host_ipc: bool = "hostIPC",
        share_process_namespace: Option<bool> = "shareProcessNamespace",
        security_context: Option<PodSecurityContext> = "securityContext",
        image_pull_secrets: Vec<LocalObjectReference> = "imagePullSecrets",
        hostname: String = "hostname",
        subdomain: String = "subdomain",
        affinity: Option<Value> = "affinity",
        scheduler_name: String = "schedulerName",
        tolerations: Vec<Toleration> = "tolerations",
        host_aliases: Vec<HostAlias> = "hostAliases",
        priority_class_name: String = "priorityClassName",
        priority: Option<i32> = "priority",
        dns_config: Option<PodDnsConfig> = "dnsConfig",
        readiness_gates: Vec<Value> = "readinessGates",
        runtime_class_name: Option<String> = "runtimeClassName",
        /// Variables for each Service of the namespace; off by default in Knative.
        enable_service_links: Option<bool> = "enableServiceLinks",
        preemption_policy: Option<String> = "preemptionPolicy",
        overhead: BTreeMap<String, Quantity> = "overhead",
        topology_spread_constraints: Vec<TopologySpreadConstraint> = "topologySpreadConstraints",
        set_hostname_as_fqdn: Option<bool> = "setHostnameAsFQDN",
        os: Option<Value> = "os",
        host_users: Option<bool> = "hostUsers",
        scheduling_gates: Vec<Value> = "schedulingGates",
        resource_claims: Vec<Value> = "resourceClaims",
        resources: Option<Value> = "resources",
        hostname_override: Option<String> = "hostnameOverride",
        workload_ref: Option<Value> = "workloadRef",
        /// Requests in flight per replica; 0 is no limit.
        container_concurrency: Option<i64> = "containerConcurrency",
        /// The whole request, in seconds.
        timeout_seconds: Option<i64> = "timeoutSeconds",
        /// Until the first byte of the response, in seconds.
        response_start_timeout_seconds: Option<i64> = "responseStartTimeoutSeconds",
        /// Between two writes of the response, in seconds; 0 is off.
        idle_timeout_seconds: Option<i64> = "idleTimeoutSeconds",
    }

    /// Names for an address in `/etc/hosts` (Kubernetes: HostAlias).
    pub struct HostAlias {
        ip: String = "ip" always,
        hostnames: Vec<String> = "hostnames",
    }

    /// DNS settings (Kubernetes: PodDNSConfig).
    pub struct PodDnsConfig {
        nameservers: Vec<String> = "nameservers",
        searches: Vec<String> = "searches",
        options: Vec<PodDnsConfigOption> = "options",
    }

    /// A resolver option (Kubernetes: PodDNSConfigOption).
    pub struct PodDnsConfigOption {
        name: String = "name",
        value: Option<String> = "value",
    }

    /// A taint that is put up with (Kubernetes: Toleration).
    pub struct Toleration {
        key: String = "key",
        operator: String = "operator",
        value: String = "value",
        effect: String = "effect",
        toleration_seconds: Option<i64> = "tolerationSeconds",
    }

    /// How replicas spread over nodes (Kubernetes: TopologySpreadConstraint).
    pub struct TopologySpreadConstraint {
        max_skew: i32 = "maxSkew" always,
        topology_key: String = "topologyKey" always,
        when_unsatisfiable: String = "whenUnsatisfiable" always,
        label_selector: Option<Value> = "labelSelector",
        min_domains: Option<i32> = "minDomains",
        node_affinity_policy: Option<String> = "nodeAffinityPolicy",
        node_taints_policy: Option<String> = "nodeTaintsPolicy",
        match_label_keys: Vec<String> = "matchLabelKeys",
    }
}

impl RevisionSpec {
    /// The containers; empty when not given.
    pub fn containers(&self) -> &[Container] {
        self.container_list.as_deref().unwrap_or_default()
    }

    /// The containers, to change them.
    pub fn containers_mut(&mut self) -> &mut [Container] {
        self.container_list.as_deref_mut().unwrap_or_default()
    }
}
