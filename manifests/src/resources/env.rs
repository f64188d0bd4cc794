//! Environment variables and their sources, as `k8s.io/api/core/v1` prints them.

use serde_json::Value;

use super::mirror::mirror;
use super::{ObjectFieldSelector, ResourceFieldSelector};

mirror! {
    /// A variable (Kubernetes: EnvVar).
    pub struct EnvVar {
        name: String = "name" always,
        value: String = "value",
        value_from: Option<EnvVarSource> = "valueFrom",
    }

    /// Where a variable's value comes from (Kubernetes: EnvVarSource).
    pub struct EnvVarSource {
        field_ref: Option<ObjectFieldSelector> = "fieldRef",
        resource_field_ref: Option<ResourceFieldSelector> = "resourceFieldRef",
        config_map_key_ref: Option<KeySelector> = "configMapKeyRef",
        secret_key_ref: Option<KeySelector> = "secretKeyRef",
        file_key_ref: Option<Value> = "fileKeyRef",
    }

    /// One key of a ConfigMap or Secret (Kubernetes: ConfigMapKeySelector, SecretKeySelector).
    pub struct KeySelector {
        name: String = "name",
        key: String = "key" always,
        optional: Option<bool> = "optional",
    }

    /// All keys of a ConfigMap or Secret as variables (Kubernetes: EnvFromSource).
    pub struct EnvFromSource {
        prefix: String = "prefix",
        config_map_ref: Option<EnvSource> = "configMapRef",
        secret_ref: Option<EnvSource> = "secretRef",
    }

    /// A ConfigMap or Secret by name (Kubernetes: ConfigMapEnvSource, SecretEnvSource).
    pub struct EnvSource {
        name: String = "name",
        optional: Option<bool> = "optional",
    }
}
