//! ConfigMaps and Secrets, which come before everything else: Knative's settings, and where variables come from.

use super::Checked;
use crate::config::{ClusterConfig, SYSTEM_NAMESPACE};
use crate::read::Document;
use crate::resources::Resource;

/// Takes all ConfigMaps and Secrets in.
pub(super) fn gather(documents: &[Document], checked: &mut Checked) {
    for document in documents {
        match &document.resource {
            Resource::ConfigMap(map) if map.metadata.name.is_empty() => nameless(document, checked),
            Resource::Secret(secret) if secret.metadata.name.is_empty() => nameless(document, checked),
            Resource::ConfigMap(map) => {
                let known = ClusterConfig::knows(&map.metadata.name);
                if known && map.metadata.namespace == SYSTEM_NAMESPACE {
                    let result = checked.bundle.cluster.apply(&map.metadata.name, &map.data);
                    checked.problems.extend(result.err().into_iter().flatten().map(|error| {
                        let path = format!("data.{}", error.key);
                        document.problem(&path, error.message).hint(error.hint)
                    }));
                } else if known {
                    let message = format!("is one of Knative's only in namespace {SYSTEM_NAMESPACE}");
                    let hint = format!("write namespace: {SYSTEM_NAMESPACE}, or another name");
                    checked
                        .warnings
                        .push(document.problem("metadata.name", message).hint(hint));
                }
                checked.bundle.sources.add_config_map(map);
            }
            Resource::Secret(secret) => checked.bundle.sources.add_secret(secret),
            _ => {}
        }
    }
}

fn nameless(document: &Document, checked: &mut Checked) {
    checked
        .problems
        .push(document.problem("metadata.name", "missing").hint("give it a name"));
}
