//! PURE  CPU credits of burstable instances: what was earned and used, and how much of their CPU they have for a while.
//!
//! A model: providers tell nobody. A credit is a CPU for a minute; an instance has none when it starts, earns by the hour and
//! uses as much as it works. Instances of one kind work alike, because the gateway spreads requests by capacity.

use std::time::Duration;

use manifests::instances::Burst;
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

/// The credits of each instance of one kind.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Account {
    credits: f64,
    at: Timestamp,
}

impl Account {
    /// A new instance has none.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { credits: 0.0, at: now }
    }

    /// Until now so many cores were at work.
    pub(super) fn advance(&mut self, burst: Burst, cores: f64, now: Timestamp) {
        let minutes = now.since(self.at).as_secs_f64() / 60.0;
        let change = minutes * (burst.credits_per_hour / 60.0 - cores);
        self.credits = (self.credits + change).clamp(0.0, burst.most.max(0.0));
        self.at = self.at.max(now);
    }

    /// The share of its CPU that it has for so long: its baseline, and what the credits give.
    pub(super) fn sustained(self, burst: Burst, cores: f64, time: Duration) -> f64 {
        let minutes = (time.as_secs_f64() / 60.0 * cores).max(f64::MIN_POSITIVE);
        (burst.baseline + self.credits / minutes).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Burst = Burst {
        baseline: 0.2,
        credits_per_hour: 24.0,
        most: 48.0,
    };

    #[test]
    fn credits_are_earned_idle_and_used_at_work() {
        let at = |minutes: u64| Timestamp::EPOCH.plus(Duration::from_secs(60 * minutes));
        let ten = Duration::from_secs(600);
        let mut account = Account::new(at(0));
        let share = |account: Account| (account.sustained(BURST, 2.0, ten) * 1000.0).round() / 1000.0;
        assert_eq!(share(account), 0.2, "new ones have their baseline");
        account.advance(BURST, 0.0, at(60));
        assert_eq!(share(account), 1.0, "24 credits: 2 cores for 12 minutes");
        account.advance(BURST, 2.0, at(70));
        // 24 + 4 - 20 are left, which add 0.4 of two cores for ten minutes.
        assert_eq!(share(account), 0.6);
        account.advance(BURST, 2.0, at(80));
        assert_eq!(share(account), 0.2, "used up");
        account.advance(BURST, 0.0, at(10_000));
        assert_eq!(account.credits, 48.0, "no more than can be kept");
        account.advance(BURST, 2.0, at(9_000));
        assert_eq!(account.credits, 48.0, "time never runs backwards");
    }

    #[test]
    fn any_numbers_give_a_share() {
        for value in [0.0, -1.0, 1e300, f64::MIN_POSITIVE] {
            let burst = Burst {
                baseline: value,
                credits_per_hour: value,
                most: value,
            };
            let mut account = Account::new(Timestamp::EPOCH);
            account.advance(burst, value, Timestamp::EPOCH.plus(Duration::from_secs(9)));
            let share = account.sustained(burst, value, Duration::ZERO);
            assert!((0.0..=1.0).contains(&share), "{value}: {share}");
        }
    }
}
