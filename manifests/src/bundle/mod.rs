//! The whole way of manifests: texts to objects that may be served, and everything that is wrong, at once. Pure.
//!
//! ```text
//! texts ─▶ read ─▶ ConfigMaps ─▶ for each object: defaults ─▶ Knative's validation ─▶ annotations ─▶ support ─▶ conversion
//!                                                                                          cross checks ─▶ Bundle
//! ```

mod cluster;
mod cross;
mod judge;
mod merge;

use std::collections::{BTreeMap, BTreeSet};

use crate::config::ClusterConfig;
use crate::convert::{self, Sources, Surroundings};
use crate::ids::ObjectId;
use crate::problem::Problem;
use crate::read::{self, Document, Origin};
use crate::resources::Resource;

/// One file's text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Input {
    /// What problems call it: a path, or `-`.
    pub name: String,
    /// Everything in it.
    pub text: String,
}

/// Names of OCI runtimes, without `native`.
pub type Runtimes = BTreeSet<String>;

/// Everything that a set of manifests says, accepted.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// Knative's ConfigMaps.
    pub cluster: ClusterConfig,
    /// ConfigMaps, Secrets and claims that templates refer to.
    pub sources: Sources,
    /// Every other object, defaulted.
    pub objects: BTreeMap<ObjectKey, Object>,
}

/// Which object. Services come before Configurations before Routes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace and name.
    pub id: ObjectId,
}

/// The kinds of `serving.knative.dev` that stand in manifests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObjectKind {
    /// A Configuration and a Route under one name.
    Service,
    /// A line of revisions.
    Configuration,
    /// Hosts and where their traffic goes.
    Route,
    /// A domain of the user's; checked and kept, not served yet.
    DomainMapping,
}

/// One object of a bundle.
#[derive(Clone, Debug)]
pub struct Object {
    /// As Knative would store it: defaulted, with its namespace.
    pub resource: Resource,
    /// As the manifest says it, before defaulting: what the next version of the manifest is compared with. Text, as
    /// `kubectl` keeps it too: a tree of it would take ten times the memory.
    applied: Box<str>,
    /// The text it comes from.
    pub origin: Origin,
}

/// What became of a set of texts.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What is right in them. An object with a problem is not in it.
    pub bundle: Bundle,
    /// What is wrong, in the order of the texts. A file is right when none of these is about it.
    pub problems: Vec<Problem>,
    /// What is accepted, but likely not meant.
    pub warnings: Vec<Problem>,
}

/// Reads and judges all texts together. With `previous`, what it holds counts as stored: a manifest is applied to the object
/// as `kubectl apply` does, so that an unchanged one changes nothing, and Knative's rules for updates hold.
pub fn bundle(inputs: &[Input], previous: Option<&Bundle>) -> Checked {
    bundle_for(None, inputs, previous)
}

/// As [`bundle`], for a Knarr that is known to have these OCI runtimes, which `runtimeClassName` may name.
pub fn bundle_for(runtimes: Option<&Runtimes>, inputs: &[Input], previous: Option<&Bundle>) -> Checked {
    let mut checked = Checked::default();
    let mut documents = Vec::new();
    for input in inputs {
        let (read, problems) = read::read(&input.name, &input.text);
        documents.extend(read);
        checked.problems.extend(problems);
    }
    for document in &mut documents {
        let metadata = document.resource.metadata_mut();
        if metadata.namespace.is_empty() {
            convert::DEFAULT_NAMESPACE.clone_into(&mut metadata.namespace);
        }
    }
    cross::remove_doubles(&mut documents, &mut checked);
    cluster::gather(&documents, &mut checked);
    if let Some(previous) = previous {
        cluster::keep_used_specs(&documents, previous, &mut checked);
        checked.bundle.sources.keep_deleted(&previous.sources);
    }
    cluster::default_specs(&documents, &mut checked);
    for document in &documents {
        judge::judge(document, previous, runtimes, &mut checked);
    }
    cross::check(&documents, &mut checked);
    checked.bundle.forget_deleted();

    let order: BTreeMap<&str, usize> = inputs
        .iter()
        .enumerate()
        .map(|(nth, input)| (input.name.as_str(), nth))
        .collect();
    for list in [&mut checked.problems, &mut checked.warnings] {
        list.sort_by_key(|it| (order.get(&*it.file).copied(), it.document, it.line, it.column));
        list.dedup();
    }
    checked
}

impl Bundle {
    /// What a template is converted with.
    pub fn around(&self) -> Surroundings<'_> {
        Surroundings {
            cluster: &self.cluster,
            sources: &self.sources,
        }
    }

    /// Deleted claims stay as long as a template names them.
    fn forget_deleted(&mut self) {
        let templates = self.objects.iter().filter_map(|(key, object)| {
            let template = judge::template_of(&object.resource)?;
            Some((key.id.namespace(), template))
        });
        let used: BTreeSet<ObjectId> = templates
            .flat_map(|(namespace, template)| {
                let claims = template.spec.claims();
                claims.map(move |(_, claim)| ObjectId::new(namespace, claim))
            })
            .collect();
        self.sources.retain_deleted(|claim| used.contains(claim));
    }

    /// The objects of one kind.
    pub fn of_kind(&self, kind: ObjectKind) -> impl Iterator<Item = (&ObjectId, &Object)> {
        let of_kind = self.objects.iter().filter(move |(key, _)| key.kind == kind);
        of_kind.map(|(key, object)| (&key.id, object))
    }
}

impl ObjectKey {
    /// The key of a resource; `None` for ConfigMaps, Secrets, claims and Revisions.
    pub fn of(resource: &Resource) -> Option<Self> {
        let kind = match resource {
            Resource::Service(_) => ObjectKind::Service,
            Resource::Configuration(_) => ObjectKind::Configuration,
            Resource::Route(_) => ObjectKind::Route,
            Resource::DomainMapping(_) => ObjectKind::DomainMapping,
            Resource::Revision(_)
            | Resource::ConfigMap(_)
            | Resource::Secret(_)
            | Resource::PersistentVolumeClaim(_) => return None,
        };
        Some(Self {
            kind,
            id: convert::object_id(resource.metadata()),
        })
    }
}

impl Checked {
    /// Refuses the object of a document: it leaves the bundle.
    fn refuse(&mut self, document: &Document, problem: Problem) {
        if let Some(key) = ObjectKey::of(&document.resource)
            && self
                .bundle
                .objects
                .get(&key)
                .is_some_and(|object| object.origin == document.origin)
        {
            self.bundle.objects.remove(&key);
        }
        self.problems.push(problem);
    }
}

#[cfg(test)]
mod tests;
