//! Revisions for tests: all of Knative's defaults, to be changed field by field.

use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId};
use manifests::revision::{
    Aggregation, IdlePolicy, Image, Metric, ProbeCheck, Protocol, Reachability, ReadinessProbe, Revision, Scaling,
    Timeouts, Workload,
};
use manifests::units::{Concurrency, ContainerConcurrency, Replicas, Timestamp};

/// A reachable revision with Knative's defaults.
pub(crate) fn revision(namespace: &str, name: &str) -> Revision {
    Revision {
        id: RevisionId::new(namespace, name),
        configuration: ObjectId::new(namespace, "hello"),
        service: Some(ObjectId::new(namespace, "hello")),
        created: Timestamp::EPOCH,
        workload: Arc::new(Workload {
            container: "user-container".into(),
            image: Image::Host("/bin/true".into()),
            command: Vec::new(),
            args: Vec::new(),
            env: Default::default(),
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
            stop_grace: Duration::from_secs(300),
        }),
        container_concurrency: ContainerConcurrency(0),
        timeouts: Timeouts {
            request: Duration::from_secs(300),
            response_start: None,
            idle: None,
        },
        scaling: Scaling {
            metric: Metric::Concurrency {
                target: Concurrency(70.0),
                total: Concurrency(100.0),
            },
            aggregation: Aggregation::Linear,
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            panic_threshold: 2.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            target_burst_capacity: Some(211.0),
            activator_capacity: 100.0,
            min_scale: Replicas(0),
            max_scale: None,
            initial_scale: Replicas(1),
            activation_scale: Replicas(1),
            scale_down_delay: Duration::ZERO,
            scale_to_zero: true,
            scale_to_zero_grace: Duration::from_secs(30),
            retention: Duration::ZERO,
            progress_deadline: Duration::from_secs(600),
        },
        idle: IdlePolicy::Knative,
        server_timing: false,
        upstream_keepalive: true,
        reachability: Reachability::Reachable,
    }
}
