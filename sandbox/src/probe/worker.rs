//! PURE  One probe of one container: when it is asked, and what its answers come to.

use std::time::Duration;

use manifests::units::Timestamp;
use manifests::workload::{Check, Probe};

use super::health::Crowd;

/// What one ask came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It passed.
    Passed,
    /// It failed; why, in words for the user.
    Failed(String),
    /// It could not be asked: counts as nothing.
    Unknown(String),
}

/// How long one ask may take, and how often it may try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// One try of at most this long.
    Once(Duration),
    /// As soon as the port is open, one try of at most this long.
    WhenOpen(Duration),
    /// Tries of at most `each`, `gap` apart, until one passes or `all` is over.
    Rounds {
        each: Duration,
        gap: Duration,
        all: Duration,
    },
}

/// One probe.
#[derive(Debug)]
pub(super) struct Worker {
    spec: Probe,
    pace: Pace,
    /// When it is asked next; in a steady pace the next tick.
    tick: Timestamp,
    /// An ask is in flight.
    asking: bool,
    /// The last answer that counts, and how often in a row.
    last: Option<bool>,
    run: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// Every period.
    Steady(Duration),
    /// Until ready for the first time: after a failure this soon, then twice as long, up to `longest`.
    Eager { gap: Duration, longest: Duration },
}

impl Worker {
    /// Of a container that runs since `begin`.
    pub(super) fn new(spec: &Probe, begin: Timestamp) -> Self {
        Self {
            spec: spec.clone(),
            pace: Pace::Steady(period(spec)),
            tick: begin.plus(spec.initial_delay),
            asking: false,
            last: None,
            run: 0,
        }
    }

    /// A readiness probe until its container is ready for the first time. `quick`: nothing forbids to ask sooner than
    /// every period.
    pub(super) fn eager(spec: &Probe, begin: Timestamp, quick: bool) -> Self {
        let (gap, longest) = match spec.period {
            None if is_command(spec) => COMMAND_GAPS,
            None => GAPS,
            Some(period) if quick && !is_command(spec) => (GAPS.0, ACTIVATOR.min(period)),
            Some(_) => return Self::new(spec, begin),
        };
        Self {
            pace: Pace::Eager { gap, longest },
            ..Self::new(spec, begin)
        }
    }

    pub(super) const fn spec(&self) -> &Probe {
        &self.spec
    }

    /// When to ask; `None` while an ask is in flight.
    pub(super) fn due(&self) -> Option<Timestamp> {
        (!self.asking).then_some(self.tick)
    }

    /// Asks now.
    pub(super) fn ask(&mut self, now: Timestamp) -> Patience {
        self.asking = true;
        let each = self.spec.timeout;
        match (self.pace, self.spec.period) {
            (Pace::Eager { .. }, _) => Patience::WhenOpen(each),
            (Pace::Steady(period), None) if !is_command(&self.spec) => {
                self.skip_to(now, period);
                Patience::Rounds {
                    each,
                    gap: GAPS.1,
                    all: ROUND,
                }
            }
            (Pace::Steady(period), _) => {
                self.skip_to(now, period);
                Patience::Once(each)
            }
        }
    }

    /// The first tick after `now`.
    fn skip_to(&mut self, now: Timestamp, period: Duration) {
        let late = now.since(self.tick).as_nanos();
        let ticks = u32::try_from(late / period.as_nanos().max(1)).unwrap_or(u32::MAX);
        self.tick = self.tick.plus(period.saturating_mul(ticks.saturating_add(1)));
    }

    /// Takes an answer; the new state when a threshold is reached by it.
    pub(super) fn answered(&mut self, outcome: &Outcome, now: Timestamp, crowd: Crowd) -> Option<bool> {
        self.asking = false;
        let passed = matches!(outcome, Outcome::Passed);
        match &mut self.pace {
            Pace::Eager { .. } if passed => self.tick = now.plus(self.spec.period.unwrap_or_default()),
            Pace::Eager { gap, longest } => {
                self.tick = now.plus((*gap).max(crowd.gap()));
                *gap = (*gap * 2).min(*longest);
            }
            Pace::Steady(steady) if self.spec.period.is_none() => *steady = period(&self.spec).max(crowd.round()),
            Pace::Steady(_) => {}
        }
        if matches!(outcome, Outcome::Unknown(_)) {
            return None;
        }
        self.run = if self.last == Some(passed) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(passed);
        let threshold = if passed {
            self.spec.success_threshold
        } else {
            self.spec.failure_threshold
        };
        (self.run >= threshold.max(1)).then_some(passed)
    }

    /// It has passed for the first time: from now on every period.
    pub(super) fn settle(&mut self, now: Timestamp) {
        if matches!(self.pace, Pace::Eager { .. }) {
            let period = period(&self.spec);
            self.pace = Pace::Steady(period);
            self.tick = now.plus(period);
        }
    }

    /// What it waited for has come: asked now, or at its next tick.
    pub(super) fn open(&mut self, now: Timestamp, at_once: bool) {
        if self.tick >= now {
            return;
        }
        match self.pace {
            Pace::Steady(period) if !at_once => self.skip_to(now, period),
            _ => self.tick = now,
        }
    }

    /// Forgets what was answered, and an ask in flight; the next is after `wait` periods.
    pub(super) fn restart(&mut self, now: Timestamp, at_once: bool) {
        (self.asking, self.last, self.run) = (false, None, 0);
        let wait = match self.pace {
            Pace::Steady(period) if !at_once => period,
            _ => Duration::ZERO,
        };
        self.tick = now.plus(wait);
    }
}

/// Once it is ready.
fn period(spec: &Probe) -> Duration {
    spec.period
        .unwrap_or(if is_command(spec) { COMMAND_PERIOD } else { ROUND })
}

const fn is_command(spec: &Probe) -> bool {
    matches!(spec.check, Check::Exec { .. })
}

/// Knative: kubelet asks queue-proxy this often when `periodSeconds` is 0, and waits this long.
const ROUND: Duration = Duration::from_secs(1);

/// Knative leaves exec to kubelet, whose period it is then.
const COMMAND_PERIOD: Duration = Duration::from_secs(10);

/// Between two tries until ready: the first gap and the longest, which is Knative's.
const GAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The same for commands, each of which is a process.
const COMMAND_GAPS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Knative's activator asks Pods that are not ready yet this often.
const ACTIVATOR: Duration = Duration::from_millis(200);
