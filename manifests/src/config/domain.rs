//! `config-domain`: which domain a Route's labels select.

use std::collections::BTreeMap;

use serde_json::Value;

use super::keys::{ConfigError, EXAMPLE};
use crate::domains::{CLUSTER_DOMAIN, StringMap, is_labelled_local};
use crate::resources::{FieldShape, ObjectShape, Shape};

/// The value of each key: `selector:` with labels, or nothing.
const SELECTOR: Shape = Shape::Object(&ObjectShape {
    name: "DomainSelector",
    fields: &[FieldShape {
        name: "selector",
        shape: Shape::Map(&Shape::String),
    }],
});

/// What `config-domain` says: each domain with the labels it selects. An empty selector matches every Route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainConfig {
    domains: BTreeMap<String, StringMap>,
}

impl DomainConfig {
    /// From the ConfigMap's `data`: every key is a domain.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut domains = BTreeMap::new();
        let mut errors = Vec::new();
        for (domain, text) in data.iter().filter(|(key, _)| *key != EXAMPLE) {
            match crate::read::read_value(text, SELECTOR) {
                Ok(value) => {
                    let labels = value["selector"].as_object().into_iter().flatten();
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    domains.insert(
                        domain.clone(),
                        labels.map(|(label, value)| (label.clone(), text(value))).collect(),
                    );
                }
                Err(faults) => errors.extend(faults.into_iter().map(|fault| {
                    ConfigError::new(domain, fault, "write nothing, or `selector:` with labels under it")
                })),
            }
            if let Err(reason) = crate::domains::check_subdomain(domain) {
                errors.push(ConfigError::new(
                    domain,
                    format!("the key is not a domain: {reason}"),
                    "",
                ));
            }
        }
        if errors.is_empty() {
            Ok(Self::new(domains))
        } else {
            Err(errors)
        }
    }

    /// Domains with their selectors; without a default one (an empty selector), `svc.cluster.local` becomes it.
    pub fn new(mut domains: BTreeMap<String, StringMap>) -> Self {
        if !domains.values().any(BTreeMap::is_empty) {
            domains.insert(format!("svc.{CLUSTER_DOMAIN}"), BTreeMap::new());
        }
        Self { domains }
    }

    /// Each domain with the labels it selects.
    pub fn domains(&self) -> &BTreeMap<String, StringMap> {
        &self.domains
    }

    /// The domain for a Route's labels: the selector with the most labels wins, then the first by name. A Route that is
    /// labelled cluster-local always gets `svc.cluster.local`.
    pub fn lookup(&self, labels: &StringMap) -> String {
        if is_labelled_local(labels) {
            return format!("svc.{CLUSTER_DOMAIN}");
        }
        let matches = |selector: &StringMap| selector.iter().all(|(label, want)| labels.get(label) == Some(want));
        let mut best: Option<(&String, usize)> = None;
        for (domain, selector) in self.domains.iter().filter(|(_, selector)| matches(selector)) {
            if best.is_none_or(|(_, specificity)| selector.len() > specificity) {
                best = Some((domain, selector.len()));
            }
        }
        best.map(|(domain, _)| domain.clone()).unwrap_or_default()
    }
}

impl Default for DomainConfig {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<DomainConfig, Vec<ConfigError>> {
        DomainConfig::from_data(
            &data
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn reads_selectors() {
        let config = read(&[
            ("_example", "example.com: |"),
            ("example.org", "selector:\n  app: nonprofit\n"),
            ("example.com", ""),
            ("a.example.com", "{}"),
        ])
        .unwrap();
        let labels = |app: &str| StringMap::from([("app".to_owned(), app.to_owned())]);
        assert_eq!(config.lookup(&labels("nonprofit")), "example.org");
        assert_eq!(config.lookup(&labels("other")), "a.example.com");
        assert_eq!(read(&[]).unwrap().lookup(&labels("x")), "svc.cluster.local");
        assert_eq!(
            read(&[("example.org", "selector: {app: x}")])
                .unwrap()
                .lookup(&labels("y")),
            "svc.cluster.local"
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let errors = read(&[
            ("a.com", "selectr: {a: b}"),
            ("b.com", "selector: {a: 1}"),
            ("c.com", "- x"),
            ("Not A Domain", ""),
        ]);
        let errors: Vec<_> = errors.unwrap_err().iter().map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(
            errors[0].starts_with("data.Not A Domain: the key is not a domain: a lowercase RFC 1123"),
            "{errors:?}"
        );
        assert!(
            errors[1].contains("unknown field `selectr`") && errors[1].contains("did you mean `selector`?"),
            "{errors:?}"
        );
        assert!(
            errors[2].starts_with("data.b.com: selector.a: must be text"),
            "{errors:?}"
        );
    }
}
