//! PURE  When a revision that keeps failing may be started again.
//!
//! Kubernetes' CrashLoopBackOff (10 s, doubling to 5 min), with a difference: the first [`FREE`] failures are replaced at
//! once, sandboxes that fail together count as one failure, and one that was killed from outside counts as none, so that
//! a service under load never waits for its first replacements.

use std::time::Duration;

use manifests::units::Timestamp;

/// The failures of one revision since it last ran well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Backoff {
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
        }
    }

    /// The manifest itself is at fault: trying again soon is no use.
    pub(crate) fn refused(&mut self, now: Timestamp) {
        self.failures = self.failures.max(FREE).saturating_add(1);
        self.last = Some(now);
    }

    /// A sandbox ran well for [`WELL`].
    pub(crate) fn recovered(&mut self) {
        *self = Self::default();
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

/// A sandbox that was ready for this long ran well, and its end is no sign of a loop.
pub(crate) const WELL: Duration = Duration::from_secs(60);

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
        backoff.recovered();
        assert_eq!(backoff.delay(), Duration::ZERO);
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
    fn a_refusal_waits_from_the_first_time() {
        let mut backoff = Backoff::default();
        backoff.refused(Timestamp::EPOCH);
        assert_eq!(backoff.delay(), LEAST);
        backoff.refused(Timestamp::EPOCH);
        assert_eq!(backoff.delay(), LEAST * 2);
    }
}
