//! A container's environment: values, sources, and `$(VAR)` references, as the kubelet resolves them.

use std::collections::BTreeMap;

use super::{Fault, Faults};
use crate::ids::ObjectId;
use crate::resources::{ConfigMap, Container, EnvSource, EnvVar, KeySelector, Secret};

/// ConfigMaps and Secrets that variables may come from, by namespace and name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EnvSources {
    config_maps: BTreeMap<ObjectId, BTreeMap<String, Vec<u8>>>,
    secrets: BTreeMap<ObjectId, BTreeMap<String, Vec<u8>>>,
}

impl EnvSources {
    /// Adds a ConfigMap; a former one of the same name is replaced. Its `binaryData` is not for variables.
    pub fn add_config_map(&mut self, map: &ConfigMap) {
        let data = map
            .data
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()))
            .collect();
        self.config_maps.insert(super::object_id(&map.metadata), data);
    }

    /// Adds a Secret; a former one of the same name is replaced. `stringData` wins over `data`.
    pub fn add_secret(&mut self, secret: &Secret) {
        let decoded = secret
            .data
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.decode()?)));
        let plain = secret
            .string_data
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        self.secrets
            .insert(super::object_id(&secret.metadata), decoded.chain(plain).collect());
    }
}

/// Resolves `envFrom` and `env` of a container at `path`: later wins, `env` over `envFrom`, and `$(VAR)` in a value
/// sees what was defined before it.
pub(super) fn resolve(
    container: &Container,
    path: &str,
    namespace: &str,
    sources: &EnvSources,
    faults: &mut Faults,
) -> BTreeMap<String, String> {
    let mut scope = Scope {
        namespace,
        sources,
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
pub(super) fn expand(text: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = if let Some((name, behind)) = reference {
            match known(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.extend(["$(", name, ")"]),
            }
            behind
        } else {
            expanded.push('$');
            // The character after the dollar is used up with it: `$$(A)` is the text `$(A)`.
            let used = after.chars().next();
            expanded.extend(used.filter(|c| *c != '$'));
            &after[used.map_or(0, char::len_utf8)..]
        };
    }
    expanded.push_str(rest);
    expanded
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    ConfigMap,
    Secret,
}

struct Scope<'a> {
    namespace: &'a str,
    sources: &'a EnvSources,
    variables: BTreeMap<String, String>,
}

impl Scope<'_> {
    fn find(&self, kind: Kind, name: &str) -> Result<&BTreeMap<String, Vec<u8>>, String> {
        let maps = match kind {
            Kind::ConfigMap => &self.sources.config_maps,
            Kind::Secret => &self.sources.secrets,
        };
        let missing = || format!("there is no {kind:?} {}/{name}", self.namespace);
        maps.get(&ObjectId::new(self.namespace, name)).ok_or_else(missing)
    }

    fn all_of(&mut self, kind: Kind, source: &EnvSource, prefix: &str, path: &str) -> Result<(), Fault> {
        let map = match self.find(kind, &source.name) {
            Ok(map) => map.clone(),
            Err(_) if source.optional == Some(true) => return Ok(()),
            Err(message) => return Err(Fault::new(path, message, "add it, or set optional: true")),
        };
        for (key, value) in map {
            let value = text(value, &key, path)?;
            self.define(&format!("{prefix}{key}"), value, path)?;
        }
        Ok(())
    }

    /// `None`: the source is optional and not there.
    fn value_of(&self, variable: &EnvVar, path: &str) -> Result<Option<String>, Fault> {
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
        Ok(None)
    }

    fn key_of(&self, kind: Kind, selector: &KeySelector, path: &str) -> Result<Option<String>, Fault> {
        let found = self.find(kind, &selector.name).and_then(|map| {
            let missing = || {
                format!(
                    "there is no key {:?} in {kind:?} {}/{}",
                    selector.key, self.namespace, selector.name
                )
            };
            map.get(&selector.key).ok_or_else(missing)
        });
        match found {
            Ok(value) => text(value.clone(), &selector.key, path).map(Some),
            Err(_) if selector.optional == Some(true) => Ok(None),
            Err(message) => Err(Fault::new(path, message, "add it, or set optional: true")),
        }
    }

    fn define(&mut self, name: &str, value: String, path: &str) -> Result<(), Fault> {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message = format!("{name:?} cannot be a variable");
            return Err(Fault::new(path, message, "names have no \"=\", values no zero byte"));
        }
        self.variables.insert(name.to_owned(), value);
        Ok(())
    }
}

fn text(value: Vec<u8>, key: &str, path: &str) -> Result<String, Fault> {
    String::from_utf8(value).map_err(|_| Fault::new(path, format!("the value of key {key:?} is not UTF-8"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(yaml: &str) -> Container {
        let text = format!(
            "apiVersion: serving.knative.dev/v1\nkind: Configuration\nmetadata: {{name: a}}\nspec: {{template: {{spec: {{containers: \
             [{{{yaml}}}]}}}}}}"
        );
        let (mut documents, problems) = crate::read::read("t", &text);
        assert_eq!(problems, [], "{yaml}");
        match documents.remove(0).resource {
            crate::resources::Resource::Configuration(it) => it.spec.template.spec.containers()[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    fn sources() -> EnvSources {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: ns}\ndata: {A: from-c, B: b}\n---\n\
                    apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ns}\ndata: {K: c2VjcmV0, BAD: //8=, B: b2xk}\n\
                    stringData: {B: new}\n";
        let mut sources = EnvSources::default();
        for document in crate::read::read("t", text).0 {
            match document.resource {
                crate::resources::Resource::ConfigMap(map) => sources.add_config_map(&map),
                crate::resources::Resource::Secret(secret) => sources.add_secret(&secret),
                other => panic!("{other:?}"),
            }
        }
        sources
    }

    fn run(yaml: &str) -> (Vec<String>, Vec<String>) {
        let mut faults = Faults::default();
        let env = resolve(&container(yaml), "S", "ns", &sources(), &mut faults);
        let env = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (env, faults.into_inner().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn later_wins_and_references_look_back() {
        let table: &[(&str, &[&str])] = &[
            (
                "env: [{name: X, value: '$(V)'}, {name: V, value: v}, {name: Z, value: '$(X)-$(V)'}]",
                &["V=v", "X=$(V)", "Z=$(V)-v"],
            ),
            (
                "envFrom: [{configMapRef: {name: c}}], env: [{name: A, value: 'mine-$(B)'}]",
                &["A=mine-b", "B=b"],
            ),
            (
                "envFrom: [{configMapRef: {name: c}}, {prefix: P_, configMapRef: {name: c}}]",
                &["A=from-c", "B=b", "P_A=from-c", "P_B=b"],
            ),
            (
                "env: [{name: K, valueFrom: {secretKeyRef: {name: s, key: K}}}]",
                &["K=secret"],
            ),
            (
                "env: [{name: K, valueFrom: {secretKeyRef: {name: s, key: B}}}]",
                &["K=new"],
            ),
            (
                "env: [{name: K, valueFrom: {configMapKeyRef: {name: c, key: gone, optional: true}}}]",
                &[],
            ),
            ("envFrom: [{secretRef: {name: gone, optional: true}}]", &[]),
            ("env: [{name: E}]", &["E="]),
        ];
        for (yaml, want) in table {
            assert_eq!(
                run(yaml),
                (want.iter().map(ToString::to_string).collect(), vec![]),
                "{yaml}"
            );
        }
    }

    #[test]
    fn says_everything_that_is_missing() {
        let (env, faults) = run(
            "envFrom: [{configMapRef: {name: gone}}, {secretRef: {name: s}}], env: [{name: 'A=B', value: x}, {name: K, valueFrom: \
             {configMapKeyRef: {name: c, key: gone}}}, {name: L, valueFrom: {secretKeyRef: {name: gone, key: k}}}]",
        );
        assert_eq!(env, ["B=new"]);
        assert_eq!(
            faults,
            [
                "S.envFrom[0].configMapRef: there is no ConfigMap ns/gone; add it, or set optional: true",
                "S.envFrom[1].secretRef: the value of key \"BAD\" is not UTF-8",
                "S.env[0]: \"A=B\" cannot be a variable; names have no \"=\", values no zero byte",
                "S.env[1].valueFrom.configMapKeyRef: there is no key \"gone\" in ConfigMap ns/c; add it, or set optional: true",
                "S.env[2].valueFrom.secretKeyRef: there is no Secret ns/gone; add it, or set optional: true",
            ]
        );
    }

    #[test]
    fn expands_as_the_kubelet_does() {
        let table = [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___$(VAR_A)", "___B___A"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$(NO)", "$(NO)"),
            ("$(VAR_A", "$(VAR_A"),
            ("$VAR_A", "$VAR_A"),
            ("foo$", "foo$"),
            ("foo$$", "foo$"),
            ("$(VAR_A)$$", "A$"),
            ("$()", "$()"),
            ("$((VAR_A))", "$((VAR_A))"),
            ("$($(VAR_A))", "$($(VAR_A))"),
            ("é$é$(VAR_B)", "é$éB"),
            ("\n", "\n"),
        ];
        let known = |name: &str| name.strip_prefix("VAR_").map(str::to_owned);
        for (text, want) in table {
            assert_eq!(expand(text, known), want, "{text}");
        }
    }
}
