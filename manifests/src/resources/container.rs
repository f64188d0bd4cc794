//! Containers as `k8s.io/api/core/v1` prints them, fields that Knative refuses included.

use serde_json::Value;
use std::collections::BTreeMap;

use super::mirror::mirror;
use super::{EnvFromSource, EnvVar, Probe, Quantity, SecurityContext, VolumeMount};

mirror! {
    /// One container (Kubernetes: Container).
    pub struct Container {
        name: String = "name" always,
        /// What to run; empty is refused.
        image: String = "image",
        command: Vec<String> = "command",
        args: Vec<String> = "args",
        working_dir: String = "workingDir",
        ports: Vec<ContainerPort> = "ports",
        env_from: Vec<EnvFromSource> = "envFrom",
        env: Vec<EnvVar> = "env",
        resources: ResourceRequirements = "resources",
        resize_policy: Vec<Value> = "resizePolicy",
        restart_policy: Option<String> = "restartPolicy",
        restart_policy_rules: Vec<Value> = "restartPolicyRules",
        volume_mounts: Vec<VolumeMount> = "volumeMounts",
        volume_devices: Vec<Value> = "volumeDevices",
        liveness_probe: Option<Probe> = "livenessProbe",
        readiness_probe: Option<Probe> = "readinessProbe",
        startup_probe: Option<Probe> = "startupProbe",
        lifecycle: Option<Value> = "lifecycle",
        termination_message_path: String = "terminationMessagePath",
        /// Empty, `File` or `FallbackToLogsOnError`.
        termination_message_policy: String = "terminationMessagePolicy",
        /// Empty, `Always`, `Never` or `IfNotPresent`.
        image_pull_policy: String = "imagePullPolicy",
        security_context: Option<SecurityContext> = "securityContext",
        stdin: bool = "stdin",
        stdin_once: bool = "stdinOnce",
        tty: bool = "tty",
    }

    /// A port of a container (Kubernetes: ContainerPort).
    pub struct ContainerPort {
        /// The protocol in Knative: empty, `http1` or `h2c`.
        name: String = "name",
        host_port: i32 = "hostPort",
        /// 0 is read as 8080; otherwise 1 to 65535.
        container_port: i32 = "containerPort" always,
        /// Empty or `TCP`.
        protocol: String = "protocol",
        host_ip: String = "hostIP",
    }

    /// What a container asks for and may use at most (Kubernetes: ResourceRequirements).
    pub struct ResourceRequirements {
        limits: BTreeMap<String, Quantity> = "limits",
        requests: BTreeMap<String, Quantity> = "requests",
        claims: Vec<Value> = "claims",
    }
}
