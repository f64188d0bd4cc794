//! What Knarr supports yet. A field that is valid in Knative and not built is refused by name, never ignored.
//!
//! Looks at defaulted resources. Lists say what is supported: a field that nobody thought of is refused.

use crate::annotations;
use crate::config::KPA;
use crate::domains::{StringMap, VISIBILITY_LABEL};
use crate::golang;
use crate::resources::{
    Container, ObjectMeta, PodSecurityContext, Probe, Resource, RevisionSpec, RevisionTemplate, SeccompProfile,
    SecurityContext,
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
        Resource::Route(_) | Resource::ConfigMap(_) | Resource::Secret(_) => {}
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
            "containerConcurrency",
            "timeoutSeconds",
            "responseStartTimeoutSeconds",
            "idleTimeoutSeconds",
            "securityContext",
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
        if let Some(context) = &spec.security_context {
            self.pod_security(&format!("{path}.securityContext"), context);
        }
        // With several containers, the one with ports serves; the others are what is not built.
        let serving = spec
            .containers()
            .iter()
            .position(|it| !it.ports.is_empty())
            .unwrap_or(0);
        for (nth, container) in spec.containers().iter().enumerate() {
            let path = format!("{path}.containers[{nth}]");
            if nth == serving {
                self.container(&path, container);
            } else {
                self.refuse(path, "one container per revision");
            }
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
            "readinessProbe",
            "securityContext",
            // A host: program is never pulled.
            "imagePullPolicy",
            "terminationMessagePath",
            "terminationMessagePolicy",
        ];
        self.fields(path, container.set_fields(), &built);
        let host = container.image.starts_with("host:") || container.image.is_empty();
        self.refuse_when(!host, format!("{path}.image"), "write image: host:/path/to/program");

        // The end of the log is reported, which is what these two come to when nobody writes the file.
        let message = &container.termination_message_path;
        let standard = message.is_empty() || message == "/dev/termination-log";
        self.refuse_when(
            !standard,
            format!("{path}.terminationMessagePath"),
            "the end of the log is reported",
        );
        let from_file = container.termination_message_policy == "File";
        self.refuse_when(
            from_file,
            format!("{path}.terminationMessagePolicy"),
            "the end of the log is reported",
        );

        for (nth, variable) in container.env.iter().enumerate() {
            if let Some(source) = &variable.value_from {
                let path = format!("{path}.env[{nth}].valueFrom");
                self.fields(&path, source.set_fields(), &["configMapKeyRef", "secretKeyRef"]);
            }
        }
        let resources = &container.resources;
        self.fields(
            &format!("{path}.resources"),
            resources.set_fields(),
            &["limits", "requests"],
        );
        for (kind, quantities) in [("limits", &resources.limits), ("requests", &resources.requests)] {
            for name in quantities.keys().filter(|name| *name != "cpu" && *name != "memory") {
                self.refuse(format!("{path}.resources.{kind}.{name}"), "cpu and memory are");
            }
        }
        if let Some(probe) = &container.readiness_probe {
            self.readiness(&format!("{path}.readinessProbe"), probe);
        }
        if let Some(context) = &container.security_context {
            self.security(&format!("{path}.securityContext"), context);
        }
    }

    fn readiness(&mut self, path: &str, probe: &Probe) {
        let built = [
            "httpGet",
            "tcpSocket",
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ];
        self.fields(path, probe.set_fields(), &built);
        if let Some(get) = &probe.http_get {
            self.refuse_when(
                !get.host.is_empty(),
                format!("{path}.httpGet.host"),
                "use httpHeaders with Host",
            );
            let plain = get.scheme.is_empty() || get.scheme == "HTTP";
            self.refuse_when(!plain, format!("{path}.httpGet.scheme"), "HTTP is");
        }
        if let Some(socket) = &probe.tcp_socket {
            self.refuse_when(
                !socket.host.is_empty(),
                format!("{path}.tcpSocket.host"),
                "leave it out",
            );
        }
    }

    /// What a `host:` sandbox always does may be asked for; anything else would be a promise that is not kept.
    fn security(&mut self, path: &str, context: &SecurityContext) {
        let built = [
            "capabilities",
            "privileged",
            "runAsNonRoot",
            "readOnlyRootFilesystem",
            "allowPrivilegeEscalation",
            "procMount",
            "seccompProfile",
        ];
        self.fields(path, context.set_fields(), &built);
        let always = "a host: program always runs without root, privileges and capabilities, on a read-only root";
        let differs = [
            ("privileged", context.privileged == Some(true)),
            ("runAsNonRoot", context.run_as_non_root == Some(false)),
            (
                "readOnlyRootFilesystem",
                context.read_only_root_filesystem == Some(false),
            ),
            (
                "allowPrivilegeEscalation",
                context.allow_privilege_escalation == Some(true),
            ),
            (
                "procMount",
                context.proc_mount.as_ref().is_some_and(|mount| mount != "Default"),
            ),
        ];
        for (field, differs) in differs {
            self.refuse_when(differs, format!("{path}.{field}"), always);
        }
        let added = context.capabilities.iter().flat_map(|capabilities| &capabilities.add);
        // Ports below 1024 are open to every sandbox: this one capability changes nothing.
        if added.into_iter().any(|capability| capability != "NET_BIND_SERVICE") {
            self.refuse(format!("{path}.capabilities.add"), always);
        }
        self.seccomp(path, context.seccomp_profile.as_ref());
    }

    fn pod_security(&mut self, path: &str, context: &PodSecurityContext) {
        self.fields(path, context.set_fields(), &["runAsNonRoot", "seccompProfile"]);
        let root = context.run_as_non_root == Some(false);
        self.refuse_when(
            root,
            format!("{path}.runAsNonRoot"),
            "a host: program always runs without root",
        );
        self.seccomp(path, context.seccomp_profile.as_ref());
    }

    fn seccomp(&mut self, path: &str, profile: Option<&SeccompProfile>) {
        let other = profile.is_some_and(|profile| profile.kind != "RuntimeDefault");
        self.refuse_when(
            other,
            format!("{path}.seccompProfile"),
            "a host: program always runs under RuntimeDefault",
        );
    }
}

fn annotation(metadata: &str, key: &str) -> String {
    format!("{metadata}.annotations.{key}")
}

fn hint_for(field: &str) -> &'static str {
    match field {
        "volumes" | "volumeMounts" => "a host: program sees /usr, its own directory and a private /tmp",
        "initContainers" => "one container per revision",
        "livenessProbe" | "startupProbe" => "a program that ends is started again; readinessProbe is supported",
        "exec" | "grpc" => "httpGet and tcpSocket are",
        "serviceAccountName" | "imagePullSecrets" => "a host: program has no use for it",
        "runAsUser" | "runAsGroup" => "a host: program runs as a user of its own",
        "fieldRef" | "resourceFieldRef" => "configMapKeyRef and secretKeyRef are",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
