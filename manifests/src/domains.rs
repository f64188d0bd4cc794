//! Host names and URLs of Routes: Knative's domain and tag templates, and the domain a Route's labels select.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{DomainConfig, NetworkConfig};
use crate::template::{Template, TemplateError, Value};

/// The cluster's own domain. Embedded, nothing can change it.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Label that makes a Route visible in the cluster only, when its value is [`CLUSTER_LOCAL`].
pub const VISIBILITY_LABEL: &str = "networking.knative.dev/visibility";
/// The one value of [`VISIBILITY_LABEL`] that means something.
pub const CLUSTER_LOCAL: &str = "cluster-local";

/// Labels or annotations.
pub type StringMap = BTreeMap<String, String>;

/// Who can reach a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Visibility {
    /// Everyone.
    #[default]
    ExternalIp,
    /// The cluster only.
    ClusterLocal,
}

/// What the templates know of a Route.
#[derive(Clone, Copy, Debug)]
pub struct RouteMeta<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels; they select the domain.
    pub labels: &'a StringMap,
    /// Its annotations.
    pub annotations: &'a StringMap,
}

/// The two ConfigMaps that decide about hosts.
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    /// `config-network`.
    pub network: &'a NetworkConfig,
    /// `config-domain`.
    pub domains: &'a DomainConfig,
}

/// Why a Route has no host name. The texts are Knative's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DomainError {
    /// The domain template fails for this Route.
    #[error("domain name error: error executing the DomainTemplate: {0}")]
    DomainTemplate(TemplateError),
    /// The tag template fails for this Route.
    #[error("domain name error: error executing the TagTemplate: {0}")]
    TagTemplate(TemplateError),
    /// What came out is not a fully qualified domain name.
    #[error("domain name error: invalid domain name \"{domain}\": {reason}")]
    Invalid {
        /// What came out.
        domain: String,
        /// Kubernetes' words for what is wrong.
        reason: String,
    },
}

impl Hosts<'_> {
    /// What stands in the place of the Route's name for `tag`: the name itself when `tag` is empty.
    pub fn hostname(&self, name: &str, tag: &str) -> Result<String, DomainError> {
        if tag.is_empty() {
            return Ok(name.to_owned());
        }
        execute_tag(&self.network.tag_template, name, tag).map_err(DomainError::TagTemplate)
    }

    /// The domain name for `hostname` by the domain template, Knative's default one when the Route is cluster-local.
    pub fn domain_name(&self, route: RouteMeta<'_>, hostname: &str) -> Result<String, DomainError> {
        let local = is_labelled_local(route.labels);
        let domain = self.domains.lookup(route.labels);
        let name = if local {
            format!("{hostname}.{}.{domain}", route.namespace)
        } else {
            let meta = RouteMeta {
                name: hostname,
                ..route
            };
            execute_domain(&self.network.domain_template, meta, &domain).map_err(DomainError::DomainTemplate)?
        };
        match check_qualified(&name) {
            Ok(()) => Ok(name),
            Err(reason) => Err(DomainError::Invalid { domain: name, reason }),
        }
    }

    /// All hosts of a Route (`tag` empty) or one of its tags under a visibility, the primary one first. A cluster-local
    /// host is known by its short forms, too.
    pub fn domains_for_visibility(
        &self,
        route: RouteMeta<'_>,
        tag: &str,
        visibility: Visibility,
    ) -> Result<Vec<String>, DomainError> {
        let hostname = self.hostname(route.name, tag)?;
        let labels = with_visibility(route.labels, visibility);
        let primary = self.domain_name(
            RouteMeta {
                labels: &labels,
                ..route
            },
            &hostname,
        )?;
        Ok(match visibility {
            Visibility::ExternalIp => vec![primary],
            Visibility::ClusterLocal => expand(primary),
        })
    }

    /// The domain of every tag ("" for the Route itself), to the tag. `visibility` names only what differs from
    /// [`Visibility::ExternalIp`].
    pub fn all_domains_and_tags(
        &self,
        route: RouteMeta<'_>,
        tags: &[&str],
        visibility: &BTreeMap<&str, Visibility>,
    ) -> Result<BTreeMap<String, String>, DomainError> {
        let mut domains = BTreeMap::new();
        for tag in tags {
            let hostname = self.hostname(route.name, tag)?;
            let labels = with_visibility(route.labels, visibility.get(tag).copied().unwrap_or_default());
            let domain = self.domain_name(
                RouteMeta {
                    labels: &labels,
                    ..route
                },
                &hostname,
            )?;
            domains.insert(domain, (*tag).to_owned());
        }
        Ok(domains)
    }
}

/// `SCHEME://HOST`.
pub fn url(scheme: &str, host: &str) -> String {
    format!("{scheme}://{host}")
}

/// Whether a host is visible in the cluster only. As Knative does it: by the end of the text alone.
pub fn is_cluster_local(host: &str) -> bool {
    host.ends_with(CLUSTER_DOMAIN)
}

/// Whether labels make their Route cluster-local.
pub fn is_labelled_local(labels: &StringMap) -> bool {
    labels.get(VISIBILITY_LABEL).is_some_and(|value| value == CLUSTER_LOCAL)
}

pub(crate) fn execute_tag(template: &Template, name: &str, tag: &str) -> Result<String, TemplateError> {
    let fields = vec![("Name", name.into()), ("Tag", tag.into())];
    template.execute(&Value::Struct("config.TagTemplateValues", fields))
}

pub(crate) fn execute_domain(template: &Template, route: RouteMeta<'_>, domain: &str) -> Result<String, TemplateError> {
    let fields = vec![
        ("Name", route.name.into()),
        ("Namespace", route.namespace.into()),
        ("Domain", domain.into()),
        ("Annotations", Value::Map(route.annotations)),
        ("Labels", Value::Map(route.labels)),
    ];
    template.execute(&Value::Struct("config.DomainTemplateValues", fields))
}

/// Sets or removes the visibility label.
fn with_visibility(labels: &StringMap, visibility: Visibility) -> StringMap {
    let mut labels = labels.clone();
    match visibility {
        Visibility::ExternalIp => labels.remove(VISIBILITY_LABEL),
        Visibility::ClusterLocal => labels.insert(VISIBILITY_LABEL.to_owned(), CLUSTER_LOCAL.to_owned()),
    };
    labels
}

/// `a.ns.svc.cluster.local` with `a.ns.svc` and `a.ns`, unless the last part would be all digits or longer than a label.
fn expand(primary: String) -> Vec<String> {
    let mut hosts = BTreeSet::new();
    for suffix in [
        String::new(),
        format!(".{CLUSTER_DOMAIN}"),
        format!(".svc.{CLUSTER_DOMAIN}"),
    ] {
        let Some(host) = primary.strip_suffix(&suffix) else {
            continue;
        };
        let last = host.rsplit('.').next().unwrap_or(host);
        if last.len() <= 63 && last.bytes().any(|byte| byte == b'-' || byte > b'9') {
            hosts.insert(host.to_owned());
        }
    }
    hosts.remove(&primary);
    std::iter::once(primary).chain(hosts).collect()
}

/// Kubernetes: `IsFullyQualifiedDomainName` at the path `url`.
fn check_qualified(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("url: Required value".to_owned());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let invalid = |value: &str, faults: &str| Err(format!("url: Invalid value: {value:?}: {faults}"));

    if let Err(faults) = check_subdomain(name) {
        return invalid(name, &faults);
    }
    if !name.contains('.') {
        return invalid(name, "should be a domain with at least two segments separated by dots");
    }
    // Kubernetes aggregates equal errors into one, and prints several in brackets.
    let mut long = Vec::new();
    for label in name.split('.').filter(|label| label.len() > 63) {
        let fault = format!("url: Invalid value: {label:?}: must be no more than 63 characters");
        if !long.contains(&fault) {
            long.push(fault);
        }
    }
    match long.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// Kubernetes: `IsDNS1123Subdomain`; the error is its words, joined by commas.
pub(crate) fn check_subdomain(name: &str) -> Result<(), String> {
    let mut faults = Vec::new();
    if name.len() > 253 {
        faults.push("must be no more than 253 characters");
    }
    if !name.split('.').all(is_label) {
        faults.push(SUBDOMAIN);
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join(","))
    }
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte))
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
     must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
