//! All ConfigMaps of Knative together, and which of their settings are not built yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::EXAMPLE;
use super::{
    AutoscalerConfig, ConfigError, Defaults, DeploymentConfig, DomainConfig, Features, GcConfig, HttpProtocol, KPA,
    NetworkConfig, PlannerConfig, SandboxConfig, instances,
};
use crate::instances::Instances;
use crate::knative::Settings;

/// What the cluster says; without any ConfigMap, Knative's defaults.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClusterConfig {
    /// `config-autoscaler`, `config-defaults` and `config-features`: what defaulting and validation depend on.
    pub settings: Settings,
    /// `config-network`.
    pub network: NetworkConfig,
    /// `config-domain`.
    pub domain: DomainConfig,
    /// `config-gc`.
    pub gc: GcConfig,
    /// `config-deployment`.
    pub deployment: DeploymentConfig,
    /// `config-sandbox`: Knarr's own.
    pub sandbox: SandboxConfig,
    /// `config-planner`: Knarr's own.
    pub planner: PlannerConfig,
    /// `config-instances`: Knarr's own.
    pub instances: Arc<Instances>,
}

/// ConfigMaps that Knarr reads: Knative's, and its own.
const READ: [&str; 10] = [
    "config-autoscaler",
    "config-defaults",
    "config-features",
    "config-network",
    "config-domain",
    "config-gc",
    "config-deployment",
    "config-sandbox",
    "config-planner",
    "config-instances",
];

/// ConfigMaps of Knative whose settings mean nothing here: Knarr does not elect, log or observe by them.
const WITHOUT_EFFECT: [&str; 6] = [
    "config-observability",
    "config-tracing",
    "config-leader-election",
    "config-logging",
    "config-certmanager",
    "config-istio",
];

impl ClusterConfig {
    /// Whether a ConfigMap of this name in [`super::SYSTEM_NAMESPACE`] is one of Knative's, or Knarr's own.
    pub fn knows(name: &str) -> bool {
        READ.contains(&name) || WITHOUT_EFFECT.contains(&name)
    }

    /// Takes in one ConfigMap.
    ///
    /// # Errors
    /// Everything that is wrong with it, settings that are not built included; nothing of it is taken in then.
    pub fn apply(&mut self, name: &str, data: &BTreeMap<String, String>) -> Result<(), Vec<ConfigError>> {
        let unsupported = |settings: Vec<(&str, bool, &str)>| {
            let wrong = settings.into_iter().filter(|(_, set, _)| *set);
            let errors: Vec<_> = wrong
                .map(|(key, _, hint)| ConfigError::new(key, format!("not supported yet: data.{key}"), hint))
                .collect();
            if errors.is_empty() { Ok(()) } else { Err(errors) }
        };
        match name {
            "config-autoscaler" => {
                let config = AutoscalerConfig::from_data(data)?;
                unsupported(vec![(
                    "pod-autoscaler-class",
                    config.class != KPA,
                    "the class kpa.autoscaling.knative.dev is",
                )])?;
                self.settings.autoscaler = config;
            }
            "config-defaults" => self.settings.defaults = Defaults::from_data(data)?,
            "config-features" => {
                let config = Features::from_data(data)?;
                let detects = config.autodetect_http2.permits();
                unsupported(vec![("autodetect-http2", detects, "name the port h2c")])?;
                self.settings.features = config;
            }
            "config-network" => {
                let config = NetworkConfig::from_data(data)?;
                let redirects = config.http_protocol != HttpProtocol::Enabled;
                unsupported(vec![
                    (
                        "rollout-duration",
                        !config.rollout_duration.is_zero(),
                        "traffic moves at once",
                    ),
                    ("http-protocol", redirects, "there is no TLS to redirect to"),
                    ("external-domain-tls", config.external_domain_tls, ""),
                    ("cluster-local-domain-tls", config.cluster_local_domain_tls, ""),
                    (
                        "system-internal-tls",
                        config.system_internal_tls,
                        "requests stay in this machine",
                    ),
                ])?;
                self.network = config;
            }
            "config-domain" => self.domain = DomainConfig::from_data(data)?,
            "config-gc" => self.gc = GcConfig::from_data(data)?,
            "config-deployment" => self.deployment = DeploymentConfig::from_data(data)?,
            "config-sandbox" => self.sandbox = SandboxConfig::from_data(data)?,
            "config-planner" => self.planner = PlannerConfig::from_data(data)?,
            "config-instances" => self.instances = Arc::new(instances(data)?),
            other => {
                let settings = data.keys().map(String::as_str).filter(|key| *key != EXAMPLE);
                let hint = format!("{other} has no effect here");
                unsupported(settings.map(|key| (key, true, hint.as_str())).collect())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(name: &str, data: &[(&str, &str)]) -> Result<ClusterConfig, Vec<String>> {
        let mut config = ClusterConfig::default();
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let result = config.apply(name, &data);
        result
            .map(|()| config)
            .map_err(|errors| errors.iter().map(|error| format!("{error}; {}", error.hint)).collect())
    }

    #[test]
    fn takes_in_each_config_map() {
        assert_eq!(
            apply("config-defaults", &[("container-concurrency", "3")])
                .unwrap()
                .settings
                .defaults
                .container_concurrency,
            3
        );
        assert_eq!(
            apply("config-autoscaler", &[("min-scale", "2")])
                .unwrap()
                .settings
                .autoscaler
                .min_scale,
            2
        );
        assert_eq!(
            apply("config-gc", &[("min-non-active-revisions", "2")])
                .unwrap()
                .gc
                .min_non_active,
            2
        );
        assert_eq!(
            apply("config-network", &[("tag-template", "{{.Tag}}")])
                .unwrap()
                .network
                .tag_template
                .source(),
            "{{.Tag}}"
        );
        assert!(
            apply("config-domain", &[("example.org", "")])
                .unwrap()
                .domain
                .domains()
                .contains_key("example.org")
        );
        assert_eq!(
            apply("config-sandbox", &[("egress", "full")]).unwrap().sandbox.egress,
            Some(crate::workload::Egress::Full)
        );
        assert!(apply("config-features", &[("tag-header-based-routing", "enabled")]).is_ok());
        assert_eq!(
            apply("config-observability", &[("_example", "x")]),
            Ok(ClusterConfig::default())
        );
    }

    #[test]
    fn refuses_settings_that_are_not_built() {
        let table = [
            (
                "config-autoscaler",
                "pod-autoscaler-class",
                "hpa.autoscaling.knative.dev",
            ),
            ("config-features", "autodetect-http2", "enabled"),
            ("config-network", "rollout-duration", "10"),
            ("config-network", "external-domain-tls", "Enabled"),
            ("config-network", "http-protocol", "Redirected"),
            ("config-observability", "logging.enable-request-log", "true"),
        ];
        for (name, key, value) in table {
            let errors = apply(name, &[(key, value)]).unwrap_err();
            assert!(
                errors[0].contains(&format!("not supported yet: data.{key}")),
                "{errors:?}"
            );
        }
    }
}
