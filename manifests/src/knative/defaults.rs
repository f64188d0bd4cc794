//! What Knative fills in (Knative: `SetDefaults` of every kind).

mod containers;

use super::{Context, Operation, Settings, metadata};
use crate::resources::{ObjectMeta, Resource, RevisionSpec, RevisionTemplate, TrafficTarget};

/// Fills in what Knative's defaulting webhook would. ConfigMaps and Secrets are left alone.
pub fn set_defaults(resource: &mut Resource, context: &Context<'_>) {
    let pass = match context.operation {
        Operation::Create => Pass {
            old: None,
            is_create: true,
            is_update: false,
            user: context.user,
        },
        Operation::Update { old } => {
            // The stored object is compared as it would look with today's defaults, or those would count as a change.
            let mut old = old.clone();
            fill(&mut old, &Pass::default(), context.settings);
            let pass = Pass {
                old: Some(&old),
                is_create: false,
                is_update: true,
                user: context.user,
            };
            return fill(resource, &pass, context.settings);
        }
    };
    fill(resource, &pass, context.settings);
}

/// The circumstances of one defaulting.
#[derive(Default)]
struct Pass<'a> {
    old: Option<&'a Resource>,
    is_create: bool,
    is_update: bool,
    user: Option<&'a str>,
}

fn fill(resource: &mut Resource, pass: &Pass<'_>, settings: &Settings) {
    match resource {
        Resource::Service(new) => {
            let old = match pass.old {
                Some(Resource::Service(old)) => Some(old),
                _ => None,
            };
            let old_template = old.map(|old| &old.spec.template);
            template(
                &mut new.spec.template,
                old_template,
                &new.metadata,
                pass.is_create,
                settings,
            );
            traffic(&mut new.spec.traffic, true);
            note_user(&mut new.metadata, pass, old.is_some_and(|old| old.spec == new.spec));
        }
        Resource::Configuration(new) => {
            let old = match pass.old {
                Some(Resource::Configuration(old)) => Some(old),
                _ => None,
            };
            let old_template = old.map(|old| &old.spec.template);
            template(
                &mut new.spec.template,
                old_template,
                &new.metadata,
                pass.is_create,
                settings,
            );
            if !new.metadata.owner_references.is_given() {
                note_user(&mut new.metadata, pass, old.is_some_and(|old| old.spec == new.spec));
            }
        }
        // A stored revision never changes.
        Resource::Revision(new) if !pass.is_update => {
            revision_spec(&mut new.spec, &ObjectMeta::default(), pass.is_create, settings);
        }
        Resource::Route(new) => {
            traffic(&mut new.spec.traffic, false);
            if !new.metadata.owner_references.is_given() {
                let same_spec = matches!(pass.old, Some(Resource::Route(old)) if old.spec == new.spec);
                note_user(&mut new.metadata, pass, same_spec);
            }
        }
        Resource::DomainMapping(new) => {
            if new.spec.target.namespace.is_empty() {
                new.spec.target.namespace.clone_from(&new.metadata.namespace);
            }
            let same_spec = matches!(pass.old, Some(Resource::DomainMapping(old)) if old.spec == new.spec);
            note_user(&mut new.metadata, pass, same_spec);
        }
        Resource::Revision(_) | Resource::ConfigMap(_) | Resource::Secret(_) | Resource::PersistentVolumeClaim(_) => {}
    }
}

fn template(
    new: &mut RevisionTemplate,
    old: Option<&RevisionTemplate>,
    parent: &ObjectMeta,
    is_create: bool,
    settings: &Settings,
) {
    // With a name of the user's own a template may not change, so nothing is filled into it either.
    let keeps_its_name = old.is_some_and(|old| !new.metadata.name.is_empty() && old.metadata.name == new.metadata.name);
    if !keeps_its_name {
        revision_spec(&mut new.spec, parent, is_create, settings);
    }
}

fn revision_spec(spec: &mut RevisionSpec, parent: &ObjectMeta, is_create: bool, settings: &Settings) {
    let defaults = &settings.defaults;
    if spec.timeout_seconds.unwrap_or_default() == 0 {
        spec.timeout_seconds = Some(defaults.timeout_seconds);
    }
    let timeout = spec.timeout_seconds.unwrap_or_default();
    // A default that is not shorter than the whole request says nothing.
    let shorter = |seconds: i64| (seconds != 0 && seconds < timeout).then_some(seconds);
    spec.idle_timeout_seconds = spec
        .idle_timeout_seconds
        .or_else(|| shorter(defaults.idle_timeout_seconds));
    spec.response_start_timeout_seconds = spec
        .response_start_timeout_seconds
        .or_else(|| shorter(defaults.response_start_timeout_seconds));
    spec.container_concurrency.get_or_insert(defaults.container_concurrency);
    containers::fill(spec, parent, settings);
    if is_create && spec.enable_service_links.is_none() && !spec.containers().is_empty() {
        spec.enable_service_links = defaults.enable_service_links;
    }
}

/// A Service without targets sends everything to its latest revision.
fn traffic(targets: &mut Vec<TrafficTarget>, of_service: bool) {
    if targets.is_empty() && of_service {
        targets.push(TrafficTarget {
            percent: Some(100),
            latest_revision: Some(true),
            ..TrafficTarget::default()
        });
    }
    for target in targets {
        target.latest_revision.get_or_insert(target.revision_name.is_empty());
        target.percent.get_or_insert(0);
    }
}

/// Notes who created and who last changed an object (Knative: SetUserInfo).
fn note_user(meta: &mut ObjectMeta, pass: &Pass<'_>, same_spec: bool) {
    let Some(user) = pass.user else { return };
    if pass.is_update && same_spec {
        return;
    }
    if !pass.is_update {
        meta.annotations.insert(metadata::CREATOR.to_owned(), user.to_owned());
    }
    meta.annotations
        .insert(metadata::LAST_MODIFIER.to_owned(), user.to_owned());
}
