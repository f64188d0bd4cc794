//! What `knarr inspect` shows: everything known of one service, revision or sandbox; values of Secrets never.

use manifests::ids::{RevisionId, SandboxId};
use manifests::resources::{Configuration, Revision, Route, Service};
use manifests::workload::{Container, Workload};
use sandbox::details::Details;
use sandbox::driver::{DriverError, Stats};
use serde_json::{Map, Value, json};

use crate::answers::{Live, nothing_called, object_called};
use crate::metrics;

impl Live {
    /// All that is known of what `target` (`NAME` or `NAMESPACE/NAME`) names.
    ///
    /// # Errors
    /// In words for people, when it names nothing.
    pub(crate) async fn described(&self, target: &str) -> Result<Value, String> {
        if let Some(found) = self.object(target) {
            return Ok(found);
        }
        let id = object_called(target);
        let sandbox = SandboxId::new(id.name());
        let details = match self.driver.inspect(&sandbox).await {
            Ok(details) if !target.contains('/') || details.revision.starts_with(&format!("{}/", id.namespace())) => {
                details
            }
            Ok(_) | Err(DriverError::NotFound(_)) => return Err(nothing_called(target) + "\n"),
            Err(error) => return Err(format!("{error}\n")),
        };
        let stats = self.driver.stats(&sandbox).await.unwrap_or_default();
        Ok(self.sandbox(&sandbox, &details, &stats))
    }

    fn object(&self, target: &str) -> Option<Value> {
        let id = object_called(target);
        let desired = self.desired();
        let store = desired.store();
        if let Some(service) = store.get::<Service>(&id) {
            let of_service = store.all::<Revision>().values().filter(|it| {
                let of = it.metadata.labels.get("serving.knative.dev/service");
                it.metadata.namespace == id.namespace() && of.is_some_and(|of| of == id.name())
            });
            let revisions: Vec<&str> = of_service.map(|it| it.metadata.name.as_str()).collect();
            return Some(json!({
                "kind": "Service",
                "object": service.as_ref(),
                "configuration": store.get::<Configuration>(&id).map(|it| json!(it.status)),
                "route": store.get::<Route>(&id).map(|it| json!(it.status)),
                "revisions": revisions,
            }));
        }
        let revision = store.get::<Revision>(&id)?;
        let totals = metrics::totals(&self.metrics.render());
        let checked = self.pools.get(&RevisionId::new(id.namespace(), id.name()));
        let workload = checked.map(|pool| workload(&pool.revision().workload));
        Some(json!({
            "kind": "Revision",
            "object": revision.as_ref(),
            "workload": workload,
            "running": self.revision(revision, &desired, &totals),
        }))
    }

    fn sandbox(&self, id: &SandboxId, details: &Details, stats: &Stats) -> Value {
        let (namespace, revision) = details.revision.split_once('/').unwrap_or(("", &details.revision));
        let pool = self.pools.get(&RevisionId::new(namespace, revision));
        let ready = pool
            .as_ref()
            .and_then(|pool| pool.sandboxes().into_iter().find(|it| it.id() == id));
        let service = pool
            .as_ref()
            .and_then(|pool| pool.revision().service.as_ref().map(ToString::to_string));
        let image = pool
            .as_ref()
            .map(|pool| pool.revision().workload.serving.image.to_string());
        json!({
            "kind": "Sandbox",
            "name": id,
            "namespace": namespace,
            "service": service,
            "revision": revision,
            "image": image,
            "ready": details.ready.is_ok(),
            "notReadyBecause": details.ready.as_ref().err(),
            "takesRequests": ready.is_some(),
            "inFlight": ready.as_ref().map_or(0, |it| it.in_flight()),
            "rung": pool.as_ref().map(|pool| pool.rung().as_str()),
            "frozen": details.frozen,
            "start": { "spawnedMicroseconds": details.spawned_us, "readyMicroseconds": details.ready_us },
            "usage": {
                "cpuSeconds": stats.cpu.as_secs_f64(),
                "memoryBytes": stats.memory.0,
                "processes": stats.pids,
            },
            "limits": {
                "cpu": stats.limits.cpu.map(|it| format!("{}m", it.0)),
                "memoryBytes": stats.limits.memory.map(|it| it.0),
                "processes": stats.limits.pids,
            },
            "isolation": details.isolation,
            "degraded": details.warnings,
            "pid": details.pid,
            "process": details.process,
            "containers": details.containers,
            "cgroups": details.cgroups,
            "mounts": details.mounts,
            "logs": self.driver.logs(id),
        })
    }
}

fn workload(workload: &Workload) -> Value {
    let said = |what: &dyn std::fmt::Debug| Value::from(format!("{what:?}"));
    let list = |containers: &[Container]| containers.iter().map(container).collect::<Vec<_>>();
    json!({
        "serving": container(&workload.serving),
        "sidecars": list(&workload.sidecars),
        "init": list(&workload.init),
        "port": workload.port,
        "protocol": said(&workload.protocol),
        "stopGraceSeconds": workload.stop_grace.as_secs(),
        "runtime": workload.runtime.as_deref().unwrap_or("native"),
        "egress": workload.egress.as_ref().map(|it| said(it)),
        "volumes": workload.volumes.iter().map(|it| said(it)).collect::<Vec<_>>(),
    })
}

/// Of variables only the names: what they were made of is in the object.
fn container(container: &Container) -> Value {
    let said = |what: &dyn std::fmt::Debug| Value::from(format!("{what:?}"));
    let resources = &container.resources;
    let probes = [
        ("startup", &container.probes.startup),
        ("readiness", &container.probes.readiness),
        ("liveness", &container.probes.liveness),
    ];
    let probes: Map<String, Value> = probes
        .into_iter()
        .filter_map(|(kind, probe)| Some((kind.to_owned(), said(probe.as_ref()?))))
        .collect();
    json!({
        "name": container.name,
        "image": container.image.to_string(),
        "variables": container.env.keys().collect::<Vec<_>>(),
        "workingDir": container.working_dir,
        "resources": {
            "cpuRequest": resources.cpu_request.map(|it| format!("{}m", it.0)),
            "cpuLimit": resources.cpu_limit.map(|it| format!("{}m", it.0)),
            "memoryRequestBytes": resources.memory_request.map(|it| it.0),
            "memoryLimitBytes": resources.memory_limit.map(|it| it.0),
            "ephemeralLimitBytes": resources.ephemeral_limit.map(|it| it.0),
        },
        "probes": probes,
        "security": said(&container.security),
        "mounts": container.mounts.iter().map(|it| said(it)).collect::<Vec<_>>(),
    })
}
