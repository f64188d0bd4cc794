//! What is counted of the ways out, by revision; names and labels in one table.

use std::sync::OnceLock;

use manifests::ids::RevisionId;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const CONNECTIONS: &str = "knarr_egress_connections_total";
const OPEN: &str = "knarr_egress_connections_open";
const BYTES: &str = "knarr_egress_bytes_total";
const QUERIES: &str = "knarr_dns_queries_total";

/// Every metric of this crate: name, labels, meaning. `namespace` and `revision` say whose.
pub const TABLE: &[(&str, &[&str], &str)] = &[
    (
        CONNECTIONS,
        &["namespace", "revision", "result"],
        "Outbound connections of sandboxes (connected; service: to a service of this Knarr; denied: by policy; failed: \
         refused or not answered outside; limited: too many at once)",
    ),
    (
        OPEN,
        &["namespace", "revision"],
        "Outbound connections of sandboxes that are open or being opened, those to services of this Knarr not counted",
    ),
    (
        BYTES,
        &["namespace", "revision", "direction"],
        "Bytes carried over outbound connections (out: from the sandbox; in: to it), those to services not counted",
    ),
    (
        QUERIES,
        &["namespace", "revision", "result"],
        "DNS queries of sandboxes (service; forwarded; missing: no such service; refused: by policy; failed: no answer)",
    ),
];

/// Tells the recorder what the metrics mean; once, after it is installed.
pub fn describe() {
    for &(name, _, meaning) in TABLE {
        if name == OPEN {
            describe_gauge!(name, meaning);
        } else {
            describe_counter!(name, meaning);
        }
    }
}

/// One sandbox's handles; made at the first use, for most sandboxes have none.
pub(super) struct Meters {
    revision: RevisionId,
    handles: OnceLock<Handles>,
}

/// The handles, shared by all sandboxes of a revision.
pub(super) struct Handles {
    pub connected: Counter,
    pub to_service: Counter,
    pub denied: Counter,
    pub failed: Counter,
    pub limited: Counter,
    pub open: Gauge,
    pub bytes_out: Counter,
    pub bytes_in: Counter,
    pub asked_service: Counter,
    pub asked_forwarded: Counter,
    pub asked_missing: Counter,
    pub asked_refused: Counter,
    pub asked_failed: Counter,
}

impl Meters {
    pub(super) fn new(revision: RevisionId) -> Self {
        Self {
            revision,
            handles: OnceLock::new(),
        }
    }

    pub(super) fn get(&self) -> &Handles {
        self.handles.get_or_init(|| {
            let (namespace, revision) = (self.revision.namespace().to_owned(), self.revision.name().to_owned());
            let count = |name: &'static str, label: &'static str, value: &'static str| {
                counter!(name, "namespace" => namespace.clone(), "revision" => revision.clone(), label => value)
            };
            Handles {
                connected: count(CONNECTIONS, "result", "connected"),
                to_service: count(CONNECTIONS, "result", "service"),
                denied: count(CONNECTIONS, "result", "denied"),
                failed: count(CONNECTIONS, "result", "failed"),
                limited: count(CONNECTIONS, "result", "limited"),
                open: gauge!(OPEN, "namespace" => namespace.clone(), "revision" => revision.clone()),
                bytes_out: count(BYTES, "direction", "out"),
                bytes_in: count(BYTES, "direction", "in"),
                asked_service: count(QUERIES, "result", "service"),
                asked_forwarded: count(QUERIES, "result", "forwarded"),
                asked_missing: count(QUERIES, "result", "missing"),
                asked_refused: count(QUERIES, "result", "refused"),
                asked_failed: count(QUERIES, "result", "failed"),
            }
        })
    }
}
