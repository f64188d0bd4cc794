//! Templates of revisions: their names, annotations and specs (Knative: `Validate` of RevisionTemplateSpec, RevisionSpec).

use super::field_error::{FieldErrors, disallowed, invalid, not_a, out_of_bounds};
use super::go::quote;
use super::syntax::{dns1035_label, dns1035_prefix};
use super::{Parent, Settings, annotations, pod};
use crate::resources::{ObjectMeta, RevisionSpec, RevisionTemplate};

pub(super) fn validate(template: &RevisionTemplate, parent: Parent<'_>) -> FieldErrors {
    let written = &template.metadata.annotations;
    let mut on_annotations = annotations::autoscaling(written, &parent.settings.autoscaler);
    on_annotations.add(annotations::queue_sidecar(written));
    on_annotations.add(annotations::progress_deadline(written));
    on_annotations.add(annotations::networking(written));
    validate_spec(&template.spec, parent.settings)
        .via_field("spec")
        .also(on_annotations.via_field("metadata.annotations"))
        .also(revision_name(&template.metadata, parent.meta))
}

pub(super) fn validate_spec(spec: &RevisionSpec, settings: &Settings) -> FieldErrors {
    let mut errors = pod::validate(spec, &settings.features);
    let defaults = &settings.defaults;
    if let Some(timeout) = spec.timeout_seconds
        && !(0..=defaults.max_timeout_seconds).contains(&timeout)
    {
        errors.add(out_of_bounds(
            timeout,
            0,
            defaults.max_timeout_seconds,
            "timeoutSeconds",
        ));
    }
    let least = i64::from(!defaults.allow_container_concurrency_zero);
    if let Some(concurrency) = spec.container_concurrency
        && !(least..=defaults.container_concurrency_max).contains(&concurrency)
    {
        errors.add(out_of_bounds(
            concurrency,
            least,
            defaults.container_concurrency_max,
            "containerConcurrency",
        ));
    }
    errors
}

/// A name of the user's own is `PARENT-...` (Knative: validateRevisionName); the first thing wrong.
fn revision_name(meta: &ObjectMeta, parent: &ObjectMeta) -> FieldErrors {
    let prefix = if meta.generate_name.is_empty() {
        Vec::new()
    } else {
        dns1035_prefix(&meta.generate_name)
    };
    if !prefix.is_empty() {
        return invalid(not_a("DNS 1035 label prefix", &prefix), "metadata.generateName");
    }
    if meta.name.is_empty() {
        return FieldErrors::none();
    }
    let reasons = dns1035_label(&meta.name);
    if !reasons.is_empty() {
        return invalid(not_a("DNS 1035 label", &reasons), "metadata.name");
    }
    if parent.name.is_empty() && !parent.generate_name.is_empty() {
        return disallowed(["metadata.name"]);
    }
    let prefix = format!("{}-", parent.name);
    if meta.name.starts_with(&prefix) {
        return FieldErrors::none();
    }
    invalid(
        format!("{} must have prefix {}", quote(&meta.name), quote(&prefix)),
        "metadata.name",
    )
}
