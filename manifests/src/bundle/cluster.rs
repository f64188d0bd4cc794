//! ConfigMaps, Secrets and claims, which come before everything else: Knative's settings, and what templates refer to.

use std::sync::Arc;

use super::judge::template_of;
use super::{Bundle, Checked};
use crate::annotations;
use crate::config::{ClusterConfig, SYSTEM_NAMESPACE};
use crate::convert;
use crate::knative::syntax::{dns1123_label, dns1123_subdomain};
use crate::problem::Problem;
use crate::read::Document;
use crate::resources::{PersistentVolumeClaim, Resource};

/// Takes all ConfigMaps, Secrets and claims in.
pub(super) fn gather(documents: &[Document], checked: &mut Checked) {
    for document in documents {
        match &document.resource {
            Resource::ConfigMap(map) if map.metadata.name.is_empty() => nameless(document, checked),
            Resource::Secret(secret) if secret.metadata.name.is_empty() => nameless(document, checked),
            Resource::ConfigMap(map) => {
                let known = ClusterConfig::knows(&map.metadata.name);
                if known && map.metadata.namespace == SYSTEM_NAMESPACE {
                    let result = checked.bundle.cluster.apply(&map.metadata.name, &map.data);
                    let errors = result.err().into_iter().flatten();
                    checked
                        .problems
                        .extend(errors.map(|error| document.config_problem(error)));
                } else if known {
                    let message = format!("is one of Knative's only in namespace {SYSTEM_NAMESPACE}");
                    let hint = format!("write namespace: {SYSTEM_NAMESPACE}, or another name");
                    checked
                        .warnings
                        .push(document.problem("metadata.name", message).hint(hint));
                }
                checked.bundle.sources.add_config_map(map);
            }
            Resource::Secret(secret) => checked.bundle.sources.add_secret(secret),
            Resource::PersistentVolumeClaim(claim) => {
                let wrong = claim_problems(claim, document, &mut checked.warnings);
                if wrong.is_empty() && document.is_sound() {
                    checked.bundle.sources.add_claim(claim);
                }
                checked.problems.extend(wrong);
            }
            _ => {}
        }
    }
}

/// The catalogue may stand behind `config-planner`, or in another file.
pub(super) fn default_specs(documents: &[Document], checked: &mut Checked) {
    let Some(document) = documents.iter().find(|document| is_ours(document, PLANNER)) else {
        return;
    };
    for message in annotations::unknown_default_specs(&checked.bundle.cluster) {
        let problem = document.problem("data.instance-specs", message);
        checked.problems.push(problem.hint("write names of the catalogue"));
    }
}

/// A spec that a manifest names does not go from the catalogue under it: what was right and runs must not end by a change
/// of prices. The catalogue is what is wrong then, and stays as it was.
pub(super) fn keep_used_specs(documents: &[Document], previous: &Bundle, checked: &mut Checked) {
    let (old, new) = (&previous.cluster.instances, &checked.bundle.cluster.instances);
    let gone = |text: &str| {
        let mut words = annotations::spec_words(text);
        let word = words.find(|word| new.named(word).is_empty() && !old.named(word).is_empty());
        word.map(str::to_owned)
    };
    let named = documents.iter().find_map(|document| {
        let text = match &document.resource {
            Resource::ConfigMap(map) if is_ours(document, PLANNER) => {
                map.data.get("instance-specs").map(String::as_str)
            }
            resource => {
                template_of(resource).and_then(|it| annotations::INSTANCE_SPECS.value(&it.metadata.annotations))
            }
        };
        Some((document, gone(text?)?))
    });
    let Some((user, word)) = named else { return };
    let name = format!(
        "{} {}",
        user.resource.kind(),
        convert::object_id(user.resource.metadata())
    );
    match documents.iter().find(|document| is_ours(document, INSTANCES)) {
        // It is wrong by itself, and was not taken in.
        Some(catalogue) if checked.problems.iter().any(|problem| is_of(problem, catalogue)) => {}
        Some(catalogue) => {
            let message = format!("there is no spec {word} any more, which {name} names");
            let problem = catalogue.problem("data", message);
            checked.problems.push(problem.hint("leave it in, or change that first"));
        }
        None => {
            let message = format!("the catalogue with {word}, which {name} names, is gone; it stays in use");
            checked.warnings.push(user.problem("metadata.name", message));
        }
    }
    checked.bundle.cluster.instances = Arc::clone(old);
}

fn is_of(problem: &Problem, document: &Document) -> bool {
    problem.file == document.origin.file && problem.document == document.origin.index
}

/// Whether it is this ConfigMap of Knarr's own.
fn is_ours(document: &Document, name: &str) -> bool {
    let metadata = document.resource.metadata();
    matches!(document.resource, Resource::ConfigMap(_))
        && metadata.name == name
        && metadata.namespace == SYSTEM_NAMESPACE
}

const INSTANCES: &str = "config-instances";
const PLANNER: &str = "config-planner";

fn nameless(document: &Document, checked: &mut Checked) {
    checked
        .problems
        .push(document.problem("metadata.name", "missing").hint("give it a name"));
}

/// A claim is a directory under the data directory: what only a storage system could give is refused.
fn claim_problems(claim: &PersistentVolumeClaim, document: &Document, warnings: &mut Vec<Problem>) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut wrong = |path: &str, message: String, hint: &str| {
        if !document.is_damaged(path) {
            found.push(document.problem(path, message).hint(hint));
        }
    };
    let metadata = &claim.metadata;
    if metadata.name.is_empty() {
        wrong("metadata.name", "missing".to_owned(), "give it a name");
    } else if !dns1123_subdomain(&metadata.name).is_empty() {
        let message = format!("invalid value: {}", metadata.name);
        wrong("metadata.name", message, "write lower case letters, digits, - and .");
    }
    if !dns1123_label(&metadata.namespace).is_empty() {
        let message = format!("invalid value: {}", metadata.namespace);
        wrong("metadata.namespace", message, "write lower case letters, digits and -");
    }
    let spec = &claim.spec;
    const MODES: [&str; 4] = ["ReadWriteOnce", "ReadWriteOncePod", "ReadOnlyMany", "ReadWriteMany"];
    if spec.access_modes.is_empty() {
        wrong(
            "spec.accessModes",
            "missing".to_owned(),
            "write [ReadWriteOnce] or [ReadWriteMany]",
        );
    }
    for (nth, mode) in spec.access_modes.iter().enumerate() {
        if !MODES.contains(&mode.as_str()) {
            let hint = format!("there are {}", MODES.join(", "));
            wrong(
                &format!("spec.accessModes[{nth}]"),
                format!("invalid value: {mode}"),
                &hint,
            );
        }
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|mode| *mode != "Filesystem") {
        wrong("spec.volumeMode", format!("not supported: {mode}"), "write Filesystem");
    }
    const BUILT: [&str; 5] = [
        "accessModes",
        "resources",
        "volumeMode",
        "storageClassName",
        "volumeAttributesClassName",
    ];
    for field in spec.set_fields().into_iter().filter(|field| !BUILT.contains(field)) {
        let hint = "a claim is a new directory under the data directory";
        wrong(
            &format!("spec.{field}"),
            format!("not supported yet: spec.{field}"),
            hint,
        );
    }
    if spec.storage_class_name.as_deref().is_some_and(|name| !name.is_empty()) {
        let problem = document.problem("spec.storageClassName", "has no effect");
        warnings.push(problem.hint("a claim is a directory under the data directory"));
    }
    found
}
