//! Names, and who made and changed an object (Knative: `apis.ValidateObjectMetadata`, `ValidateCreatorAndModifier`).

use super::field_error::{FieldErrors, generic, invalid, not_a};
use super::syntax::{dns1035_label, dns1035_prefix};
use crate::resources::ObjectMeta;

/// Who created an object; never changes.
pub(super) const CREATOR: &str = "serving.knative.dev/creator";
/// Who changed its spec last.
pub(super) const LAST_MODIFIER: &str = "serving.knative.dev/lastModifier";

/// The name and its prefix; the first thing wrong.
pub(super) fn validate(meta: &ObjectMeta) -> FieldErrors {
    let wrong = |what: &str, reasons: &[String], field: &str| generic(not_a(what, reasons), [field]);
    let prefix = if meta.generate_name.is_empty() {
        Vec::new()
    } else {
        dns1035_prefix(&meta.generate_name)
    };
    if !prefix.is_empty() {
        return wrong("DNS 1035 label prefix", &prefix, "generateName");
    }
    let name = if meta.name.is_empty() {
        Vec::new()
    } else {
        dns1035_label(&meta.name)
    };
    if !name.is_empty() {
        return wrong("DNS 1035 label", &name, "name");
    }
    if meta.generate_name.is_empty() && meta.name.is_empty() {
        return generic("name or generateName is required", ["name"]);
    }
    FieldErrors::none()
}

/// On update: the creator stays, and the last modifier changes with the spec only.
pub(super) fn creator_and_modifier(old: &ObjectMeta, new: &ObjectMeta, same_spec: bool) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if old.annotation(CREATOR) != new.annotation(CREATOR) {
        errors.add(generic("annotation value is immutable", [CREATOR]));
    }
    if same_spec && old.annotation(LAST_MODIFIER) != new.annotation(LAST_MODIFIER) {
        errors.add(invalid(
            new.annotation(LAST_MODIFIER).unwrap_or_default(),
            LAST_MODIFIER,
        ));
    }
    errors.via_field("metadata.annotations")
}
