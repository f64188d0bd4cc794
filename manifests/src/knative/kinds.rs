//! The rules of each kind (Knative: `Validate` of Service, Configuration, Revision, Route and DomainMapping).

use super::field_error::{FieldErrors, detailed, disallowed, generic, missing};
use super::go::quote;
use super::{Parent, Settings, annotations, diff, metadata, syntax, template, traffic};
use crate::resources::{
    Configuration, DomainMapping, KReference, ObjectMeta, OwnerReference, Revision, RevisionTemplate, Route, Service,
};

const CLUSTER_DOMAIN: &str = "cluster.local";
const LABEL_PREFIX: &str = "serving.knative.dev";

pub(super) fn service(new: &Service, old: Option<&Service>, settings: &Settings) -> FieldErrors {
    let meta = &new.metadata;
    let mut errors =
        metadata::validate(meta).also(annotations::rollout_duration(&meta.annotations).via_field("annotations"));
    errors.add(annotations::no_autoscaling(&meta.annotations).via_field("annotations"));
    let mut errors = errors.via_field("metadata");
    let parent = Parent { meta, settings };
    errors.add(
        template::validate(&new.spec.template, parent)
            .via_field("template")
            .via_field("spec"),
    );
    errors.add(
        traffic::validate(&new.spec.traffic, true)
            .via_field("traffic")
            .via_field("spec"),
    );
    if let Some(old) = old {
        errors.add(metadata::creator_and_modifier(
            &old.metadata,
            meta,
            old.spec == new.spec,
        ));
        errors.add(name_change(&old.spec.template, &new.spec.template));
    }
    errors
}

pub(super) fn configuration(new: &Configuration, old: Option<&Configuration>, settings: &Settings) -> FieldErrors {
    let meta = &new.metadata;
    let mut errors = metadata::validate(meta).also(owner_label(meta, "service", "Service"));
    errors.add(annotations::no_autoscaling(&meta.annotations).via_field("annotations"));
    let mut errors = errors.via_field("metadata");
    let parent = Parent { meta, settings };
    errors.add(
        template::validate(&new.spec.template, parent)
            .via_field("template")
            .via_field("spec"),
    );
    if let Some(old) = old {
        if new.metadata.owner_references.is_empty() {
            errors.add(metadata::creator_and_modifier(
                &old.metadata,
                meta,
                old.spec == new.spec,
            ));
        }
        errors.add(name_change(&old.spec.template, &new.spec.template));
    }
    errors
}

pub(super) fn revision(new: &Revision, old: Option<&Revision>, settings: &Settings) -> FieldErrors {
    let meta = &new.metadata;
    let mut errors = metadata::validate(meta).also(owner_label(meta, "configuration", "Configuration"));
    errors.add(annotations::autoscaling(&meta.annotations, &settings.autoscaler).via_field("annotations"));
    let errors = errors.via_field("metadata");
    match old {
        // Only this error is given then: nothing else of an update can matter.
        Some(old) if old.spec != new.spec => detailed(
            "Immutable fields changed (-old +new)",
            ["spec"],
            diff::lines(&old.spec, &new.spec),
        ),
        Some(_) => errors,
        None => errors.also(template::validate_spec(&new.spec, settings).via_field("spec")),
    }
}

pub(super) fn route(new: &Route, old: Option<&Route>) -> FieldErrors {
    let meta = &new.metadata;
    let mut errors = metadata::validate(meta).also(owner_label(meta, "service", "Service"));
    errors.add(annotations::no_autoscaling(&meta.annotations).via_field("annotations"));
    errors.add(annotations::rollout_duration(&meta.annotations).via_field("annotations"));
    let mut errors = errors.via_field("metadata");
    errors.add(
        traffic::validate(&new.spec.traffic, false)
            .via_field("traffic")
            .via_field("spec"),
    );
    if let Some(old) = old
        && new.metadata.owner_references.is_empty()
    {
        errors.add(metadata::creator_and_modifier(
            &old.metadata,
            meta,
            old.spec == new.spec,
        ));
    }
    errors
}

pub(super) fn domain_mapping(new: &DomainMapping, old: Option<&DomainMapping>) -> FieldErrors {
    let meta = &new.metadata;
    let mut errors = FieldErrors::none();
    if !meta.generate_name.is_empty() {
        errors.add(disallowed(["generateName"]));
    }
    if let Some(reason) = syntax::domain_name(&meta.name) {
        errors.add(generic(
            format!("invalid name {}: {reason}", quote(&meta.name)),
            ["name"],
        ));
    }
    if meta.name.ends_with(&format!(".{CLUSTER_DOMAIN}")) {
        let domain = quote(CLUSTER_DOMAIN);
        let message = format!(
            "invalid name {}: must not be a subdomain of cluster local domain {domain}",
            quote(&meta.name)
        );
        errors.add(generic(message, ["name"]));
    }
    let mut errors = errors.via_field("metadata");
    if let Some(old) = old {
        errors.add(metadata::creator_and_modifier(
            &old.metadata,
            meta,
            old.spec == new.spec,
        ));
    }
    errors.also(
        reference(&new.spec.target, &meta.namespace)
            .via_field("ref")
            .via_field("spec"),
    )
}

/// Knative: KReference.Validate.
fn reference(target: &KReference, parent_namespace: &str) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (value, field) in [
        (&target.name, "name"),
        (&target.api_version, "apiVersion"),
        (&target.kind, "kind"),
    ] {
        if value.is_empty() {
            errors.add(missing(field));
        }
    }
    let named = !target.namespace.is_empty() && !parent_namespace.is_empty();
    if named && target.namespace != parent_namespace {
        let (parent, namespace) = (quote(parent_namespace), quote(&target.namespace));
        let details = format!("parent namespace: {parent} does not match ref: {namespace}");
        errors.add(detailed("mismatched namespaces", ["namespace"], details));
    }
    errors
}

/// A label that names an owner must name one that is there (Knative: verifyLabelOwnerRef).
fn owner_label(meta: &ObjectMeta, label: &str, kind: &str) -> FieldErrors {
    let key = format!("{LABEL_PREFIX}/{label}");
    let is_owner = |owner: &OwnerReference, name: &str| owner.kind == kind && owner.name == name;
    match meta.labels.get(&key) {
        Some(name) if !meta.owner_references.iter().any(|owner| is_owner(owner, name)) => {
            missing(&key).via_field("labels")
        }
        _ => FieldErrors::none(),
    }
}

/// A template with a name of the user's own may change only together with that name (Knative: VerifyNameChange).
fn name_change(old: &RevisionTemplate, new: &RevisionTemplate) -> FieldErrors {
    if new.metadata.name.is_empty() || new.metadata.name != old.metadata.name || old == new {
        return FieldErrors::none();
    }
    let message = "Saw the following changes without a name change (-old +new)";
    detailed(message, ["metadata.name"], diff::lines(old, new))
        .via_field("template")
        .via_field("spec")
}
