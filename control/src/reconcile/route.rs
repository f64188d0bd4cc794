//! Route: traffic resolved to ready Revisions, and the hosts that serve it (Knative: the route reconciler).
//!
//! While a target cannot be resolved the Route keeps the traffic it has: a new revision gets requests only once it is
//! ready, and a broken one never does.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifests::domains::{self, RouteMeta, Visibility};
use manifests::exchange::{ConditionStatus, HostRoute, RouteTarget};
use manifests::ids::{ObjectId, RevisionId};
use manifests::resources::{Addressable, Configuration, Revision, Route, RouteStatus, TrafficTarget};
use manifests::units::Percent;

use super::{Context, RouteHosts, Routing};
use crate::objects::conditions::{Says, TRUE, ready};
use crate::objects::{Conditions, Store};

/// How hosts are named.
#[derive(Clone, Copy)]
pub struct Hosts<'a> {
    /// Knative's templates and domains.
    pub knative: domains::Hosts<'a>,
    /// `tag-header-based-routing` is on.
    pub by_tag_header: bool,
}

/// Settles the Route's traffic, hosts and status.
pub(super) fn reconcile(store: &mut Store, routing: &mut Routing, id: &ObjectId, context: &Context<'_>) {
    let Some(route) = store.get::<Route>(id).cloned() else {
        routing.version += u64::from(routing.routes.remove(id).is_some());
        return;
    };
    let mut conditions = Conditions::new(
        route.status.conditions.clone(),
        &["AllTrafficAssigned", "IngressReady", "CertificateProvisioned"],
        context.now,
    );
    conditions.set("CertificateProvisioned", TLS_NOT_ENABLED);
    let mut status = RouteStatus {
        observed_generation: route.metadata.generation,
        ..route.status.clone()
    };

    let named = Named::of(&route, context);
    let domain_error = match &named {
        Ok(named) => {
            status.url = Some(domains::url("http", &named.primary));
            status.address = Some(Addressable {
                url: Some(domains::url(
                    "http",
                    &manifests::names::route_service_host(id.name(), id.namespace()),
                )),
                ..Addressable::default()
            });
            None
        }
        Err(error) => Some(error.to_string()),
    };
    let resolved: Result<Vec<TrafficTarget>, Unresolved> = route
        .spec
        .traffic
        .iter()
        .map(|target| resolve(store, id.namespace(), target))
        .collect();
    match resolved {
        Ok(mut traffic) => {
            for target in traffic.iter_mut().filter(|target| !target.tag.is_empty()) {
                let host = named
                    .as_ref()
                    .ok()
                    .and_then(|named| named.tags.get(&target.tag)?.first());
                target.url = host.map(|host| domains::url("http", host));
            }
            status.traffic = traffic;
            conditions.set("AllTrafficAssigned", TRUE);
        }
        Err(unresolved) => conditions.set(
            "AllTrafficAssigned",
            Says {
                status: unresolved.status,
                reason: unresolved.reason,
                message: &unresolved.message,
            },
        ),
    }
    match &domain_error {
        None => conditions.set("IngressReady", TRUE),
        Some(message) => conditions.set(
            "IngressReady",
            Says {
                status: ConditionStatus::False,
                reason: "DomainName",
                message,
            },
        ),
    }
    if let Ok(named) = &named {
        routing
            .routes
            .insert(id.clone(), hosts_of(id, &status.traffic, named, context));
    }
    status.conditions = conditions.finish();
    store.set_status::<Route>(id, status);
}

/// A target that has no ready revision yet, or never will.
struct Unresolved {
    status: ConditionStatus,
    reason: &'static str,
    message: String,
}

/// The revision a target means now, as `status.traffic` shows it.
fn resolve(store: &Store, namespace: &str, target: &TrafficTarget) -> Result<TrafficTarget, Unresolved> {
    let unresolved = |status, reason, message| Unresolved {
        status,
        reason,
        message,
    };
    let at = |name: &str| ObjectId::new(namespace, name);
    let revision_name = if target.revision_name.is_empty() {
        let name = target.configuration_name.as_str();
        let Some(configuration) = store.get::<Configuration>(&at(name)) else {
            let message = format!("Configuration \"{name}\" referenced in traffic not found.");
            return Err(unresolved(ConditionStatus::False, "ConfigurationMissing", message));
        };
        let latest = configuration.status.latest_ready_revision_name.clone();
        if latest.is_empty() {
            return Err(
                if ready(&configuration.status.conditions).status == ConditionStatus::False {
                    let message = format!("Configuration \"{name}\" does not have any ready Revision.");
                    unresolved(ConditionStatus::False, "RevisionMissing", message)
                } else {
                    let message = format!("Configuration \"{name}\" is waiting for a Revision to become ready.");
                    unresolved(ConditionStatus::Unknown, "RevisionMissing", message)
                },
            );
        }
        latest
    } else {
        let name = target.revision_name.as_str();
        let Some(revision) = store.get::<Revision>(&at(name)) else {
            let message = format!("Revision \"{name}\" referenced in traffic not found.");
            return Err(unresolved(ConditionStatus::False, "RevisionMissing", message));
        };
        match ready(&revision.status.conditions).status {
            ConditionStatus::True => target.revision_name.clone(),
            ConditionStatus::Unknown => {
                let message = format!("Revision \"{name}\" is not yet ready.");
                return Err(unresolved(ConditionStatus::Unknown, "RevisionMissing", message));
            }
            ConditionStatus::False => {
                let message = format!("Revision \"{name}\" failed to become ready.");
                return Err(unresolved(ConditionStatus::False, "RevisionMissing", message));
            }
        }
    };
    Ok(TrafficTarget {
        tag: target.tag.clone(),
        latest_revision: Some(target.revision_name.is_empty()),
        revision_name,
        configuration_name: String::new(),
        percent: target.percent,
        url: None,
    })
}

/// The hosts of a Route and of its tags, the primary one of each first.
struct Named {
    primary: String,
    all: Vec<String>,
    tags: BTreeMap<String, Vec<String>>,
}

impl Named {
    fn of(route: &Route, context: &Context<'_>) -> Result<Self, domains::DomainError> {
        let meta = RouteMeta {
            name: &route.metadata.name,
            namespace: &route.metadata.namespace,
            labels: &route.metadata.labels,
            annotations: &route.metadata.annotations,
        };
        let knative = context.hosts.knative;
        let hosts_for = |tag: &str| -> Result<Vec<String>, domains::DomainError> {
            let mut hosts = Vec::new();
            if !domains::is_labelled_local(meta.labels) {
                hosts.extend(knative.domains_for_visibility(meta, tag, Visibility::ExternalIp)?);
            }
            hosts.extend(knative.domains_for_visibility(meta, tag, Visibility::ClusterLocal)?);
            // Works on any machine without DNS: resolvers and browsers know that `localhost` is this one (RFC 6761).
            hosts.push(format!(
                "{}.{}.localhost",
                knative.hostname(meta.name, tag)?,
                meta.namespace
            ));
            Ok(hosts)
        };
        let all = hosts_for("")?;
        let tags = route
            .spec
            .traffic
            .iter()
            .map(|target| &target.tag)
            .filter(|tag| !tag.is_empty());
        let tags = tags
            .map(|tag| Ok((tag.clone(), hosts_for(tag)?)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            primary: all[0].clone(),
            all,
            tags,
        })
    }
}

/// What each host serves.
fn hosts_of(id: &ObjectId, traffic: &[TrafficTarget], named: &Named, context: &Context<'_>) -> RouteHosts {
    let revision = |target: &TrafficTarget| RevisionId::new(id.namespace(), target.revision_name.as_str());
    let by_tag: BTreeMap<Arc<str>, RevisionId> = traffic
        .iter()
        .filter(|target| !target.tag.is_empty())
        .map(|target| (Arc::from(target.tag.as_str()), revision(target)))
        .collect();
    let targets = traffic
        .iter()
        .filter_map(|target| {
            let percent = Percent::new(u8::try_from(target.percent.unwrap_or_default()).ok()?)?;
            (percent.get() > 0).then(|| RouteTarget {
                revision: revision(target),
                percent,
            })
        })
        .collect();
    let main = Arc::new(HostRoute {
        route: id.clone(),
        tag: None,
        targets,
        by_tag_header: if context.hosts.by_tag_header {
            by_tag.clone()
        } else {
            BTreeMap::new()
        },
    });
    let mut hosts: RouteHosts = named
        .all
        .iter()
        .map(|host| (host.to_ascii_lowercase().into(), Arc::clone(&main)))
        .collect();
    for (tag, tag_hosts) in &named.tags {
        let target = by_tag.get(tag.as_str());
        let route = Arc::new(HostRoute {
            route: id.clone(),
            tag: Some(tag.as_str().into()),
            targets: target
                .map(|revision| RouteTarget {
                    revision: revision.clone(),
                    percent: Percent::FULL,
                })
                .into_iter()
                .collect(),
            by_tag_header: BTreeMap::new(),
        });
        hosts.extend(
            tag_hosts
                .iter()
                .map(|host| (host.to_ascii_lowercase().into(), Arc::clone(&route))),
        );
    }
    hosts
}

const TLS_NOT_ENABLED: Says<'static> = Says {
    status: ConditionStatus::True,
    reason: "TLSNotEnabled",
    message: "external-domain-tls is not enabled",
};
