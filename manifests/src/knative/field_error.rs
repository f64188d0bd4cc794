//! What is wrong with a resource, as Knative says it: messages with field paths, merged and sorted (Knative: `apis.FieldError`).
//!
//! Errors are made where a field is looked at, with paths relative to it, and are carried outwards: each level adds its own
//! name with [`FieldErrors::via_field`] or [`FieldErrors::via_index`]. Printing merges errors that differ in paths only.

use std::collections::BTreeMap;
use std::fmt;

use super::go::{quote, sprint};

/// One message about one or more fields.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FieldError {
    /// What is wrong.
    pub message: String,
    /// The fields, as in `spec.template.spec.containers[0].image`. May be empty: Knative gives some errors no place.
    pub paths: Vec<String>,
    /// More text; may be empty.
    pub details: String,
    /// Whether it only warns: the resource is accepted.
    pub is_warning: bool,
}

/// A collection of errors and warnings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// No error.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The errors without the warnings.
    #[must_use]
    pub fn errors(&self) -> Self {
        Self(self.0.iter().filter(|error| !error.is_warning).cloned().collect())
    }

    /// The warnings without the errors.
    #[must_use]
    pub fn warnings(&self) -> Self {
        Self(self.0.iter().filter(|error| error.is_warning).cloned().collect())
    }

    /// One entry per message, paths joined, sorted: what is printed.
    pub fn merged(&self) -> Vec<FieldError> {
        let mut merged: BTreeMap<(&str, &str, bool), Vec<String>> = BTreeMap::new();
        for error in &self.0 {
            let key = (error.message.as_str(), error.details.as_str(), error.is_warning);
            merged.entry(key).or_default().extend(error.paths.iter().cloned());
        }
        let entries = merged.into_iter().map(|((message, details, is_warning), mut paths)| {
            paths.sort();
            paths.dedup();
            FieldError {
                message: message.to_owned(),
                paths,
                details: details.to_owned(),
                is_warning,
            }
        });
        entries.collect()
    }

    /// These errors and the others.
    #[must_use]
    pub(super) fn also(mut self, mut others: Self) -> Self {
        self.0.append(&mut others.0);
        self
    }

    /// Adds other errors in place.
    pub(super) fn add(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Puts `field` in front of all paths.
    #[must_use]
    pub(super) fn via_field(mut self, field: &str) -> Self {
        for error in &mut self.0 {
            for path in &mut error.paths {
                *path = flatten(field, path);
            }
        }
        self
    }

    /// Puts `[index]` in front of all paths.
    #[must_use]
    pub(super) fn via_index(self, index: usize) -> Self {
        self.via_field(&format!("[{index}]"))
    }

    /// Puts `field[index]` in front of all paths.
    #[must_use]
    pub(super) fn via_field_index(self, field: &str, index: usize) -> Self {
        self.via_index(index).via_field(field)
    }

    /// Puts `[key]` in front of all paths.
    #[must_use]
    pub(super) fn via_key(self, key: &str) -> Self {
        self.via_field(&format!("[{key}]"))
    }

    /// The same, as warnings.
    #[must_use]
    pub(super) fn into_warnings(mut self) -> Self {
        for error in &mut self.0 {
            error.is_warning = true;
        }
        self
    }
}

/// Joins two paths; an index joins without a dot, the empty path (the field itself) vanishes.
fn flatten(prefix: &str, path: &str) -> String {
    let mut flat = String::new();
    for part in prefix.split('.').chain(path.split('.')).filter(|part| !part.is_empty()) {
        let is_index = part.starts_with('[') && part.ends_with(']');
        if !flat.is_empty() && !is_index {
            flat.push('.');
        }
        flat.push_str(part);
    }
    flat
}

/// As Knative prints it: one `message: path, path` per line, details on their own lines.
impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, error) in self.merged().iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.paths.join(", "))?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, "\n{}", self.details)
        }
    }
}

impl std::error::Error for FieldErrors {}

/// A message without details (Knative: ErrGeneric). No path at all prints as an empty place.
pub(super) fn generic<P: AsRef<str>>(message: impl Into<String>, paths: impl IntoIterator<Item = P>) -> FieldErrors {
    detailed(message, paths, "")
}

/// A message with details.
pub(super) fn detailed<P: AsRef<str>>(
    message: impl Into<String>,
    paths: impl IntoIterator<Item = P>,
    details: impl Into<String>,
) -> FieldErrors {
    FieldErrors(vec![FieldError {
        message: message.into(),
        paths: paths.into_iter().map(|path| path.as_ref().to_owned()).collect(),
        details: details.into(),
        is_warning: false,
    }])
}

/// Knative: ErrMissingField.
pub(super) fn missing(field: &str) -> FieldErrors {
    generic("missing field(s)", [field])
}

/// Knative: ErrDisallowedFields. Nothing is wrong when there are none.
pub(super) fn disallowed<P: AsRef<str>>(fields: impl IntoIterator<Item = P>) -> FieldErrors {
    let errors = generic("must not set the field(s)", fields);
    if errors.0[0].paths.is_empty() {
        FieldErrors::none()
    } else {
        errors
    }
}

/// Knative: ErrInvalidValue.
pub(super) fn invalid(value: impl fmt::Display, field: &str) -> FieldErrors {
    generic(format!("invalid value: {value}"), [field])
}

/// Knative: ErrInvalidValue with details.
pub(super) fn invalid_because(value: impl fmt::Display, field: &str, details: &str) -> FieldErrors {
    detailed(format!("invalid value: {value}"), [field], details)
}

/// Knative: ErrOutOfBoundsValue.
pub(super) fn out_of_bounds(
    value: impl fmt::Display,
    low: impl fmt::Display,
    high: impl fmt::Display,
    field: &str,
) -> FieldErrors {
    generic(format!("expected {low} <= {value} <= {high}"), [field])
}

/// Knative: ErrMissingOneOf.
pub(super) fn missing_one_of(fields: &[&str]) -> FieldErrors {
    generic("expected exactly one, got neither", fields)
}

/// Knative: ErrMultipleOneOf.
pub(super) fn multiple_one_of(fields: &[&str]) -> FieldErrors {
    generic("expected exactly one, got both", fields)
}

/// Knative: ErrInvalidKeyName.
pub(super) fn invalid_key(key: &str, field: &str, details: &[String]) -> FieldErrors {
    detailed(format!("invalid key name {}", quote(key)), [field], details.join(", "))
}

/// `not a DNS 1035 label: [why why]`.
pub(super) fn not_a(what: &str, reasons: &[String]) -> String {
    format!("not a {what}: {}", sprint(reasons))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_flatten_as_knatives_do() {
        for (prefix, path, flat) in [
            ("a", "b", "a.b"),
            ("a", "", "a"),
            ("a", "[0].b", "a[0].b"),
            ("[0]", "[1]", "[0][1]"),
            ("a.b", "[k]", "a.b[k]"),
            ("", "[0]", "[0]"),
            // A key with dots is torn apart: Knative's own flaw, and part of its texts.
            ("a", "[x.y/z]", "a.[x.y/z]"),
        ] {
            assert_eq!(flatten(prefix, path), flat);
        }
    }

    #[test]
    fn prints_merged_and_sorted() {
        let errors = missing("b")
            .also(generic("Zed", Vec::<&str>::new()))
            .also(missing("a"))
            .also(missing("b"));
        let errors = errors
            .also(invalid_because(1, "c", "why"))
            .also(generic("soft", ["d"]).into_warnings());
        assert_eq!(
            errors.errors().via_field("s").to_string(),
            "Zed: \ninvalid value: 1: s.c\nwhy\nmissing field(s): s.a, s.b"
        );
        assert_eq!(errors.warnings().to_string(), "soft: d");
        assert!(disallowed(Vec::<&str>::new()).is_empty());
    }
}
