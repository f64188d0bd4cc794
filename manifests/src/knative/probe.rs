//! Probes (Knative: validateProbe, validateProbe).

use super::field_error::{
    FieldErrors, disallowed, generic, invalid_because, missing_one_of, multiple_one_of, out_of_bounds,
};
use super::port::ServingPort;
use crate::resources::{IntOrString, Probe};

/// A probe of the serving container, or of a sidecar, which has no port to fall back on.
pub(super) fn validate(probe: &Probe, port: Option<ServingPort<'_>>) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut handlers = Vec::new();
    if let Some(get) = &probe.http_get {
        handlers.push("httpGet");
        errors.add(validate_port(&get.port, "httpGet.port", port));
    }
    if let Some(socket) = &probe.tcp_socket {
        handlers.push("tcpSocket");
        // Each further handler puts its name before all errors so far: Knative's own slip, and part of its texts.
        errors = errors.via_field("tcpSocket");
        errors.add(validate_port(&socket.port, "tcpSocket.port", port));
    }
    if probe.exec.is_some() {
        handlers.push("exec");
        errors = errors.via_field("exec");
    }
    if probe.grpc.is_some() {
        handlers.push("gRPC");
        errors = errors.via_field("grpc");
    }
    match handlers.len() {
        0 => errors.add(missing_one_of(&["httpGet", "tcpSocket", "exec", "grpc"])),
        1 => {}
        _ => errors.add(multiple_one_of(&handlers)),
    }
    errors
}

/// A readiness probe; `periodSeconds: 0` is Knative's own, aggressive one, which takes no timing.
pub(super) fn validate_readiness(probe: &Probe, port: Option<ServingPort<'_>>) -> FieldErrors {
    let mut errors = validate(probe, port);
    let mut at_least = |value: i32, low: i32, field: &str| {
        if value < low {
            errors.add(out_of_bounds(value, low, i32::MAX, field));
        }
    };
    at_least(probe.period_seconds, 0, "periodSeconds");
    at_least(probe.initial_delay_seconds, 0, "initialDelaySeconds");
    at_least(probe.success_threshold, 1, "successThreshold");
    if probe.period_seconds != 0 {
        at_least(probe.timeout_seconds, 1, "timeoutSeconds");
        at_least(probe.failure_threshold, 1, "failureThreshold");
        return errors;
    }
    for (value, field) in [
        (probe.failure_threshold, "failureThreshold"),
        (probe.timeout_seconds, "timeoutSeconds"),
    ] {
        if value != 0 {
            errors.add(generic(
                format!("{field} is disallowed when periodSeconds is zero"),
                [field],
            ));
        }
    }
    errors
}

/// A probe where none may be: every field of it. The handler has no name of its own and stands for the probe.
pub(super) fn refuse(probe: &Probe) -> FieldErrors {
    const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
    let mut fields: Vec<&str> = probe
        .set_fields()
        .into_iter()
        .map(|field| if HANDLERS.contains(&field) { "" } else { field })
        .collect();
    fields.dedup();
    disallowed(fields)
}

fn validate_port(given: &IntOrString, field: &str, port: Option<ServingPort<'_>>) -> FieldErrors {
    match (given, port) {
        (IntOrString::String(name), Some(port)) if !name.is_empty() && name != port.name => {
            invalid_because(given, field, "Probe port must match container port")
        }
        (IntOrString::Int(0), None) => invalid_because(given, field, "Probe port must be specified"),
        (IntOrString::String(name), None) if name.is_empty() => {
            invalid_because(given, field, "Probe port must be specified")
        }
        _ => FieldErrors::none(),
    }
}
