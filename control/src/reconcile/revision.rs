//! Revision: what scaling says of it, as Knative's conditions; which Routes use it, as labels (Knative: the revision reconciler and the labeler).

use manifests::exchange::{Condition, ConditionStatus, RevisionStatus as Scaled};
use manifests::ids::{ObjectId, RevisionId};
use manifests::resources::{ContainerStatus, Revision, RevisionStatus, Route};

use super::{Context, labels};
use crate::objects::conditions::{Says, TRUE};
use crate::objects::{Conditions, Key, Kind, Store, rfc3339};
use crate::pulls::pins::Pins;
use crate::pulls::{self, Stage, Standing, Wanted};

/// Settles conditions, replica counts and routing state.
pub(super) fn reconcile(store: &mut Store, id: &ObjectId, context: &Context<'_>) {
    label_routing(store, id, context);
    let Some(revision) = store.get::<Revision>(id).cloned() else {
        return;
    };
    let scaled = context.statuses.get(&RevisionId::new(id.namespace(), id.name()));
    let mut conditions = Conditions::new(
        revision.status.conditions.clone(),
        &["ContainerHealthy", "ResourcesAvailable"],
        context.now,
    );
    let mut status = RevisionStatus {
        observed_generation: revision.metadata.generation,
        ..revision.status.clone()
    };
    let standing = context.pulls.standing(id);
    if let Some(Standing::Pulling(wanted, pins) | Standing::Failed(wanted, pins, _) | Standing::Ready(wanted, pins)) =
        standing
    {
        let statuses = |init| container_statuses(wanted, pins, init);
        (status.container_statuses, status.init_container_statuses) = (statuses(false), statuses(true));
    }
    match scaled {
        _ if let Some((container, resources)) = standing.and_then(waits_for_images) => {
            conditions.set("ContainerHealthy", container);
            conditions.set("ResourcesAvailable", resources);
            conditions.inform("Active", DEPLOYING);
        }
        None => {
            for kind in ["ContainerHealthy", "ResourcesAvailable"] {
                conditions.set(kind, DEPLOYING);
            }
            conditions.inform("Active", DEPLOYING);
        }
        Some(scaled) => {
            status.actual_replicas = i32::try_from(scaled.actual.0).ok();
            status.desired_replicas = scaled.desired.and_then(|desired| i32::try_from(desired.0).ok());
            conditions.set("ResourcesAvailable", health(scaled, &scaled.resources));
            conditions.set("ContainerHealthy", health(scaled, &scaled.container));
            conditions.inform("Active", as_says(&scaled.active));
        }
    }
    status.conditions = conditions.finish();
    store.set_status::<Revision>(id, status);
}

/// `ContainerHealthy` and `ResourcesAvailable` of a revision whose images are not there yet.
fn waits_for_images(standing: Standing<'_>) -> Option<(Says<'_>, Says<'_>)> {
    match standing {
        Standing::Ready(..) => None,
        Standing::Resolving => Some((RESOLVING, RESOLVING)),
        Standing::Pulling(..) => Some((PULLING, PULLING)),
        Standing::Failed(_, _, trouble) => {
            let failed = Says {
                status: ConditionStatus::False,
                reason: trouble.reason,
                message: &trouble.message,
            };
            Some(match trouble.stage {
                Stage::Resolve => (failed, RESOLVING),
                Stage::Pull => (PULLING, failed),
            })
        }
    }
}

/// Of the running containers, or of those that run before them.
fn container_statuses(wanted: &Wanted, pins: &Pins, init: bool) -> Vec<ContainerStatus> {
    let containers = wanted.containers.iter().filter(|it| it.init == init);
    let statuses = containers.map(|it| ContainerStatus {
        name: it.container.to_string(),
        image_digest: pulls::image_digest(&it.image, pins),
    });
    statuses.collect()
}

/// A failure stands; otherwise a revision that once reached its initial scale stays healthy, at zero too.
fn health<'a>(scaled: &Scaled, condition: &'a Condition) -> Says<'a> {
    match condition.status {
        ConditionStatus::False => as_says(condition),
        _ if scaled.initialized => TRUE,
        ConditionStatus::True | ConditionStatus::Unknown => {
            if condition.reason.is_empty() {
                DEPLOYING
            } else {
                as_says(condition)
            }
        }
    }
}

fn as_says(condition: &Condition) -> Says<'_> {
    Says {
        status: condition.status,
        reason: &condition.reason,
        message: &condition.message,
    }
}

/// Which Routes send it traffic, as the labeler writes it: `routingState` active or reserve (pending before its first
/// time), and the comma list of Routes.
fn label_routing(store: &mut Store, id: &ObjectId, context: &Context<'_>) {
    let Some(revision) = store.get::<Revision>(id) else {
        return;
    };
    let key = Key {
        kind: Kind::Revision,
        id: id.clone(),
    };
    let routes: Vec<&str> = store
        .naming::<Route>(&key)
        .filter(|route| {
            route
                .status
                .traffic
                .iter()
                .any(|target| target.revision_name == id.name())
        })
        .map(|route| route.metadata.name.as_str())
        .collect();
    let was = revision
        .metadata
        .labels
        .get(labels::ROUTING_STATE)
        .map_or("pending", String::as_str);
    let state = match (routes.is_empty(), was) {
        (false, _) => "active",
        (true, "pending") => "pending",
        (true, _) => "reserve",
    };
    let list = routes.join(",");
    if state == was
        && revision
            .metadata
            .annotations
            .get(labels::ROUTES)
            .map_or("", String::as_str)
            == list
    {
        return;
    }
    let mut labelled = Revision::clone(revision);
    if state != was {
        labelled
            .metadata
            .annotations
            .insert(labels::ROUTING_STATE_MODIFIED.to_owned(), rfc3339(context.now));
    }
    labelled
        .metadata
        .labels
        .insert(labels::ROUTING_STATE.to_owned(), state.to_owned());
    if list.is_empty() {
        labelled.metadata.annotations.remove(labels::ROUTES);
    } else {
        labelled.metadata.annotations.insert(labels::ROUTES.to_owned(), list);
    }
    store.apply(labelled, context.now);
}

const DEPLOYING: Says<'static> = Says {
    status: ConditionStatus::Unknown,
    reason: "Deploying",
    message: "",
};

const RESOLVING: Says<'static> = Says {
    status: ConditionStatus::Unknown,
    reason: "ResolvingDigests",
    message: "",
};

const PULLING: Says<'static> = Says {
    status: ConditionStatus::Unknown,
    reason: "ContainerCreating",
    message: "pulling images",
};
