//! The one reader of manifests: YAML (and so JSON) with any number of documents to checked values, every mistake at once.
//!
//! ```text
//! text ─▶ chunks at `---` ─▶ tree (positions, aliases, merges) ─▶ check against the schema ─▶ Document
//!                               syntax errors ┘    unknown fields, wrong types, doubles ┘
//! ```
//!
//! It knows shapes, not meaning: what Knative says of a value is [`crate::knative`]'s. It is as strict as `kubectl` with
//! `--validate=strict`, and resolves plain scalars as `kubectl` does (YAML 1.1: `yes` is a boolean, `0644` is octal).

mod check;
mod document;
mod identify;
mod scalar;
mod surrogates;
mod tree;
mod words;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::problem::Problem;
use crate::resources::Shape;

pub use document::{Document, Origin, Place};
pub(crate) use document::{is_within, place_in};

/// Reads all documents of one file. `file` is what problems call it.
///
/// Documents without content are skipped. A document is left out when it is not YAML, not an object or not of a kind that
/// Knarr reads; one with wrong fields is given without them and remembers which they were ([`Document::is_damaged`]).
/// Problems come in the order of the text. The file is right when there are none.
pub fn read(file: &str, text: &str) -> (Vec<Document>, Vec<Problem>) {
    let file: Arc<str> = Arc::from(file);
    let mut problems = Vec::new();
    let mut documents = Vec::new();
    let mut index = 0;
    for (first_line, chunk) in chunks(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        for parsed in tree::parse(chunk, first_line) {
            match parsed {
                Ok(root) if root.is_null() => {}
                Ok(root) => identify::identify(&file, index, &root, &mut documents, &mut problems),
                Err(error) => problems.push(
                    Problem::new(&file, index, error.message)
                        .at(error.place.line, error.place.column)
                        .hint(error.hint),
                ),
            }
            index += 1;
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    (documents, problems)
}

/// Reads one value of a known shape out of a ConfigMap's text. Empty text is `null`.
///
/// # Errors
/// Everything that is wrong with it, as `PATH: message; hint`.
pub(crate) fn read_value(text: &str, shape: Shape) -> Result<Value, Vec<String>> {
    let (value, problems, _) = read_problems(text, shape);
    let line = |problem: &Problem| format!("{}: {}; {}", problem.path, problem.message, problem.hint);
    let trim = |line: String| line.trim_start_matches(": ").trim_end_matches("; ").to_owned();
    if problems.is_empty() {
        Ok(value)
    } else {
        Err(problems.iter().map(line).map(trim).collect())
    }
}

/// [`read_value`] that gives what is right together with what is wrong, and where each field stands in the text.
pub(crate) fn read_problems(text: &str, shape: Shape) -> (Value, Vec<Problem>, HashMap<String, Place>) {
    let file: Arc<str> = Arc::from("");
    let mut value = Value::Null;
    let (mut problems, mut places) = (Vec::new(), HashMap::new());
    for parsed in tree::parse(text, 1) {
        match parsed {
            Ok(root) if root.is_null() => {}
            Ok(root) => {
                let mut checker = check::Checker::new(&file, 0, shape);
                value = checker.object(&root);
                problems.append(&mut checker.problems);
                places = checker.places;
            }
            Err(error) => problems.push(
                Problem::new(&file, 0, error.message)
                    .at(error.place.line, error.place.column)
                    .hint(error.hint),
            ),
        }
    }
    (value, problems, places)
}

/// The text between document markers, with the line each chunk starts at (from 1), so that a syntax error costs one
/// document and not the rest of the file. A line that begins with `---` ends a document wherever it stands, even in a
/// quoted scalar (YAML 1.2.2, 9.1.2); directives belong to the document after them.
fn chunks(text: &str) -> Vec<(usize, &str)> {
    let mut chunks = Vec::new();
    let (mut start, mut first_line) = (0, 1);
    let mut content = false;
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim_start().len() < rest.len() || rest.is_empty());
        if marker && content {
            chunks.push((first_line, &text[start..offset]));
            (start, first_line) = (offset, number + 1);
        }
        content = if marker { true } else { content || !is_prologue(line) };
        offset += line.len();
    }
    chunks.push((first_line, &text[start..]));
    chunks
}

/// Blank, a comment or a directive: nothing that makes a document.
fn is_prologue(line: &str) -> bool {
    line.starts_with('%') || line.trim_start().is_empty() || line.trim_start().starts_with('#')
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
