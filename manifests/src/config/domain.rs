//! `config-domain`: which domain a Route's labels select.

use std::collections::BTreeMap;

use crate::domains::{CLUSTER_DOMAIN, StringMap, is_labelled_local};

/// What `config-domain` says: each domain with the labels it selects. An empty selector matches every Route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainConfig {
    domains: BTreeMap<String, StringMap>,
}

impl DomainConfig {
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
