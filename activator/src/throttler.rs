//! What a gateway knows of one revision among several gateways: which backends, who else serves, what is its own. PURE.
//!
//! Knative: `pkg/activator/net` revisionThrottler. A single gateway has all backends and needs none of
//! this; its pool uses [`crate::assign`] directly.

use manifests::units::ContainerConcurrency;

use crate::assign::{assign_slice, calculate_capacity, infer_index};

/// One revision's backends and the share of one gateway in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Throttler {
    limit: ContainerConcurrency,
    own_address: String,
    backends: usize,
    trackers: Vec<String>,
    cluster_ip: Option<String>,
    gateways: usize,
    index: Option<usize>,
    assigned: Vec<String>,
    capacity: u32,
}

impl Throttler {
    /// Knows of no backend and no other gateway yet.
    pub fn new(limit: ContainerConcurrency, own_address: impl Into<String>) -> Self {
        Self {
            limit,
            own_address: own_address.into(),
            backends: 0,
            trackers: Vec::new(),
            cluster_ip: None,
            gateways: 0,
            index: None,
            assigned: Vec::new(),
            capacity: 0,
        }
    }

    /// The healthy backends are now `dests`; with a `cluster_ip` they are reached through that one address instead.
    pub fn update_backends(&mut self, dests: &[String], cluster_ip: Option<String>) {
        self.trackers = if cluster_ip.is_some() {
            Vec::new()
        } else {
            dests.to_vec()
        };
        self.trackers.sort();
        self.cluster_ip = cluster_ip;
        let reachable = self.cluster_ip.is_some() || !self.trackers.is_empty();
        self.backends = if reachable { dests.len() } else { 0 };
        self.rebalance();
    }

    /// The gateways that serve the revision are now these. Does nothing when this gateway is not among them: then it is
    /// not in the path, and keeps what it has for requests that still come.
    pub fn update_gateways(&mut self, addresses: &[String]) {
        let mut sorted = addresses.to_vec();
        sorted.sort();
        sorted.dedup();
        if let Some(index) = infer_index(&sorted, &self.own_address) {
            (self.gateways, self.index) = (sorted.len(), Some(index));
            self.rebalance();
        }
    }

    /// Requests this gateway may have in flight.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All backends by address, sorted; empty while a cluster IP stands for them.
    pub fn trackers(&self) -> &[String] {
        &self.trackers
    }

    /// This gateway's own, in order. Means nothing while a cluster IP is set.
    pub fn assigned(&self) -> &[String] {
        &self.assigned
    }

    /// The address that stands for all backends, if one does.
    pub fn cluster_ip(&self) -> Option<&str> {
        self.cluster_ip.as_deref()
    }

    /// How many gateways serve the revision; 0 before that is known.
    pub fn gateways(&self) -> usize {
        self.gateways
    }

    /// This gateway's number among them.
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// How many backends there are, however they are reached.
    pub fn backends(&self) -> usize {
        self.backends
    }

    fn rebalance(&mut self) {
        let own = if self.cluster_ip.is_some() {
            0
        } else {
            self.assigned = match self.limit.limit() {
                Some(_) => assign_slice(&self.trackers, self.index, self.gateways),
                None => self.trackers.clone(),
            };
            self.assigned.len()
        };
        self.capacity = calculate_capacity(self.limit, self.backends, own, self.gateways);
    }
}
