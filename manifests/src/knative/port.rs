//! Ports of containers (Knative: validateContainerPorts).

use super::check_disallowed;
use super::container::Role;
use super::field_error::{FieldErrors, detailed, invalid, invalid_because, out_of_bounds};
use crate::resources::ContainerPort;

/// The port that requests go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServingPort<'a> {
    /// `http` when it has none.
    pub(super) name: &'a str,
}

/// Ports that queue-proxy listens on.
const RESERVED: [i32; 6] = [8008, 8012, 8013, 8022, 9090, 9091];

pub(super) fn validate(ports: &[ContainerPort], role: Role) -> FieldErrors {
    if role == Role::Init {
        return ports
            .iter()
            .map(validate_number)
            .fold(FieldErrors::none(), FieldErrors::also);
    }
    // More than one port is an error of its own; only the first is looked at.
    let Some(port) = ports.first() else {
        return FieldErrors::none();
    };
    let mut errors = validate_number(port);
    if !matches!(port.protocol.as_str(), "" | "TCP") {
        errors.add(invalid(&port.protocol, "protocol"));
    }
    if !matches!(port.name.as_str(), "" | "http1" | "h2c") {
        let message = format!("Port name {} is not allowed", port.name);
        errors.add(detailed(message, [""], "Name must be empty, or one of: 'h2c', 'http1'"));
    }
    errors
}

fn validate_number(port: &ContainerPort) -> FieldErrors {
    let mut errors = check_disallowed(&port.set_fields(), &["containerPort", "name", "protocol"]);
    let number = port.container_port;
    if RESERVED.contains(&number) {
        let reserved = format!("{number} is a reserved port");
        let details = format!("{reserved}, please use a different value");
        errors.add(invalid_because(reserved, "containerPort", &details));
    }
    if !(0..=65535).contains(&number) {
        errors.add(out_of_bounds(number, 0, 65535, "containerPort"));
    }
    errors
}
