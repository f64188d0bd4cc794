//! Facts about a pod that its containers may ask for (Kubernetes: downward API): `fieldRef` and `resourceFieldRef`.

use super::sources::Sources;
use super::{Fault, Identity};
use crate::domains::StringMap;
use crate::knative::go::quote;
use crate::resources::{Container, ObjectFieldSelector, ObjectMeta, Quantity, ResourceFieldSelector, RevisionSpec};
use crate::text::{Fact, Text};

/// What is known about the pods of a revision.
pub(super) struct Pod<'a> {
    pub(super) identity: &'a Identity,
    pub(super) spec: &'a RevisionSpec,
    pub(super) sources: &'a Sources,
    labels: StringMap,
    annotations: StringMap,
}

/// Of a Revision object, not of its pods: they change while a pod runs.
const NOT_OF_PODS: [&str; 3] = [
    "serving.knative.dev/routingState",
    "serving.knative.dev/routingStateModified",
    "serving.knative.dev/routes",
];

impl<'a> Pod<'a> {
    /// Pods have the template's labels and annotations, and Knative's own labels (Knative: makeLabels, makeAnnotations).
    pub(super) fn new(
        identity: &'a Identity,
        template: &ObjectMeta,
        spec: &'a RevisionSpec,
        sources: &'a Sources,
    ) -> Self {
        let of_pods = |map: &StringMap| -> StringMap {
            let kept = map.iter().filter(|(key, _)| !NOT_OF_PODS.contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let (mut labels, annotations) = (of_pods(&template.labels), of_pods(&template.annotations));
        let mut label = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
        label(super::REVISION_LABEL, identity.id.name());
        label(super::CONFIGURATION_LABEL, identity.configuration.name());
        if let Some(service) = &identity.service {
            label(super::SERVICE_LABEL, service.name());
        }
        labels
            .entry("app".to_owned())
            .or_insert_with(|| identity.id.name().to_owned());
        Self {
            identity,
            spec,
            sources,
            labels,
            annotations,
        }
    }

    pub(super) fn namespace(&self) -> &'a str {
        self.identity.id.namespace()
    }

    /// A field that may be a variable.
    pub(super) fn field(&self, selector: &ObjectFieldSelector, path: &str) -> Result<Text, Fault> {
        match selector.field_path.as_str() {
            "spec.nodeName" => Ok(Fact::NodeName.into()),
            "spec.serviceAccountName" => Ok(match self.spec.service_account_name.as_str() {
                "" => "default".into(),
                name => name.into(),
            }),
            // Its network is its own, and has no other address.
            "status.podIP" | "status.podIPs" => Ok("127.0.0.1".into()),
            "metadata.labels" | "metadata.annotations" => Err(unknown(selector, path, IN_VARIABLES)),
            _ => self.common(selector, path, IN_VARIABLES),
        }
    }

    /// A field that may be a file.
    pub(super) fn file(&self, selector: &ObjectFieldSelector, path: &str) -> Result<Text, Fault> {
        let lines = |map: &StringMap| {
            let lines = map.iter().map(|(key, value)| format!("{key}={}", quote(value)));
            Ok(lines.collect::<Vec<_>>().join("\n").into())
        };
        match selector.field_path.as_str() {
            "metadata.labels" => lines(&self.labels),
            "metadata.annotations" => lines(&self.annotations),
            _ => self.common(selector, path, IN_FILES),
        }
    }

    fn common(&self, selector: &ObjectFieldSelector, path: &str, known: &str) -> Result<Text, Fault> {
        if !matches!(selector.api_version.as_str(), "" | "v1") {
            let message = format!("invalid value: {}", selector.api_version);
            return Err(Fault::new(format!("{path}.apiVersion"), message, "write v1"));
        }
        let field = selector.field_path.as_str();
        let keyed = |map: &str| field.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']");
        match field {
            "metadata.name" => Ok(Fact::PodName.into()),
            "metadata.uid" => Ok(Fact::PodUid.into()),
            "metadata.namespace" => Ok(self.namespace().into()),
            _ => {
                let of = |map: &StringMap, key: &str| map.get(key).map_or("", String::as_str).into();
                let label = keyed("metadata.labels").map(|key| of(&self.labels, key));
                label
                    .or_else(|| keyed("metadata.annotations").map(|key| of(&self.annotations, key)))
                    .ok_or_else(|| unknown(selector, path, known))
            }
        }
    }

    /// A resource of a container, `own` unless another one is named.
    pub(super) fn resource(
        &self,
        selector: &ResourceFieldSelector,
        own: Option<&Container>,
        path: &str,
    ) -> Result<Text, Fault> {
        let name = selector.container_name.as_str();
        let all = self.spec.containers().iter().chain(&self.spec.init_containers);
        let container = match (name, own) {
            ("", Some(own)) => own,
            _ => all.clone().find(|it| it.name == name).ok_or_else(|| {
                let names: Vec<&str> = all.clone().map(|it| it.name.as_str()).collect();
                let message = format!("there is no container {name:?}");
                Fault::new(
                    format!("{path}.containerName"),
                    message,
                    format!("there are {}", names.join(", ")),
                )
            })?,
        };
        let wrong_divisor = || {
            let message = format!("invalid value: {}", selector.divisor);
            Fault::new(
                format!("{path}.divisor"),
                message,
                "write 1, or another quantity above 0",
            )
        };
        let cpu = selector.resource.ends_with(".cpu");
        let divisor = match (selector.divisor.is_zero(), cpu) {
            (true, true) => 1000,
            (true, false) => 1,
            (false, true) => selector.divisor.milli_value(),
            (false, false) => selector.divisor.value(),
        };
        let divisor = u64::try_from(divisor)
            .ok()
            .filter(|it| *it > 0)
            .ok_or_else(wrong_divisor)?;
        let (limits, requests) = (&container.resources.limits, &container.resources.requests);
        let limit = |name: &str| limits.get(name).filter(|limit| !limit.is_zero());
        let amount = |quantity: &Quantity| {
            let units = if cpu { quantity.milli_value() } else { quantity.value() };
            let units = u64::try_from(units).unwrap_or_default();
            Text::from(units.div_ceil(divisor).to_string())
        };
        match selector.resource.as_str() {
            "limits.cpu" => Ok(limit("cpu").map_or(Fact::NodeCpu { divisor }.into(), amount)),
            "limits.memory" => Ok(limit("memory").map_or(Fact::NodeMemory { divisor }.into(), amount)),
            "limits.ephemeral-storage" => limit("ephemeral-storage").map(amount).ok_or_else(|| {
                let message = "the container has no limits.ephemeral-storage";
                Fault::new(format!("{path}.resource"), message, "set it")
            }),
            "requests.cpu" | "requests.memory" | "requests.ephemeral-storage" => {
                let name = &selector.resource["requests.".len()..];
                let asked = requests.get(name).or_else(|| limit(name));
                Ok(asked.map_or_else(|| "0".into(), amount))
            }
            other => {
                let message = format!("invalid value: {other}");
                let hint = "write limits. or requests. with cpu, memory or ephemeral-storage";
                Err(Fault::new(format!("{path}.resource"), message, hint))
            }
        }
    }
}

const IN_VARIABLES: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], \
                            metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.podIP are";
const IN_FILES: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels, metadata.annotations and their \
                        ['KEY'] are";

fn unknown(selector: &ObjectFieldSelector, path: &str, known: &str) -> Fault {
    let message = format!("not supported: {}", selector.field_path);
    Fault::new(format!("{path}.fieldPath"), message, known)
}
