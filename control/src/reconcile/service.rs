//! Service: one Configuration and one Route under its name, and their readiness as its own (Knative: its reconciler).

use manifests::exchange::ConditionStatus;
use manifests::ids::ObjectId;
use manifests::resources::{Configuration, ConfigurationSpec, Route, RouteSpec, Service, ServiceStatus, TrafficTarget};

use super::{Context, child_meta, labels};
use crate::objects::conditions::{Says, ready};
use crate::objects::{Conditions, Object, Store, controller};

/// Settles the Service's children and status.
pub(super) fn reconcile(store: &mut Store, id: &ObjectId, context: &Context<'_>) {
    let Some(service) = store.get::<Service>(id).cloned() else {
        return;
    };
    let mut conditions = Conditions::new(
        service.status.conditions.clone(),
        &["ConfigurationsReady", "RoutesReady"],
        context.now,
    );
    let mut status = ServiceStatus {
        observed_generation: service.metadata.generation,
        ..service.status.clone()
    };

    let owned = adopt(store, &service, configuration_for(&service), context);
    match (owned, store.get::<Configuration>(id)) {
        (true, Some(configuration)) => {
            status
                .latest_created_revision_name
                .clone_from(&configuration.status.latest_created_revision_name);
            status
                .latest_ready_revision_name
                .clone_from(&configuration.status.latest_ready_revision_name);
            if configuration.status.observed_generation == configuration.metadata.generation {
                conditions.set("ConfigurationsReady", ready(&configuration.status.conditions));
            } else {
                conditions.set(
                    "ConfigurationsReady",
                    out_of_date("Configuration", id.name(), &mut String::new()),
                );
            }
        }
        _ => conditions.set(
            "ConfigurationsReady",
            not_owned("Configuration", id.name(), &mut String::new()),
        ),
    }

    let owned = adopt(store, &service, route_for(&service), context);
    match (owned, store.get::<Route>(id)) {
        (true, Some(route)) => {
            status.url.clone_from(&route.status.url);
            status.address.clone_from(&route.status.address);
            status.traffic.clone_from(&route.status.traffic);
            if route.status.observed_generation != route.metadata.generation {
                conditions.set("RoutesReady", out_of_date("Route", id.name(), &mut String::new()));
            } else if is_true(ready(&route.status.conditions)) && !migrated(&status) {
                conditions.set("RoutesReady", NOT_MIGRATED);
            } else {
                conditions.set("RoutesReady", ready(&route.status.conditions));
            }
        }
        _ => conditions.set("RoutesReady", not_owned("Route", id.name(), &mut String::new())),
    }
    status.conditions = conditions.finish();
    store.set_status::<Service>(id, status);
}

/// Applies a child, unless an object of that name belongs to somebody else.
fn adopt<T: Object>(store: &mut Store, service: &Service, child: T, context: &Context<'_>) -> bool {
    let id = crate::objects::id_of(child.metadata());
    if let Some(existing) = store.get::<T>(&id)
        && controller(existing.metadata()) != Some(service.metadata.uid.as_str())
    {
        return false;
    }
    store.apply(child, context.now);
    true
}

fn configuration_for(service: &Service) -> Configuration {
    let mut metadata = passed_on(service);
    metadata.annotations.remove(labels::ROLLOUT_DURATION);
    Configuration {
        kind: Configuration::NAME.to_owned(),
        api_version: Configuration::API_VERSION.to_owned(),
        metadata,
        spec: ConfigurationSpec {
            template: service.spec.template.clone(),
        },
        ..Configuration::default()
    }
}

fn route_for(service: &Service) -> Route {
    let traffic = service.spec.traffic.iter().map(|target| TrafficTarget {
        // A target that names no revision follows the Service's own Configuration.
        configuration_name: if target.revision_name.is_empty() {
            service.metadata.name.clone()
        } else {
            String::new()
        },
        ..target.clone()
    });
    Route {
        kind: Route::NAME.to_owned(),
        api_version: Route::API_VERSION.to_owned(),
        metadata: passed_on(service),
        spec: RouteSpec {
            traffic: traffic.collect(),
        },
        ..Route::default()
    }
}

/// Labels and annotations that a Service hands to its Configuration and Route.
fn passed_on(service: &Service) -> manifests::resources::ObjectMeta {
    let of_service = [
        (labels::SERVICE, service.metadata.name.as_str()),
        (labels::SERVICE_UID, &service.metadata.uid),
    ];
    let mut metadata = child_meta(service, &service.metadata.name, &of_service);
    for (key, value) in &service.metadata.labels {
        metadata.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    metadata.annotations.clone_from(&service.metadata.annotations);
    metadata.annotations.remove(labels::LAST_APPLIED);
    metadata
}

/// Whether every target that follows the latest revision already goes to the latest ready one.
fn migrated(status: &ServiceStatus) -> bool {
    let mut latest = status
        .traffic
        .iter()
        .filter(|target| target.latest_revision == Some(true));
    latest.all(|target| target.revision_name == status.latest_ready_revision_name)
}

fn is_true(says: Says<'_>) -> bool {
    says.status == ConditionStatus::True
}

const NOT_MIGRATED: Says<'static> = Says {
    status: ConditionStatus::Unknown,
    reason: "TrafficNotMigrated",
    message: "Traffic is not yet migrated to the latest revision.",
};

fn out_of_date<'a>(kind: &str, name: &str, text: &'a mut String) -> Says<'a> {
    *text = format!("The {kind} \"{name}\" is still working to reflect the latest desired specification.");
    Says {
        status: ConditionStatus::Unknown,
        reason: "OutOfDate",
        message: text,
    }
}

fn not_owned<'a>(kind: &str, name: &str, text: &'a mut String) -> Says<'a> {
    *text = format!("There is an existing {kind} \"{name}\" that we do not own.");
    Says {
        status: ConditionStatus::False,
        reason: "NotOwned",
        message: text,
    }
}
