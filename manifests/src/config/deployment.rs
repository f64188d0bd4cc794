//! `config-deployment`: how long finding out a digest may take, and where it is not tried.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::keys::{ConfigError, Keys};
use crate::golang;

/// What `config-deployment` says, as far as it means something without Kubernetes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeploymentConfig {
    /// `registries-skipping-tag-resolving`: images there stay under their tags. `kind.local`, `ko.local` and `dev.local`
    /// by default.
    pub skip_tag_resolving: BTreeSet<String>,
    /// `digest-resolution-timeout`: for one image. 10 s by default, more than 0.
    pub digest_timeout: Duration,
}

/// Keys that Knative has too: about its pods, its queue-proxy and its certificates.
const WITHOUT_EFFECT: [&str; 16] = [
    "queue-sidecar-image",
    "queue-sidecar-cpu-request",
    "queue-sidecar-cpu-limit",
    "queue-sidecar-memory-request",
    "queue-sidecar-memory-limit",
    "queue-sidecar-ephemeral-storage-request",
    "queue-sidecar-ephemeral-storage-limit",
    "queue-sidecar-token-audiences",
    "queue-sidecar-rootca",
    "queue-sidecar-tls-min-version",
    "queue-sidecar-tls-max-version",
    "queue-sidecar-tls-cipher-suites",
    "queue-sidecar-tls-curve-preferences",
    "progress-deadline",
    "default-affinity-type",
    "runtime-class-name",
];

impl DeploymentConfig {
    /// From the ConfigMap's `data`.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut keys = Keys::new(data);
        let default = Self::default();
        let config = Self {
            skip_tag_resolving: keys.value(
                "registries-skipping-tag-resolving",
                "registriesSkippingTagResolving",
                default.skip_tag_resolving,
                |text| {
                    Ok(text
                        .split(',')
                        .map(|it| it.trim().to_owned())
                        .filter(|it| !it.is_empty())
                        .collect())
                },
            ),
            digest_timeout: keys.value(
                "digest-resolution-timeout",
                "digestResolutionTimeout",
                default.digest_timeout,
                |text| match golang::parse_duration(text) {
                    Ok(timeout) if !timeout.is_zero() => Ok(timeout),
                    _ => Err("write a positive duration, as in 10s".to_owned()),
                },
            ),
        };
        for key in WITHOUT_EFFECT {
            if keys.text(key, "").is_some() {
                keys.error(key, format!("not supported yet: data.{key}"), "it has no effect here");
            }
        }
        keys.finish(config)
    }
}

impl Default for DeploymentConfig {
    fn default() -> Self {
        Self {
            skip_tag_resolving: ["kind.local", "ko.local", "dev.local"].map(str::to_owned).into(),
            digest_timeout: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(key: &str, value: &str) -> Result<DeploymentConfig, String> {
        let data = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        DeploymentConfig::from_data(&data).map_err(|errors| errors[0].to_string())
    }

    #[test]
    fn a_table_of_values() {
        let skip = parsed("registries-skipping-tag-resolving", "a.local, b.local:5000,")
            .unwrap()
            .skip_tag_resolving;
        assert_eq!(skip.into_iter().collect::<Vec<_>>(), ["a.local", "b.local:5000"]);
        assert!(
            parsed("registries-skipping-tag-resolving", "")
                .unwrap()
                .skip_tag_resolving
                .is_empty()
        );
        assert_eq!(
            parsed("digest-resolution-timeout", "1m30s").unwrap().digest_timeout,
            Duration::from_secs(90)
        );
        for wrong in ["0s", "-1s", "10"] {
            let error = parsed("digest-resolution-timeout", wrong).unwrap_err();
            assert_eq!(
                error,
                format!("data.digest-resolution-timeout: invalid value {wrong:?}")
            );
        }
        assert!(
            parsed("queue-sidecar-image", "x")
                .unwrap_err()
                .contains("not supported yet")
        );
        assert!(parsed("nothing", "x").unwrap_err().contains("unknown key"));
    }
}
