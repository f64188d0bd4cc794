//! What Knarr supports yet. A field that is valid in Knative and not built is refused by name, never ignored.
//!
//! Looks at defaulted resources. Lists say what is supported: a field that nobody thought of is refused.

use crate::annotations;
use crate::config::KPA;
use crate::domains::{StringMap, VISIBILITY_LABEL};
use crate::golang;
use crate::resources::{
    Container, ObjectMeta, PodSecurityContext, Probe, Resource, RevisionSpec, RevisionTemplate, SeccompProfile,
    SecurityContext, Volume,
};

/// One field that is not built yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// The field.
    pub path: String,
    /// What works instead; may be empty.
    pub hint: String,
    /// `false`: the manifest is accepted without it, and says so.
    pub refused: bool,
}

impl Unsupported {
    /// `not supported yet: PATH`.
    pub fn message(&self) -> String {
        format!("not supported yet: {}", self.path)
    }
}

/// Everything in `resource` that is not built yet. ConfigMaps of Knative are judged by [`crate::config`].
pub fn unsupported(resource: &Resource) -> Vec<Unsupported> {
    let mut found = Found::default();
    found.metadata(resource.metadata());
    match resource {
        Resource::Service(service) => found.template(&service.spec.template),
        Resource::Configuration(configuration) => found.template(&configuration.spec.template),
        Resource::Revision(_) => found.refuse("kind", "write a Configuration or a Service, which makes its Revisions"),
        Resource::DomainMapping(_) => found.warn("kind", "the DomainMapping is checked, but not served"),
        Resource::Route(_) | Resource::ConfigMap(_) | Resource::Secret(_) | Resource::PersistentVolumeClaim(_) => {}
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<Unsupported>);

impl Found {
    fn refuse(&mut self, path: impl Into<String>, hint: &str) {
        self.0.push(Unsupported {
            path: path.into(),
            hint: hint.to_owned(),
            refused: true,
        });
    }

    fn warn(&mut self, path: impl Into<String>, hint: &str) {
        self.0.push(Unsupported {
            path: path.into(),
            hint: hint.to_owned(),
            refused: false,
        });
    }

    /// Refuses every set field that is not in `built`.
    fn fields(&mut self, path: &str, set: Vec<&'static str>, built: &[&str]) {
        for field in set.into_iter().filter(|field| !built.contains(field)) {
            self.refuse(format!("{path}.{field}"), hint_for(field));
        }
    }

    fn refuse_when(&mut self, wrong: bool, path: String, hint: &str) {
        if wrong {
            self.refuse(path, hint);
        }
    }

    fn metadata(&mut self, metadata: &ObjectMeta) {
        self.refuse_when(
            !metadata.generate_name.is_empty(),
            "metadata.generateName".to_owned(),
            "write metadata.name",
        );
        self.refuse_when(
            !metadata.owner_references.is_empty(),
            "metadata.ownerReferences".to_owned(),
            "",
        );
        self.refuse_when(!metadata.finalizers.is_empty(), "metadata.finalizers".to_owned(), "");
        self.refuse_when(
            metadata.labels.contains_key(VISIBILITY_LABEL),
            format!("metadata.labels.{VISIBILITY_LABEL}"),
            "there is one listener, and whoever reaches it reaches every service",
        );
        let annotations = &metadata.annotations;
        if let Some((key, value)) = annotations::ROLLOUT_DURATION.of(annotations) {
            let at_once = golang::parse_duration_nanos(value) == Ok(0);
            self.refuse_when(!at_once, annotation("metadata", key), "traffic moves at once");
        }
        if let Some((key, value)) = annotations::HTTP_PROTOCOL.of(annotations) {
            let plain = value.eq_ignore_ascii_case("enabled");
            self.refuse_when(!plain, annotation("metadata", key), "there is no TLS to redirect to");
        }
    }

    fn template(&mut self, template: &RevisionTemplate) {
        self.template_annotations("spec.template.metadata", &template.metadata.annotations);
        self.revision("spec.template.spec", &template.spec);
    }

    fn template_annotations(&mut self, path: &str, annotations: &StringMap) {
        if let Some((key, class)) = annotations::CLASS.of(annotations) {
            let ours = class == KPA;
            self.refuse_when(!ours, annotation(path, key), "the class kpa.autoscaling.knative.dev is");
        }
        for key in annotations
            .keys()
            .filter(|key| key.starts_with("queue.sidecar.serving.knative.dev/"))
        {
            self.warn(annotation(path, key), "there is no queue-proxy that could use it");
        }
    }

    fn revision(&mut self, path: &str, spec: &RevisionSpec) {
        let built = [
            "containers",
            "initContainers",
            "volumes",
            "containerConcurrency",
            "timeoutSeconds",
            "responseStartTimeoutSeconds",
            "idleTimeoutSeconds",
            "securityContext",
            "imagePullSecrets",
            "runtimeClassName",
            "hostAliases",
            "serviceAccountName",
            // Knative takes `false` only, and there is no service account to mount.
            "automountServiceAccountToken",
            "enableServiceLinks",
        ];
        self.fields(path, spec.set_fields(), &built);
        let links = spec.enable_service_links == Some(true);
        self.refuse_when(
            links,
            format!("{path}.enableServiceLinks"),
            "leave it out: there are no service variables",
        );
        let account = spec.service_account_name.as_str();
        self.refuse_when(
            !matches!(account, "" | "default"),
            format!("{path}.serviceAccountName"),
            "leave it out: there are no service accounts",
        );
        for (nth, volume) in spec.volumes.iter().enumerate() {
            self.volume(&format!("{path}.volumes[{nth}]"), volume);
        }
        let lists = [
            ("containers", spec.containers()),
            ("initContainers", &spec.init_containers),
        ];
        for (field, list) in lists {
            for (nth, container) in list.iter().enumerate() {
                self.container(&format!("{path}.{field}[{nth}]"), container);
            }
        }
        if let Some(context) = &spec.security_context {
            let has_host = lists.iter().flat_map(|(_, list)| *list).any(is_host);
            self.pod_security(&format!("{path}.securityContext"), context, has_host);
        }
    }

    fn volume(&mut self, path: &str, volume: &Volume) {
        let built = [
            "name",
            "emptyDir",
            "configMap",
            "secret",
            "projected",
            "persistentVolumeClaim",
            "hostPath",
        ];
        self.fields(path, volume.set_fields(), &built);
        let sources = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
        for (nth, source) in sources.enumerate() {
            let path = format!("{path}.projected.sources[{nth}]");
            self.fields(&path, source.set_fields(), &["configMap", "secret", "downwardAPI"]);
        }
    }

    fn container(&mut self, path: &str, container: &Container) {
        let built = [
            "name",
            "image",
            "command",
            "args",
            "workingDir",
            "ports",
            "env",
            "envFrom",
            "resources",
            "volumeMounts",
            "startupProbe",
            "readinessProbe",
            "livenessProbe",
            "securityContext",
            "imagePullPolicy",
            "terminationMessagePath",
            "terminationMessagePolicy",
        ];
        self.fields(path, container.set_fields(), &built);
        for (nth, variable) in container.env.iter().enumerate() {
            if let Some(source) = &variable.value_from {
                let built = ["configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"];
                self.fields(&format!("{path}.env[{nth}].valueFrom"), source.set_fields(), &built);
            }
        }
        for (nth, mount) in container.volume_mounts.iter().enumerate() {
            let path = format!("{path}.volumeMounts[{nth}]");
            let built = ["name", "readOnly", "mountPath", "subPath", "mountPropagation"];
            self.fields(&path, mount.set_fields(), &built);
            let follows = mount.mount_propagation.as_ref().is_some_and(|it| it != "None");
            self.refuse_when(follows, format!("{path}.mountPropagation"), "None is");
        }
        self.resources(&format!("{path}.resources"), container);
        let probes = [
            ("startupProbe", &container.startup_probe),
            ("readinessProbe", &container.readiness_probe),
            ("livenessProbe", &container.liveness_probe),
        ];
        for (field, probe) in probes {
            if let Some(probe) = probe {
                self.probe(&format!("{path}.{field}"), probe);
            }
        }
        if let Some(context) = &container.security_context {
            let path = format!("{path}.securityContext");
            self.security(&path, context);
            if is_host(container) {
                self.host_security(&path, context);
            }
        }
    }

    fn resources(&mut self, path: &str, container: &Container) {
        let resources = &container.resources;
        self.fields(path, resources.set_fields(), &["limits", "requests"]);
        for (kind, quantities) in [("limits", &resources.limits), ("requests", &resources.requests)] {
            let built = |name: &&String| matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            for name in quantities.keys().filter(|name| !built(name)) {
                self.refuse(format!("{path}.{kind}.{name}"), "cpu, memory and ephemeral-storage are");
            }
        }
        if resources.requests.contains_key("ephemeral-storage") {
            self.warn(
                format!("{path}.requests.ephemeral-storage"),
                "nothing is set aside; a limit is kept",
            );
        }
    }

    fn probe(&mut self, path: &str, probe: &Probe) {
        let built = [
            "httpGet",
            "tcpSocket",
            "exec",
            "grpc",
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
            "terminationGracePeriodSeconds",
        ];
        self.fields(path, probe.set_fields(), &built);
        if let Some(get) = &probe.http_get {
            self.refuse_when(
                !get.host.is_empty(),
                format!("{path}.httpGet.host"),
                "use httpHeaders with Host",
            );
            let known = ["", "HTTP", "HTTPS"].contains(&get.scheme.as_str());
            self.refuse_when(!known, format!("{path}.httpGet.scheme"), "HTTP and HTTPS are");
        }
        if let Some(socket) = &probe.tcp_socket {
            self.refuse_when(
                !socket.host.is_empty(),
                format!("{path}.tcpSocket.host"),
                "leave it out",
            );
        }
    }

    /// What a sandbox does always may be asked for; anything else would be a promise that is not kept.
    fn security(&mut self, path: &str, context: &SecurityContext) {
        let built = [
            "capabilities",
            "privileged",
            "runAsUser",
            "runAsGroup",
            "runAsNonRoot",
            "readOnlyRootFilesystem",
            "allowPrivilegeEscalation",
            "procMount",
            "seccompProfile",
        ];
        self.fields(path, context.set_fields(), &built);
        let differs = [
            (
                "privileged",
                context.privileged == Some(true),
                "no sandbox is privileged",
            ),
            (
                "allowPrivilegeEscalation",
                context.allow_privilege_escalation == Some(true),
                "leave it out: no process of a sandbox can gain privileges",
            ),
            (
                "procMount",
                context.proc_mount.as_ref().is_some_and(|mount| mount != "Default"),
                "Default is",
            ),
        ];
        for (field, differs, hint) in differs {
            self.refuse_when(differs, format!("{path}.{field}"), hint);
        }
    }

    /// A program of this machine has no file system and no users of its own.
    fn host_security(&mut self, path: &str, context: &SecurityContext) {
        let differs = [
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
            ("runAsNonRoot", context.run_as_non_root == Some(false)),
            (
                "readOnlyRootFilesystem",
                context.read_only_root_filesystem == Some(false),
            ),
        ];
        for (field, differs) in differs {
            self.refuse_when(differs, format!("{path}.{field}"), HOST_ALWAYS);
        }
        let added = context.capabilities.iter().flat_map(|capabilities| &capabilities.add);
        // Ports below 1024 are open to every sandbox: this one capability changes nothing.
        if added.into_iter().any(|capability| capability != "NET_BIND_SERVICE") {
            self.refuse(format!("{path}.capabilities.add"), HOST_ALWAYS);
        }
        self.host_seccomp(path, context.seccomp_profile.as_ref());
    }

    fn pod_security(&mut self, path: &str, context: &PodSecurityContext, has_host: bool) {
        let built = [
            "runAsUser",
            "runAsGroup",
            "runAsNonRoot",
            "fsGroup",
            "supplementalGroups",
            "seccompProfile",
        ];
        self.fields(path, context.set_fields(), &built);
        if !has_host {
            return;
        }
        let differs = [
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
            ("runAsNonRoot", context.run_as_non_root == Some(false)),
        ];
        for (field, differs) in differs {
            self.refuse_when(differs, format!("{path}.{field}"), HOST_ALWAYS);
        }
        self.host_seccomp(path, context.seccomp_profile.as_ref());
    }

    fn host_seccomp(&mut self, path: &str, profile: Option<&SeccompProfile>) {
        let other = profile.is_some_and(|profile| profile.kind != "RuntimeDefault");
        self.refuse_when(
            other,
            format!("{path}.seccompProfile"),
            "a host: program always runs under RuntimeDefault",
        );
    }
}

const HOST_ALWAYS: &str =
    "a host: program always runs as a user of its own, without root, privileges and capabilities, on a read-only root";

fn is_host(container: &Container) -> bool {
    container.image.starts_with("host:")
}

fn annotation(metadata: &str, key: &str) -> String {
    format!("{metadata}.annotations.{key}")
}

fn hint_for(field: &str) -> &'static str {
    match field {
        "csi" | "ephemeral" => "emptyDir, configMap, secret, projected, persistentVolumeClaim and hostPath are",
        "image" => "copy the files into the container's image",
        "serviceAccountToken" => "there are no service accounts",
        "fileKeyRef" => "configMapKeyRef, secretKeyRef, fieldRef and resourceFieldRef are",
        "nodeSelector" | "affinity" | "tolerations" | "topologySpreadConstraints" => "there is one machine",
        "shareProcessNamespace" | "hostPID" | "hostIPC" | "hostNetwork" => "every container's processes are its own",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
