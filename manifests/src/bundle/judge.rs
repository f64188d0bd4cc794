//! One object: defaulted, validated in Knative's words, then judged by what Knarr has built.

use super::{Bundle, Checked, Object, ObjectKey, Runtimes, merge};
use crate::annotations::{self, Place};
use crate::config::ClusterConfig;
use crate::convert::{self, Fault, Identity};
use crate::domains::{DomainError, Hosts, RouteMeta};
use crate::ids::{ObjectId, RevisionId};
use crate::knative::{self, Context, Operation};
use crate::problem::Problem;
use crate::read::Document;
use crate::resources::{Resource, RevisionTemplate, TrafficTarget};
use crate::support::{self, Unsupported};
use crate::units::Timestamp;
use crate::{domains, names};

/// Puts the object of `document` into the bundle, or says why not.
pub(super) fn judge(
    document: &Document,
    previous: Option<&Bundle>,
    runtimes: Option<&Runtimes>,
    checked: &mut Checked,
) {
    // Taken in before.
    let early = matches!(
        document.resource,
        Resource::ConfigMap(_) | Resource::Secret(_) | Resource::PersistentVolumeClaim(_)
    );
    if early {
        return;
    }
    let key = ObjectKey::of(&document.resource);
    let stored = key.as_ref().and_then(|key| previous?.objects.get(key));
    let settings = checked.bundle.cluster.settings.clone();
    let operation = stored.map_or(Operation::Create, |stored| Operation::Update { old: &stored.resource });
    let context = Context {
        operation,
        user: None,
        settings: &settings,
    };

    let applied = document.resource.to_value();
    let mut resource = match stored {
        Some(stored) => {
            // It was written below, so it can be read.
            let before = serde_json::from_str(&stored.applied).unwrap_or_default();
            let merged = merge::apply(&before, &applied, &stored.resource.to_value());
            // Both parts fit the kind's schema, and so does their union.
            Resource::from_value(merged).unwrap_or_else(|_| document.resource.clone())
        }
        None => document.resource.clone(),
    };
    knative::set_defaults(&mut resource, &context);
    let errors = knative::validate(&resource, &context);
    let mut findings = Findings {
        document,
        problems: knative::problems(&errors.errors(), document),
        warnings: Vec::new(),
    };
    // No sandbox has privileges on this machine, whether the manifest says so or not.
    let insecure = |warning: &Problem| warning.message.starts_with("Kubernetes default value is insecure");
    let warnings = knative::problems(&errors.warnings(), document);
    findings
        .warnings
        .extend(warnings.into_iter().filter(|warning| !insecure(warning)));

    findings.annotations(&resource, &checked.bundle.cluster);
    for unsupported in support::unsupported(&resource) {
        findings.unsupported(&unsupported);
    }
    let around = checked.bundle.around();
    if let Some(template) = template_of(&resource) {
        for fault in trial(&resource, template, around) {
            findings.fault(&fault);
        }
        if let Some(runtimes) = runtimes {
            findings.runtime(template, runtimes);
        }
    }
    let hosts = Hosts {
        network: &around.cluster.network,
        domains: &around.cluster.domain,
    };
    findings.hosts(&resource, hosts);

    let Findings { problems, warnings, .. } = findings;
    if problems.is_empty()
        && document.is_sound()
        && let Some(key) = key
    {
        let origin = document.origin.clone();
        checked.bundle.objects.insert(
            key,
            Object {
                resource,
                applied: applied.to_string().into(),
                origin,
            },
        );
    }
    checked.problems.extend(problems);
    checked.warnings.extend(warnings);
}

/// The template of a Service or Configuration.
pub(super) fn template_of(resource: &Resource) -> Option<&RevisionTemplate> {
    match resource {
        Resource::Service(service) => Some(&service.spec.template),
        Resource::Configuration(configuration) => Some(&configuration.spec.template),
        _ => None,
    }
}

/// The traffic of a Service or Route.
pub(super) fn traffic_of(resource: &Resource) -> Option<&[TrafficTarget]> {
    match resource {
        Resource::Service(service) => Some(&service.spec.traffic),
        Resource::Route(route) => Some(&route.spec.traffic),
        _ => None,
    }
}

/// What would keep the template from becoming its next revision.
fn trial(resource: &Resource, template: &RevisionTemplate, around: convert::Surroundings<'_>) -> Vec<Fault> {
    let id = convert::object_id(resource.metadata());
    let name = match template.metadata.name.as_str() {
        "" => names::revision(id.name(), 1),
        name => name.to_owned(),
    };
    let identity = Identity {
        id: RevisionId::new(id.namespace(), name),
        service: matches!(resource, Resource::Service(_)).then(|| id.clone()),
        configuration: id,
        created: Timestamp::EPOCH,
    };
    let revision = convert::revision_from(identity, &template.metadata, &template.spec, around);
    revision.err().unwrap_or_default()
}

struct Findings<'a> {
    document: &'a Document,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Findings<'_> {
    /// One field is complained about once: what came first is what counts.
    fn problem(&mut self, path: &str, message: &str, hint: &str) {
        let same = |problem: &Problem| problem.path == path || is_inside(path, &problem.path);
        if !self.document.is_damaged(path) && !self.problems.iter().any(same) {
            self.problems.push(self.document.problem(path, message).hint(hint));
        }
    }

    fn annotations(&mut self, resource: &Resource, cluster: &ClusterConfig) {
        let metadata = resource.metadata();
        let own = if matches!(resource, Resource::Revision(_)) {
            Place::Template
        } else {
            Place::Object
        };
        let template = template_of(resource).map(|template| &template.metadata.annotations);
        let places = [
            ("metadata", own, Some(&metadata.annotations)),
            ("spec.template.metadata", Place::Template, template),
        ];
        for (path, place, annotations) in places {
            for finding in annotations
                .map(|annotations| annotations::check(annotations, place, cluster))
                .unwrap_or_default()
            {
                let path = format!("{path}.annotations.{}", finding.key);
                if finding.refused {
                    self.problem(&path, &finding.message, &finding.hint);
                } else {
                    self.warnings
                        .push(self.document.problem(&path, finding.message).hint(finding.hint));
                }
            }
        }
    }

    fn unsupported(&mut self, unsupported: &Unsupported) {
        if unsupported.refused {
            self.problem(&unsupported.path, &unsupported.message(), &unsupported.hint);
        } else {
            let problem = self.document.problem(&unsupported.path, unsupported.message());
            self.warnings.push(problem.hint(unsupported.hint.as_str()));
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.problem(&format!("spec.template.{}", fault.path), &fault.message, &fault.hint);
    }

    /// A runtime that is none of those that this Knarr has.
    fn runtime(&mut self, template: &RevisionTemplate, known: &Runtimes) {
        let Some(name) = template.spec.runtime_class_name.as_deref() else {
            return;
        };
        if matches!(name, "" | convert::NATIVE) || known.contains(name) {
            return;
        }
        let names: Vec<&str> = [convert::NATIVE]
            .into_iter()
            .chain(known.iter().map(String::as_str))
            .collect();
        self.problem(
            "spec.template.spec.runtimeClassName",
            &format!("there is no runtime {name:?} here"),
            &format!(
                "this Knarr has {}; others are [[runtime]] in its settings",
                names.join(", ")
            ),
        );
    }

    /// Every host of a Route and its tags must be a domain name.
    fn hosts(&mut self, resource: &Resource, hosts: Hosts<'_>) {
        let Some(traffic) = traffic_of(resource) else { return };
        let tagged = traffic.iter().enumerate().filter(|(_, target)| !target.tag.is_empty());
        let tags = tagged.map(|(nth, target)| (format!("spec.traffic[{nth}].tag"), target.tag.as_str()));
        for (path, tag) in std::iter::once(("metadata.name".to_owned(), "")).chain(tags) {
            if let Err(error) = host_of(resource, tag, hosts) {
                self.problem(
                    &path,
                    &error.to_string(),
                    "shorten it, or change the templates in config-network",
                );
            }
        }
    }
}

/// The host of a Route or Service, or of one of its tags.
pub(super) fn host_of(resource: &Resource, tag: &str, hosts: Hosts<'_>) -> Result<String, DomainError> {
    let metadata = resource.metadata();
    let id: ObjectId = convert::object_id(metadata);
    let route = RouteMeta {
        name: id.name(),
        namespace: id.namespace(),
        labels: &metadata.labels,
        annotations: &metadata.annotations,
    };
    let local = domains::is_labelled_local(&metadata.labels);
    let visibility = if local {
        domains::Visibility::ClusterLocal
    } else {
        domains::Visibility::ExternalIp
    };
    let mut all = hosts.domains_for_visibility(route, tag, visibility)?;
    Ok(all.swap_remove(0))
}

/// Whether `path` is a field in `outer`.
fn is_inside(path: &str, outer: &str) -> bool {
    !outer.is_empty()
        && path
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with(['.', '[']))
}
