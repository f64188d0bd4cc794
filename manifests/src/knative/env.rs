//! Environment variables (Knative: validateEnv, validateEnvFrom).

use super::check_disallowed;
use super::container::Role;
use super::field_error::{FieldErrors, generic, missing, missing_one_of, multiple_one_of};
use super::go::quote;
use crate::config::Features;
use crate::resources::{EnvFromSource, EnvVar};

pub(super) fn validate(variables: &[EnvVar], role: Role, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (index, variable) in variables.iter().enumerate() {
        errors.add(validate_variable(variable, role, features).via_index(index));
    }
    errors
}

fn validate_variable(variable: &EnvVar, role: Role, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if variable.name.is_empty() {
        errors.add(missing("name"));
    } else if is_reserved(&variable.name, role) {
        errors.add(generic(
            format!("{} is a reserved environment variable", quote(&variable.name)),
            ["name"],
        ));
    }
    if let Some(source) = &variable.value_from {
        let allowed: &[&str] = if features.field_ref.permits() {
            &["configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"]
        } else {
            &["configMapKeyRef", "secretKeyRef"]
        };
        errors.add(check_disallowed(&source.set_fields(), allowed).via_field("valueFrom"));
    }
    errors
}

/// Knative sets these itself; `PORT` on the serving container only.
fn is_reserved(name: &str, role: Role) -> bool {
    matches!(name, "K_SERVICE" | "K_CONFIGURATION" | "K_REVISION") || (name == "PORT" && role == Role::Serving)
}

/// Each entry has one source. Errors of an entry without one carry no index, and a later entry puts its own place before
/// them: Knative's own slip, and part of its texts.
pub(super) fn validate_from(sources: &[EnvFromSource]) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (index, source) in sources.iter().enumerate() {
        if source.secret_ref.is_some() {
            errors = errors.via_index(index).via_field("secretRef");
        }
        if source.config_map_ref.is_some() {
            errors = errors.via_index(index).via_field("configMapRef");
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (Some(_), Some(_)) => errors.add(multiple_one_of(&["configMapRef", "secretRef"])),
            (None, None) => errors.add(missing_one_of(&["configMapRef", "secretRef"])),
            _ => {}
        }
    }
    errors
}
