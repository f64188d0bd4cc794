//! Revisions for tests: all of Knative's defaults, to be changed field by field.

use manifests::ids::{ObjectId, RevisionId};
use manifests::revision::Revision;
use manifests::workload::Workload;

/// A reachable revision with Knative's defaults.
pub(crate) fn revision(namespace: &str, name: &str) -> Revision {
    Revision {
        configuration: ObjectId::new(namespace, "hello"),
        service: Some(ObjectId::new(namespace, "hello")),
        ..Revision::new(RevisionId::new(namespace, name), Workload::host("/bin/true"))
    }
}
