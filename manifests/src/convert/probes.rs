//! Probes with Knative's and Kubernetes' defaults, ports by number and name.

use std::time::Duration;

use super::{Fault, Faults, number};
use crate::resources::{self, ContainerPort, HttpGetAction, IntOrString};
use crate::workload::{Check, Probe, Probes};

/// Per try when `periodSeconds` is 0 (Knative: aggressive probing).
const AGGRESSIVE_TIMEOUT: Duration = Duration::from_millis(100);
/// A command is a process of its own: Kubernetes' default.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);
/// Kubernetes' default.
const PERIOD: Duration = Duration::from_secs(10);

/// The port that probes without one ask.
#[derive(Clone, Copy)]
pub(super) struct OwnPort<'a> {
    /// As the manifest has it.
    pub(super) declared: Option<&'a ContainerPort>,
    /// `None`: a container that serves nobody, and has none.
    pub(super) number: Option<u16>,
}

pub(super) fn probes(container: &resources::Container, own: OwnPort<'_>, path: &str, faults: &mut Faults) -> Probes {
    let mut read = |probe: Option<&resources::Probe>, field: &str, kind| {
        let path = format!("{path}.{field}");
        Reader {
            own,
            path: &path,
            faults,
        }
        .probe(probe?, kind)
    };
    let startup = read(container.startup_probe.as_ref(), "startupProbe", Kind::Other);
    let liveness = read(container.liveness_probe.as_ref(), "livenessProbe", Kind::Other);
    let readiness = read(container.readiness_probe.as_ref(), "readinessProbe", Kind::Readiness);
    let default = own.number.map(|port| Probe::aggressive(Check::Tcp { port }));
    Probes {
        startup,
        readiness: readiness.or(default),
        liveness,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Readiness,
    Other,
}

struct Reader<'a> {
    own: OwnPort<'a>,
    path: &'a str,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    /// `None` after a fault.
    fn probe(&mut self, probe: &resources::Probe, kind: Kind) -> Option<Probe> {
        let check = self.check(probe)?;
        let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or_default());
        let at_least_one = |value: i32| u32::try_from(value).unwrap_or_default().max(1);
        let aggressive = kind == Kind::Readiness && probe.period_seconds <= 0;
        let is_command = matches!(check, Check::Exec { .. });
        if kind == Kind::Other && probe.success_threshold > 1 {
            let message = format!("invalid value: {}", probe.success_threshold);
            let path = format!("{}.successThreshold", self.path);
            self.faults
                .push(Fault::new(path, message, "must be 1, as in Kubernetes"));
        }
        Some(Probe {
            check,
            success_threshold: at_least_one(probe.success_threshold),
            failure_threshold: if probe.failure_threshold > 0 {
                at_least_one(probe.failure_threshold)
            } else {
                3
            },
            initial_delay: seconds(probe.initial_delay_seconds),
            period: match probe.period_seconds {
                _ if aggressive => None,
                1.. => Some(seconds(probe.period_seconds)),
                _ => Some(PERIOD),
            },
            timeout: match (aggressive, is_command) {
                (true, false) => AGGRESSIVE_TIMEOUT,
                (true, true) => COMMAND_TIMEOUT,
                (false, _) => seconds(probe.timeout_seconds.max(1)),
            },
            grace: self.grace(probe, kind),
        })
    }

    /// Kubernetes: for liveness and startup probes.
    fn grace(&mut self, probe: &resources::Probe, kind: Kind) -> Option<Duration> {
        let wanted = probe.termination_grace_period_seconds?;
        match u64::try_from(wanted) {
            Ok(seconds @ 1..) if kind == Kind::Other => Some(Duration::from_secs(seconds)),
            _ => {
                let (message, hint) = match kind {
                    Kind::Readiness => ("is of no use".to_owned(), "a readiness probe ends nothing"),
                    Kind::Other => (format!("invalid value: {wanted}"), "write at least 1"),
                };
                let path = format!("{}.terminationGracePeriodSeconds", self.path);
                self.faults.push(Fault::new(path, message, hint));
                None
            }
        }
    }

    fn check(&mut self, probe: &resources::Probe) -> Option<Check> {
        if let Some(get) = &probe.http_get {
            let port = self.port(&get.port, "httpGet")?;
            return self.http(get, port);
        }
        if let Some(exec) = &probe.exec {
            return self.exec(&exec.command);
        }
        if let Some(grpc) = &probe.grpc {
            let port = match (grpc.port, self.own.number) {
                (0, Some(own)) => own,
                (port, _) => number(port, &format!("{}.grpc.port", self.path), self.faults)?,
            };
            let service = grpc.service.clone().unwrap_or_default();
            return Some(Check::Grpc { port, service });
        }
        let port = match &probe.tcp_socket {
            Some(socket) => self.port(&socket.port, "tcpSocket")?,
            None => self.own.number?,
        };
        Some(Check::Tcp { port })
    }

    fn port(&mut self, wanted: &IntOrString, field: &str) -> Option<u16> {
        let named = |name: &str| self.own.declared.is_some_and(|port| port.name == name);
        let path = format!("{}.{field}.port", self.path);
        match (wanted, self.own.number) {
            (IntOrString::Int(0), Some(own)) => Some(own),
            (IntOrString::String(name), Some(own)) if name.is_empty() || named(name) => Some(own),
            _ => match wanted.int() {
                Some(wanted) => number(wanted, &path, self.faults),
                None => {
                    let message = format!("there is no port named {:?}", wanted.to_string());
                    let hint = match self.own.number {
                        Some(_) => "write 0 for the container's port",
                        None => "write its number",
                    };
                    self.faults.push(Fault::new(path, message, hint));
                    None
                }
            },
        }
    }

    fn exec(&mut self, command: &[String]) -> Option<Check> {
        let wrong = match command.first() {
            None => Some("has no program"),
            Some(program) if program.is_empty() => Some("has no program"),
            _ if command.iter().any(|text| text.contains('\0')) => Some("has a zero byte"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let path = format!("{}.exec.command", self.path);
            self.faults
                .push(Fault::new(path, wrong, "write a program and its arguments"));
            return None;
        }
        Some(Check::Exec {
            command: command.to_vec(),
        })
    }

    fn http(&mut self, get: &HttpGetAction, port: u16) -> Option<Check> {
        let slash = if get.path.starts_with('/') { "" } else { "/" };
        let wanted = format!("{slash}{}", get.path);
        if wanted.contains(|c: char| c.is_control() || c == ' ' || !c.is_ascii()) {
            let message = format!("invalid value: {:?}", get.path);
            let path = format!("{}.httpGet.path", self.path);
            self.faults
                .push(Fault::new(path, message, "write spaces and the like as %20"));
            return None;
        }
        for (nth, header) in get.http_headers.iter().enumerate() {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            let name_is_right = !header.name.is_empty() && header.name.chars().all(token);
            if !name_is_right || header.value.contains(|c: char| c.is_control() && c != '\t') {
                let message = format!("{:?} cannot be a header", header.name);
                let path = format!("{}.httpGet.httpHeaders[{nth}]", self.path);
                self.faults.push(Fault::new(path, message, ""));
                return None;
            }
        }
        let headers = get
            .http_headers
            .iter()
            .map(|header| (header.name.clone(), header.value.clone()));
        Some(Check::Http {
            port,
            tls: get.scheme == "HTTPS",
            path: wanted,
            headers: headers.collect(),
        })
    }
}
