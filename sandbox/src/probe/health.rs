//! PURE  All probes of one sandbox: startup gates the others, and every container must be ready.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use manifests::units::Timestamp;
use manifests::workload::{Check, Container, Workload};

use super::worker::{Outcome, Patience, Worker};

/// The probes of one sandbox, from the moment its containers run.
///
/// H1. Of one probe at most one ask is in flight.
/// H2. Nothing but startup probes is asked of a container that has not started.
/// H3. Changes alternate: ready, not ready, ready, ..; nothing comes after dead.
#[derive(Debug)]
pub(crate) struct Health {
    containers: Vec<Probed>,
    /// What was told last.
    ready: bool,
    dead: bool,
    paused: bool,
    /// Answers to asks of before the last pause are thrown away.
    epoch: u32,
    /// What the last failure said.
    last: Arc<str>,
}

#[derive(Debug)]
struct Probed {
    /// Empty when there is only one: its name would say nothing.
    name: Arc<str>,
    started: bool,
    ready: bool,
    /// In the order of [`Kind`].
    workers: [Option<Worker>; 3],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// Something to ask now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    /// Which of the running containers, the serving one first.
    pub(crate) container: usize,
    pub(crate) kind: Kind,
    pub(crate) patience: Patience,
    epoch: u32,
}

/// What has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Every container has started and is ready.
    Ready,
    /// It was ready, and is not any more.
    NotReady(Arc<str>),
    /// A startup or liveness probe has failed for good.
    Dead(Verdict),
}

/// Why a sandbox is to be ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) why: Arc<str>,
    /// How long it may take, when the probe has its own word on that.
    pub(crate) grace: Option<Duration>,
}

/// How many sandboxes are probed at this moment: asking them all has a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Crowd {
    /// Those that are not ready yet.
    pub(crate) starting: usize,
    /// Those that are.
    pub(crate) running: usize,
}

impl Health {
    /// Of containers that run since `begin`.
    pub(crate) fn new(workload: &Workload, begin: Timestamp) -> Self {
        let alone = workload.sidecars.is_empty();
        let containers = workload.running().map(|it| Probed::new(it, alone, begin));
        let mut health = Self {
            containers: containers.collect(),
            ready: false,
            dead: false,
            paused: false,
            epoch: 0,
            last: first_words(workload),
        };
        health.ready = health.all_ready();
        health
    }

    /// Whether every container is ready, as far as was told.
    pub(crate) const fn is_ready(&self) -> bool {
        self.ready
    }

    /// What the last failure said.
    pub(crate) fn last(&self) -> &Arc<str> {
        &self.last
    }

    /// What an ask asks.
    pub(crate) fn check(&self, ask: &Ask) -> Option<&Check> {
        let worker = self.containers.get(ask.container)?.workers[ask.kind as usize].as_ref()?;
        Some(&worker.spec().check)
    }

    /// Whether anything will ever be asked again.
    pub(crate) fn is_over(&self) -> bool {
        let open = |it: &Probed| KINDS.into_iter().any(|kind| it.is_open(kind));
        self.dead || !self.containers.iter().any(open)
    }

    /// When to call [`Self::poll`] next; `None` while only answers are waited for, or paused.
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        if self.paused || self.dead {
            return None;
        }
        let due = |it: &Probed| KINDS.into_iter().filter_map(|kind| it.due(kind)).min();
        self.containers.iter().filter_map(due).min()
    }

    /// One thing that is to be asked now; call it until it says `None`.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Option<Ask> {
        if self.paused || self.dead {
            return None;
        }
        let epoch = self.epoch;
        for (container, probed) in self.containers.iter_mut().enumerate() {
            for kind in KINDS {
                if probed.due(kind).is_none_or(|due| due > now) {
                    continue;
                }
                if let Some(worker) = &mut probed.workers[kind as usize] {
                    let patience = worker.ask(now);
                    return Some(Ask {
                        container,
                        kind,
                        patience,
                        epoch,
                    });
                }
            }
        }
        None
    }

    /// Takes the answer to an ask. Each ask is answered once, unless [`Self::pause`] was called since.
    pub(crate) fn answered(&mut self, ask: &Ask, outcome: &Outcome, now: Timestamp, crowd: Crowd) -> Option<Change> {
        if self.dead || ask.epoch != self.epoch {
            return None;
        }
        let alone = self.containers.len() == 1;
        let probed = self.containers.get_mut(ask.container)?;
        let worker = probed.workers[ask.kind as usize].as_mut()?;
        let verdict = worker.answered(outcome, now, crowd);
        let (threshold, grace) = (worker.spec().failure_threshold, worker.spec().grace);
        if let Outcome::Failed(why) | Outcome::Unknown(why) = outcome {
            self.last = words(ask.kind, &probed.name, 1, why);
        }
        match (ask.kind, verdict?) {
            (Kind::Startup, true) => probed.start(now),
            (Kind::Readiness, ready) => {
                probed.ready = ready;
                if ready {
                    worker_settles(probed, now);
                }
            }
            (Kind::Liveness, true) => return None,
            (Kind::Startup | Kind::Liveness, false) => {
                let Outcome::Failed(why) = outcome else { return None };
                self.dead = true;
                let why = words(ask.kind, &probed.name, threshold, why);
                return Some(Change::Dead(Verdict { why, grace }));
            }
        }
        debug_assert!(
            alone || !probed.name.is_empty(),
            "several containers, one without a name"
        );
        let ready = self.all_ready();
        if ready == self.ready {
            return None;
        }
        self.ready = ready;
        let why = match outcome {
            Outcome::Failed(why) => words(ask.kind, &self.containers[ask.container].name, threshold, why),
            _ => "".into(),
        };
        Some(if ready { Change::Ready } else { Change::NotReady(why) })
    }

    /// Asks nothing from now on and throws the answers in flight away. What was told stands.
    pub(crate) fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    /// Asks again, counting anew: what was ready or alive first after a whole period, the others at once.
    pub(crate) fn resume(&mut self, now: Timestamp) {
        if !std::mem::replace(&mut self.paused, false) {
            return;
        }
        for probed in &mut self.containers {
            let ready = probed.ready;
            for kind in KINDS {
                let at_once = match kind {
                    Kind::Startup => true,
                    Kind::Readiness => !ready,
                    Kind::Liveness => false,
                };
                if let Some(worker) = &mut probed.workers[kind as usize] {
                    worker.restart(now, at_once);
                }
            }
        }
    }

    fn all_ready(&self) -> bool {
        self.containers.iter().all(|it| it.started && it.ready)
    }
}

/// What is wrong while nothing was answered yet: mostly that nobody listens.
fn first_words(workload: &Workload) -> Arc<str> {
    let probes = &workload.serving.probes;
    match probes
        .startup
        .as_ref()
        .or(probes.readiness.as_ref())
        .map(|probe| &probe.check)
    {
        Some(Check::Tcp { port } | Check::Http { port, .. } | Check::Grpc { port, .. }) => {
            format!("nothing listens on port {port}").into()
        }
        Some(Check::Exec { .. }) | None => "no probe was answered yet".into(),
    }
}

fn worker_settles(probed: &mut Probed, now: Timestamp) {
    if let Some(worker) = &mut probed.workers[Kind::Readiness as usize] {
        worker.settle(now);
    }
}

impl Probed {
    fn new(container: &Container, alone: bool, begin: Timestamp) -> Self {
        let probes = &container.probes;
        let quick = probes.startup.is_none();
        Self {
            name: if alone { "".into() } else { Arc::clone(&container.name) },
            started: probes.startup.is_none(),
            ready: probes.readiness.is_none(),
            workers: [
                probes.startup.as_ref().map(|spec| Worker::new(spec, begin)),
                probes.readiness.as_ref().map(|spec| Worker::eager(spec, begin, quick)),
                probes.liveness.as_ref().map(|spec| Worker::new(spec, begin)),
            ],
        }
    }

    /// The startup probe has passed.
    fn start(&mut self, now: Timestamp) {
        self.started = true;
        self.workers[Kind::Startup as usize] = None;
        if let Some(readiness) = &mut self.workers[Kind::Readiness as usize] {
            readiness.open(now, true);
        }
        if let Some(liveness) = &mut self.workers[Kind::Liveness as usize] {
            liveness.open(now, false);
        }
    }

    /// Whether such a probe is there and its time has come.
    fn is_open(&self, kind: Kind) -> bool {
        self.workers[kind as usize].is_some() && (self.started || kind == Kind::Startup)
    }

    fn due(&self, kind: Kind) -> Option<Timestamp> {
        let worker = self.workers[kind as usize].as_ref()?;
        if self.is_open(kind) { worker.due() } else { None }
    }
}

fn words(kind: Kind, container: &str, times: u32, why: &str) -> Arc<str> {
    let of = if container.is_empty() {
        String::new()
    } else {
        format!(" of {container}")
    };
    let times = if times > 1 {
        format!(" {times} times")
    } else {
        String::new()
    };
    format!("{kind} probe{of} failed{times}: {why}").into()
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        })
    }
}

impl Crowd {
    /// The shortest time between two tries of one sandbox that is not ready yet.
    pub(super) fn gap(self) -> Duration {
        share(TRY, self.starting)
    }

    /// The shortest time between two rounds of one that is.
    pub(super) fn round(self) -> Duration {
        share(ROUND, self.running)
    }
}

/// So long that all together take a tenth of a core.
fn share(cost: Duration, sandboxes: usize) -> Duration {
    cost * BUDGET * u32::try_from(sandboxes).unwrap_or(u32::MAX / BUDGET)
}

const KINDS: [Kind; 3] = [Kind::Startup, Kind::Readiness, Kind::Liveness];

/// Asking may use 1/10 of a core.
const BUDGET: u32 = 10;

/// One request costs about this much, and so does one round on a port that is open.
const TRY: Duration = Duration::from_micros(100);
const ROUND: Duration = Duration::from_micros(20);
