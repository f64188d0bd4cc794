//! PURE  Reports of many gateways, merged: averages into windows, queues and acknowledgements as they stand.
//!
//! Knative: several statistics in one second add up; a statistic counts in the second it arrives. A report that is older
//! than the last one of its gateway is dropped; a gateway that has been silent for [`SILENCE`] counts as gone.

use std::collections::BTreeMap;
use std::time::Duration;

use manifests::exchange::{Draining, LoadKind, LoadReport, RevisionLoad};
use manifests::ids::{GatewayId, Generation, SandboxId};
use manifests::revision::{Metric, Scaling};
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decider::Observed;
use crate::window::Window;

/// The windows of one revision: both metrics, each over the stable and the panic window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Collector {
    concurrency: Pair,
    rps: Pair,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pair {
    stable: Window,
    panic: Window,
}

impl Collector {
    /// Empty windows.
    pub fn new(scaling: &Scaling) -> Self {
        let window = |length| Window::new(scaling.aggregation, length, GRANULARITY);
        let pair = || Pair {
            stable: window(scaling.stable_window),
            panic: window(scaling.panic_window),
        };
        Self {
            concurrency: pair(),
            rps: pair(),
        }
    }

    /// Takes changed windows over and keeps what they hold.
    pub fn resize(&mut self, scaling: &Scaling, now: Timestamp) {
        for pair in [&mut self.concurrency, &mut self.rps] {
            pair.stable.resize(scaling.stable_window, now);
            pair.panic.resize(scaling.panic_window, now);
        }
    }

    /// Adds one statistic.
    pub fn record(&mut self, now: Timestamp, concurrency: f64, rps: f64) {
        self.concurrency.record(now, concurrency);
        self.rps.record(now, rps);
    }

    /// The averages the revision scales by. `None` is Knative's "no data": nothing in the stable window, unless the target
    /// burst capacity is unlimited, where Knative scrapes nothing and an empty window means zero.
    pub fn observed(&self, scaling: &Scaling, now: Timestamp) -> Option<Observed> {
        let pair = match scaling.metric {
            Metric::Concurrency { .. } => &self.concurrency,
            Metric::Rps { .. } => &self.rps,
        };
        if pair.stable.is_empty(now) && scaling.target_burst_capacity.is_some() {
            return None;
        }
        Some(pair.observed(now))
    }

    /// Averages of both metrics: concurrency, then requests per second.
    pub fn averages(&self, now: Timestamp) -> (Observed, Observed) {
        (self.concurrency.observed(now), self.rps.observed(now))
    }

    /// Whether nothing was recorded within the stable window.
    pub fn is_empty(&self, now: Timestamp) -> bool {
        self.concurrency.stable.is_empty(now)
    }
}

impl Pair {
    fn record(&mut self, now: Timestamp, value: f64) {
        self.stable.record(now, value);
        self.panic.record(now, value);
    }

    fn observed(&self, now: Timestamp) -> Observed {
        Observed {
            stable: self.stable.average(now),
            panic: self.panic.average(now),
        }
    }
}

/// Every gateway that reports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Gateways(BTreeMap<GatewayId, Gateway>);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Gateway {
    last: Generation,
    seen: Timestamp,
    /// The last whole picture: a report of the second that is over, in which an absent revision has nothing in flight.
    whole: Option<(Generation, Timestamp)>,
}

impl Gateways {
    /// False when the report is older than one already taken.
    pub fn accept(&mut self, report: &LoadReport, now: Timestamp) -> bool {
        let gateway = self.0.entry(report.gateway.clone()).or_insert(Gateway {
            last: Generation::default(),
            seen: now,
            whole: None,
        });
        if report.generation <= gateway.last {
            return false;
        }
        gateway.last = report.generation;
        gateway.seen = now;
        let periodic = |load: &RevisionLoad| load.kind == LoadKind::Periodic;
        if report.revisions.is_empty() || report.revisions.iter().any(periodic) {
            gateway.whole = Some((report.generation, now));
        }
        true
    }

    fn live(&self, now: Timestamp) -> impl Iterator<Item = (&GatewayId, &Gateway)> {
        self.0
            .iter()
            .filter(move |(_, gateway)| now.since(gateway.seen) < SILENCE)
    }
}

/// What each gateway last said about one revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Loads(Vec<Load>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Load {
    gateway: GatewayId,
    /// The report that said so about requests, and the one that said so about sandboxes.
    generation: Generation,
    in_flight: u32,
    waiting: u32,
    acked: Generation,
    draining: Vec<Draining>,
}

impl Loads {
    /// Takes one entry of an accepted report over.
    pub fn update(&mut self, gateway: &GatewayId, generation: Generation, load: &RevisionLoad) {
        let index = match self.0.iter().position(|known| known.gateway == *gateway) {
            Some(index) => index,
            None => {
                // Most servers have one gateway.
                self.0.reserve_exact(1);
                self.0.push(Load {
                    gateway: gateway.clone(),
                    generation,
                    in_flight: 0,
                    waiting: 0,
                    acked: load.acked,
                    draining: Vec::new(),
                });
                self.0.len() - 1
            }
        };
        let known = &mut self.0[index];
        known.generation = generation;
        if load.kind != LoadKind::Sandboxes {
            known.in_flight = load.in_flight;
            known.waiting = load.waiting;
        }
        known.acked = known.acked.max(load.acked);
        known.draining.clone_from(&load.draining);
    }

    /// Requests (in flight, waiting) over all gateways.
    pub fn requests(&self, gateways: &Gateways, now: Timestamp) -> (u32, u32) {
        let live = self.0.iter().filter(|load| load.is_current(gateways, now));
        live.fold((0u32, 0u32), |(in_flight, waiting), load| {
            (
                in_flight.saturating_add(load.in_flight),
                waiting.saturating_add(load.waiting),
            )
        })
    }

    /// Whether no gateway can have a request on `sandbox` any more, which left the endpoints with `set` at `dropped`:
    /// every live gateway has acknowledged that set (or a later one) and reports nothing in flight there. A whole picture
    /// that arrived [`ACK_GRACE`] later without the revision says the same.
    pub fn released(
        &self,
        gateways: &Gateways,
        sandbox: &SandboxId,
        set: Generation,
        dropped: Timestamp,
        now: Timestamp,
    ) -> bool {
        self.rid_of(gateways, sandbox, set, dropped, now, |left| left.in_flight == 0)
    }

    /// Whether no gateway has even a connection to `sandbox` open any more, by the same signs. It may be frozen then.
    pub fn disconnected(
        &self,
        gateways: &Gateways,
        sandbox: &SandboxId,
        set: Generation,
        dropped: Timestamp,
        now: Timestamp,
    ) -> bool {
        let nothing = |left: &Draining| left.in_flight == 0 && left.connections == 0;
        self.rid_of(gateways, sandbox, set, dropped, now, nothing)
    }

    fn rid_of(
        &self,
        gateways: &Gateways,
        sandbox: &SandboxId,
        set: Generation,
        dropped: Timestamp,
        now: Timestamp,
        nothing: impl Fn(&Draining) -> bool,
    ) -> bool {
        gateways.live(now).all(|(id, gateway)| {
            let load = self.0.iter().find(|load| load.gateway == *id);
            let absent = |since: Timestamp| {
                gateway.whole.is_some_and(|(generation, seen)| {
                    seen >= since && load.is_none_or(|load| generation > load.generation)
                })
            };
            let acked = load.filter(|load| load.acked >= set);
            let rid = acked.is_some_and(|load| {
                load.draining
                    .iter()
                    .all(|left| left.sandbox != *sandbox || nothing(left))
            });
            rid || absent(if acked.is_some() {
                dropped
            } else {
                dropped.plus(ACK_GRACE)
            })
        })
    }

    /// Nothing in flight at any live gateway.
    pub fn is_idle(&self, gateways: &Gateways, now: Timestamp) -> bool {
        self.requests(gateways, now) == (0, 0)
    }
}

impl Load {
    /// Its gateway lives and has not sent a whole picture without the revision since.
    fn is_current(&self, gateways: &Gateways, now: Timestamp) -> bool {
        gateways.0.get(&self.gateway).is_some_and(|gateway| {
            now.since(gateway.seen) < SILENCE
                && gateway
                    .whole
                    .is_none_or(|(generation, _)| generation <= self.generation)
        })
    }
}

/// A gateway that has not reported for this long is gone, and what it said with it; ten reports.
pub const SILENCE: Duration = Duration::from_secs(10);

/// A gateway that never mentioned a revision has surely put a new endpoint set in place after this long: two reports.
pub const ACK_GRACE: Duration = Duration::from_secs(2);

/// Knative's bucket of both windows.
const GRANULARITY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
