//! Object metadata as `k8s.io/apimachinery` prints it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mirror::{Mirror, Shape, mirror};

mirror! {
    /// What every object carries (Kubernetes: ObjectMeta).
    pub struct ObjectMeta {
        name: String = "name",
        /// A prefix; the server adds five random characters.
        generate_name: String = "generateName",
        namespace: String = "namespace",
        self_link: String = "selfLink",
        uid: String = "uid",
        /// Opaque; compare for equality only.
        resource_version: String = "resourceVersion",
        /// Grows by one with each change of `spec`.
        generation: i64 = "generation",
        /// RFC 3339, whole seconds.
        creation_timestamp: Option<String> = "creationTimestamp" time,
        /// RFC 3339, whole seconds; set while finalizers run.
        deletion_timestamp: Option<String> = "deletionTimestamp" time,
        deletion_grace_period_seconds: Option<i64> = "deletionGracePeriodSeconds",
        labels: BTreeMap<String, String> = "labels",
        annotations: BTreeMap<String, String> = "annotations",
        owner_references: Owners = "ownerReferences",
        finalizers: Vec<String> = "finalizers",
        managed_fields: Vec<Value> = "managedFields",
    }

    /// Who owns an object (Kubernetes: OwnerReference).
    pub struct OwnerReference {
        api_version: String = "apiVersion" always,
        kind: String = "kind" always,
        name: String = "name" always,
        uid: String = "uid" always,
        /// At most one owner is the controller.
        controller: Option<bool> = "controller",
        block_owner_deletion: Option<bool> = "blockOwnerDeletion",
    }
}

impl ObjectMeta {
    /// The owners; empty when not given.
    pub fn owners(&self) -> &[OwnerReference] {
        &self.owner_references
    }

    /// The annotation `key`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

/// The owners of an object. An empty list is told from none: Knative notes creators only on objects without a list.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owners(Option<Vec<OwnerReference>>);

impl Owners {
    /// Whether there is a list, if only an empty one.
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

impl From<Vec<OwnerReference>> for Owners {
    fn from(owners: Vec<OwnerReference>) -> Self {
        Self(Some(owners))
    }
}

impl std::ops::Deref for Owners {
    type Target = [OwnerReference];
    fn deref(&self) -> &[OwnerReference] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Mirror for Owners {
    const SHAPE: Shape = <Vec<OwnerReference>>::SHAPE;
    fn is_empty(&self) -> bool {
        <[_]>::is_empty(self)
    }
}
