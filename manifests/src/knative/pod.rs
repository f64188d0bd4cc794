//! The spec of a pod: which fields, which containers, which of them serves (Knative: ValidatePodSpec).

use std::collections::HashSet;

use super::field_error::{FieldErrors, detailed, disallowed, generic, invalid_because, missing};
use super::go::quote;
use super::port::ServingPort;
use super::volume::Volumes;
use super::{container, security, syntax, volume};
use crate::config::{Features, Flag, SecurePodDefaults};
use crate::resources::{Container, RevisionSpec};

/// Fields that need no flag, with Knative's own four.
const ALLOWED: [&str; 9] = [
    "serviceAccountName",
    "containers",
    "volumes",
    "imagePullSecrets",
    "enableServiceLinks",
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "idleTimeoutSeconds",
];

pub(super) fn validate(spec: &RevisionSpec, features: &Features) -> FieldErrors {
    let mut errors = check_fields(spec, features);
    if let Some(context) = &spec.security_context {
        errors.add(security::validate_pod(context, features).via_field("securityContext"));
    }
    let containers = spec.containers();
    for (field, list) in [("containers", containers), ("initContainers", &spec.init_containers)] {
        for (index, container) in list.iter().enumerate() {
            let warnings = security::warn(
                spec.security_context.as_ref(),
                container.security_context.as_ref(),
                features,
            );
            errors.add(warnings.via_field("securityContext").via_field_index(field, index));
        }
    }
    let mounted: HashSet<&str> = spec.init_containers.iter().chain(containers).flat_map(mounts).collect();
    let (volumes, wrong_volumes) = volume::validate_all(&spec.volumes, &mounted, features);
    errors.add(wrong_volumes.via_field("volumes"));
    errors.add(init_containers(spec, &volumes, features));
    let (port, wrong_ports) = serving_port(containers);
    errors.add(wrong_ports.via_field("containers[*]"));
    errors.add(match containers {
        [] => missing("containers"),
        [only] => container::validate_serving(only, &volumes, port, features).via_field_index("containers", 0),
        several => several_containers(several, &volumes, port, features),
    });
    if !spec.service_account_name.is_empty() {
        for reason in syntax::dns1123_subdomain(&spec.service_account_name) {
            errors.add(invalid_because(
                &spec.service_account_name,
                "serviceAccountName",
                &reason,
            ));
        }
    }
    errors
}

/// Knative: PodSpecMask.
fn check_fields(spec: &RevisionSpec, features: &Features) -> FieldErrors {
    let by_flag: [(&str, Flag); 15] = [
        ("affinity", features.affinity),
        ("topologySpreadConstraints", features.topology_spread_constraints),
        ("hostAliases", features.host_aliases),
        ("nodeSelector", features.node_selector),
        ("runtimeClassName", features.runtime_class_name),
        ("tolerations", features.tolerations),
        ("shareProcessNamespace", features.share_process_namespace),
        ("hostIPC", features.host_ipc),
        ("hostPID", features.host_pid),
        ("hostNetwork", features.host_network),
        ("priorityClassName", features.priority_class_name),
        ("schedulerName", features.scheduler_name),
        ("initContainers", features.init_containers),
        ("dnsPolicy", features.dns_policy),
        ("dnsConfig", features.dns_config),
    ];
    let allowed = |field: &str| match field {
        // A token may be refused, not asked for: it is there anyway.
        "automountServiceAccountToken" => spec.automount_service_account_token == Some(false),
        // Looked into further below.
        "securityContext" => {
            features.security_context.permits() || features.secure_pod_defaults != SecurePodDefaults::Disabled
        }
        _ => ALLOWED.contains(&field) || by_flag.iter().any(|(name, flag)| *name == field && flag.permits()),
    };
    disallowed(spec.set_fields().into_iter().filter(|field| !allowed(field)))
}

fn mounts(container: &Container) -> impl Iterator<Item = &str> {
    container.volume_mounts.iter().map(|mount| mount.name.as_str())
}

/// Errors of init containers name `containers[i]`: Knative's own slip, and part of its texts.
fn init_containers(spec: &RevisionSpec, volumes: &Volumes<'_>, features: &Features) -> FieldErrors {
    let count = spec.init_containers.len();
    if count == 0 {
        return FieldErrors::none();
    }
    if !features.init_containers.is_enabled() {
        let message = format!("pod spec support for init-containers is off, but found {count} init containers");
        return generic(message, Vec::<&str>::new());
    }
    let names: HashSet<&str> = spec
        .containers()
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    let mut errors = FieldErrors::none();
    for (index, container) in spec.init_containers.iter().enumerate() {
        if names.contains(container.name.as_str()) {
            // The index is put before all errors so far, as Knative does.
            errors = errors
                .also(duplicate(&container.name))
                .via_field_index("containers", index);
        }
        errors.add(container::validate_init(container, volumes, features).via_field_index("containers", index));
    }
    errors
}

/// One container serves: the one with a port.
fn several_containers(
    containers: &[Container],
    volumes: &Volumes<'_>,
    port: ServingPort<'_>,
    features: &Features,
) -> FieldErrors {
    if !features.multi_container.is_enabled() {
        let message = format!("multi-container is off, but found {} containers", containers.len());
        return generic(message, Vec::<&str>::new());
    }
    let mut names = HashSet::new();
    let mut errors = FieldErrors::none();
    for (index, container) in containers.iter().enumerate() {
        if !names.insert(container.name.as_str()) {
            errors = errors
                .also(duplicate(&container.name))
                .via_field_index("containers", index);
        }
        let found = if container.ports.is_empty() {
            container::validate_sidecar(container, volumes, features)
        } else {
            container::validate_serving(container, volumes, port, features)
        };
        errors.add(found.via_field_index("containers", index));
    }
    errors
}

fn duplicate(name: &str) -> FieldErrors {
    generic(format!("duplicate container name {}", quote(name)), ["name"])
}

/// The one port of all containers, with Knative's defaults (Knative: validateContainersPorts).
fn serving_port(containers: &[Container]) -> (ServingPort<'_>, FieldErrors) {
    let count: usize = containers.iter().map(|container| container.ports.len()).sum();
    let name = containers
        .iter()
        .rev()
        .find_map(|container| container.ports.first())
        .map_or("", |port| &port.name);
    let port = ServingPort {
        name: if name.is_empty() { "http" } else { name },
    };
    let errors = if count == 0 && containers.len() > 1 {
        missing("ports")
    } else if count > 1 {
        let details = "Only a single port is allowed across all containers";
        detailed("more than one container port is set", ["ports"], details)
    } else {
        FieldErrors::none()
    };
    (port, errors)
}
