//! What Knative fills into containers: names, resources, probes, mounts, and secure settings where the cluster wants them.

use std::collections::{HashMap, HashSet};

use crate::config::SecurePodDefaults;
use crate::config::defaults::template_data;
use crate::knative::Settings;
use crate::knative::volume_mount::may_write;
use crate::names::child_name;
use crate::resources::{
    Capabilities, Container, ObjectMeta, PodSecurityContext, Probe, RevisionSpec, SeccompProfile, TcpSocketAction,
    Volume,
};

pub(super) fn fill(spec: &mut RevisionSpec, parent: &ObjectMeta, settings: &Settings) {
    fill_names(spec, parent, settings);
    let volumes = std::mem::take(&mut spec.volumes);
    let by_name: HashMap<&str, &Volume> = volumes.iter().map(|volume| (volume.name.as_str(), volume)).collect();
    let is_only = spec.containers().len() == 1;
    for container in spec.containers_mut() {
        fill_resources(container, settings);
        if is_only || !container.ports.is_empty() {
            fill_readiness_check(container.readiness_probe.get_or_insert_default());
        }
        fill_probes(container);
        for mount in &mut container.volume_mounts {
            let writable = by_name.get(mount.name.as_str()).is_some_and(|volume| may_write(volume));
            mount.read_only |= !writable;
        }
    }
    drop(by_name);
    spec.volumes = volumes;
    let pod = spec.security_context.clone().unwrap_or_default();
    let level = settings.features.secure_pod_defaults;
    for container in spec
        .container_list
        .iter_mut()
        .flatten()
        .chain(&mut spec.init_containers)
    {
        secure(container, &pod, level);
    }
}

/// Containers without a name get one that nobody has; several get numbers.
fn fill_names(spec: &mut RevisionSpec, parent: &ObjectMeta, settings: &Settings) {
    let data = template_data(parent);
    let names: HashSet<String> = spec
        .containers()
        .iter()
        .chain(&spec.init_containers)
        .map(|container| container.name.clone())
        .collect();
    let lists = [
        (
            spec.container_list.as_deref_mut().unwrap_or_default(),
            &settings.defaults.container_name,
        ),
        (
            spec.init_containers.as_mut_slice(),
            &settings.defaults.init_container_name,
        ),
    ];
    for (containers, template) in lists {
        let base = template.execute(&data).unwrap_or_default();
        let mut suffixes = 0_u32..;
        let is_free = |name: &String| !names.contains(name);
        let is_several = containers.len() > 1;
        for container in containers.iter_mut().filter(|container| container.name.is_empty()) {
            container.name = if is_several || !is_free(&base) {
                let mut numbered = suffixes.by_ref().map(|suffix| child_name(&base, &format!("-{suffix}")));
                numbered.find(is_free).unwrap_or_default()
            } else {
                base.clone()
            };
        }
    }
}

fn fill_resources(container: &mut Container, settings: &Settings) {
    for (resource, quantity) in &settings.defaults.requests {
        container
            .resources
            .requests
            .entry((*resource).to_owned())
            .or_insert(*quantity);
    }
    for (resource, quantity) in &settings.defaults.limits {
        container
            .resources
            .limits
            .entry((*resource).to_owned())
            .or_insert(*quantity);
    }
}

/// The serving container is ready when its port accepts a connection, unless it says otherwise.
fn fill_readiness_check(probe: &mut Probe) {
    if probe.tcp_socket.is_none() && probe.http_get.is_none() && probe.exec.is_none() && probe.grpc.is_none() {
        probe.tcp_socket = Some(TcpSocketAction::default());
    }
}

fn fill_probes(container: &mut Container) {
    if let Some(probe) = &mut container.readiness_probe {
        let set = |field: &mut i32, value: i32| {
            if *field == 0 {
                *field = value;
            }
        };
        set(&mut probe.success_threshold, 1);
        if probe.period_seconds != 0 {
            set(&mut probe.failure_threshold, 3);
            set(&mut probe.timeout_seconds, 1);
        }
    }
    for probe in [
        &mut container.readiness_probe,
        &mut container.liveness_probe,
        &mut container.startup_probe,
    ] {
        if let Some(grpc) = probe.as_mut().and_then(|probe| probe.grpc.as_mut()) {
            grpc.service.get_or_insert_default();
        }
    }
}

/// Kubernetes' "restricted" profile for what a container leaves open.
fn secure(container: &mut Container, pod: &PodSecurityContext, level: SecurePodDefaults) {
    if level == SecurePodDefaults::Disabled {
        return;
    }
    let binds_low_port = container.ports.iter().any(|port| port.container_port < 1024);
    let context = container.security_context.get_or_insert_default();
    context.allow_privilege_escalation.get_or_insert(false);
    let is_open = |profile: &SeccompProfile| profile.kind.is_empty();
    if pod.seccomp_profile.as_ref().is_none_or(is_open) {
        let profile = context.seccomp_profile.get_or_insert_default();
        if is_open(profile) {
            "RuntimeDefault".clone_into(&mut profile.kind);
        }
    }
    if context.capabilities.is_none() {
        let add = if binds_low_port {
            vec!["NET_BIND_SERVICE".to_owned()]
        } else {
            Vec::new()
        };
        context.capabilities = Some(Capabilities {
            add,
            drop: vec!["ALL".to_owned()],
        });
    }
    if level == SecurePodDefaults::Enabled && pod.run_as_non_root.is_none() {
        context.run_as_non_root.get_or_insert(true);
    }
}
