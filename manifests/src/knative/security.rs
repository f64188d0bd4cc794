//! Security contexts: what may be set, in which range, and warnings about what is left to insecure defaults
//! (Knative: validateSecurityContext, ValidatePodSecurityContext, warnDefaultContainerSecurityContext).

use super::check_disallowed;
use super::field_error::{FieldErrors, generic, invalid_because, out_of_bounds};
use crate::config::{Features, SecurePodDefaults};
use crate::resources::{PodSecurityContext, SeccompProfile, SecurityContext};

const MAX_ID: i64 = i32::MAX as i64;

/// Of a container.
pub(super) fn validate(context: &SecurityContext, features: &Features) -> FieldErrors {
    const ALLOWED: [&str; 7] = [
        "capabilities",
        "readOnlyRootFilesystem",
        "runAsUser",
        "runAsGroup",
        "runAsNonRoot",
        "allowPrivilegeEscalation",
        "seccompProfile",
    ];
    let mut set = context.set_fields();
    // To say that it is not privileged changes nothing.
    set.retain(|field| *field != "privileged" || context.privileged != Some(false));
    let mut errors = check_disallowed(&set, &ALLOWED);
    if let Some(capabilities) = &context.capabilities {
        // With secure defaults on, a capability may be asked for that the default would have left.
        let may_add = features.add_capabilities.is_enabled()
            || (features.secure_pod_defaults != SecurePodDefaults::Disabled
                && capabilities.add == ["NET_BIND_SERVICE"]);
        let allowed: &[&str] = if may_add { &["drop", "add"] } else { &["drop"] };
        errors.add(check_disallowed(&capabilities.set_fields(), allowed).via_field("capabilities"));
    }
    errors
        .also(id(context.run_as_user, "runAsUser"))
        .also(id(context.run_as_group, "runAsGroup"))
}

/// Of a pod; needs a flag, or secure defaults to opt out of.
pub(super) fn validate_pod(context: &PodSecurityContext, features: &Features) -> FieldErrors {
    const ALLOWED: [&str; 6] = [
        "runAsUser",
        "runAsGroup",
        "runAsNonRoot",
        "fsGroup",
        "supplementalGroups",
        "seccompProfile",
    ];
    // With secure defaults on, a pod may opt out of what they would set.
    let is_plain = |profile: &SeccompProfile| matches!(profile.kind.as_str(), "RuntimeDefault" | "Unconfined");
    let allowed: &[&str] = if features.security_context.permits() {
        &ALLOWED
    } else if features.secure_pod_defaults == SecurePodDefaults::Disabled {
        &[]
    } else if context.seccomp_profile.as_ref().is_some_and(is_plain) {
        &["runAsNonRoot", "seccompProfile"]
    } else {
        &["runAsNonRoot"]
    };
    let mut errors = check_disallowed(&context.set_fields(), allowed);
    errors.add(id(context.run_as_user, "runAsUser"));
    errors.add(id(context.run_as_group, "runAsGroup"));
    errors.add(id(context.fs_group, "fsGroup"));
    for (index, group) in context.supplemental_groups.iter().enumerate() {
        errors.add(id(Some(*group), "").via_field_index("supplementalGroups", index));
    }
    errors
}

/// What Kubernetes would default to something insecure. Deliberate insecurity is not warned about.
/// Where the cluster defaults to secure settings, what is left open was left open on purpose.
pub(super) fn warn(
    pod: Option<&PodSecurityContext>,
    container: Option<&SecurityContext>,
    features: &Features,
) -> FieldErrors {
    if features.secure_pod_defaults != SecurePodDefaults::Disabled {
        return FieldErrors::none();
    }
    let (no_pod, no_container) = (PodSecurityContext::default(), SecurityContext::default());
    let (pod, container) = (pod.unwrap_or(&no_pod), container.unwrap_or(&no_container));
    let mut insecure = Vec::new();
    if pod.run_as_non_root.is_none() && container.run_as_non_root.is_none() {
        insecure.push("runAsNonRoot");
    }
    if container.allow_privilege_escalation.is_none() {
        insecure.push("allowPrivilegeEscalation");
    }
    let profiles = [&pod.seccomp_profile, &container.seccomp_profile];
    if profiles.iter().all(|profile| profile.is_none()) {
        insecure.push("seccompProfile");
    } else if profiles
        .iter()
        .all(|profile| profile.as_ref().is_none_or(|profile| profile.kind.is_empty()))
    {
        insecure.push("seccompProfile.type");
    }
    let mut warnings = FieldErrors::none();
    match &container.capabilities {
        None => insecure.push("capabilities"),
        Some(capabilities) if capabilities.drop.is_empty() => insecure.push("capabilities.drop"),
        Some(capabilities) if capabilities.drop[0] == "all" => {
            warnings.add(invalid_because("all", "capabilities.drop", "Must be spelled as 'ALL'"));
        }
        Some(_) => {}
    }
    if !insecure.is_empty() {
        let message = "Kubernetes default value is insecure, Knative may default this to secure in a future release";
        warnings.add(generic(message, insecure));
    }
    warnings.into_warnings()
}

fn id(id: Option<i64>, field: &str) -> FieldErrors {
    match id {
        Some(id) if !(0..=MAX_ID).contains(&id) => out_of_bounds(id, 0, MAX_ID, field),
        _ => FieldErrors::none(),
    }
}
