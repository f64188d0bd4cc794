//! The status document: what `GET /v1/status` answers and `knarr get` prints. `docs/status.md` describes every field.

pub use autoscaler::cost::Spent;
use serde::{Deserialize, Serialize};

/// Everything a running Knarr says of itself.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Knarr's version.
    pub version: String,
    /// When this process started, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Where the gateway listens.
    pub listen: Vec<String>,
    /// What is degraded on this host or wrong with a file, in words; empty when all is well.
    pub warnings: Vec<String>,
    /// What sandboxes may use and do.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// Services by namespace and name.
    pub services: Vec<ServiceStatus>,
    /// Revisions by namespace and name.
    pub revisions: Vec<RevisionStatus>,
    /// Routes by namespace and name.
    pub routes: Vec<RouteStatus>,
}

/// The memory of all sandboxes together, in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// What they may use.
    pub budget: u64,
    /// What they use now, prepared shells included, reclaimable page cache not.
    pub used: u64,
    /// What can be given to new ones.
    pub free: u64,
    /// By what sandboxes are frozen; empty when they cannot be.
    pub freezer: String,
    /// What stands idle, in the order in which it would be evicted when memory is short.
    pub evictions: Vec<Eviction>,
}

/// A sandbox that stands idle by policy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Eviction {
    /// The revision's namespace.
    pub namespace: String,
    /// The revision.
    pub revision: String,
    /// The sandbox.
    pub sandbox: String,
    /// `frozen`, `throttled` or `full`.
    pub rung: String,
    /// What it holds, in bytes.
    pub memory: u64,
}

/// A `Ready` condition.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// CamelCase word, empty when True.
    pub reason: String,
    /// For people, empty when True.
    pub message: String,
}

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its URL on this machine, port included.
    pub url: String,
    /// Whether it serves its latest spec.
    pub ready: Ready,
    /// The newest revision.
    pub latest_created: String,
    /// The newest revision that was ready.
    pub latest_ready: String,
}

/// A Revision.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Service above it, empty for a bare Configuration's.
    pub service: String,
    /// Whether it can serve.
    pub ready: Ready,
    /// Whether it runs now: False with `NoTraffic` at zero.
    pub active: Ready,
    /// Ready replicas.
    pub actual_replicas: u32,
    /// Wanted replicas; absent before the first decision.
    pub desired_replicas: Option<u32>,
    /// Replicas being started.
    pub starting_replicas: u32,
    /// `zero`, `frozen`, `throttled` or `full`.
    pub rung: String,
    /// What its instances cost now, per hour, in the catalogue's currency.
    pub price_per_hour: f64,
    /// Requests in flight, waiting ones included.
    pub in_flight: u64,
    /// Requests waiting for a replica.
    pub waiting: u64,
    /// Names of its ready sandboxes.
    pub sandboxes: Vec<String>,
    /// Its containers' images, as the image store names them: tags with the digests they are pinned to.
    #[serde(default)]
    pub images: Vec<String>,
    /// Requests answered since Knarr started, by class of status code.
    pub requests: Requests,
    /// Latency of answered requests since Knarr started.
    pub latency: Latency,
    /// Requests that waited for a sandbox to start, and how long those starts took.
    pub cold_starts: ColdStarts,
    /// What its sandboxes did outside since Knarr started.
    #[serde(default)]
    pub egress: Egress,
    /// What it cost today, beside what it is compared with; absent before it ran.
    #[serde(default)]
    pub cost: Option<Spent>,
}

/// Outbound connections by what became of them, and what was carried over those that were connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/status.md says what each counts")]
pub struct Egress {
    pub connected: u64,
    pub open: u64,
    pub to_services: u64,
    pub denied: u64,
    pub failed: u64,
    pub limited: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

/// Requests by class of status code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Requests {
    pub total: u64,
    pub informational: u64,
    pub success: u64,
    pub redirection: u64,
    pub client_error: u64,
    pub server_error: u64,
}

/// Latency in milliseconds, from the request's head to the end of its response.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Latency {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Cold starts: milliseconds to the first byte of the requests that waited for one.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct ColdStarts {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// A Route.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its URL on this machine, port included.
    pub url: String,
    /// Whether it routes as its spec says.
    pub ready: Ready,
    /// Where its traffic goes.
    pub traffic: Vec<Traffic>,
}

/// A share of a Route's traffic.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The revision.
    pub revision: String,
    /// How much of the traffic, 0 to 100.
    pub percent: u8,
    /// Its tag, empty when it has none.
    pub tag: String,
    /// The tag's own URL on this machine, empty without a tag.
    pub url: String,
    /// Whether it follows the latest ready revision.
    pub latest: bool,
}
