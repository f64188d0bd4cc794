//! Every annotation that Knarr knows: one table, and the checks that the table alone can make.
//!
//! ```text
//! annotations ─▶ check (unknown key, wrong place, knarr.dev values) ─▶ Annotation::of (key or alias) ─▶ typed value
//! ```
//!
//! Values of Knative's own annotations are validated in Knative's words by [`crate::knative`].

mod check;
mod egress;
mod knarr;
mod planning;
mod table;

pub use check::{Finding, check};
pub use egress::{NotARule, parse_egress_rules};
pub use knarr::{KnarrSettings, NotAnSla, knarr_settings};
pub use planning::{spec_words, unknown_default_specs, wrong_values};
pub use table::*;

use crate::domains::StringMap;

/// One annotation.
#[derive(Debug)]
pub struct Annotation {
    /// The key that is written today.
    pub key: &'static str,
    /// An older spelling that is still read; empty when there is none.
    pub alias: &'static str,
    /// Where it works.
    pub place: Place,
    /// What holds without it.
    pub default: &'static str,
    /// Which values are right.
    pub range: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Where an annotation works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// `spec.template.metadata.annotations` of a Service or Configuration, and `metadata.annotations` of a Revision.
    Template,
    /// `metadata.annotations` of a Service, Configuration, Route or DomainMapping.
    Object,
    /// Both.
    Anywhere,
}

impl Annotation {
    /// Its key as written and its value; the key of today wins over the alias.
    pub fn of<'a>(&self, annotations: &'a StringMap) -> Option<(&'a str, &'a str)> {
        let by = |key: &str| {
            if key.is_empty() {
                None
            } else {
                annotations.get_key_value(key)
            }
        };
        let found = by(self.key).or_else(|| by(self.alias));
        found.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Its value.
    pub fn value<'a>(&self, annotations: &'a StringMap) -> Option<&'a str> {
        self.of(annotations).map(|(_, value)| value)
    }
}

/// The annotation with this key or alias.
pub fn find(key: &str) -> Option<&'static Annotation> {
    ALL.iter()
        .copied()
        .find(|known| known.key == key || (!known.alias.is_empty() && known.alias == key))
}

#[cfg(test)]
mod tests;
