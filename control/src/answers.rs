//! What a running Knarr says of itself: status, explanations, logs, put together from what the planes publish.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use activator::Pools;
use autoscaler::cost::Costs;
use autoscaler::evict::Evictions;
use autoscaler::explain::Explain;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::StatusCode;
use manifests::exchange::{self, Snapshot};
use manifests::ids::{Generation, ObjectId, RevisionId, SandboxId};
use manifests::resources::{Condition, Revision, Route, Service};
use manifests::units::{Clock, Timestamp};
use metrics_exporter_prometheus::PrometheusHandle;
use sandbox::LocalDriver;
use sandbox::driver::{BoxFuture, Driver, DriverError};
use sandbox::exec::{Exec, ExecError, ExecSpec};
use serde_json::Value;
use tokio::sync::watch;

use crate::api::Answers;
use crate::cost::{CostReport, RevisionCost, in_words};
use crate::desired::Desired;
use crate::exec::Refused;
use crate::logs::{LogQuery, Logs};
use crate::metrics::{self, Totals};
use crate::objects::conditions;
use crate::pulls::{self, Standing};
use crate::status::{Eviction, MemoryStatus, Ready, RevisionStatus, RouteStatus, ServiceStatus, Status, Traffic};
use crate::top::Top;

/// Reads what the planes publish. Nothing here writes.
pub(crate) struct Live {
    pub(crate) desired: Arc<RwLock<Desired>>,
    pub(crate) warnings: Arc<RwLock<Vec<String>>>,
    /// What this host cannot isolate.
    pub(crate) isolation: Vec<String>,
    /// What control has published, and how much of it the gateway has in place.
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) placed: watch::Receiver<Generation>,
    pub(crate) pools: Arc<Pools>,
    pub(crate) driver: Arc<dyn Driver>,
    /// The same, for what only it has: the pool of shells.
    pub(crate) local: Arc<LocalDriver>,
    pub(crate) explain: Explain,
    /// What stands idle, and in which order it would go.
    pub(crate) evictions: Evictions,
    /// What every revision costs.
    pub(crate) costs: Costs,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) clock: Clock,
    pub(crate) started: Timestamp,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Answers for Live {
    fn routed(&self) -> BoxFuture<'_, ()> {
        // Published before anybody could read the status that follows from it.
        let published = self.snapshots.borrow().generation;
        let mut placed = self.placed.clone();
        Box::pin(async move {
            let in_place = placed.wait_for(|placed| *placed >= published);
            // A gateway that is so far behind is told of by its own answers.
            let _ = tokio::time::timeout(ROUTED, in_place).await;
        })
    }

    fn status(&self) -> Status {
        let totals = metrics::totals(&self.metrics.render());
        let desired = self.desired();
        let store = desired.store();
        let warnings = self.warnings.read().unwrap_or_else(PoisonError::into_inner);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.started.as_millis(),
            listen: self.addresses.iter().map(ToString::to_string).collect(),
            warnings: self.isolation.iter().chain(warnings.iter()).cloned().collect(),
            memory: self.memory(),
            services: self.services_of(&desired),
            revisions: store
                .all::<Revision>()
                .values()
                .map(|revision| self.revision(revision, &desired, &totals))
                .collect(),
            routes: store.all::<Route>().values().map(|route| self.route(route)).collect(),
        }
    }

    fn metrics(&self) -> String {
        metrics::memory(&self.driver.capacity());
        self.local.gauge_pool();
        self.metrics.render() + &metrics::costs(&self.costs.at((self.clock)()))
    }

    fn explain(&self, target: &str, since: Duration, json: bool) -> Result<String, String> {
        let id = self.revision_called(target)?;
        let records = self.explain.for_revision(&id, (self.clock)().minus(since));
        if json {
            return serde_json::to_string_pretty(&records)
                .map(|text| text + "\n")
                .map_err(|error| error.to_string());
        }
        let mut text = String::new();
        if let Some(account) = self.costs.of(&id, (self.clock)()) {
            text += &format!("{id}, today {}\n\n", in_words(&account.today));
        }
        if records.is_empty() {
            text += &format!("{id}: no decision in the last {since:?}\n");
        }
        text.extend(records.iter().map(|record| format!("{record}\n")));
        Ok(text)
    }

    fn logs(&self, target: &str, query: LogQuery) -> Result<BoxStream<'static, Bytes>, String> {
        Logs::of(target, query, Arc::clone(&self.desired), Arc::clone(&self.driver)).stream()
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn plan(&self, target: &str, json: bool) -> Result<String, String> {
        self.planned(target, json)
    }

    fn cost(&self) -> CostReport {
        self.costs_now()
    }

    fn top(&self) -> BoxFuture<'_, Top> {
        Box::pin(self.uses())
    }

    fn inspect(&self, target: String) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move { self.described(&target).await })
    }

    fn exec(&self, target: String, command: ExecSpec) -> BoxFuture<'_, Result<Exec, Refused>> {
        Box::pin(async move {
            let id = self.sandbox_called(&target).map_err(Refused::not_found)?;
            self.driver.exec(&id, command).await.map_err(|error| match error {
                ExecError::Driver(DriverError::NotFound(_)) => Refused::not_found(nothing_called(&target)),
                error => Refused {
                    status: StatusCode::CONFLICT,
                    code: error.exit_code(),
                    message: error.to_string(),
                },
            })
        })
    }
}

impl Live {
    /// The services with their URLs, and a `curl` line that needs no DNS.
    pub(crate) fn greeting(&self, admin: SocketAddr) -> String {
        let status = self.status();
        let mut text = format!(
            "Knarr {} serves on {}; status on http://{admin}/v1/status\n",
            status.version,
            status.listen.join(", ")
        );
        for warning in &status.warnings {
            text += &format!("warning: {warning}\n");
        }
        let routes = status
            .routes
            .iter()
            .map(|route| (&route.namespace, &route.name, &route.url));
        for (namespace, name, url) in routes {
            let host = url.trim_start_matches("http://");
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            let address = self
                .addresses
                .first()
                .map(|address| reachable(*address))
                .unwrap_or_default();
            text += &format!("\n{namespace}/{name}  {url}\n  curl -H 'Host: {host}' http://{address}/\n");
        }
        text
    }

    /// The host's process numbers of a revision's ready sandboxes.
    pub(crate) async fn processes(&self, namespace: &str, revision: &str) -> Vec<(String, u32)> {
        let Some(pool) = self.pools.get(&RevisionId::new(namespace, revision)) else {
            return Vec::new();
        };
        let mut processes = Vec::new();
        for sandbox in pool.sandboxes() {
            if let Ok(stats) = self.driver.stats(sandbox.id()).await
                && let Some(pid) = stats.main_pid
            {
                processes.push((sandbox.id().to_string(), pid));
            }
        }
        processes
    }

    fn memory(&self) -> MemoryStatus {
        let capacity = self.driver.capacity();
        let standing = self.evictions.order((self.clock)());
        MemoryStatus {
            budget: capacity.budget.0,
            used: capacity.used.0,
            free: capacity.free_memory.0,
            freezer: self.driver.freezer().unwrap_or_default().to_owned(),
            evictions: standing
                .into_iter()
                .map(|standing| Eviction {
                    namespace: standing.revision.namespace().to_owned(),
                    revision: standing.revision.name().to_owned(),
                    sandbox: standing.sandbox.to_string(),
                    rung: standing.rung.as_str().to_owned(),
                    memory: standing.memory.0,
                })
                .collect(),
        }
    }

    /// The services alone.
    pub(crate) fn services(&self) -> Vec<ServiceStatus> {
        self.services_of(&self.desired())
    }

    fn services_of(&self, desired: &Desired) -> Vec<ServiceStatus> {
        desired
            .store()
            .all::<Service>()
            .values()
            .map(|service| self.service(service))
            .collect()
    }

    pub(crate) fn desired(&self) -> RwLockReadGuard<'_, Desired> {
        self.desired.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn service(&self, service: &Service) -> ServiceStatus {
        ServiceStatus {
            namespace: service.metadata.namespace.clone(),
            name: service.metadata.name.clone(),
            url: self.local_url(service.status.url.as_deref()),
            ready: ready(&service.status.conditions, "Ready"),
            latest_created: service.status.latest_created_revision_name.clone(),
            latest_ready: service.status.latest_ready_revision_name.clone(),
        }
    }

    pub(crate) fn revision(
        &self,
        revision: &Revision,
        desired: &Desired,
        totals: &BTreeMap<(String, String), Totals>,
    ) -> RevisionStatus {
        let meta = &revision.metadata;
        let id = RevisionId::new(meta.namespace.as_str(), meta.name.as_str());
        let scaled = desired.status(&id);
        let pool = self.pools.get(&id);
        let totals = totals
            .get(&(meta.namespace.clone(), meta.name.clone()))
            .copied()
            .unwrap_or_default();
        RevisionStatus {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            service: meta
                .labels
                .get("serving.knative.dev/service")
                .cloned()
                .unwrap_or_default(),
            ready: ready(&revision.status.conditions, "Ready"),
            active: ready(&revision.status.conditions, "Active"),
            actual_replicas: scaled.map_or(0, |it| it.actual.0),
            desired_replicas: scaled.and_then(|it| it.desired).map(|it| it.0),
            starting_replicas: scaled.map_or(0, |it| it.starting.0),
            rung: scaled.map_or(exchange::Rung::Zero, |it| it.rung).as_str().to_owned(),
            price_per_hour: scaled.map_or(0.0, |it| it.price.0),
            in_flight: pool.as_ref().map_or(0, |pool| pool.in_flight().into()),
            waiting: pool.as_ref().map_or(0, |pool| pool.waiting().into()),
            sandboxes: pool
                .map(|pool| {
                    pool.sandboxes()
                        .iter()
                        .map(|sandbox| sandbox.id().to_string())
                        .collect()
                })
                .unwrap_or_default(),
            images: images_of(desired, &ObjectId::new(meta.namespace.as_str(), meta.name.as_str())),
            requests: totals.requests,
            latency: totals.latency,
            cold_starts: totals.cold_starts,
            egress: totals.egress,
            cost: self.costs.of(&id, (self.clock)()).map(RevisionCost::today),
        }
    }

    fn route(&self, route: &Route) -> RouteStatus {
        let share = |target: &manifests::resources::TrafficTarget| Traffic {
            revision: target.revision_name.clone(),
            percent: target
                .percent
                .and_then(|percent| u8::try_from(percent).ok())
                .unwrap_or_default(),
            tag: target.tag.clone(),
            url: self.local_url(target.url.as_deref()),
            latest: target.latest_revision == Some(true),
        };
        RouteStatus {
            namespace: route.metadata.namespace.clone(),
            name: route.metadata.name.clone(),
            url: self.local_url(route.status.url.as_deref()),
            ready: ready(&route.status.conditions, "Ready"),
            traffic: route.status.traffic.iter().map(share).collect(),
        }
    }

    /// A URL with the port of this machine's gateway, which Knative's URLs do not have.
    fn local_url(&self, url: Option<&str>) -> String {
        let Some(url) = url else { return String::new() };
        match self.addresses.first().map(SocketAddr::port) {
            Some(80) | None => url.to_owned(),
            Some(port) => format!("{url}:{port}"),
        }
    }

    /// The sandbox that `target` (`NAME` or `NAMESPACE/NAME`) names: itself, or any that is ready of a revision or of a
    /// service, the newest revision's first.
    fn sandbox_called(&self, target: &str) -> Result<SandboxId, String> {
        let id = object_called(target);
        let desired = self.desired();
        let store = desired.store();
        let ready = |revision: &str| {
            let pool = self.pools.get(&RevisionId::new(id.namespace(), revision))?;
            pool.sandboxes().first().map(|sandbox| sandbox.id().clone())
        };
        let at_zero = |kind: &str| {
            format!(
                "{kind} {id} runs nothing now: send it a request first, or have it keep one replica with min-scale 1"
            )
        };
        if let Some(service) = store.get::<Service>(&id) {
            let of_service = store.all::<Revision>().values().filter(|it| {
                let of = it.metadata.labels.get("serving.knative.dev/service");
                it.metadata.namespace == id.namespace() && of.is_some_and(|of| of == id.name())
            });
            let all = of_service.map(|it| it.metadata.name.as_str());
            return std::iter::once(service.status.latest_ready_revision_name.as_str())
                .chain(all)
                .find_map(ready)
                .ok_or_else(|| at_zero("service"));
        }
        if store.get::<Revision>(&id).is_some() {
            return ready(id.name()).ok_or_else(|| at_zero("revision"));
        }
        // One that is not ready yet is known to the driver alone.
        Ok(SandboxId::new(id.name()))
    }

    /// The revision that `target` (`NAME` or `NAMESPACE/NAME`) names: itself, or a Service's newest.
    pub(crate) fn revision_called(&self, target: &str) -> Result<RevisionId, String> {
        let id = object_called(target);
        let desired = self.desired();
        let store = desired.store();
        if store.get::<Revision>(&id).is_some() {
            return Ok(RevisionId::new(id.namespace(), id.name()));
        }
        match store
            .get::<Service>(&id)
            .map(|service| service.status.latest_created_revision_name.as_str())
        {
            Some(latest) if !latest.is_empty() => Ok(RevisionId::new(id.namespace(), latest)),
            Some(_) => Err(format!("service {id} has no revision yet\n")),
            None => Err(format!(
                "no revision or service {id}; `knarr get revisions` lists them\n"
            )),
        }
    }
}

pub(crate) fn nothing_called(target: &str) -> String {
    format!("no service, revision or sandbox {target} runs here; `knarr get` and `knarr top` list what there is")
}

/// How long a status waits for the gateway.
const ROUTED: Duration = Duration::from_secs(1);

/// What `NAME` or `NAMESPACE/NAME` names.
pub(crate) fn object_called(target: &str) -> ObjectId {
    let (namespace, name) = target.split_once('/').unwrap_or(("default", target));
    ObjectId::new(namespace, name)
}

fn ready(conditions: &[Condition], kind: &str) -> Ready {
    let says = conditions
        .iter()
        .find(|it| it.kind == kind)
        .map_or(conditions::Says::UNKNOWN, conditions::says);
    Ready {
        status: conditions::status_text(says.status).to_owned(),
        reason: says.reason.to_owned(),
        message: says.message.to_owned(),
    }
}

/// The images of a revision's containers, pinned as far as that is known.
fn images_of(desired: &Desired, revision: &ObjectId) -> Vec<String> {
    let (wanted, pins) = match desired.pulls().standing(revision) {
        Some(Standing::Pulling(wanted, pins) | Standing::Failed(wanted, pins, _) | Standing::Ready(wanted, pins)) => {
            (wanted, pins)
        }
        Some(Standing::Resolving) | None => return Vec::new(),
    };
    let names: BTreeSet<String> = wanted
        .containers
        .iter()
        .map(|it| pulls::pinned(&it.image, pins).to_string())
        .collect();
    names.into_iter().collect()
}

/// An address that a client on this machine can use for one that listens on all.
fn reachable(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("[::1]:{}", v6.port()),
        other => other.to_string(),
    }
}
