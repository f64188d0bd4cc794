//! Configuration: one Revision per generation of its template; the newest ready one is what Routes follow (Knative: its reconciler).

use manifests::exchange::ConditionStatus;
use manifests::ids::ObjectId;
use manifests::resources::{Configuration, ConfigurationStatus, Revision};

use super::{Context, child_meta, labels};
use crate::objects::conditions::{Says, ready};
use crate::objects::{Conditions, Object, READY, Store, controller, rfc3339};

/// Makes the Revision of the current generation and settles the status.
pub(super) fn reconcile(store: &mut Store, id: &ObjectId, context: &Context<'_>) {
    let Some(configuration) = store.get::<Configuration>(id).cloned() else {
        return;
    };
    let generation = configuration.metadata.generation;
    let mut conditions = Conditions::new(configuration.status.conditions.clone(), &[], context.now);
    let mut status = ConfigurationStatus {
        observed_generation: generation,
        ..configuration.status.clone()
    };

    let revision_id = revision_of(&configuration);
    match store.get::<Revision>(&revision_id) {
        Some(existing) if controller(&existing.metadata) != Some(configuration.metadata.uid.as_str()) => {
            conditions.set(READY, taken(revision_id.name(), &mut String::new()));
        }
        Some(existing)
            if !is_of_generation(existing, generation) && existing.spec != configuration.spec.template.spec =>
        {
            // Only a name of the user's own can come back with another spec.
            conditions.set(READY, taken(revision_id.name(), &mut String::new()));
        }
        existing => {
            if existing.is_none() {
                store.apply(revision_for(&configuration, revision_id.name(), context), context.now);
            }
            status.latest_created_revision_name = revision_id.name().to_owned();
            if let Some(revision) = store.get::<Revision>(&revision_id) {
                let says = ready(&revision.status.conditions);
                match says.status {
                    ConditionStatus::True => conditions.set(READY, crate::objects::TRUE),
                    ConditionStatus::Unknown => conditions.set(READY, says),
                    ConditionStatus::False => {
                        let message = format!(
                            "Revision \"{}\" failed with message: {}.",
                            revision_id.name(),
                            says.message
                        );
                        conditions.set(
                            READY,
                            Says {
                                status: ConditionStatus::False,
                                reason: "RevisionFailed",
                                message: &message,
                            },
                        );
                    }
                }
            }
        }
    }
    if let Some(latest) = latest_ready(store, &configuration) {
        status.latest_ready_revision_name = latest;
    }
    status.conditions = conditions.finish();
    store.set_status::<Configuration>(id, status);
}

/// The name of the current generation's Revision: the user's own, or `NAME-00001`.
fn revision_of(configuration: &Configuration) -> ObjectId {
    let own = &configuration.spec.template.metadata.name;
    let generation = u64::try_from(configuration.metadata.generation).unwrap_or_default();
    let name = if own.is_empty() {
        manifests::names::revision(&configuration.metadata.name, generation)
    } else {
        own.clone()
    };
    ObjectId::new(configuration.metadata.namespace.as_str(), name)
}

fn is_of_generation(revision: &Revision, generation: i64) -> bool {
    revision.metadata.labels.get(labels::CONFIGURATION_GENERATION) == Some(&generation.to_string())
}

fn revision_for(configuration: &Configuration, name: &str, context: &Context<'_>) -> Revision {
    let template = &configuration.spec.template;
    let meta = &configuration.metadata;
    let mut metadata = child_meta(
        configuration,
        name,
        &[
            (labels::CONFIGURATION, &meta.name),
            (labels::CONFIGURATION_UID, &meta.uid),
            (labels::CONFIGURATION_GENERATION, &meta.generation.to_string()),
            (labels::ROUTING_STATE, "pending"),
        ],
    );
    for key in [labels::SERVICE, labels::SERVICE_UID] {
        if let Some(value) = meta.labels.get(key) {
            metadata.labels.insert(key.to_owned(), value.clone());
        }
    }
    for (key, value) in &template.metadata.labels {
        metadata.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    metadata.annotations.clone_from(&template.metadata.annotations);
    metadata
        .annotations
        .insert(labels::ROUTING_STATE_MODIFIED.to_owned(), rfc3339(context.now));
    for key in ["serving.knative.dev/creator"] {
        if let Some(value) = meta.annotations.get(key) {
            metadata.annotations.insert(key.to_owned(), value.clone());
        }
    }
    Revision {
        kind: Revision::NAME.to_owned(),
        api_version: Revision::API_VERSION.to_owned(),
        metadata,
        spec: template.spec.clone(),
        ..Revision::default()
    }
}

/// The newest ready Revision by generation that is not older than the one known so far: a rollback of readiness never
/// moves traffic back.
fn latest_ready(store: &Store, configuration: &Configuration) -> Option<String> {
    let generation_of = |revision: &Revision| -> i64 {
        let label = revision.metadata.labels.get(labels::CONFIGURATION_GENERATION);
        label.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let namespace = configuration.metadata.namespace.as_str();
    let known = &configuration.status.latest_ready_revision_name;
    let floor = store
        .get::<Revision>(&ObjectId::new(namespace, known.as_str()))
        .map_or(0, |it| generation_of(it));
    store
        .children::<Revision>(&configuration.metadata.uid)
        .filter(|revision| ready(&revision.status.conditions).status == ConditionStatus::True)
        .max_by_key(|revision| generation_of(revision))
        .filter(|revision| generation_of(revision) >= floor)
        .map(|revision| revision.metadata.name.clone())
}

fn taken<'a>(name: &str, text: &'a mut String) -> Says<'a> {
    *text = format!("Revision creation failed with message: revisions.serving.knative.dev \"{name}\" already exists.");
    Says {
        status: ConditionStatus::False,
        reason: "RevisionFailed",
        message: text,
    }
}
