//! `config-planner`: what holds for every revision whose manifest does not say otherwise, by the names of the annotations
//! without their prefix. Knarr's own; Knative has no such map, and without it nothing changes.

use std::collections::BTreeMap;

use super::ConfigError;
use super::keys::Keys;
use crate::annotations::{self, Annotation};
use crate::domains::StringMap;

/// `config-planner`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlannerConfig {
    /// By the annotations' keys. Each value is right by itself; whether the catalogue has the specs is looked at later.
    pub defaults: StringMap,
}

/// The annotations that may have a default of the cluster's.
pub const DEFAULTABLE: [&Annotation; 7] = [
    &annotations::COLD_START_SLA,
    &annotations::FREEZE_DELAY,
    &annotations::IDLE,
    &annotations::IDLE_IGNORE,
    &annotations::INSTANCE_SPECS,
    &annotations::KEEP_WARM,
    &annotations::MIN_SCALE_AS,
];

impl PlannerConfig {
    /// Reads the map.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut keys = Keys::new(data);
        let mut defaults = StringMap::new();
        for annotation in DEFAULTABLE {
            let key = annotation.key.strip_prefix(PREFIX).unwrap_or(annotation.key);
            if let Some(text) = keys.text(key, "") {
                defaults.insert(annotation.key.to_owned(), text.trim().to_owned());
            }
        }
        for (key, message) in annotations::wrong_values(&defaults) {
            let right = annotations::find(key).map_or_else(String::new, |known| format!("write {}", known.range));
            keys.error(key.strip_prefix(PREFIX).unwrap_or(key), message, right);
        }
        keys.finish(Self { defaults })
    }
}

const PREFIX: &str = "knarr.dev/";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<Vec<(String, String)>, Vec<String>> {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        PlannerConfig::from_data(&data.collect())
            .map(|config| config.defaults.into_iter().collect())
            .map_err(|errors| errors.iter().map(|error| format!("{error}; {}", error.hint)).collect())
    }

    #[test]
    fn defaults_go_by_the_annotations_names() {
        assert_eq!(read(&[("_example", "idle: x")]), Ok(vec![]));
        let all = [
            ("cold-start-sla", "p99<500ms"),
            ("freeze-delay", "30s"),
            ("idle", "auto"),
            ("idle-ignore", "/healthz"),
            ("instance-specs", "anything"),
            ("keep-warm", "Mon-Fri 07:00-23:00 Europe/Oslo\n"),
            ("min-scale-as", "frozen"),
        ];
        let read = read(&all).unwrap();
        assert_eq!(read.len(), DEFAULTABLE.len());
        assert!(read.contains(&(
            "knarr.dev/keep-warm".to_owned(),
            "Mon-Fri 07:00-23:00 Europe/Oslo".to_owned()
        )));
    }

    #[test]
    fn every_mistake_at_once() {
        let wrong = read(&[
            ("idle", "sleep"),
            ("cold-start-sla", "p99"),
            ("keep-warm", "always"),
            ("idle-ignore", "healthz"),
            ("min-scale-as", "zero"),
            ("instance-specs", " , "),
            ("freeze-delay", "1d"),
            ("instance-spec", "a"),
        ])
        .unwrap_err();
        assert_eq!(wrong.len(), 8, "{wrong:#?}");
        for (line, said) in [
            (0, "data.cold-start-sla: invalid value: p99: there is no \"<\" in it"),
            (7, "data.instance-spec: unknown key; did you mean \"instance-specs\"?"),
        ] {
            assert!(wrong[line].starts_with(said), "{wrong:#?}");
        }
        assert!(
            wrong
                .iter()
                .any(|it| it.contains("data.min-scale-as: invalid value: zero; write full, throttled")),
            "{wrong:#?}"
        );
    }
}
