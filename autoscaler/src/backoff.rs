//! PURE  When a revision that keeps failing may be started again, and when a rung that failed may be tried again.
//!
//! Kubernetes' CrashLoopBackOff (10 s, doubling to 5 min), with differences: the first [`FREE`] failures are replaced at
//! once, sandboxes that fail together count as one failure, and what is no failure to start is replaced at once always:
//! one that was killed from outside, one that ended after it had served for a while ([`Run::served`]), and one that ended
//! sooner but had answered a request. Gateways say so when they hear of its end, so that for as long as they take it
//! counts as a failure ([`Backoff::answered`]). Requests that wait for a replacement of what worked a moment ago are not
//! made to wait for more than its start.

use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::SandboxId;
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

/// The failures of one revision since it last ran well.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
    /// The failure counted last, while it may still turn out to be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubt: Option<Box<Doubt>>,
}

/// A sandbox that ended soon after it was ready, and what there was before that counted as a failure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Doubt {
    sandbox: SandboxId,
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// A sandbox whose start was ordered at `ordered` failed: its start, or itself soon after. One that was ordered before
    /// the last failure was known says nothing new.
    pub(crate) fn failed(&mut self, ordered: Timestamp, now: Timestamp) {
        if self.last.is_none_or(|last| ordered >= last) {
            self.failures = self.failures.saturating_add(1);
            self.last = Some(now);
            self.doubt = None;
        }
    }

    /// The manifest itself is at fault: trying again soon is no use.
    pub(crate) fn refused(&mut self, now: Timestamp) {
        self.failures = self.failures.max(FREE).saturating_add(1);
        self.last = Some(now);
        self.doubt = None;
    }

    /// A sandbox that had been ready ended, without being asked to, or is to be replaced.
    pub(crate) fn ended(&mut self, sandbox: &SandboxId, run: Run, now: Timestamp) {
        if run.ready >= WELL {
            *self = Self::default();
        } else if run.end == End::Itself && run.served() {
            // It says that starts do not fail, as much as a failed one says that they do.
            self.failures = self.failures.saturating_sub(1);
        } else if run.end != End::Killed {
            let (failures, last) = (self.failures, self.last);
            self.failed(run.ordered, now);
            if run.end == End::Itself && self.failures > failures {
                let sandbox = sandbox.clone();
                self.doubt = Some(Box::new(Doubt {
                    sandbox,
                    failures,
                    last,
                }));
            }
        }
    }

    /// A gateway says that this one had answered a request: if its end counted as a failure, it does no more. True then.
    pub(crate) fn answered(&mut self, sandbox: &SandboxId) -> bool {
        let Some(doubt) = self.doubt.take_if(|doubt| doubt.sandbox == *sandbox) else {
            return false;
        };
        self.failures = doubt.failures.saturating_sub(1);
        self.last = doubt.last;
        true
    }

    /// Failures since it last ran well.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// How long to wait after the last failure; zero for the first ones.
    pub(crate) fn delay(&self) -> Duration {
        match self.failures.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => LEAST.saturating_mul(1 << doublings.min(10)).min(MOST),
        }
    }

    /// The next start may be made from then on; `None` is now.
    pub(crate) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.last
            .map(|last| last.plus(self.delay()))
            .filter(|until| *until > now)
    }
}

/// Rungs on which no sandbox of a revision could be put: each is tried again, each time later. Empty as a rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Setbacks(Vec<(Rung, u32, Timestamp)>);

impl Setbacks {
    /// It was tried, and did not work.
    pub(crate) fn failed(&mut self, rung: Rung, now: Timestamp) {
        let known = self.0.iter().position(|(of, ..)| *of == rung);
        let failures = known.map_or(0, |known| self.0.swap_remove(known).1);
        let wait = LEAST.saturating_mul(1 << failures.min(10)).min(MOST);
        self.0.push((rung, failures.saturating_add(1), now.plus(wait)));
    }

    /// It worked, or something has changed.
    pub(crate) fn forget(&mut self, rung: Rung) {
        self.0.retain(|(of, ..)| *of != rung);
    }

    /// It is not to be tried yet.
    pub(crate) fn holds(&self, rung: Rung, now: Timestamp) -> bool {
        self.0.iter().any(|(of, _, until)| *of == rung && *until > now)
    }

    /// It did not work when it was tried last.
    pub(crate) fn has(&self, rung: Rung) -> bool {
        self.0.iter().any(|(of, ..)| *of == rung)
    }

    /// When the next one may be tried again; `None` without one that may not be now.
    pub(crate) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.0
            .iter()
            .map(|(.., until)| *until)
            .filter(|until| *until > now)
            .min()
    }
}

/// The life of a sandbox that had been ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// When its start was ordered.
    pub(crate) ordered: Timestamp,
    /// How long its start took.
    pub(crate) start: Duration,
    /// How long ago it became ready.
    pub(crate) ready: Duration,
    pub(crate) end: End,
}

impl Run {
    /// For longer than its start took, and a second: a loop of such sandboxes is ready for at least half of the time.
    fn served(self) -> bool {
        self.ready >= self.start.max(SERVED)
    }
}

/// Why a sandbox that had been ready is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// By SIGKILL from outside, not for its memory.
    Killed,
    /// Its liveness probe failed; it may be there for a while, beside its replacement.
    Unhealthy,
    Itself,
}

/// A sandbox that was ready for this long ran well, and its end is no sign of a loop.
const WELL: Duration = Duration::from_secs(60);

/// One that was ready for less than this has served nobody for certain.
const SERVED: Duration = Duration::from_secs(1);

/// Failures that are replaced at once.
pub(crate) const FREE: u32 = 3;

const LEAST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delays() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::from_millis(1_000_000);
        let mut delays = Vec::new();
        for _ in 0..10 {
            backoff.failed(now, now);
            delays.push(backoff.delay().as_secs());
            assert_eq!(backoff.until(now).is_some(), backoff.delay() > Duration::ZERO);
            now = now.plus(backoff.delay());
            assert_eq!(backoff.until(now), None);
        }
        assert_eq!(delays, [0, 0, 0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn what_the_end_of_a_sandbox_that_was_ready_says() {
        let millis = Duration::from_millis;
        for (ready, start, end, failures) in [
            (0, 5, End::Itself, 6),
            (999, 5, End::Itself, 6),
            (1000, 5, End::Itself, 4),
            (4000, 5000, End::Itself, 6),
            (5000, 5000, End::Itself, 4),
            (59_999, 70_000, End::Itself, 6),
            (60_000, 70_000, End::Itself, 0),
            (0, 5, End::Killed, 5),
            (1000, 5, End::Killed, 5),
            (60_000, 5, End::Killed, 0),
            (0, 5, End::Unhealthy, 6),
            (30_000, 5, End::Unhealthy, 6),
            (60_000, 5, End::Unhealthy, 0),
        ] {
            let mut backoff = Backoff {
                failures: 5,
                last: Some(Timestamp::from_millis(1_000_000)),
                doubt: None,
            };
            let ordered = Timestamp::from_millis(1_020_000);
            let run = Run {
                ordered,
                start: millis(start),
                ready: millis(ready),
                end,
            };
            let now = ordered.plus(run.start + run.ready);
            let id = SandboxId::new("one");
            backoff.ended(&id, run, now);
            assert_eq!(backoff.failures(), failures, "{run:?}");
            assert_eq!(backoff.until(now).is_some(), failures > 5, "{run:?}");
            // Once it is known that it had answered, a soon end is no failure either; a failed probe stays one.
            let doubted = failures > 5 && end == End::Itself;
            assert!(!backoff.answered(&SandboxId::new("other")));
            assert_eq!(backoff.answered(&id), doubted, "{run:?}");
            assert!(!backoff.answered(&id), "only once");
            assert_eq!(backoff.failures(), if doubted { 4 } else { failures }, "{run:?}");
            assert!(!doubted || backoff.until(now).is_none(), "{run:?}");
        }
    }

    #[test]
    fn a_doubt_ends_with_the_next_failure() {
        let (mut backoff, id) = (Backoff::default(), SandboxId::new("one"));
        let run = Run {
            ordered: Timestamp::from_millis(1000),
            start: Duration::from_millis(5),
            ready: Duration::ZERO,
            end: End::Itself,
        };
        backoff.ended(&id, run, Timestamp::from_millis(1005));
        backoff.failed(Timestamp::from_millis(1005), Timestamp::from_millis(1010));
        assert!(!backoff.answered(&id));
        assert_eq!(backoff.failures(), 2);
    }

    #[test]
    fn failing_together_is_one_failure() {
        let mut backoff = Backoff::default();
        let at = Timestamp::from_millis;
        for _ in 0..8 {
            backoff.failed(at(0), at(1000));
        }
        assert_eq!(backoff.failures(), 1);
        backoff.failed(at(1000), at(1200));
        assert_eq!(backoff.failures(), 2);
    }

    #[test]
    fn each_rung_waits_by_itself_and_longer_each_time() {
        let mut setbacks = Setbacks::default();
        let mut now = Timestamp::from_millis(1_000_000);
        assert_eq!((setbacks.holds(Rung::Frozen, now), setbacks.until(now)), (false, None));
        let mut waits = Vec::new();
        for _ in 0..7 {
            setbacks.failed(Rung::Frozen, now);
            let until = setbacks.until(now).unwrap();
            assert!(setbacks.holds(Rung::Frozen, now) && !setbacks.holds(Rung::Throttled, now));
            assert!(!setbacks.holds(Rung::Frozen, until) && setbacks.until(until).is_none());
            waits.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        setbacks.failed(Rung::Frozen, now);
        setbacks.failed(Rung::Throttled, now);
        assert_eq!(setbacks.until(now), Some(now.plus(LEAST)), "the one that is over first");
        setbacks.forget(Rung::Frozen);
        assert!(!setbacks.has(Rung::Frozen) && setbacks.holds(Rung::Throttled, now));
        setbacks.failed(Rung::Frozen, now);
        assert_eq!(setbacks.until(now.plus(LEAST)), None, "from the beginning again");
    }

    #[test]
    fn a_refusal_waits_from_the_first_time() {
        let mut backoff = Backoff::default();
        backoff.refused(Timestamp::EPOCH);
        assert_eq!(backoff.delay(), LEAST);
        backoff.refused(Timestamp::EPOCH);
        assert_eq!(backoff.delay(), LEAST * 2);
    }
}
