//! Which kind a document is of: the first question, since the schema hangs on it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::check::Checker;
use super::document::{Document, Origin};
use super::tree::{Data, Entry, Node};
use crate::nearest;
use crate::problem::Problem;
use crate::resources::{KINDS, Kind, Resource};

/// Adds the object in `root`, or the items of a `List`, to `documents`, and what is wrong with them to `problems`.
pub(super) fn identify(
    file: &Arc<str>,
    index: usize,
    root: &Node,
    documents: &mut Vec<Document>,
    problems: &mut Vec<Problem>,
) {
    let place = root.place;
    let Data::Map(entries) = &root.data else {
        let problem = Problem::new(file, index, "a document must be an object").at(place.line, place.column);
        problems.push(problem.hint("it starts with `apiVersion:` and `kind:`"));
        return;
    };
    if is_list(entries) {
        if let Some(Data::List(items)) = entries
            .iter()
            .find(|entry| entry.key == "items")
            .map(|entry| &entry.value.data)
        {
            for item in items {
                identify(file, index, item, documents, problems);
            }
        }
        return;
    }
    match find_kind(file, index, root, entries) {
        Ok(kind) => documents.extend(check(file, index, root, kind, problems)),
        Err(found) => problems.extend(found),
    }
}

fn check(
    file: &Arc<str>,
    index: usize,
    root: &Node,
    kind: &'static Kind,
    problems: &mut Vec<Problem>,
) -> Option<Document> {
    let mut checker = Checker::new(file, index, kind.shape);
    let value = checker.object(root);
    problems.append(&mut checker.problems);
    // A value that fits the schema fits the type: the macro wrote both. Should they differ, say so instead of losing it.
    match Resource::from_value(value.clone()) {
        Ok(resource) => Some(Document {
            origin: Origin {
                file: Arc::clone(file),
                index,
            },
            kind,
            value,
            resource,
            places: std::mem::take(&mut checker.places),
            damaged: std::mem::take(&mut checker.damaged),
            texts: std::mem::take(&mut checker.texts),
        }),
        Err(error) => {
            problems.push(Problem::new(file, index, error).at(root.place.line, root.place.column));
            None
        }
    }
}

/// A `v1` List, as `kubectl get -o yaml` prints several objects.
fn is_list(entries: &[Entry]) -> bool {
    text(entries, "apiVersion").as_deref() == Some("v1") && text(entries, "kind").as_deref() == Some("List")
}

fn find_kind(file: &Arc<str>, index: usize, root: &Node, entries: &[Entry]) -> Result<&'static Kind, Vec<Problem>> {
    let places: HashMap<&str, _> = entries.iter().map(|entry| (entry.key.as_str(), entry.place)).collect();
    let problem = |key: &str, message: String, hint: String| {
        let place = places.get(key).copied().unwrap_or(root.place);
        Problem::new(file, index, message)
            .on(key)
            .at(place.line, place.column)
            .hint(hint)
    };
    let mut problems = Vec::new();
    let (api_version, kind) = (text(entries, "apiVersion"), text(entries, "kind"));
    for (key, value, example) in [
        ("apiVersion", &api_version, "serving.knative.dev/v1"),
        ("kind", &kind, "Service"),
    ] {
        if value.is_none() {
            let misspelt = nearest(
                key,
                entries
                    .iter()
                    .map(|entry| entry.key.as_str())
                    .filter(|key| !places_known(key)),
            );
            let hint = match misspelt {
                Some(wrong) => format!("is `{wrong}` meant to be `{key}`?"),
                None => format!("write for example `{key}: {example}`"),
            };
            let message = if places.contains_key(key) {
                "must be text"
            } else {
                "missing"
            };
            problems.push(problem(key, message.to_owned(), hint));
        }
    }
    let (Some(api_version), Some(kind)) = (api_version, kind) else {
        return Err(problems);
    };
    if let Some(known) = KINDS
        .iter()
        .find(|known| known.api_version == api_version && known.kind == kind)
    {
        return Ok(known);
    }
    let same_kind: Vec<&str> = KINDS
        .iter()
        .filter(|known| known.kind == kind)
        .map(|known| known.api_version)
        .collect();
    if !same_kind.is_empty() {
        let hint = format!("{kind} is read from `apiVersion: {}`", same_kind.join("` or `"));
        return Err(vec![problem(
            "apiVersion",
            format!("{api_version:?} has no {kind} that Knarr reads"),
            hint,
        )]);
    }
    let hint = match nearest(&kind, KINDS.iter().map(|known| known.kind)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "Knarr reads {}",
            KINDS.iter().map(|known| known.kind).collect::<Vec<_>>().join(", ")
        ),
    };
    Err(vec![problem("kind", format!("unknown kind {kind:?}"), hint)])
}

/// Keys that are right as they are, and so not a misspelt `apiVersion` or `kind`.
fn places_known(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata" | "spec" | "status" | "data")
}

/// The value of a top-level key when it is text.
fn text(entries: &[Entry], key: &str) -> Option<String> {
    match &entries.iter().find(|entry| entry.key == key)?.value.data {
        Data::Scalar(scalar) => match scalar.resolve() {
            Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}
