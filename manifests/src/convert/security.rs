//! `securityContext`: the container's own over the pod's.

use std::path::PathBuf;

use super::{Fault, Faults};
use crate::resources::{Container, PodSecurityContext, SeccompProfile, SecurityContext};
use crate::workload::{CAPABILITIES, Capabilities, Seccomp, Security};

pub(super) fn security(
    pod: Option<&PodSecurityContext>,
    container: &Container,
    path: &str,
    faults: &mut Faults,
) -> Security {
    let (no_pod, none) = (PodSecurityContext::default(), SecurityContext::default());
    let pod = pod.unwrap_or(&no_pod);
    let own = container.security_context.as_ref().unwrap_or(&none);
    let path = format!("{path}.securityContext");
    let profile = own.seccomp_profile.as_ref().map(|profile| (profile, path.as_str()));
    let profile = profile.or_else(|| Some((pod.seccomp_profile.as_ref()?, "spec.securityContext")));
    let mut names = |field: &str, names: &[String]| -> Vec<String> {
        let read = |(nth, name): (usize, &String)| match capability(name) {
            Some(name) => Some(name),
            None => {
                let path = format!("{path}.capabilities.{field}[{nth}]");
                faults.push(Fault::new(
                    path,
                    format!("invalid value: {name}"),
                    "write names such as NET_RAW, or ALL",
                ));
                None
            }
        };
        names.iter().enumerate().filter_map(read).collect()
    };
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let capabilities = Capabilities {
        drop: names("drop", &capabilities.drop),
        add: names("add", &capabilities.add),
    };
    let user = own.run_as_user.or(pod.run_as_user);
    let non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or_default();
    if non_root && user == Some(0) {
        let field = if own.run_as_user.is_some() {
            path.as_str()
        } else {
            "spec.securityContext"
        };
        let path = format!("{field}.runAsUser");
        faults.push(Fault::new(
            path,
            "is 0 while runAsNonRoot is true",
            "change one of them",
        ));
    }
    Security {
        user: user.and_then(id),
        group: own.run_as_group.or(pod.run_as_group).and_then(id),
        non_root,
        read_only_root: own.read_only_root_filesystem.unwrap_or_default(),
        capabilities,
        seccomp: profile.map_or_else(Seccomp::default, |(profile, path)| seccomp(profile, path, faults)),
    }
}

/// Knative's validation has seen to the range.
pub(super) fn id(value: i64) -> Option<u32> {
    u32::try_from(value).ok()
}

/// A name as the kernel's headers have it, with or without `CAP_`, in any case.
fn capability(name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    (name == "ALL" || CAPABILITIES.contains(&name)).then(|| name.to_owned())
}

/// A path that leads down from wherever it is taken.
fn is_below(path: &str) -> bool {
    let mut names = path.split('/');
    !path.is_empty() && !path.starts_with('/') && !path.contains('\0') && names.all(|name| name != "..")
}

fn seccomp(profile: &SeccompProfile, path: &str, faults: &mut Faults) -> Seccomp {
    let path = format!("{path}.seccompProfile");
    let file = profile.localhost_profile.as_deref().unwrap_or_default();
    match profile.kind.as_str() {
        "" | "RuntimeDefault" if file.is_empty() => Seccomp::RuntimeDefault,
        "Unconfined" if file.is_empty() => Seccomp::Unconfined,
        "Localhost" if is_below(file) => Seccomp::Localhost(PathBuf::from(file)),
        kind @ ("" | "RuntimeDefault" | "Unconfined") => {
            let message = format!(
                "is not for type {:?}",
                if kind.is_empty() { "RuntimeDefault" } else { kind }
            );
            faults.push(Fault::new(
                format!("{path}.localhostProfile"),
                message,
                "write type: Localhost, or leave it out",
            ));
            Seccomp::default()
        }
        "Localhost" => {
            let message = format!("invalid value: {file:?}");
            let hint = "write the path of a profile below the directory of profiles: relative, without ..";
            faults.push(Fault::new(format!("{path}.localhostProfile"), message, hint));
            Seccomp::default()
        }
        other => {
            let message = format!("invalid value: {other}");
            let hint = "write RuntimeDefault, Unconfined or Localhost";
            faults.push(Fault::new(format!("{path}.type"), message, hint));
            Seccomp::default()
        }
    }
}
