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
pub mod idle_ignore;
pub mod ids;
pub mod instances;
pub mod keep_warm;
pub mod knative;
pub mod names;
pub mod problem;
pub mod read;
pub mod reference;
pub mod resources;
pub mod revision;
pub mod support;
pub mod template;
pub mod text;
pub mod units;
pub mod workload;

/// The name among `names` that `word` was probably meant to be: the only one that contains it, or else the nearest of which
/// at most a third of the letters differ.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect::<String>().to_ascii_lowercase();
    let limit = (word.chars().count() / 3).max(1);
    let names: Vec<(usize, &str)> = names
        .map(|name| (strsim::damerau_levenshtein(&word, &name.to_ascii_lowercase()), name))
        .collect();
    let near = names
        .iter()
        .filter(|(distance, name)| *distance <= limit && *distance < name.len())
        .min();
    let mut containing = names
        .iter()
        .filter(|(_, name)| word.len() >= 3 && name.to_ascii_lowercase().contains(&word));
    let only = match (containing.next(), containing.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    };
    only.or(near).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_only_one_that_contains_it_or_the_nearest() {
        let names = [
            "server-timing",
            "cold-start-sla",
            "idle",
            "scale-to-zero-grace-period",
            "scale-to-zero-pod",
        ];
        let table = [
            ("idel", Some("idle")),
            ("IDLE", Some("idle")),
            ("sla", Some("cold-start-sla")),
            ("server-timings", Some("server-timing")),
            ("scale-to-zero-grace", Some("scale-to-zero-grace-period")),
            ("scale-to-zero-pods", Some("scale-to-zero-pod")),
            ("x", None),
            ("", None),
            ("nothing-like-it", None),
        ];
        for (word, want) in table {
            assert_eq!(nearest(word, names.into_iter()), want, "{word}");
        }
    }
}
