//! The four types that cross between the planes, and nothing else does.
//!
//! ```text
//! control ── Snapshot ──▶ scaling, data          data ── LoadReport ──▶ scaling
//! control ◀── RevisionStatus ── scaling          data ◀── EndpointSet ── scaling
//! ```
//!
//! Each is a whole picture with a generation: losing one costs latency, never correctness; an older one is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{GatewayId, Generation, ObjectId, RevisionId, SandboxId};
use crate::instances::Instances;
use crate::revision::Revision;
use crate::units::{Concurrency, Percent, PricePerHour, Replicas, Rps, Timestamp};

/// Desired state, from control to scaling and data: every revision that exists and every host that routes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change.
    pub generation: Generation,
    /// Every revision, routed or not. Unchanged entries are shared between generations.
    pub revisions: BTreeMap<RevisionId, Arc<Revision>>,
    /// Lower-case host name without port, to what it serves. Several hosts share one entry.
    pub hosts: BTreeMap<Arc<str>, Arc<HostRoute>>,
    /// What instances there are, and what they cost.
    pub instances: Arc<Instances>,
}

/// What one host (or several alike) serves.
#[derive(Clone, PartialEq, Debug)]
pub struct HostRoute {
    /// The Route it comes from.
    pub route: ObjectId,
    /// The tag this host addresses, when it is a tag's own host.
    pub tag: Option<Arc<str>>,
    /// Where requests go. Percents sum to 100; an empty list means that no revision is ready yet (503).
    pub targets: Vec<RouteTarget>,
    /// Tag-header routing (`Knative-Serving-Tag`), empty unless the feature `tag-header-based-routing` is on.
    pub by_tag_header: BTreeMap<Arc<str>, RevisionId>,
}

/// A share of a host's traffic.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteTarget {
    /// The revision that gets it.
    pub revision: RevisionId,
    /// How much of it.
    pub percent: Percent,
}

/// What one gateway sees, to scaling. Sent once a second, and at once when `wake` is needed.
///
/// Revisions that are absent have nothing in flight, nothing waiting, and had no request since the last report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LoadReport {
    /// Who reports.
    pub gateway: GatewayId,
    /// Grows with every report of this gateway.
    pub generation: Generation,
    /// One entry per revision that has something to say.
    pub revisions: Vec<RevisionLoad>,
}

/// One revision's load at one gateway.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RevisionLoad {
    /// Whose load.
    pub revision: RevisionId,
    /// Why this entry is sent now.
    pub kind: LoadKind,
    /// Average requests in flight (waiting and running) since the last periodic report; 1 in the first wake-up after a
    /// periodic report and 0 in further ones (Knative: the first request of an idle revision is reported at once
    /// as an average of 1, and the next periodic report has that 1 subtracted).
    pub concurrency: Concurrency,
    /// Requests that arrived since the last periodic report, per second; the first wake-up after a periodic report
    /// counts 1 and the next periodic report one less.
    pub rps: Rps,
    /// What really came in since the last periodic report, not rounded as Knative rounds the two above; nothing in entries
    /// that are not periodic.
    pub work: Work,
    /// Requests in flight now, waiting ones included.
    pub in_flight: u32,
    /// Requests waiting for a slot now.
    pub waiting: u32,
    /// The newest [`EndpointSet`] this gateway has in place.
    pub acked: Generation,
    /// What is left on sandboxes that the acknowledged set no longer has. One may stop only when every gateway has
    /// acknowledged its removal and reports it no more, or with no request; it may be frozen only when no connection is
    /// open either.
    pub draining: Vec<Draining>,
    /// Sandboxes this gateway has given up on (refused connections, or a request that never ended): replace them.
    pub ejected: Vec<SandboxId>,
}

/// Requests of one period, and how long they were here. The sum of several periods that begin and end with nothing in
/// flight gives the mean time of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Work {
    /// Requests that arrived.
    pub arrivals: u32,
    /// Requests in flight, waiting ones included, times how long they were.
    #[serde(with = "duration_micros")]
    pub time: Duration,
    /// How long one was here that came while nothing was in flight, waiting included: the first that has ended since the
    /// last report. The mean of all says little of it where requests differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Duration>,
}

/// What one gateway still has on a sandbox that the endpoint set has dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Draining {
    /// Which sandbox.
    pub sandbox: SandboxId,
    /// Requests and upgraded connections that run on it.
    pub in_flight: u32,
    /// Connections to it that are open, idle ones included; with nothing in flight it only falls.
    pub connections: u32,
    /// It has begun to answer a request of this gateway.
    #[serde(default, skip_serializing_if = "is_false")]
    pub answered: bool,
}

/// Why a [`RevisionLoad`] is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LoadKind {
    /// The second is over.
    Periodic,
    /// A request waits and nothing is there to serve it, more wait than the last wake-up said (doubled since), or the
    /// first request came in at a rung below full. Looked at before the next tick; may only raise the desired count.
    Wake,
    /// A drained sandbox has reached 0 requests or 0 connections, or a sandbox was ejected: carries `draining` and `ejected` only.
    Sandboxes,
}

/// Where a revision's requests may run, from scaling to every gateway.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndpointSet {
    /// Whose endpoints.
    pub revision: RevisionId,
    /// Grows with every set of this revision, also across its deletion and a new one of the same name. The last set of a
    /// deleted revision is empty.
    pub generation: Generation,
    /// Where the revision stands on the ladder. Below [`Rung::Full`], the first request in flight wakes scaling.
    pub rung: Rung,
    /// Ready sandboxes. A sandbox that was in the set before and is not now drains.
    pub endpoints: Vec<Endpoint>,
    /// Said to clients while nothing can run: why (`Unschedulable`, a start that fails, ...). `None` when all is well.
    pub trouble: Option<Arc<str>>,
    /// Nothing will run soon: requests are refused with `trouble` instead of waiting. The first one since the last report
    /// still wakes scaling.
    pub refuses: bool,
}

/// One ready sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which sandbox; also what [`EndpointSet`]s are compared by.
    pub sandbox: SandboxId,
    /// From the decision to start it to ready; what `Server-Timing: start` reports to requests that waited for it.
    #[serde(with = "duration_micros")]
    pub start: Duration,
    /// What it takes of the requests, in thousandths of what a full instance takes; 0 where all endpoints are alike.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub weight: u32,
}

/// The ladder an idle revision stands on, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Nothing runs; a request starts a sandbox.
    #[default]
    Zero,
    /// A sandbox is frozen.
    Frozen,
    /// A full sandbox under a small CPU limit, upgraded in place.
    Throttled,
    /// A cheaper instance runs and serves; a full one takes over where it is not enough.
    Reserve,
    /// Full instances run.
    Full,
}

impl Rung {
    /// The word users see, in `Server-Timing` too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Frozen => "frozen",
            Self::Throttled => "throttled",
            Self::Reserve => "reserve",
            Self::Full => "full",
        }
    }
}

/// How a revision fares, from scaling to control.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// Whose status.
    pub revision: RevisionId,
    /// Grows with every status of this revision.
    pub generation: Generation,
    /// What the decider wants; `None` before the first decision.
    pub desired: Option<Replicas>,
    /// Ready replicas; a frozen one does not count.
    pub actual: Replicas,
    /// Being started now.
    pub starting: Replicas,
    /// The PodAutoscaler's `Active` condition.
    pub active: Condition,
    /// The initial scale has been reached once; never cleared.
    pub initialized: bool,
    /// `ResourcesAvailable` as far as scaling knows: False with `Unschedulable` or `ProgressDeadlineExceeded`.
    pub resources: Condition,
    /// `ContainerHealthy`: False with `ExitCode<N>` or another start failure.
    pub container: Condition,
    /// Where it stands on the ladder.
    pub rung: Rung,
    /// What its running instances cost now.
    pub price: PricePerHour,
}

/// A condition's status with its reason and message (Knative: apis.Condition).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// CamelCase word, empty when True.
    pub reason: Arc<str>,
    /// For people, empty when True.
    pub message: Arc<str>,
    /// When anything above last changed.
    pub since: Timestamp,
}

/// Kubernetes' three-valued truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

impl Condition {
    /// Status True, nothing to explain.
    pub fn yes(since: Timestamp) -> Self {
        Self {
            status: ConditionStatus::True,
            reason: Arc::clone(&NOTHING),
            message: Arc::clone(&NOTHING),
            since,
        }
    }
    /// Status False, with its reason.
    pub fn no(reason: impl Into<Arc<str>>, message: impl Into<Arc<str>>, since: Timestamp) -> Self {
        Self {
            status: ConditionStatus::False,
            reason: reason.into(),
            message: message.into(),
            since,
        }
    }
    /// Status Unknown, with its reason.
    pub fn unknown(reason: impl Into<Arc<str>>, message: impl Into<Arc<str>>, since: Timestamp) -> Self {
        Self {
            status: ConditionStatus::Unknown,
            reason: reason.into(),
            message: message.into(),
            since,
        }
    }
}

/// What is true needs no words.
static NOTHING: LazyLock<Arc<str>> = LazyLock::new(|| shared(""));

/// The one copy of a text that the conditions of very many revisions have.
pub fn shared(text: &'static str) -> Arc<str> {
    static TEXTS: Mutex<BTreeMap<&str, Arc<str>>> = Mutex::new(BTreeMap::new());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(texts.entry(text).or_insert_with(|| text.into()))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
const fn is_zero(weight: &u32) -> bool {
    *weight == 0
}

mod duration_micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
