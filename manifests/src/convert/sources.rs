//! What templates refer to by name: ConfigMaps, Secrets and claims.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::object_id;
use crate::ids::ObjectId;
use crate::resources::{ConfigMap, PersistentVolumeClaim, Secret};

/// ConfigMaps, Secrets and PersistentVolumeClaims, by namespace and name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    config_maps: BTreeMap<ObjectId, Keys>,
    secrets: BTreeMap<ObjectId, Keys>,
    claims: BTreeMap<ObjectId, Claim>,
}

/// The keys of a ConfigMap or Secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Keys {
    /// What variables and files are made of.
    pub(super) data: BTreeMap<String, Arc<[u8]>>,
    /// `binaryData` of a ConfigMap: for files only.
    pub(super) binary: BTreeMap<String, Arc<[u8]>>,
    /// `type` of a Secret.
    pub(super) kind: String,
}

/// Without the values, which may be secret.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.data.keys().chain(self.binary.keys()))
            .finish()
    }
}

/// A claim, as far as sandboxes care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    /// Several sandboxes may have it.
    pub(super) shared: bool,
    /// Nobody may write it.
    pub(super) read_only: bool,
    /// Its object was deleted, and something that uses it was not.
    pub(super) deleted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl Sources {
    /// Adds a ConfigMap; a former one of the same name is replaced. Its `binaryData` is not for variables.
    pub fn add_config_map(&mut self, map: &ConfigMap) {
        let text = map
            .data
            .iter()
            .map(|(key, value)| (key.clone(), value.as_bytes().into()));
        let binary = map
            .binary_data
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.decode()?.into())));
        let keys = Keys {
            data: text.collect(),
            binary: binary.collect(),
            kind: String::new(),
        };
        self.config_maps.insert(object_id(&map.metadata), keys);
    }

    /// Adds a Secret; a former one of the same name is replaced. `stringData` wins over `data`.
    pub fn add_secret(&mut self, secret: &Secret) {
        let decoded = secret
            .data
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.decode()?.into())));
        let plain = secret
            .string_data
            .iter()
            .map(|(key, value)| (key.clone(), value.as_bytes().into()));
        let keys = Keys {
            data: decoded.chain(plain).collect(),
            binary: BTreeMap::new(),
            kind: secret.secret_type.clone(),
        };
        self.secrets.insert(object_id(&secret.metadata), keys);
    }

    /// Adds a claim; a former one of the same name is replaced.
    pub fn add_claim(&mut self, claim: &PersistentVolumeClaim) {
        let has = |mode: &str| claim.spec.access_modes.iter().any(|it| it == mode);
        let (many, single) = (has("ReadWriteMany"), has("ReadWriteOnce") || has("ReadWriteOncePod"));
        let claimed = Claim {
            shared: many || (has("ReadOnlyMany") && !single),
            read_only: !many && !single,
            deleted: false,
        };
        self.claims.insert(object_id(&claim.metadata), claimed);
    }

    /// Every claim that is there.
    pub fn claims(&self) -> impl Iterator<Item = &ObjectId> {
        let there = self.claims.iter().filter(|(_, claim)| !claim.deleted);
        there.map(|(id, _)| id)
    }

    /// Keeps those claims of `before` that are not there any more: what uses them stays right, and is told when it starts a
    /// sandbox. Kubernetes lets Pods refer to a deleted claim too.
    pub fn keep_deleted(&mut self, before: &Self) {
        for (id, claim) in &before.claims {
            let claim = Claim {
                deleted: true,
                ..*claim
            };
            self.claims.entry(id.clone()).or_insert(claim);
        }
    }

    /// Forgets deleted claims that nothing uses.
    pub fn retain_deleted(&mut self, mut is_used: impl FnMut(&ObjectId) -> bool) {
        self.claims.retain(|id, claim| !claim.deleted || is_used(id));
    }

    /// Whether a claim was deleted while something used it.
    pub fn is_deleted(&self, claim: &ObjectId) -> bool {
        self.claims.get(claim).is_some_and(|claim| claim.deleted)
    }

    pub(super) fn claim(&self, id: &ObjectId) -> Option<Claim> {
        self.claims.get(id).copied()
    }

    /// The ConfigMap or Secret, or words for why not.
    pub(super) fn find(&self, kind: Kind, namespace: &str, name: &str) -> Result<&Keys, String> {
        let maps = match kind {
            Kind::ConfigMap => &self.config_maps,
            Kind::Secret => &self.secrets,
        };
        let missing = || format!("there is no {kind:?} {namespace}/{name}");
        maps.get(&ObjectId::new(namespace, name)).ok_or_else(missing)
    }
}
