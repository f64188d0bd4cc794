//! `config-defaults`: what a revision gets that does not say (Knative: `config.Defaults`).

use std::collections::BTreeMap;

use super::keys::{ConfigError, Keys, flag};
use crate::golang::parse_int;
use crate::resources::{ObjectMeta, Quantity};
use crate::template::{Template, Value};

/// The defaults and limits of `config-defaults`. Times are whole seconds.
#[derive(Clone, PartialEq, Debug)]
pub struct Defaults {
    /// `revision-timeout-seconds`: default of `timeoutSeconds`; 300.
    pub timeout_seconds: i64,
    /// `max-revision-timeout-seconds`: the most `timeoutSeconds` may be; 600.
    pub max_timeout_seconds: i64,
    /// `revision-response-start-timeout-seconds`; the request timeout unless given, 0 is off.
    pub response_start_timeout_seconds: i64,
    /// `revision-idle-timeout-seconds`; 0 is off.
    pub idle_timeout_seconds: i64,
    /// `revision-cpu-request`, `-memory-request`, `-ephemeral-storage-request`, by Kubernetes' resource names.
    pub requests: BTreeMap<&'static str, Quantity>,
    /// `revision-cpu-limit`, `-memory-limit`, `-ephemeral-storage-limit`, by Kubernetes' resource names.
    pub limits: BTreeMap<&'static str, Quantity>,
    /// `container-name-template`; `user-container`.
    pub container_name: Template,
    /// `init-container-name-template`; `init-container`.
    pub init_container_name: Template,
    /// `container-concurrency`: default of `containerConcurrency`; 0.
    pub container_concurrency: i64,
    /// `container-concurrency-max-limit`; 1000.
    pub container_concurrency_max: i64,
    /// `allow-container-concurrency-zero`; true.
    pub allow_container_concurrency_zero: bool,
    /// `enable-service-links`; false. `None` leaves the field out, which Kubernetes reads as true.
    pub enable_service_links: Option<bool>,
}

const RESOURCES: [(&str, &str, &str); 3] = [
    ("cpu", "revision-cpu-request", "revision-cpu-limit"),
    ("memory", "revision-memory-request", "revision-memory-limit"),
    (
        "ephemeral-storage",
        "revision-ephemeral-storage-request",
        "revision-ephemeral-storage-limit",
    ),
];

impl Default for Defaults {
    fn default() -> Self {
        Self::read(&mut Keys::new(&BTreeMap::new()))
    }
}

impl Defaults {
    /// From the ConfigMap's `data`.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut keys = Keys::new(data);
        let defaults = Self::read(&mut keys);
        defaults.check(&mut keys);
        keys.finish(defaults)
    }

    fn read(keys: &mut Keys<'_>) -> Self {
        let timeout_seconds = keys.value("revision-timeout-seconds", "", 300, integer);
        let mut requests = BTreeMap::new();
        let mut limits = BTreeMap::new();
        for (resource, request, limit) in RESOURCES {
            requests.extend(
                keys.value(request, "", None, quantity)
                    .map(|quantity| (resource, quantity)),
            );
            limits.extend(
                keys.value(limit, "", None, quantity)
                    .map(|quantity| (resource, quantity)),
            );
        }
        Self {
            timeout_seconds,
            max_timeout_seconds: keys.value("max-revision-timeout-seconds", "", 600, integer),
            response_start_timeout_seconds: keys.value(
                "revision-response-start-timeout-seconds",
                "",
                timeout_seconds,
                integer,
            ),
            idle_timeout_seconds: keys.value("revision-idle-timeout-seconds", "", 0, integer),
            requests,
            limits,
            container_name: name_template(keys, "container-name-template", "user-container"),
            init_container_name: name_template(keys, "init-container-name-template", "init-container"),
            container_concurrency: keys.value("container-concurrency", "", 0, integer),
            container_concurrency_max: keys.value("container-concurrency-max-limit", "", 1000, integer),
            allow_container_concurrency_zero: keys.value("allow-container-concurrency-zero", "", true, flag),
            enable_service_links: keys.value("enable-service-links", "", Some(false), service_links),
        }
    }

    fn check(&self, keys: &mut Keys<'_>) {
        let mut at_most = |key: &str, value: i64, limit: i64, name: &str| {
            if value > limit {
                keys.error(
                    key,
                    format!("{value} is more than {name}, {limit}"),
                    format!("write at most {limit}"),
                );
            }
        };
        let timeout = self.timeout_seconds;
        at_most(
            "revision-timeout-seconds",
            timeout,
            self.max_timeout_seconds,
            "max-revision-timeout-seconds",
        );
        let start = self.response_start_timeout_seconds;
        at_most(
            "revision-response-start-timeout-seconds",
            start,
            timeout,
            "revision-timeout-seconds",
        );
        at_most(
            "revision-idle-timeout-seconds",
            self.idle_timeout_seconds,
            timeout,
            "revision-timeout-seconds",
        );
        let max = self.container_concurrency_max;
        at_most(
            "container-concurrency",
            self.container_concurrency,
            max,
            "container-concurrency-max-limit",
        );
        if max < 1 {
            keys.error(
                "container-concurrency-max-limit",
                format!("{max} is less than 1"),
                "write 1 or more",
            );
        }
        if self.container_concurrency < 0 {
            let message = format!("{} is less than 0", self.container_concurrency);
            keys.error("container-concurrency", message, format!("write 0 to {max}"));
        }
    }
}

/// What a container name template computes with: the metadata of the Service or Configuration.
pub(crate) fn template_data(meta: &ObjectMeta) -> Value<'_> {
    Value::Struct(
        "v1.ObjectMeta",
        vec![
            ("Name", meta.name.as_str().into()),
            ("GenerateName", meta.generate_name.as_str().into()),
            ("Namespace", meta.namespace.as_str().into()),
            ("UID", meta.uid.as_str().into()),
            ("ResourceVersion", meta.resource_version.as_str().into()),
            ("Generation", Value::Int(meta.generation)),
            ("Labels", Value::Map(&meta.labels)),
            ("Annotations", Value::Map(&meta.annotations)),
        ],
    )
}

/// A template that also executes, with an empty name.
fn name_template(keys: &mut Keys<'_>, key: &'static str, default: &'static str) -> Template {
    let parse = |source: &str| {
        let template = Template::parse("container-template", source)?;
        template.execute(&template_data(&ObjectMeta::default()))?;
        Ok(template)
    };
    let constant = Template::text("container-template", default);
    keys.value(key, "", constant, |source| {
        parse(source).map_err(|error: crate::template::TemplateError| error.to_string())
    })
}

fn integer(text: &str) -> Result<i64, String> {
    parse_int(text).map_err(|_| "write a whole number".to_owned())
}

fn quantity(text: &str) -> Result<Option<Quantity>, String> {
    text.parse()
        .map(Some)
        .map_err(|_| "write a quantity such as 250m, 1Gi or 2".to_owned())
}

/// Knative reads every other word as "default".
fn service_links(text: &str) -> Result<Option<bool>, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        "default" => Ok(None),
        _ => Err("write \"true\", \"false\" or \"default\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_ranges() {
        let read = |pairs: &[(&str, &str)]| {
            let data = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            Defaults::from_data(&data)
        };
        assert_eq!(read(&[]), Ok(Defaults::default()));
        let defaults = read(&[("revision-timeout-seconds", "100"), ("revision-cpu-limit", "1000m")]).unwrap();
        assert_eq!(defaults.response_start_timeout_seconds, 100);
        assert_eq!(defaults.limits["cpu"], "1".parse().unwrap());
        for pairs in [
            &[("revision-timeout-seconds", "601")][..],
            &[("revision-response-start-timeout-seconds", "301")],
            &[("revision-idle-timeout-seconds", "301")],
            &[("container-concurrency", "1001")],
            &[("container-concurrency", "-1")],
            &[("container-concurrency-max-limit", "0")],
            &[("revision-timeout-seconds", "5m")],
            &[("revision-memory-limit", "lots")],
            &[("container-name-template", "{{.Nam}}")],
            &[("container-name-template", "{{")],
            &[("enable-service-links", "maybe")],
            &[("allow-container-concurrency-zero", "yes")],
            &[("container-concurency", "1")],
        ] {
            let errors = read(pairs).unwrap_err();
            assert_eq!(errors.len(), 1, "{pairs:?}: {errors:?}");
            assert_eq!(errors[0].key, pairs[0].0);
        }
    }
}
