//! What the gateway counts: every name, label and bucket in one table, and the handles that a request uses.
//!
//! Handles are made when a revision gets its first request, so that an idle revision costs none; after that no request
//! looks anything up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use activator::{Entered, Temperature};
use http::StatusCode;
use manifests::ids::RevisionId;
use manifests::units::{Clock, Timestamp};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::routes::Target;
use crate::timing::Phases;

const REQUESTS: &str = "knarr_requests_total";
const DURATION: &str = "knarr_request_duration_seconds";
const IN_FLIGHT: &str = "knarr_requests_in_flight";
const QUEUE_WAIT: &str = "knarr_queue_wait_seconds";
const COLD_STARTS: &str = "knarr_cold_starts_total";
const COLD_START: &str = "knarr_cold_start_seconds";
const CONNECTS: &str = "knarr_upstream_connects_total";
const RETRIES: &str = "knarr_retries_total";
const REFUSALS: &str = "knarr_refusals_total";
const CONNECTIONS: &str = "knarr_client_connections";

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, in [`BUCKETS`].
    Histogram,
}

/// Every metric of this crate: name, kind, labels, meaning. `namespace` and `revision` say whose.
pub const TABLE: &[(&str, Kind, &[&str], &str)] = &[
    (
        REQUESTS,
        Kind::Counter,
        &["namespace", "revision", "code"],
        "Requests answered, by class of status (2xx, ...); 0xx: the client left before",
    ),
    (
        DURATION,
        Kind::Histogram,
        &["namespace", "revision"],
        "From the head of the request to the end of the response",
    ),
    (
        IN_FLIGHT,
        Kind::Gauge,
        &["namespace", "revision"],
        "Requests in flight, waiting ones included",
    ),
    (
        QUEUE_WAIT,
        Kind::Histogram,
        &["namespace", "revision"],
        "Of the requests that waited for a slot: for how long",
    ),
    (
        COLD_STARTS,
        Kind::Counter,
        &["namespace", "revision", "from"],
        "Requests that waited for a start, by what they met (cold, frozen)",
    ),
    (
        COLD_START,
        Kind::Histogram,
        &["namespace", "revision", "phase"],
        "Of those: where the time to the first byte went (route, queue, start, connect, app; total)",
    ),
    (
        CONNECTS,
        Kind::Counter,
        &["namespace", "revision", "result"],
        "Connections to sandboxes (ok, failed)",
    ),
    (
        RETRIES,
        Kind::Counter,
        &["namespace", "revision", "reason"],
        "Requests sent again (connect: no connection; unsent: nothing was sent; reused: an idle connection failed)",
    ),
    (
        REFUSALS,
        Kind::Counter,
        &["reason"],
        "Requests that the gateway answered itself with an error",
    ),
    (CONNECTIONS, Kind::Gauge, &["thread"], "Open client connections"),
];

/// Bucket bounds of every histogram, in seconds: 100 microseconds to 5 minutes, three or so to the decade.
pub const BUCKETS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0,
];

/// Tells the recorder what the metrics mean; once, after it is installed.
pub fn describe() {
    for &(name, kind, _, meaning) in TABLE {
        match kind {
            Kind::Counter => describe_counter!(name, meaning),
            Kind::Gauge => describe_gauge!(name, meaning),
            Kind::Histogram => describe_histogram!(name, metrics::Unit::Seconds, meaning),
        }
    }
}

/// One revision's handles.
#[derive(Default)]
pub(crate) struct Meters(OnceLock<Box<Handles>>);

struct Handles {
    /// By first digit of the status.
    requests: [Counter; 6],
    duration: Histogram,
    in_flight: Gauge,
    queue_wait: Histogram,
    cold: Counter,
    frozen: Counter,
    phases: [Histogram; 6],
    connected: Counter,
    not_connected: Counter,
    retries: [Counter; 3],
}

/// Why a request is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Retried {
    /// There was no connection to be had.
    Connect,
    /// The connection failed before anything was sent.
    Unsent,
    /// An idle connection failed when it was used again.
    Reused,
}

impl Meters {
    fn of(&self, id: &RevisionId) -> &Handles {
        self.0.get_or_init(|| Box::new(Handles::new(id)))
    }
}

impl Handles {
    fn new(id: &RevisionId) -> Self {
        let (namespace, revision) = (id.namespace().to_owned(), id.name().to_owned());
        let count = |name: &'static str, label: &'static str, value: &'static str| counter!(name, "namespace" => namespace.clone(), "revision" => revision.clone(), label => value);
        let time =
            |name: &'static str| histogram!(name, "namespace" => namespace.clone(), "revision" => revision.clone());
        let phase = |phase: &'static str| histogram!(COLD_START, "namespace" => namespace.clone(), "revision" => revision.clone(), "phase" => phase);
        Self {
            requests: ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| count(REQUESTS, "code", class)),
            duration: time(DURATION),
            in_flight: gauge!(IN_FLIGHT, "namespace" => namespace.clone(), "revision" => revision.clone()),
            queue_wait: time(QUEUE_WAIT),
            cold: count(COLD_STARTS, "from", "cold"),
            frozen: count(COLD_STARTS, "from", "frozen"),
            phases: ["route", "queue", "start", "connect", "app", "total"].map(phase),
            connected: count(CONNECTS, "result", "ok"),
            not_connected: count(CONNECTS, "result", "failed"),
            retries: ["connect", "unsent", "reused"].map(|reason| count(RETRIES, "reason", reason)),
        }
    }
}

/// A gauge of open client connections for each thread.
pub(crate) fn client_connections(thread: usize) -> Gauge {
    gauge!(CONNECTIONS, "thread" => thread.to_string())
}

/// One request, from its head to the end of its response (or of its connection, once that speaks another protocol):
/// counts it when dropped. Not known to be of any revision before [`Self::entered`].
pub(crate) struct Record {
    began: Timestamp,
    status: Option<StatusCode>,
    of: Option<Of>,
    clock: Clock,
}

struct Of {
    target: Arc<Target>,
    /// Counts it as load.
    _entered: Entered,
}

impl Record {
    /// Of a request that came in at `now`.
    pub(crate) fn new(now: Timestamp, clock: &Clock) -> Self {
        Self {
            began: now,
            status: None,
            of: None,
            clock: Clock::clone(clock),
        }
    }

    /// When it came in.
    pub(crate) fn began(&self) -> Timestamp {
        self.began
    }

    /// What goes on counting it, when it outlives its response with this status; the rest counts nothing.
    pub(crate) fn hand_over(&mut self, status: StatusCode) -> Self {
        Self {
            began: self.began,
            status: Some(status),
            of: self.of.take(),
            clock: Clock::clone(&self.clock),
        }
    }

    /// It is the target's load from now on.
    pub(crate) fn entered(&mut self, target: &Arc<Target>, entered: Entered) {
        target.handles().in_flight.increment(1.0);
        self.of = Some(Of {
            target: Arc::clone(target),
            _entered: entered,
        });
    }

    /// Its response begins.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The gateway answers it with an error.
    pub(crate) fn refused(&self, label: &'static str) {
        counter!(REFUSALS, "reason" => label).increment(1);
    }
}

impl Target {
    fn handles(&self) -> &Handles {
        self.meters.of(&self.revision.id)
    }

    /// A request waited in the queue for this long.
    pub(crate) fn waited(&self, wait: Duration) {
        self.handles().queue_wait.record(wait);
    }

    /// A connection was needed, and made or not.
    pub(crate) fn connected(&self, ok: bool) {
        let handles = self.handles();
        if ok {
            handles.connected.increment(1)
        } else {
            handles.not_connected.increment(1)
        }
    }

    /// A request is sent again.
    pub(crate) fn retried(&self, why: Retried) {
        self.handles().retries[why as usize].increment(1);
    }

    /// A request that waited for a start has its first byte.
    pub(crate) fn started(&self, phases: &Phases) {
        let handles = self.handles();
        match phases.temperature {
            Temperature::Cold => handles.cold.increment(1),
            // No start: how long it took is scaling's `knarr_sandbox_thaw_seconds`.
            Temperature::Frozen => return handles.frozen.increment(1),
            Temperature::Throttled | Temperature::Reserve | Temperature::Warm => return,
        }
        let Phases {
            route,
            waited,
            connect,
            app,
            ..
        } = *phases;
        let parts = [route, waited.queue, waited.start, connect, app];
        let total = parts.iter().sum();
        for (histogram, took) in handles.phases.iter().zip(parts.into_iter().chain([total])) {
            histogram.record(took);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(of) = &self.of else { return };
        let handles = of.target.handles();
        let class = self
            .status
            .map_or(0, |status| usize::from(status.as_u16() / 100).min(5));
        let took = (self.clock)().since(self.began);
        handles.requests[class].increment(1);
        handles.duration.record(took);
        handles.in_flight.decrement(1.0);
        tracing::debug!(revision = %of.target.revision.id, status = ?self.status, ?took, "request");
    }
}
