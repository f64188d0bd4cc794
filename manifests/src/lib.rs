//! The words of Knarr: Knative's resources, checked types, and the four exchange types between the planes.
//!
//! Everything here is pure: no I/O, no clock, no task. The way of a manifest:
//!
//! ```text
//! text ─▶ read (positions, unknown fields) ─▶ Knative's defaulting and validation ─▶ what Knarr supports ─▶ Revision, routes
//! ```

pub mod annotations;
pub mod bundle;
pub mod config;
pub mod convert;
pub mod domains;
pub mod exchange;
pub mod golang;
pub mod ids;
pub mod knative;
pub mod names;
pub mod problem;
pub mod read;
pub mod resources;
pub mod revision;
pub mod support;
pub mod template;
pub mod units;

/// The name among `known` that `word` was probably meant to be; `None` when none is near.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(word, name);
    known
        .map(|name| (distance(name), name))
        .min()
        .filter(|(far, _)| *far <= 2.max(word.len() / 4))
        .map(|(_, name)| name)
}
