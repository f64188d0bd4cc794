//! Volumes and mounts as `k8s.io/api/core/v1` prints them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::mirror::mirror;
use super::{ObjectMeta, Quantity};

mirror! {
    /// A volume: a name and exactly one source (Kubernetes: Volume).
    pub struct Volume {
        name: String = "name" always,
        host_path: Option<HostPathVolumeSource> = "hostPath",
        empty_dir: Option<EmptyDirVolumeSource> = "emptyDir",
        gce_persistent_disk: Option<Value> = "gcePersistentDisk",
        aws_elastic_block_store: Option<Value> = "awsElasticBlockStore",
        git_repo: Option<Value> = "gitRepo",
        secret: Option<SecretVolumeSource> = "secret",
        nfs: Option<Value> = "nfs",
        iscsi: Option<Value> = "iscsi",
        glusterfs: Option<Value> = "glusterfs",
        persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource> = "persistentVolumeClaim",
        rbd: Option<Value> = "rbd",
        flex_volume: Option<Value> = "flexVolume",
        cinder: Option<Value> = "cinder",
        cephfs: Option<Value> = "cephfs",
        flocker: Option<Value> = "flocker",
        downward_api: Option<Value> = "downwardAPI",
        fc: Option<Value> = "fc",
        azure_file: Option<Value> = "azureFile",
        config_map: Option<ConfigMapVolumeSource> = "configMap",
        vsphere_volume: Option<Value> = "vsphereVolume",
        quobyte: Option<Value> = "quobyte",
        azure_disk: Option<Value> = "azureDisk",
        photon_persistent_disk: Option<Value> = "photonPersistentDisk",
        projected: Option<ProjectedVolumeSource> = "projected",
        portworx_volume: Option<Value> = "portworxVolume",
        scale_io: Option<Value> = "scaleIO",
        storageos: Option<Value> = "storageos",
        csi: Option<CsiVolumeSource> = "csi",
        ephemeral: Option<EphemeralVolumeSource> = "ephemeral",
        image: Option<ImageVolumeSource> = "image",
    }

    /// Where a container sees a volume (Kubernetes: VolumeMount).
    pub struct VolumeMount {
        name: String = "name" always,
        read_only: bool = "readOnly",
        recursive_read_only: Option<String> = "recursiveReadOnly",
        mount_path: String = "mountPath" always,
        sub_path: String = "subPath",
        mount_propagation: Option<String> = "mountPropagation",
        sub_path_expr: String = "subPathExpr",
    }

    /// A Secret as files (Kubernetes: SecretVolumeSource).
    pub struct SecretVolumeSource {
        secret_name: String = "secretName",
        items: Vec<KeyToPath> = "items",
        /// Octal in meaning, decimal in JSON.
        default_mode: Option<i32> = "defaultMode",
        optional: Option<bool> = "optional",
    }

    /// A ConfigMap as files (Kubernetes: ConfigMapVolumeSource).
    pub struct ConfigMapVolumeSource {
        name: String = "name",
        items: Vec<KeyToPath> = "items",
        default_mode: Option<i32> = "defaultMode",
        optional: Option<bool> = "optional",
    }

    /// One key as one file (Kubernetes: KeyToPath).
    pub struct KeyToPath {
        key: String = "key" always,
        path: String = "path" always,
        mode: Option<i32> = "mode",
    }

    /// An empty directory (Kubernetes: EmptyDirVolumeSource).
    pub struct EmptyDirVolumeSource {
        /// Empty or `Memory`.
        medium: String = "medium",
        size_limit: Option<Quantity> = "sizeLimit",
    }

    /// A path of the host (Kubernetes: HostPathVolumeSource).
    pub struct HostPathVolumeSource {
        path: String = "path" always,
        kind: Option<String> = "type",
    }

    /// A claim (Kubernetes: PersistentVolumeClaimVolumeSource).
    pub struct PersistentVolumeClaimVolumeSource {
        claim_name: String = "claimName" always,
        read_only: bool = "readOnly",
    }

    /// A CSI volume (Kubernetes: CSIVolumeSource).
    pub struct CsiVolumeSource {
        driver: String = "driver" always,
        read_only: Option<bool> = "readOnly",
        fs_type: Option<String> = "fsType",
        volume_attributes: BTreeMap<String, String> = "volumeAttributes",
        node_publish_secret_ref: Option<LocalObjectReference> = "nodePublishSecretRef",
    }

    /// A volume that lives as long as the pod (Kubernetes: EphemeralVolumeSource).
    pub struct EphemeralVolumeSource {
        volume_claim_template: Option<PersistentVolumeClaimTemplate> = "volumeClaimTemplate",
    }

    /// The claim an ephemeral volume makes (Kubernetes: PersistentVolumeClaimTemplate).
    pub struct PersistentVolumeClaimTemplate {
        metadata: ObjectMeta = "metadata",
        spec: PersistentVolumeClaimSpec = "spec" always,
    }

    /// Storage that outlives pods (Kubernetes: PersistentVolumeClaim).
    pub struct PersistentVolumeClaim {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        spec: PersistentVolumeClaimSpec = "spec",
        status: Option<Value> = "status",
    }

    /// What a claim asks for (Kubernetes: PersistentVolumeClaimSpec).
    pub struct PersistentVolumeClaimSpec {
        access_modes: Vec<String> = "accessModes",
        selector: Option<Value> = "selector",
        resources: VolumeResourceRequirements = "resources",
        volume_name: String = "volumeName",
        storage_class_name: Option<String> = "storageClassName",
        volume_mode: Option<String> = "volumeMode",
        data_source: Option<Value> = "dataSource",
        data_source_ref: Option<Value> = "dataSourceRef",
        volume_attributes_class_name: Option<String> = "volumeAttributesClassName",
    }

    /// Storage asked for (Kubernetes: VolumeResourceRequirements).
    pub struct VolumeResourceRequirements {
        limits: BTreeMap<String, Quantity> = "limits",
        requests: BTreeMap<String, Quantity> = "requests",
    }

    /// An image as a read-only volume (Kubernetes: ImageVolumeSource).
    pub struct ImageVolumeSource {
        reference: String = "reference",
        pull_policy: String = "pullPolicy",
    }

    /// Several sources in one directory (Kubernetes: ProjectedVolumeSource).
    pub struct ProjectedVolumeSource {
        sources: Option<Vec<VolumeProjection>> = "sources" always,
        default_mode: Option<i32> = "defaultMode",
    }

    /// One source of a projected volume (Kubernetes: VolumeProjection).
    pub struct VolumeProjection {
        secret: Option<ObjectProjection> = "secret",
        downward_api: Option<DownwardApiProjection> = "downwardAPI",
        config_map: Option<ObjectProjection> = "configMap",
        service_account_token: Option<ServiceAccountTokenProjection> = "serviceAccountToken",
        cluster_trust_bundle: Option<Value> = "clusterTrustBundle",
        pod_certificate: Option<Value> = "podCertificate",
    }

    /// A Secret or ConfigMap in a projected volume (Kubernetes: SecretProjection, ConfigMapProjection).
    pub struct ObjectProjection {
        name: String = "name",
        items: Vec<KeyToPath> = "items",
        optional: Option<bool> = "optional",
    }

    /// A token in a projected volume (Kubernetes: ServiceAccountTokenProjection).
    pub struct ServiceAccountTokenProjection {
        audience: String = "audience",
        expiration_seconds: Option<i64> = "expirationSeconds",
        path: String = "path" always,
    }

    /// Facts about the pod as files (Kubernetes: DownwardAPIProjection).
    pub struct DownwardApiProjection {
        items: Vec<DownwardApiVolumeFile> = "items",
    }

    /// One fact as one file (Kubernetes: DownwardAPIVolumeFile).
    pub struct DownwardApiVolumeFile {
        path: String = "path" always,
        field_ref: Option<ObjectFieldSelector> = "fieldRef",
        resource_field_ref: Option<ResourceFieldSelector> = "resourceFieldRef",
        mode: Option<i32> = "mode",
    }

    /// A field of the pod (Kubernetes: ObjectFieldSelector).
    pub struct ObjectFieldSelector {
        api_version: String = "apiVersion",
        field_path: String = "fieldPath" always,
    }

    /// A resource of a container (Kubernetes: ResourceFieldSelector).
    pub struct ResourceFieldSelector {
        container_name: String = "containerName",
        resource: String = "resource" always,
        divisor: Quantity = "divisor",
    }

    /// An object of the same namespace (Kubernetes: LocalObjectReference).
    pub struct LocalObjectReference {
        name: String = "name",
    }
}
