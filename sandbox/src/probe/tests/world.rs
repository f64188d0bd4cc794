//! A sandbox whose probes answer by a plan, in virtual time.

use std::time::Duration;

use manifests::units::Timestamp;
use manifests::workload::{Check, Probe, Probes, Workload};

use crate::probe::health::{Ask, Change, Crowd, Health, Kind};
use crate::probe::worker::Outcome;

pub(super) const S: Duration = Duration::from_secs(1);
pub(super) const MS: Duration = Duration::from_millis(1);

/// Containers run since then.
pub(super) const BEGIN: Timestamp = Timestamp::from_millis(1_000_000);

pub(super) fn check(port: u16) -> Check {
    Check::Http {
        tls: false,
        port,
        path: "/".into(),
        headers: Vec::new(),
    }
}

/// Every `period` seconds, with Kubernetes' other defaults; exec, so that nothing is asked sooner.
pub(super) fn every(period: u32) -> Probe {
    Probe {
        check: Check::Exec {
            command: vec!["true".into()],
        },
        period: Some(S * period),
        timeout: S,
        ..Probe::aggressive(check(80))
    }
}

pub(super) fn workload(probes: Probes) -> Workload {
    let mut workload = Workload::host("/bin/true");
    workload.serving.probes = probes;
    workload
}

/// A sandbox whose probes answer by a plan, in virtual time.
pub(super) struct World<F> {
    pub(super) health: Health,
    pub(super) now: Timestamp,
    /// From the probe, and milliseconds since the beginning, to the answer and how long it takes.
    plan: F,
    /// When each answer comes.
    flights: Vec<(Timestamp, Ask, bool)>,
    pub(super) told: Vec<String>,
    pub(super) quiet: bool,
}

impl<F: FnMut(Kind, u64) -> (bool, Duration)> World<F> {
    pub(super) fn new(workload: &Workload, plan: F) -> Self {
        Self {
            health: Health::new(workload, BEGIN),
            now: BEGIN,
            plan,
            flights: Vec::new(),
            told: Vec::new(),
            quiet: false,
        }
    }

    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.now.since(BEGIN).as_millis()).unwrap()
    }

    pub(super) fn say(&mut self, what: &str) {
        self.told.push(format!("{} {what}", self.millis()));
    }

    pub(super) fn until(&mut self, end: Duration) {
        let end = BEGIN.plus(end);
        loop {
            while let Some(ask) = self.health.poll(self.now) {
                if !self.quiet {
                    self.say(&ask.kind.to_string());
                }
                let same = |(_, other, _): &&(Timestamp, Ask, bool)| {
                    (other.container, other.kind) == (ask.container, ask.kind)
                };
                assert!(!self.flights.iter().any(|flight| same(&flight)), "H1: {ask:?} twice");
                let (passes, takes) = {
                    let at = self.millis();
                    (self.plan)(ask.kind, at)
                };
                self.flights.push((self.now.plus(takes), ask, passes));
            }
            let next = self
                .flights
                .iter()
                .map(|(at, ..)| *at)
                .chain(self.health.next_timeout())
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            assert!(next >= self.now, "time runs backwards");
            self.now = next;
            let landed = self.flights.iter().position(|(at, ..)| *at <= next);
            if let Some((_, ask, passes)) = landed.map(|index| self.flights.remove(index)) {
                let outcome = if passes {
                    Outcome::Passed
                } else {
                    Outcome::Failed("no".into())
                };
                match self.health.answered(&ask, &outcome, self.now, Crowd::default()) {
                    Some(Change::Ready) => self.say("=> ready"),
                    Some(Change::NotReady(why)) => self.say(&format!("=> not ready: {why}")),
                    Some(Change::Dead(verdict)) => self.say(&format!("=> dead: {}", verdict.why)),
                    None => {}
                }
            }
        }
    }

    pub(super) fn pause(&mut self) {
        self.health.pause();
        self.flights.clear();
    }
}

/// Asks and changes until `end`, with answers that take no time.
pub(super) fn run(probes: Probes, end: Duration, passes: impl Fn(Kind, u64) -> bool) -> Vec<String> {
    let mut world = World::new(&workload(probes), |kind, at| (passes(kind, at), Duration::ZERO));
    world.until(end);
    world.told
}
