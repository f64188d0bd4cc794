//! Objects against each other: the same twice, names that another object makes, hosts that two would serve, and
//! references to nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::{host_of, template_of, traffic_of};
use super::{Checked, ObjectKey, ObjectKind};
use crate::convert;
use crate::domains::Hosts;
use crate::ids::ObjectId;
use crate::problem::Problem;
use crate::read::Document;
use crate::resources::Resource;

/// Refuses the second of two objects of one kind and name.
pub(super) fn remove_doubles(documents: &mut Vec<Document>, checked: &mut Checked) {
    let mut seen: BTreeMap<(&'static str, ObjectId), String> = BTreeMap::new();
    documents.retain(|document| {
        let id = convert::object_id(document.resource.metadata());
        if id.name().is_empty() {
            return true;
        }
        let kind = document.resource.kind();
        let place = place(document);
        match seen.get(&(kind, id.clone())) {
            Some(first) => {
                let message = format!("{kind} {id} is defined twice, first at {first}");
                checked.problems.push(
                    document
                        .problem("metadata.name", message)
                        .hint("remove one, or rename it"),
                );
                false
            }
            None => {
                seen.insert((kind, id), place);
                true
            }
        }
    });
}

/// Everything that needs more than one object. Only objects without a problem of their own are looked at.
pub(super) fn check(documents: &[Document], checked: &mut Checked) {
    let found = Cross { documents, checked }.find();
    for (document, problem) in found.refused {
        checked.refuse(document, problem);
    }
    checked.warnings.extend(found.warned);
}

struct Cross<'a, 'c> {
    documents: &'a [Document],
    checked: &'c Checked,
}

#[derive(Default)]
struct Found<'a> {
    refused: Vec<(&'a Document, Problem)>,
    warned: Vec<Problem>,
}

impl<'a, 'c> Cross<'a, 'c> {
    fn find(&self) -> Found<'a> {
        let mut found = Found::default();
        self.children_of_services(&mut found);
        self.revision_names(&mut found);
        self.hosts(&mut found);
        self.references(&mut found);
        self.deleted_claims(&mut found);
        found
    }

    /// What runs with a claim that was deleted goes on; nothing starts with it any more.
    fn deleted_claims(&self, found: &mut Found<'a>) {
        for (document, key, resource) in self.accepted() {
            let Some(template) = template_of(resource) else {
                continue;
            };
            for (nth, claim) in template.spec.claims() {
                let claim = ObjectId::new(key.id.namespace(), claim);
                if self.checked.bundle.sources.is_deleted(&claim) {
                    let path = format!("spec.template.spec.volumes[{nth}].persistentVolumeClaim.claimName");
                    let message = format!("PersistentVolumeClaim {claim} was deleted");
                    let hint = "it goes when the last sandbox with it has ended; no other one starts with it";
                    found.warned.push(document.problem(&path, message).hint(hint));
                }
            }
        }
    }

    /// Documents whose object is in the bundle, with the object as it stands there.
    fn accepted(&self) -> impl Iterator<Item = (&'a Document, ObjectKey, &'c Resource)> {
        self.documents.iter().filter_map(|document| {
            let key = ObjectKey::of(&document.resource)?;
            let object = self
                .checked
                .bundle
                .objects
                .get(&key)
                .filter(|object| object.origin == document.origin)?;
            Some((document, key, &object.resource))
        })
    }

    /// A Service makes a Configuration and a Route of its own name.
    fn children_of_services(&self, found: &mut Found<'a>) {
        let services = self.accepted().filter(|(_, key, _)| key.kind == ObjectKind::Service);
        let services: BTreeMap<ObjectId, &Document> = services.map(|(document, key, _)| (key.id, document)).collect();
        for (document, key, _) in self.accepted() {
            if matches!(key.kind, ObjectKind::Configuration | ObjectKind::Route)
                && let Some(service) = services.get(&key.id)
            {
                let kind = document.resource.kind();
                let message = format!("Service {} at {} makes a {kind} of this name", key.id, place(service));
                let problem = document.problem("metadata.name", message).hint("rename it");
                found.refused.push((document, problem));
            }
        }
    }

    /// A revision name of the user's own belongs to one Configuration.
    fn revision_names(&self, found: &mut Found<'a>) {
        let mut seen: BTreeMap<ObjectId, &Document> = BTreeMap::new();
        for (document, key, resource) in self.accepted() {
            let name = template_of(resource).map_or("", |template| template.metadata.name.as_str());
            if name.is_empty() {
                continue;
            }
            match seen.get(&ObjectId::new(key.id.namespace(), name)) {
                Some(first) => {
                    let message = format!("revision {name} is made at {} already", place(first));
                    let problem = document.problem("spec.template.metadata.name", message);
                    found
                        .refused
                        .push((document, problem.hint("give each revision a name of its own")));
                }
                None => {
                    seen.insert(ObjectId::new(key.id.namespace(), name), document);
                }
            }
        }
    }

    /// No two Routes serve one host.
    fn hosts(&self, found: &mut Found<'a>) {
        let cluster = &self.checked.bundle.cluster;
        let hosts = Hosts {
            network: &cluster.network,
            domains: &cluster.domain,
        };
        let mut seen: BTreeMap<String, &Document> = BTreeMap::new();
        for (document, _, resource) in self.accepted() {
            let Some(traffic) = traffic_of(resource) else { continue };
            let tagged = traffic.iter().enumerate().filter(|(_, target)| !target.tag.is_empty());
            let tags = tagged.map(|(nth, target)| (format!("spec.traffic[{nth}].tag"), target.tag.as_str()));
            for (path, tag) in std::iter::once(("metadata.name".to_owned(), "")).chain(tags) {
                let Ok(host) = host_of(resource, tag, hosts) else {
                    continue;
                };
                match seen.get(&host) {
                    Some(first) if !std::ptr::eq(*first, document) => {
                        let message = format!("host {host} is served by {} already", place(first));
                        found.refused.push((
                            document,
                            document.problem(&path, message).hint("choose another name or tag"),
                        ));
                    }
                    Some(_) => {}
                    None => {
                        seen.insert(host, document);
                    }
                }
            }
        }
    }

    /// Knative accepts targets that are not there (yet): the Route says so in its conditions.
    fn references(&self, found: &mut Found<'a>) {
        let mut configurations = BTreeSet::new();
        let mut revisions = BTreeSet::new();
        for (_, key, resource) in self.accepted() {
            let Some(template) = template_of(resource) else {
                continue;
            };
            revisions.insert(ObjectId::new(key.id.namespace(), template.metadata.name.as_str()));
            configurations.insert(key.id);
        }
        for (document, key, resource) in self.accepted() {
            for (nth, target) in traffic_of(resource).unwrap_or_default().iter().enumerate() {
                let id = |name: &str| ObjectId::new(key.id.namespace(), name);
                let (configuration, revision) = (&target.configuration_name, &target.revision_name);
                if !configuration.is_empty() && !configurations.contains(&id(configuration)) {
                    let path = format!("spec.traffic[{nth}].configurationName");
                    let message = format!("there is no Configuration {}", id(configuration));
                    found.warned.push(
                        document
                            .problem(&path, message)
                            .hint("the Route waits until there is one"),
                    );
                }
                // NAME-00001 may be left from an earlier generation.
                let generated = revision.rsplit_once('-').is_some_and(|(configuration, generation)| {
                    generation.len() >= 5
                        && generation.bytes().all(|byte| byte.is_ascii_digit())
                        && configurations.contains(&id(configuration))
                });
                if !revision.is_empty() && !generated && !revisions.contains(&id(revision)) {
                    let path = format!("spec.traffic[{nth}].revisionName");
                    let message = format!("no manifest makes a revision {}", id(revision));
                    found.warned.push(
                        document
                            .problem(&path, message)
                            .hint("the Route waits until there is one"),
                    );
                }
            }
        }
    }
}

/// `FILE:LINE` of a document's name.
fn place(document: &Document) -> String {
    match document.place("metadata.name") {
        Some(place) => format!("{}:{}", document.origin.file, place.line),
        None => document.origin.file.to_string(),
    }
}
