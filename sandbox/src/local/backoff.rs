//! How long a container that has ended is left alone before it is started again (Kubernetes: CrashLoopBackOff). Pure.

use std::time::Duration;

/// Of one container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Backoff {
    /// Before the start after the next one; zero before the first.
    wait: Duration,
}

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

impl Backoff {
    /// After a run that lasted `ran`: the first restart is at once, then after 10 s, doubling to 5 minutes; a run of twice
    /// the longest wait makes it forget.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        if ran >= 2 * LONGEST {
            self.wait = Duration::ZERO;
        }
        let wait = self.wait;
        self.wait = (2 * wait).clamp(FIRST, LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes_and_a_long_run_forgets_them() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.next(Duration::from_secs(599)).as_secs(), 300);
        assert_eq!(backoff.next(Duration::from_secs(600)).as_secs(), 0);
        assert_eq!(backoff.next(Duration::ZERO).as_secs(), 10);
    }
}
