//! `config-gc`: which old revisions are deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::{ConfigError, Keys};
use crate::golang;

/// What `config-gc` says. `None` is `disabled`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GcConfig {
    /// `retain-since-create-time`: kept at least this long after it was made. 48 h by default.
    pub retain_since_create: Option<Duration>,
    /// `retain-since-last-active-time`: kept at least this long after a route named it. 15 h by default.
    pub retain_since_last_active: Option<Duration>,
    /// `min-non-active-revisions`: kept in any case. 20 by default.
    pub min_non_active: u64,
    /// `max-non-active-revisions`: the oldest beyond this number go, whatever their age. 1000 by default.
    pub max_non_active: Option<u64>,
}

impl GcConfig {
    /// From the ConfigMap's `data`.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut keys = Keys::new(data);
        let config = Self {
            retain_since_create: keys.value("retain-since-create-time", "", Some(hours(48)), age),
            retain_since_last_active: keys.value("retain-since-last-active-time", "", Some(hours(15)), age),
            min_non_active: keys.value("min-non-active-revisions", "", 20, |text| {
                number(text).ok_or_else(|| "write a whole number, 0 or more".to_owned())
            }),
            max_non_active: keys.value("max-non-active-revisions", "", Some(1000), |text| match text {
                "disabled" => Ok(None),
                text => number(text)
                    .map(Some)
                    .ok_or_else(|| "write a whole number or \"disabled\"".to_owned()),
            }),
        };
        if config.max_non_active.is_some_and(|most| config.min_non_active > most) {
            let message = format!("min-non-active-revisions {} is more than this", config.min_non_active);
            keys.error("max-non-active-revisions", message, "raise it, or lower the minimum");
        }
        keys.finish(config)
    }
}

impl Default for GcConfig {
    fn default() -> Self {
        Self {
            retain_since_create: Some(hours(48)),
            retain_since_last_active: Some(hours(15)),
            min_non_active: 20,
            max_non_active: Some(1000),
        }
    }
}

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn age(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "disabled" => Ok(None),
        text => match golang::parse_duration(text) {
            Ok(duration) => Ok(Some(duration)),
            Err(_) => Err("write a duration such as \"48h\", or \"disabled\"".to_owned()),
        },
    }
}

fn number(text: &str) -> Option<u64> {
    golang::parse_int(text)
        .ok()
        .and_then(|number| u64::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_refuses() {
        let read = |data: &[(&str, &str)]| {
            GcConfig::from_data(
                &data
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(read(&[]), Ok(GcConfig::default()));
        let config = read(&[
            ("retain-since-create-time", "disabled"),
            ("retain-since-last-active-time", "1h30m"),
            ("max-non-active-revisions", "disabled"),
        ])
        .unwrap();
        assert_eq!(config.retain_since_create, None);
        assert_eq!(config.retain_since_last_active, Some(Duration::from_secs(5400)));
        assert_eq!(config.max_non_active, None);

        let errors = read(&[
            ("min-non-active-revisions", "-1"),
            ("retain-since-create-time", "2d"),
            ("max-non-active-revisions", "3"),
        ]);
        let keys: Vec<_> = errors.unwrap_err().into_iter().map(|error| error.key).collect();
        assert_eq!(
            keys,
            [
                "retain-since-create-time",
                "min-non-active-revisions",
                "max-non-active-revisions"
            ]
        );
    }
}
