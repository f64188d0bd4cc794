//! One container: serving, beside it, or before it (Knative: ValidateContainer, validateSidecarContainer, ...).

use super::check_disallowed;
use super::field_error::{FieldErrors, generic, invalid, missing};
use super::go::quote;
use super::port::ServingPort;
use super::volume::Volumes;
use super::{env, image, port, probe, security, volume_mount};
use crate::config::Features;
use crate::resources::{Container, Probe};

const ALLOWED: [&str; 17] = [
    "name",
    "args",
    "command",
    "env",
    "workingDir",
    "envFrom",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
];

/// What a container does in its pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Gets the requests.
    Serving,
    /// Runs beside the serving container.
    Sidecar,
    /// Runs before the others.
    Init,
}

pub(super) fn validate_serving(
    container: &Container,
    volumes: &Volumes<'_>,
    port: ServingPort<'_>,
    features: &Features,
) -> FieldErrors {
    probes(container, Some(port)).also(validate(container, volumes, Role::Serving, features))
}

pub(super) fn validate_sidecar(container: &Container, volumes: &Volumes<'_>, features: &Features) -> FieldErrors {
    let on_probes = if features.multi_container_probing.is_enabled() {
        probes(container, None)
    } else {
        each_probe(container, probe::refuse)
    };
    on_probes.also(validate(container, volumes, Role::Sidecar, features))
}

pub(super) fn validate_init(container: &Container, volumes: &Volumes<'_>, features: &Features) -> FieldErrors {
    let refuse = |_: &Probe| generic("field not allowed in an init container", [""]);
    let mut errors = each_probe(container, refuse);
    if container.lifecycle.is_some() {
        errors.add(generic("field not allowed in an init container", ["lifecycle"]));
    }
    errors.also(validate(container, volumes, Role::Init, features))
}

fn probes(container: &Container, port: Option<ServingPort<'_>>) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if let Some(liveness) = &container.liveness_probe {
        errors.add(probe::validate(liveness, port).via_field("livenessProbe"));
    }
    if let Some(readiness) = &container.readiness_probe {
        errors.add(probe::validate_readiness(readiness, port).via_field("readinessProbe"));
    }
    if let Some(startup) = &container.startup_probe {
        errors.add(probe::validate(startup, port).via_field("startupProbe"));
    }
    errors
}

fn each_probe(container: &Container, judge: impl Fn(&Probe) -> FieldErrors) -> FieldErrors {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    let found = probes
        .into_iter()
        .filter_map(|(field, probe)| Some(judge(probe.as_ref()?).via_field(field)));
    found.fold(FieldErrors::none(), FieldErrors::also)
}

fn validate(container: &Container, volumes: &Volumes<'_>, role: Role, features: &Features) -> FieldErrors {
    if *container == Container::default() {
        return missing("");
    }
    let mut errors = check_disallowed(&container.set_fields(), &ALLOWED);
    if container.name == "queue-proxy" {
        errors.add(generic(
            format!("{} is a reserved container name", quote(&container.name)),
            ["name"],
        ));
    }
    errors.add(env::validate(&container.env, role, features).via_field("env"));
    errors.add(env::validate_from(&container.env_from).via_field("envFrom"));
    errors.add(image::validate(&container.image));
    errors.add(port::validate(&container.ports, role).via_field("ports"));
    let resources = container.resources.set_fields();
    errors.add(check_disallowed(&resources, &["limits", "requests"]).via_field("resources"));
    if let Some(context) = &container.security_context {
        errors.add(security::validate(context, features).via_field("securityContext"));
    }
    if !matches!(
        container.termination_message_policy.as_str(),
        "" | "File" | "FallbackToLogsOnError"
    ) {
        errors.add(invalid(
            &container.termination_message_policy,
            "terminationMessagePolicy",
        ));
    }
    errors.also(volume_mount::validate(&container.volume_mounts, volumes, features).via_field("volumeMounts"))
}
