//! What is wrong with a manifest, and where: the one type for it in this crate.

use std::fmt;
use std::sync::Arc;

/// One thing that is wrong, with its place and what would be right.
///
/// Prints as `FILE:LINE (document N): PATH: message; hint`. Places that are not known are left out, and so is the first
/// document, which most files have only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// The file as the user named it, or `-`.
    pub file: Arc<str>,
    /// Which document of the file, from 0.
    pub document: usize,
    /// From 1; `None` when the text has no such place, as for a missing field.
    pub line: Option<usize>,
    /// From 1.
    pub column: Option<usize>,
    /// The field, as in `spec.template.spec.containers[0].image`; empty for the document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
}

impl Problem {
    /// A problem in `document` of `file`; the rest is added by the methods below.
    pub fn new(file: &Arc<str>, document: usize, message: impl Into<String>) -> Self {
        Self {
            file: Arc::clone(file),
            document,
            line: None,
            column: None,
            path: String::new(),
            message: message.into(),
            hint: String::new(),
        }
    }

    /// At this line and column, both from 1.
    #[must_use]
    pub fn at(mut self, line: usize, column: usize) -> Self {
        (self.line, self.column) = (Some(line), Some(column));
        self
    }

    /// About this field.
    #[must_use]
    pub fn on(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// With a hint at what would be right.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if self.document > 0 {
            write!(f, " (document {})", self.document + 1)?;
        }
        // Knative's messages end in the path already.
        if !self.path.is_empty() && !self.message.ends_with(&self.path) {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_is_known() {
        let file = Arc::from("a.yaml");
        let problem = Problem::new(&file, 0, "no kind");
        assert_eq!(problem.to_string(), "a.yaml: no kind");
        let problem = problem.at(3, 7).on("spec.template").hint("write `kind: Service`");
        assert_eq!(
            problem.to_string(),
            "a.yaml:3: spec.template: no kind; write `kind: Service`"
        );
        assert_eq!(
            Problem::new(&file, 1, "no kind").at(9, 1).to_string(),
            "a.yaml:9 (document 2): no kind"
        );
    }
}
