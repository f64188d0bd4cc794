//! Specs for tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::workload::Workload;

use crate::driver::{Limits, SandboxSpec};

pub(crate) fn revision(name: &str) -> RevisionId {
    RevisionId::new("default", name)
}

pub(crate) fn spec(revision: &str, id: &str) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new(id),
        revision: self::revision(revision),
        configuration: ObjectId::new("default", "test"),
        service: None,
        workload: Arc::new(workload()),
        limits: Limits::default(),
        deadline: Duration::from_secs(30),
    }
}

pub(crate) fn workload() -> Workload {
    Workload {
        stop_grace: Duration::from_secs(10),
        ..Workload::host("/bin/true")
    }
}
