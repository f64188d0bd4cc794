//! A container's environment: values, sources, and `$(VAR)` references, as the kubelet resolves them.

use std::collections::BTreeMap;

use super::downward::Pod;
use super::sources::{Kind, Sources};
use super::{Fault, Faults};
use crate::resources::{Container, EnvSource, EnvVar, KeySelector};
use crate::text::Text;

/// Resolves `envFrom` and `env` of a container at `path`: later wins, `env` over `envFrom`, and `$(VAR)` in a value
/// sees what was defined before it.
pub(super) fn resolve(container: &Container, path: &str, pod: &Pod<'_>, faults: &mut Faults) -> BTreeMap<String, Text> {
    let mut scope = Scope {
        pod,
        container,
        sources: pod.sources,
        variables: BTreeMap::new(),
    };
    for (nth, from) in container.env_from.iter().enumerate() {
        let maps = [
            ("configMapRef", Kind::ConfigMap, &from.config_map_ref),
            ("secretRef", Kind::Secret, &from.secret_ref),
        ];
        for (field, kind, source) in maps {
            if let Some(source) = source {
                faults.take(scope.all_of(kind, source, &from.prefix, &format!("{path}.envFrom[{nth}].{field}")));
            }
        }
    }
    for (nth, variable) in container.env.iter().enumerate() {
        let path = format!("{path}.env[{nth}]");
        match scope.value_of(variable, &path) {
            Ok(Some(value)) => faults.take(scope.define(&variable.name, value, &path)),
            Ok(None) => {}
            Err(fault) => faults.push(fault),
        }
    }
    scope.variables
}

/// Replaces `$(NAME)` by its value where `NAME` is known; `$$` is one dollar. Everything else stays (Kubernetes:
/// third_party/forked/golang/expansion).
pub(super) fn expand(text: &str, known: impl Fn(&str) -> Option<Text>) -> Text {
    let mut expanded = Text::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = if let Some((name, behind)) = reference {
            match known(name) {
                Some(value) => expanded.push(&value),
                None => expanded.push_str(&format!("$({name})")),
            }
            behind
        } else {
            expanded.push_str("$");
            // The character after the dollar is used up with it: `$$(A)` is the text `$(A)`.
            let used = after.chars().next().map_or(0, char::len_utf8);
            expanded.push_str(after[..used].trim_start_matches('$'));
            &after[used..]
        };
    }
    expanded.push_str(rest);
    expanded
}

struct Scope<'a> {
    pod: &'a Pod<'a>,
    container: &'a Container,
    sources: &'a Sources,
    variables: BTreeMap<String, Text>,
}

impl Scope<'_> {
    fn all_of(&mut self, kind: Kind, source: &EnvSource, prefix: &str, path: &str) -> Result<(), Fault> {
        let keys = match self.sources.find(kind, self.pod.namespace(), &source.name) {
            Ok(keys) => keys,
            Err(_) if source.optional == Some(true) => return Ok(()),
            Err(message) => return Err(Fault::new(path, message, "add it, or set optional: true")),
        };
        for (key, value) in &keys.data {
            let value = text(value, key, path)?;
            self.define(&format!("{prefix}{key}"), value, path)?;
        }
        Ok(())
    }

    /// `None`: the source is optional and not there.
    fn value_of(&self, variable: &EnvVar, path: &str) -> Result<Option<Text>, Fault> {
        let Some(from) = variable.value_from.as_ref().filter(|_| variable.value.is_empty()) else {
            return Ok(Some(expand(&variable.value, |name| self.variables.get(name).cloned())));
        };
        let refs = [
            ("configMapKeyRef", Kind::ConfigMap, &from.config_map_key_ref),
            ("secretKeyRef", Kind::Secret, &from.secret_key_ref),
        ];
        for (field, kind, selector) in refs {
            if let Some(selector) = selector {
                return self.key_of(kind, selector, &format!("{path}.valueFrom.{field}"));
            }
        }
        if let Some(field) = &from.field_ref {
            let path = format!("{path}.valueFrom.fieldRef");
            return self.pod.field(field, &path).map(Some);
        }
        if let Some(resource) = &from.resource_field_ref {
            let path = format!("{path}.valueFrom.resourceFieldRef");
            return self.pod.resource(resource, Some(self.container), &path).map(Some);
        }
        Ok(None)
    }

    fn key_of(&self, kind: Kind, selector: &KeySelector, path: &str) -> Result<Option<Text>, Fault> {
        let namespace = self.pod.namespace();
        let found = self.sources.find(kind, namespace, &selector.name).and_then(|keys| {
            let (key, name) = (&selector.key, &selector.name);
            let missing = || format!("there is no key {key:?} in {kind:?} {namespace}/{name}");
            keys.data.get(key).ok_or_else(missing)
        });
        match found {
            Ok(value) => text(value, &selector.key, path).map(Some),
            Err(_) if selector.optional == Some(true) => Ok(None),
            Err(message) => Err(Fault::new(path, message, "add it, or set optional: true")),
        }
    }

    fn define(&mut self, name: &str, value: Text, path: &str) -> Result<(), Fault> {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message = format!("{name:?} cannot be a variable");
            return Err(Fault::new(path, message, "names have no \"=\", values no zero byte"));
        }
        self.variables.insert(name.to_owned(), value);
        Ok(())
    }
}

fn text(value: &[u8], key: &str, path: &str) -> Result<Text, Fault> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err(Fault::new(path, format!("the value of key {key:?} is not UTF-8"), "")),
    }
}

#[cfg(test)]
mod tests;
