//! Names, hosts and URLs against what Knative itself returned (vectors/names_domains.jsonl).

#![allow(clippy::unwrap_used, reason = "a test over fixed data")]

use std::collections::BTreeMap;

use manifests::config::{DomainConfig, NetworkConfig};
use manifests::domains::{self, DomainError, Hosts, RouteMeta, StringMap, Visibility};
use manifests::names;
use serde_json::{Value, json};

struct Case {
    input: Value,
    network: NetworkConfig,
    domains: DomainConfig,
    labels: StringMap,
    annotations: StringMap,
}

impl Case {
    fn new(input: Value) -> Self {
        // The vectors also hold templates that the ConfigMap itself would refuse: those are made without its check.
        let template = |key: &'static str, name| {
            let source = input[key].as_str().unwrap_or("{{.Name}}.{{.Namespace}}.{{.Domain}}");
            manifests::template::Template::parse(name, source).expect("every template of the vectors parses")
        };
        let network = NetworkConfig {
            domain_template: template("domain_template", "domain-template"),
            tag_template: template("tag_template", "tag-template"),
            ..NetworkConfig::default()
        };
        let selectors = input["domains"].as_object().into_iter().flatten();
        let domains = selectors
            .map(|(domain, selector)| (domain.clone(), strings(selector)))
            .collect();
        Self {
            network,
            domains: DomainConfig::new(domains),
            labels: strings(&input["labels"]),
            annotations: strings(&input["annotations"]),
            input,
        }
    }

    fn text(&self, key: &str) -> &str {
        self.input[key].as_str().unwrap_or_default()
    }

    fn hosts(&self) -> Hosts<'_> {
        Hosts {
            network: &self.network,
            domains: &self.domains,
        }
    }

    fn route(&self) -> RouteMeta<'_> {
        RouteMeta {
            name: self.text("name"),
            namespace: self.text("namespace"),
            labels: &self.labels,
            annotations: &self.annotations,
        }
    }

    fn run(&self, function: &str) -> Result<Value, DomainError> {
        Ok(match function {
            "child_name" => names::child_name(self.text("parent"), self.text("suffix")).into(),
            "resource_names" => {
                let name = self.text("name");
                json!({
                    "revision_deployment": names::revision_deployment(name),
                    "revision_image_cache": names::revision_image_cache(name),
                    "revision_pa": names::revision_pod_autoscaler(name),
                    "route_certificate": names::route_certificate(self.text("route_uid")),
                    "route_ingress": names::route_ingress(name),
                    "route_k8s_service": names::route_service(name),
                    "route_k8s_service_fullname": names::route_service_host(name, self.text("namespace")),
                    "sks_private_service": names::private_service(name),
                })
            }
            "wildcard_certificate" => names::wildcard_certificate(self.text("dns_name")).into(),
            "hostname_from_template" => self.hosts().hostname(self.text("name"), self.text("tag"))?.into(),
            "domain_name_from_template" => self.hosts().domain_name(self.route(), self.text("name"))?.into(),
            "domains_for_visibility" => {
                let visibility = visibility(&self.input["visibility"]);
                let mut all = self
                    .hosts()
                    .domains_for_visibility(self.route(), self.text("tag"), visibility)?;
                let primary = all[0].clone();
                all.sort();
                json!({ "expanded_sorted": all, "primary": primary })
            }
            "all_domains_and_tags" => {
                let tags: Vec<_> = self.input["tags"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|tag| tag.as_str().unwrap())
                    .collect();
                let visibilities = self.input["visibility"].as_object().unwrap().iter();
                let visibilities = visibilities
                    .map(|(tag, value)| (tag.as_str(), visibility(value)))
                    .collect();
                json!(self.hosts().all_domains_and_tags(self.route(), &tags, &visibilities)?)
            }
            "url" => json!({
                "url": domains::url(self.text("scheme"), self.text("host")),
                "is_cluster_local": domains::is_cluster_local(self.text("host")),
            }),
            "lookup_domain_for_labels" => self.domains.lookup(&self.labels).into(),
            other => panic!("no such function: {other}"),
        })
    }
}

fn strings(value: &Value) -> StringMap {
    let entries = value.as_object().into_iter().flatten();
    entries
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

fn visibility(value: &Value) -> Visibility {
    if value == "ClusterLocal" {
        Visibility::ClusterLocal
    } else {
        Visibility::ExternalIp
    }
}

#[test]
fn equals_knative_in_every_case() {
    let mut seen = BTreeMap::new();
    for line in include_str!("vectors/names_domains.jsonl").lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let (id, function) = (record["id"].to_string(), record["fn"].as_str().unwrap().to_owned());
        *seen.entry(function.clone()).or_insert(0) += 1;
        match (Case::new(record["in"].take()).run(&function), record["error"].as_str()) {
            (Ok(got), None) => assert_eq!(got, record["want"], "{id} {function}"),
            // Template errors quote Go's implementation; that there is one is what counts.
            (Err(DomainError::DomainTemplate(_) | DomainError::TagTemplate(_)), Some(want)) => {
                assert!(want.contains("error executing the "), "{id} {function}: {want}");
            }
            (Err(error @ DomainError::Invalid { .. }), Some(want)) => {
                assert_eq!(error.to_string(), want, "{id} {function}")
            }
            (got, want) => panic!("{id} {function}: got {got:?}, want error {want:?}"),
        }
    }
    assert_eq!(seen.values().sum::<usize>(), 361);
    assert_eq!(seen.len(), 9);
}
