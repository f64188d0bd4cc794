//! What a sandbox runs: program, arguments, environment, port, probe and limits of the one container.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{EnvSources, Fault, Faults, Identity, env};
use crate::resources::{self, ContainerPort, HttpGetAction, IntOrString, Quantity, RevisionSpec};
use crate::units::{Bytes, Millicores};
use crate::workload::{Check, Container, Image, Probe, Probes, Protocol, Resources, Workload};

/// `revision-timeout-seconds` of Knative; defaulting has filled it in before.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_PORT: u16 = 8080;
/// Per try when `periodSeconds` is 0 (Knative: aggressive probing).
const AGGRESSIVE_TIMEOUT: Duration = Duration::from_millis(100);

/// `None` after a fault.
pub(super) fn workload(
    identity: &Identity,
    spec: &RevisionSpec,
    sources: &EnvSources,
    faults: &mut Faults,
) -> Option<Workload> {
    let serving = spec
        .containers()
        .iter()
        .position(|it| !it.ports.is_empty())
        .unwrap_or(0);
    let path = format!("spec.containers[{serving}]");
    let Some(container) = spec.containers().get(serving) else {
        faults.push(Fault::new("spec.containers", "there is no container", ""));
        return None;
    };
    let variables = env::resolve(container, &path, identity.id.namespace(), sources, faults);
    let port = container.ports.first().map_or(0, |port| port.container_port);
    let port = if port == 0 {
        DEFAULT_PORT
    } else {
        number(port, &format!("{path}.ports[0].containerPort"), faults)?
    };

    // Knative's own variables stand behind the user's: arguments may refer to them, the user's values may not.
    let known = |name: &str| match name {
        "PORT" => Some(port.to_string()),
        "K_REVISION" => Some(identity.id.name().to_owned()),
        "K_CONFIGURATION" => Some(identity.configuration.name().to_owned()),
        "K_SERVICE" => Some(
            identity
                .service
                .as_ref()
                .map_or("", |service| service.name())
                .to_owned(),
        ),
        name => variables.get(name).cloned(),
    };
    let expand = |texts: &[String]| -> Vec<String> { texts.iter().map(|text| env::expand(text, known)).collect() };
    let (command, args) = (expand(&container.command), expand(&container.args));
    for (field, texts) in [("command", &command), ("args", &args)] {
        if let Some(nth) = texts.iter().position(|text| text.contains('\0')) {
            faults.push(Fault::new(format!("{path}.{field}[{nth}]"), "has a zero byte", ""));
        }
    }
    let image = image(&container.image, &format!("{path}.image"), faults);
    let working_dir = working_dir(container, &path, faults);
    let readiness = readiness(
        container.readiness_probe.as_ref(),
        container.ports.first(),
        port,
        &path,
        faults,
    );
    let (cpu_limit, memory_limit) = limits(container, &path, faults);
    let stop_grace = spec.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let serving = Container {
        command,
        args,
        env: variables,
        working_dir,
        resources: Resources {
            cpu_limit,
            memory_limit,
            ..Resources::default()
        },
        probes: Probes {
            readiness: Some(readiness?),
            ..Probes::default()
        },
        ..Container::new(container.name.as_str(), image?)
    };
    Some(Workload {
        port,
        protocol: match container.ports.first().map(|port| port.name.as_str()) {
            Some("h2c") => Protocol::H2c,
            _ => Protocol::Http1,
        },
        stop_grace: stop_grace.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        serving,
        ..Workload::new(Image::Host(PathBuf::new()))
    })
}

/// `host:/path` or `host:NAME`; a name stays relative and is looked for when the sandbox starts.
fn image(text: &str, path: &str, faults: &mut Faults) -> Option<Image> {
    let hint = "write host:/path/to/program, or host:NAME for a program on the PATH";
    let Some(program) = text.strip_prefix("host:") else {
        faults.push(Fault::new(path, format!("not supported yet: {path}"), hint));
        return None;
    };
    let is_path = program.starts_with('/') && !program.ends_with('/');
    let is_name = !program.contains('/') && !matches!(program, "" | "." | "..");
    if (is_path || is_name) && !program.contains('\0') {
        return Some(Image::Host(PathBuf::from(program)));
    }
    faults.push(Fault::new(path, format!("invalid value: {text}"), hint));
    None
}

fn working_dir(container: &resources::Container, path: &str, faults: &mut Faults) -> Option<PathBuf> {
    let dir = &container.working_dir;
    if dir.is_empty() {
        return None;
    }
    if !Path::new(dir).is_absolute() || dir.contains('\0') {
        let message = format!("invalid value: {dir}");
        faults.push(Fault::new(
            format!("{path}.workingDir"),
            message,
            "write an absolute path",
        ));
    }
    Some(PathBuf::from(dir))
}

fn readiness(
    probe: Option<&resources::Probe>,
    container_port: Option<&ContainerPort>,
    port: u16,
    path: &str,
    faults: &mut Faults,
) -> Option<Probe> {
    let path = format!("{path}.readinessProbe");
    let Some(probe) = probe else {
        return Some(Probe::aggressive(Check::Tcp { port }));
    };
    let named = |name: &str| container_port.is_some_and(|port| port.name == name);
    let mut resolve = |wanted: &IntOrString, field: &str| match wanted {
        IntOrString::Int(0) => Some(port),
        IntOrString::String(name) if name.is_empty() || named(name) => Some(port),
        wanted => match wanted.int() {
            Some(wanted) => number(wanted, &format!("{path}.{field}.port"), faults),
            None => {
                let message = format!("there is no port named {wanted:?}", wanted = wanted.to_string());
                faults.push(Fault::new(
                    format!("{path}.{field}.port"),
                    message,
                    "write 0 for the container's port",
                ));
                None
            }
        },
    };
    let check = match (&probe.http_get, &probe.tcp_socket) {
        (Some(get), _) => http(get, resolve(&get.port, "httpGet")?, &path, faults)?,
        (None, Some(socket)) => Check::Tcp {
            port: resolve(&socket.port, "tcpSocket")?,
        },
        (None, None) => Check::Tcp { port },
    };
    let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or_default());
    let at_least_one = |value: i32| u32::try_from(value).unwrap_or_default().max(1);
    let aggressive = probe.period_seconds <= 0;
    Some(Probe {
        check,
        success_threshold: at_least_one(probe.success_threshold),
        failure_threshold: if probe.failure_threshold > 0 {
            at_least_one(probe.failure_threshold)
        } else {
            3
        },
        initial_delay: seconds(probe.initial_delay_seconds),
        period: (!aggressive).then(|| seconds(probe.period_seconds)),
        timeout: if aggressive {
            AGGRESSIVE_TIMEOUT
        } else {
            seconds(probe.timeout_seconds.max(1))
        },
    })
}

fn http(get: &HttpGetAction, port: u16, path: &str, faults: &mut Faults) -> Option<Check> {
    let slash = if get.path.starts_with('/') { "" } else { "/" };
    let wanted = format!("{slash}{}", get.path);
    if wanted.contains(|c: char| c.is_control() || c == ' ' || !c.is_ascii()) {
        let message = format!("invalid value: {:?}", get.path);
        faults.push(Fault::new(
            format!("{path}.httpGet.path"),
            message,
            "write spaces and the like as %20",
        ));
        return None;
    }
    for (nth, header) in get.http_headers.iter().enumerate() {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name_is_right = !header.name.is_empty() && header.name.chars().all(token);
        if !name_is_right || header.value.contains(|c: char| c.is_control() && c != '\t') {
            let message = format!("{:?} cannot be a header", header.name);
            faults.push(Fault::new(format!("{path}.httpGet.httpHeaders[{nth}]"), message, ""));
            return None;
        }
    }
    let headers = get
        .http_headers
        .iter()
        .map(|header| (header.name.clone(), header.value.clone()))
        .collect();
    Some(Check::Http {
        port,
        path: wanted,
        headers,
    })
}

/// Limits; a limit of 0 is none, as in Kubernetes. A request above its limit would be refused by a cluster.
fn limits(container: &resources::Container, path: &str, faults: &mut Faults) -> (Option<Millicores>, Option<Bytes>) {
    let resources = &container.resources;
    for (name, limit) in &resources.limits {
        if resources.requests.get(name).is_some_and(|request| request > limit) {
            let message = format!("is more than its limit {limit}");
            faults.push(Fault::new(
                format!("{path}.resources.requests.{name}"),
                message,
                "raise the limit",
            ));
        }
    }
    let mut limit = |name: &str, value: fn(&Quantity) -> i128, most: i128| {
        let quantity = resources.limits.get(name).filter(|quantity| !quantity.is_zero())?;
        let amount = value(quantity);
        if !(1..=most).contains(&amount) {
            let message = format!("invalid value: {quantity}");
            faults.push(Fault::new(format!("{path}.resources.limits.{name}"), message, ""));
        }
        Some(amount)
    };
    let cpu = limit("cpu", |quantity| quantity.milli_value(), u32::MAX.into());
    let memory = limit("memory", |quantity| quantity.value(), u64::MAX.into());
    (
        cpu.and_then(|millis| u32::try_from(millis).ok()).map(Millicores),
        memory.and_then(|bytes| u64::try_from(bytes).ok()).map(Bytes),
    )
}

fn number(port: i32, path: &str, faults: &mut Faults) -> Option<u16> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            faults.push(Fault::new(path, format!("invalid value: {port}"), "must be 1 to 65535"));
            None
        }
    }
}
