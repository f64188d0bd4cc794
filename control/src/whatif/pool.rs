//! The simulated gateway's view of one revision: slots, a queue, and the reports that Knarr's gateway would send.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use manifests::exchange::{Draining, EndpointSet, LoadKind, RevisionLoad, Rung, Work};
use manifests::ids::{RevisionId, SandboxId};
use manifests::units::{Concurrency, Rps, Timestamp};

/// One revision at the gateway.
#[derive(Default)]
pub(super) struct Pool {
    set: Option<EndpointSet>,
    running: BTreeMap<SandboxId, u32>,
    waiting: VecDeque<Duration>,
    /// Of the period: arrivals, and requests in flight times how long.
    arrivals: u32,
    area: Duration,
    touched: Timestamp,
    sampled: Timestamp,
    /// What the last wake-up said of the queue, and whether one was counted in this period.
    told: u32,
    counted_by_wake: bool,
    reported: bool,
    resting: bool,
}

impl Pool {
    pub(super) fn in_flight(&self) -> u32 {
        self.running.values().sum::<u32>() + self.queued()
    }

    fn queued(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    fn touch(&mut self, now: Timestamp) {
        self.area += now.since(self.touched) * self.in_flight();
        self.touched = now;
    }

    /// A request comes; whether scaling must hear of it at once. False in front when it is refused.
    pub(super) fn arrive(&mut self, length: Duration, slots: u32, now: Timestamp) -> (bool, bool) {
        self.touch(now);
        if self.resting || self.arrivals == 0 && self.in_flight() == 0 {
            self.resting = false;
            self.sampled = self.sampled.max(now);
        }
        self.arrivals += 1;
        let refused = self.set.as_ref().is_some_and(|set| set.refuses);
        if refused {
            let first = !std::mem::replace(&mut self.reported, true);
            return (false, first);
        }
        self.waiting.push_back(length);
        let free = self
            .set
            .iter()
            .flat_map(|set| &set.endpoints)
            .any(|endpoint| self.running.get(&endpoint.sandbox).copied().unwrap_or(0) < slots);
        let low = self.set.as_ref().is_none_or(|set| set.rung < Rung::Full);
        let first = self.in_flight() == 1;
        let wakes = !free && self.queued() >= (self.told * 2).max(1) || low && first;
        if wakes {
            self.told = self.queued();
        }
        (true, wakes)
    }

    /// Requests that begin to run now, with what each takes on a full instance.
    pub(super) fn dispatch(&mut self, slots: u32, now: Timestamp) -> Vec<(SandboxId, Duration)> {
        self.touch(now);
        let mut begin = Vec::new();
        while !self.waiting.is_empty() {
            let load = |id: &SandboxId| self.running.get(id).copied().unwrap_or(0);
            let serving = self.set.iter().flat_map(|set| &set.endpoints).map(|it| &it.sandbox);
            let Some(sandbox) = serving.filter(|id| load(id) < slots).min_by_key(|id| load(id)).cloned() else {
                break;
            };
            *self.running.entry(sandbox.clone()).or_default() += 1;
            if let Some(length) = self.waiting.pop_front() {
                begin.push((sandbox, length));
            }
        }
        begin
    }

    /// A request ends; whether its sandbox is out of the set and has nothing left.
    pub(super) fn end(&mut self, sandbox: &SandboxId, now: Timestamp) -> bool {
        self.touch(now);
        let Some(running) = self.running.get_mut(sandbox) else {
            return false;
        };
        *running = running.saturating_sub(1);
        *running == 0 && !self.serves(sandbox)
    }

    /// Another set; whether a sandbox has left it.
    pub(super) fn apply(&mut self, set: EndpointSet, now: Timestamp) -> bool {
        self.touch(now);
        let stays = |id: &SandboxId| set.endpoints.iter().any(|endpoint| endpoint.sandbox == *id);
        let before = self.set.iter().flat_map(|set| &set.endpoints);
        let leaves = before.filter(|endpoint| !stays(&endpoint.sandbox)).count() > 0;
        self.set = Some(set);
        leaves
    }

    fn serves(&self, sandbox: &SandboxId) -> bool {
        let mut endpoints = self.set.iter().flat_map(|set| &set.endpoints);
        endpoints.any(|endpoint| endpoint.sandbox == *sandbox)
    }

    /// The entry of the second that is over; `None` when there was nothing.
    pub(super) fn sample(&mut self, id: &RevisionId, now: Timestamp) -> Option<RevisionLoad> {
        self.touch(now);
        let busy = !self.area.is_zero() || self.arrivals > 0;
        let mut load = self.entry(id, LoadKind::Periodic, now);
        if !busy && load.draining.is_empty() {
            (self.reported, self.resting) = (false, true);
            return None;
        }
        let elapsed = now.since(self.sampled).as_secs_f64();
        let average = if elapsed > 0.0 {
            self.area.as_secs_f64() / elapsed
        } else {
            f64::from(self.in_flight())
        };
        load.concurrency = Concurrency(match (self.counted_by_wake, busy && !self.reported) {
            (true, _) => (average - 1.0).max(0.0),
            (false, true) => average.max(1.0),
            (false, false) => average,
        });
        let counted = u32::from(self.counted_by_wake);
        load.rps = Rps(f64::from(self.arrivals.saturating_sub(counted)));
        load.work = Work {
            arrivals: self.arrivals,
            time: self.area,
            // Recorded loads do not tell one request from another.
            first: None,
        };
        (self.area, self.arrivals, self.sampled) = (Duration::ZERO, 0, now);
        (self.counted_by_wake, self.reported) = (false, busy);
        self.told = self.queued();
        Some(load)
    }

    pub(super) fn entry(&mut self, id: &RevisionId, kind: LoadKind, now: Timestamp) -> RevisionLoad {
        self.touch(now);
        let first = kind == LoadKind::Wake && !std::mem::replace(&mut self.counted_by_wake, true);
        let one = if first { 1.0 } else { 0.0 };
        let left = self
            .running
            .iter()
            .filter(|(sandbox, running)| **running > 0 && !self.serves(sandbox));
        let draining = left.map(|(sandbox, running)| Draining {
            sandbox: sandbox.clone(),
            in_flight: *running,
            connections: *running,
            answered: true,
        });
        let draining = draining.collect();
        let set = &self.set;
        let serves = |id: &SandboxId| set.iter().flat_map(|set| &set.endpoints).any(|it| it.sandbox == *id);
        self.running.retain(|sandbox, running| *running > 0 || serves(sandbox));
        RevisionLoad {
            revision: id.clone(),
            kind,
            concurrency: Concurrency(one),
            rps: Rps(one),
            work: Work::default(),
            in_flight: self.in_flight(),
            waiting: self.queued(),
            acked: self.set.as_ref().map(|set| set.generation).unwrap_or_default(),
            draining,
            ejected: Vec::new(),
        }
    }
}
