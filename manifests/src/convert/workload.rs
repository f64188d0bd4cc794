//! What a sandbox runs: its containers, put together from their parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::downward::Pod;
use super::probes::OwnPort;
use super::{Fault, Faults, env, images, limits, number, probes, security, volumes};
use crate::resources::{self, HostAlias};
use crate::text::{Fact, Text};
use crate::workload::{self, Container, Egress, Probes, Protocol, TerminationMessage, Workload};

/// `revision-timeout-seconds` of Knative; defaulting has filled it in before.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_PORT: u16 = 8080;
/// `runtimeClassName` of Knarr's own sandboxes.
pub const NATIVE: &str = "native";

/// `None` after a fault.
pub(super) fn workload(pod: &Pod<'_>, egress: Option<Egress>, faults: &mut Faults) -> Option<Workload> {
    let spec = pod.spec;
    let serving = spec
        .containers()
        .iter()
        .position(|it| !it.ports.is_empty())
        .unwrap_or(0);
    let Some(declared) = spec.containers().get(serving) else {
        faults.push(Fault::new("spec.containers", "there is no container", ""));
        return None;
    };
    let declared = declared.ports.first();
    let port = match declared.map_or(0, |port| port.container_port) {
        0 => DEFAULT_PORT,
        port => number(
            port,
            &format!("spec.containers[{serving}].ports[0].containerPort"),
            faults,
        )?,
    };
    let role = |nth: usize| {
        if nth == serving {
            Role::Serving(port)
        } else {
            Role::Sidecar
        }
    };
    let running = spec
        .containers()
        .iter()
        .enumerate()
        .map(|(nth, it)| (it, role(nth), "containers", nth));
    let init = spec
        .init_containers
        .iter()
        .enumerate()
        .map(|(nth, it)| (it, Role::Init, "initContainers", nth));
    let mut made = Vec::new();
    for (it, role, field, nth) in running.chain(init) {
        let path = format!("spec.{field}[{nth}]");
        made.push((role, container(pod, it, role, &path, faults)));
    }
    let volumes = volumes::volumes(pod, faults);
    let registry_auth = images::registry_auth(pod, faults);
    let host_aliases = host_aliases(&spec.host_aliases, faults);
    let runtime = spec
        .runtime_class_name
        .as_deref()
        .filter(|name| !matches!(*name, "" | NATIVE));

    if let Some(name) = runtime {
        let places = (0..spec.containers().len()).map(|nth| format!("spec.containers[{nth}]"));
        let places = places.chain((0..spec.init_containers.len()).map(|nth| format!("spec.initContainers[{nth}]")));
        let made = made.iter().map(|(_, container)| container.as_ref());
        places
            .zip(made)
            .for_each(|(path, container)| handed_over(name, &path, container, faults));
    }

    let (mut front, mut sidecars, mut init) = (None, Vec::new(), Vec::new());
    for (role, container) in made {
        match role {
            Role::Serving(_) => front = container,
            Role::Sidecar => sidecars.extend(container),
            Role::Init => init.extend(container),
        }
    }
    let stop_grace = spec.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let security = spec.security_context.as_ref();
    Some(Workload {
        serving: front?,
        sidecars,
        init,
        volumes,
        port,
        protocol: match declared.map(|port| port.name.as_str()) {
            Some("h2c") => Protocol::H2c,
            _ => Protocol::Http1,
        },
        stop_grace: stop_grace.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        fs_group: security.and_then(|it| it.fs_group).and_then(security::id),
        supplemental_groups: security
            .map(|it| {
                it.supplemental_groups
                    .iter()
                    .copied()
                    .filter_map(security::id)
                    .collect()
            })
            .unwrap_or_default(),
        runtime: runtime.map(Into::into),
        egress,
        registry_auth,
        host_aliases,
    })
}

/// What a container is for.
#[derive(Clone, Copy)]
enum Role {
    /// Takes requests on this port.
    Serving(u16),
    Sidecar,
    Init,
}

/// `None` after a fault in its image.
fn container(
    pod: &Pod<'_>,
    container: &resources::Container,
    role: Role,
    path: &str,
    faults: &mut Faults,
) -> Option<Container> {
    let variables = env::resolve(container, path, pod, faults);
    let [command, args] = expanded(pod, container, role, &variables);
    for (field, texts) in [("command", &command), ("args", &args)] {
        if let Some(nth) = texts.iter().position(|text| text.contains('\0')) {
            faults.push(Fault::new(format!("{path}.{field}[{nth}]"), "has a zero byte", ""));
        }
    }
    let image = images::image(&container.image, &format!("{path}.image"), faults);
    let working_dir = absolute(&container.working_dir, path, "workingDir", faults);
    let own = match role {
        Role::Serving(port) => OwnPort {
            declared: container.ports.first(),
            number: Some(port),
        },
        Role::Sidecar | Role::Init => OwnPort {
            declared: None,
            number: None,
        },
    };
    let probes = match role {
        Role::Init => Probes::default(),
        Role::Serving(_) | Role::Sidecar => probes::probes(container, own, path, faults),
    };
    let resources = limits::resources(container, path, faults);
    let security = security::security(pod.spec.security_context.as_ref(), container, path, faults);
    let mounts = volumes::mounts(container, path, faults);
    let termination = termination(container, path, faults);
    let pull = images::pull_policy(container, image.as_ref()?, path, faults);
    Some(Container {
        pull,
        command,
        args,
        env: variables,
        working_dir,
        resources,
        probes,
        security,
        mounts,
        termination,
        ..Container::new(container.name.as_str(), image?)
    })
}

/// Command and arguments. Knative's own variables stand behind the user's: arguments may refer to them, the user's values
/// may not.
fn expanded(
    pod: &Pod<'_>,
    container: &resources::Container,
    role: Role,
    variables: &BTreeMap<String, Text>,
) -> [Vec<Text>; 2] {
    let identity = pod.identity;
    let service = identity.service.as_ref().map_or("", |service| service.name());
    let known = |name: &str| match (name, role) {
        ("PORT", Role::Serving(_)) => Some(Fact::Port.into()),
        ("K_REVISION", _) => Some(identity.id.name().into()),
        ("K_CONFIGURATION", _) => Some(identity.configuration.name().into()),
        ("K_SERVICE", _) => Some(service.into()),
        (name, _) => variables.get(name).cloned(),
    };
    [&container.command, &container.args].map(|texts| texts.iter().map(|text| env::expand(text, known)).collect())
}

fn absolute(text: &str, path: &str, field: &str, faults: &mut Faults) -> Option<PathBuf> {
    if text.is_empty() {
        return None;
    }
    if !Path::new(text).is_absolute() || text.contains('\0') {
        let message = format!("invalid value: {text}");
        faults.push(Fault::new(format!("{path}.{field}"), message, "write an absolute path"));
    }
    Some(PathBuf::from(text))
}

fn termination(container: &resources::Container, path: &str, faults: &mut Faults) -> TerminationMessage {
    let default = TerminationMessage::default();
    let file = absolute(
        &container.termination_message_path,
        path,
        "terminationMessagePath",
        faults,
    );
    TerminationMessage {
        path: file.unwrap_or(default.path),
        fall_back_to_logs: container.termination_message_policy != "File",
    }
}

/// What another runtime than Knarr's own cannot do.
fn handed_over(runtime: &str, path: &str, container: Option<&Container>, faults: &mut Faults) {
    let Some(container) = container else { return };
    if matches!(container.image, workload::Image::Host(_)) {
        let message = format!("runtimeClassName {runtime} runs images, not programs of this machine");
        let hint = "write an image, or leave out spec.runtimeClassName";
        faults.push(Fault::new(format!("{path}.image"), message, hint));
    }
}

fn host_aliases(aliases: &[HostAlias], faults: &mut Faults) -> Vec<workload::HostAlias> {
    let mut read = Vec::new();
    for (nth, alias) in aliases.iter().enumerate() {
        let path = format!("spec.hostAliases[{nth}]");
        let is_name = |name: &String| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        if let Some(wrong) = alias.hostnames.iter().find(|name| !is_name(name)) {
            let message = format!("invalid value: {wrong:?}");
            faults.push(Fault::new(format!("{path}.hostnames"), message, "write host names"));
        }
        match alias.ip.parse() {
            Ok(address) if !alias.hostnames.is_empty() => read.push(workload::HostAlias {
                address,
                names: alias.hostnames.clone(),
            }),
            Ok(_) => faults.push(Fault::new(
                format!("{path}.hostnames"),
                "is empty",
                "write at least one",
            )),
            Err(_) => {
                let message = format!("invalid value: {:?}", alias.ip);
                faults.push(Fault::new(format!("{path}.ip"), message, "write an IP address"));
            }
        }
    }
    read
}
