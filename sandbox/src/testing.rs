//! Specs for tests of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::revision::{Image, ProbeCheck, Protocol, ReadinessProbe, Workload};

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
        container: "user-container".into(),
        image: Image::Host("/bin/true".into()),
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        working_dir: None,
        port: 8080,
        protocol: Protocol::Http1,
        cpu_limit: None,
        memory_limit: None,
        readiness: ReadinessProbe {
            check: ProbeCheck::Tcp { port: 8080 },
            success_threshold: 1,
            failure_threshold: 3,
            initial_delay: Duration::ZERO,
            period: None,
            timeout: Duration::from_secs(1),
        },
        stop_grace: Duration::from_secs(10),
    }
}
