//! A document that was read, and where its fields stand in the text.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::config::ConfigError;
use crate::problem::Problem;
use crate::resources::{Kind, Resource};

/// One object of a file, checked against its schema.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it came from.
    pub origin: Origin,
    /// Its kind and schema.
    pub kind: &'static Kind,
    /// The object as JSON, without fields that were wrong.
    pub value: Value,
    /// The object, typed.
    pub resource: Resource,
    pub(super) places: HashMap<String, Place>,
    pub(super) damaged: Vec<String>,
    pub(super) texts: HashMap<String, usize>,
}

/// A file, and which of its documents.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The file as the user named it, or `-`.
    pub file: Arc<str>,
    /// From 0. The items of a `List` share their list's.
    pub index: usize,
}

/// A position in a text, both from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl Document {
    /// Where the field `path` stands (`spec.template.spec.containers[0].image`), or the nearest field around it.
    pub fn place(&self, path: &str) -> Option<Place> {
        place_in(&self.places, path)
    }

    /// A problem with the field `path`, at its line.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let problem = Problem::new(&self.origin.file, self.origin.index, message).on(path);
        match self.place(path) {
            Some(place) => problem.at(place.line, place.column),
            None => problem,
        }
    }

    /// What is wrong with a ConfigMap's `data`, at the line within a value's text where that is known.
    pub fn config_problem(&self, error: ConfigError) -> Problem {
        let path = format!("data.{}", error.key);
        let problem = self.problem(&path, error.message).hint(error.hint);
        let value = path.split('[').next().unwrap_or(&path);
        match (error.line, self.texts.get(value)) {
            (Some(line), Some(first)) => problem.at(first + line - 1, 1),
            _ => problem,
        }
    }

    /// Whether a wrong field was left out at, above or below `path`: what is said of `path` may be untrue then.
    pub fn is_damaged(&self, path: &str) -> bool {
        self.damaged
            .iter()
            .any(|damaged| is_within(damaged, path) || is_within(path, damaged))
    }

    /// Whether nothing was left out.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// Where `path` stands, or the nearest field around it.
pub(crate) fn place_in(places: &HashMap<String, Place>, path: &str) -> Option<Place> {
    let mut path = path;
    loop {
        if let Some(place) = places.get(path) {
            return Some(*place);
        }
        path = parent(path)?;
    }
}

/// Whether `path` is `outer` or a field in it.
pub(crate) fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || outer.is_empty() || rest.starts_with(['.', '[']))
}

/// The path without its last step, `None` for the document itself.
fn parent(path: &str) -> Option<&str> {
    if path.is_empty() {
        None
    } else {
        Some(&path[..path.rfind(['.', '[']).unwrap_or(0)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_within_their_parents_only() {
        for (path, outer, within) in [
            ("a.b", "a", true),
            ("a[0].b", "a", true),
            ("a", "a", true),
            ("ab", "a", false),
            ("a", "a.b", false),
            ("a", "", true),
        ] {
            assert_eq!(is_within(path, outer), within, "{path} in {outer}");
        }
        assert_eq!(parent("a.b[0]"), Some("a.b"));
        assert_eq!(parent("a"), Some(""));
        assert_eq!(parent(""), None);
    }
}
