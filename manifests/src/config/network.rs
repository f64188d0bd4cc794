//! `config-network`: host name templates, external scheme, TLS and rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::{ConfigError, Keys, flag, word};
use crate::domains::{self, RouteMeta};
use crate::golang;
use crate::template::Template;

const DOMAIN_TEMPLATE: &str = "{{.Name}}.{{.Namespace}}.{{.Domain}}";
const TAG_TEMPLATE: &str = "{{.Tag}}-{{.Name}}";

/// What `config-network` says.
#[derive(Clone, PartialEq, Debug)]
pub struct NetworkConfig {
    /// `domain-template`: a Route's host from `.Name .Namespace .Domain .Annotations .Labels`.
    pub domain_template: Template,
    /// `tag-template`: what stands in the place of the name for a tag, from `.Name .Tag`.
    pub tag_template: Template,
    /// `default-external-scheme`: of external URLs while TLS is off. `http` by default.
    pub external_scheme: String,
    /// `rollout-duration`: how long traffic takes to move to a new revision; zero is at once. Whole seconds.
    pub rollout_duration: Duration,
    /// `http-protocol`.
    pub http_protocol: HttpProtocol,
    /// `external-domain-tls` (earlier `auto-tls`).
    pub external_domain_tls: bool,
    /// `cluster-local-domain-tls`.
    pub cluster_local_domain_tls: bool,
    /// `system-internal-tls` (earlier `internal-encryption`).
    pub system_internal_tls: bool,
    /// `namespace-wildcard-cert-selector`, as written; only TLS reads it.
    pub namespace_wildcard_cert_selector: String,
    /// `ingress-class`. Knarr is the ingress, whatever it says.
    pub ingress_class: String,
    /// `certificate-class`.
    pub certificate_class: String,
    /// `autocreate-cluster-domain-claims`.
    pub autocreate_cluster_domain_claims: bool,
    /// `enable-mesh-pod-addressability`. There is no mesh: no effect.
    pub mesh_pod_addressability: bool,
    /// `mesh-compatibility-mode`. There is no mesh: no effect.
    pub mesh_compatibility: MeshCompatibility,
}

/// What happens to plain HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HttpProtocol {
    /// Served.
    #[default]
    Enabled,
    /// Not served.
    Disabled,
    /// Answered with a redirect to HTTPS.
    Redirected,
}

/// How Knative reaches pods where there may be a service mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MeshCompatibility {
    /// Finds out.
    #[default]
    Auto,
    /// Always through the Service's address.
    Enabled,
    /// Always pod by pod.
    Disabled,
}

impl NetworkConfig {
    /// From the ConfigMap's `data`.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut keys = Keys::new(data);
        let text = |text: &str| Ok(text.to_owned());
        let tls = |text: &str| word(text, &[("Enabled", true), ("Disabled", false), ("", false)]);
        // Everything but "enabled" is off in these two, as in Knative, except what is plainly a typing error.
        let auto_tls = keys.value("auto-tls", "autoTLS", false, tls);
        let internal_encryption = keys.value("internal-encryption", "", false, flag);

        let config = Self {
            domain_template: domain_template(&mut keys),
            tag_template: tag_template(&mut keys),
            external_scheme: keys.value(
                "default-external-scheme",
                "defaultExternalScheme",
                "http".to_owned(),
                text,
            ),
            rollout_duration: keys.value("rollout-duration", "rolloutDuration", Duration::ZERO, whole_seconds),
            http_protocol: keys.value("http-protocol", "httpProtocol", HttpProtocol::Enabled, |text| {
                word(
                    text,
                    &[
                        ("Enabled", HttpProtocol::Enabled),
                        ("Redirected", HttpProtocol::Redirected),
                        ("Disabled", HttpProtocol::Disabled),
                        ("", HttpProtocol::Enabled),
                    ],
                )
            }),
            external_domain_tls: keys.value("external-domain-tls", "", auto_tls, tls),
            cluster_local_domain_tls: keys.value("cluster-local-domain-tls", "", false, tls),
            system_internal_tls: keys.value("system-internal-tls", "", internal_encryption, tls),
            namespace_wildcard_cert_selector: keys.value("namespace-wildcard-cert-selector", "", String::new(), text),
            ingress_class: keys.value(
                "ingress-class",
                "ingress.class",
                "istio.ingress.networking.knative.dev".to_owned(),
                text,
            ),
            certificate_class: keys.value(
                "certificate-class",
                "certificate.class",
                "cert-manager.certificate.networking.knative.dev".to_owned(),
                text,
            ),
            autocreate_cluster_domain_claims: keys.value(
                "autocreate-cluster-domain-claims",
                "autocreateClusterDomainClaims",
                false,
                flag,
            ),
            mesh_pod_addressability: keys.value("enable-mesh-pod-addressability", "", false, flag),
            mesh_compatibility: keys.value("mesh-compatibility-mode", "", MeshCompatibility::Auto, |text| {
                word(
                    text,
                    &[
                        ("auto", MeshCompatibility::Auto),
                        ("enabled", MeshCompatibility::Enabled),
                        ("disabled", MeshCompatibility::Disabled),
                    ],
                )
            }),
        };
        keys.finish(config)
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self::from_data(&BTreeMap::new()).unwrap_or_else(|_| unreachable!("the defaults are valid"))
    }
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    let seconds = golang::parse_int(text)
        .ok()
        .and_then(|seconds| u64::try_from(seconds).ok());
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "write a whole number of seconds, 0 or more".to_owned())
}

/// Knative tries a template when the ConfigMap changes, and so do we.
fn domain_template(keys: &mut Keys<'_>) -> Template {
    let source = keys
        .text("domain-template", "domainTemplate")
        .unwrap_or(DOMAIN_TEMPLATE);
    let checked = Template::parse("domain-template", source)
        .map_err(|error| error.to_string())
        .and_then(|template| {
            let nothing = BTreeMap::new();
            let route = RouteMeta {
                name: "foo",
                namespace: "bar",
                labels: &nothing,
                annotations: &nothing,
            };
            let host = domains::execute_domain(&template, route, "baz.com").map_err(|error| error.to_string())?;
            match host.find(['/', '?', '#', ' ']) {
                Some(at) => Err(format!("domain template has url path: {}", &host[at..])),
                None if host.is_empty() || host.starts_with(':') => Err("empty hostname".to_owned()),
                None => Ok(template),
            }
        });
    or_default(keys, "domain-template", checked, DOMAIN_TEMPLATE)
}

fn tag_template(keys: &mut Keys<'_>) -> Template {
    let source = keys.text("tag-template", "tagTemplate").unwrap_or(TAG_TEMPLATE);
    let checked = Template::parse("tag-template", source).and_then(|template| {
        domains::execute_tag(&template, "foo", "v2")?;
        Ok(template)
    });
    or_default(
        keys,
        "tag-template",
        checked.map_err(|error| error.to_string()),
        TAG_TEMPLATE,
    )
}

fn or_default(keys: &mut Keys<'_>, key: &'static str, checked: Result<Template, String>, default: &str) -> Template {
    checked.unwrap_or_else(|message| {
        keys.error(key, message, format!("the default is {default:?}"));
        Template::parse(key, default).unwrap_or_else(|_| unreachable!("the default template is valid"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<NetworkConfig, Vec<String>> {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let with_hint = |error: &ConfigError| format!("{error}; {}", error.hint);
        NetworkConfig::from_data(&data).map_err(|errors| errors.iter().map(with_hint).collect())
    }

    #[test]
    fn reads_former_names_and_any_case() {
        let config = read(&[
            ("_example", "anything"),
            ("autoTLS", "enabled"),
            ("http-protocol", "REDIRECTED"),
            ("internal-encryption", "true"),
            ("rolloutDuration", "380"),
            ("tagTemplate", "{{.Name}}-{{.Tag}}"),
            ("tag-template", "{{.Tag}}"),
        ])
        .unwrap();
        assert!(config.external_domain_tls && config.system_internal_tls && !config.cluster_local_domain_tls);
        assert_eq!(config.http_protocol, HttpProtocol::Redirected);
        assert_eq!(config.rollout_duration, Duration::from_secs(380));
        assert_eq!(config.tag_template.source(), "{{.Tag}}");
        assert_eq!(config.external_scheme, "http");
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let errors = read(&[
            ("domain-templat", "x"),
            ("domain-template", "{{.Nope}}"),
            ("tag-template", "{{.Tag"),
            ("rollout-duration", "10s"),
            ("mesh-compatibility-mode", "sometimes"),
            ("enable-mesh-pod-addressability", "yes"),
        ])
        .unwrap_err();
        assert_eq!(
            errors,
            [
                "data.domain-template: template: domain-template:1:2: can't evaluate field Nope in type \
                 config.DomainTemplateValues; the default is \"{{.Name}}.{{.Namespace}}.{{.Domain}}\"",
                "data.tag-template: template: tag-template:1:0: unclosed action; the default is \"{{.Tag}}-{{.Name}}\"",
                "data.rollout-duration: invalid value \"10s\"; write a whole number of seconds, 0 or more",
                "data.enable-mesh-pod-addressability: invalid value \"yes\"; write \"true\" or \"false\"",
                "data.mesh-compatibility-mode: invalid value \"sometimes\"; write \"auto\" or \"enabled\" or \"disabled\"",
                "data.domain-templat: unknown key; did you mean \"domain-template\"?",
            ]
        );
        for template in ["{{.Domain}}/{{.Name}}", "", "{{.Labels.x}}"] {
            assert!(read(&[("domain-template", template)]).is_err(), "{template}");
        }
    }
}
