//! What instances cost: by the second from the order on, with granularity and minimum. PURE.
//!
//! Every second of an instance is a *start* (ordered and not ready yet), *busy* (its revision has a request in flight) or
//! *idle*. What is charged beyond the seconds that were used is *residue*. Idle cost is idle, starts and residue together.

use std::time::Duration;

use serde::Serialize;

/// Money, in the currency of the prices.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Costs {
    /// While a request is in flight at the revision.
    pub busy: f64,
    /// While none is.
    pub idle: f64,
    /// From the order of an instance until it is ready.
    pub starts: f64,
    /// What granularity and minimum add.
    pub residue: f64,
}

impl Costs {
    /// What doing nothing costs: idle instances and the money of starts, with what the bill rounds up.
    pub fn of_idling(&self) -> f64 {
        self.idle + self.starts + self.residue
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.busy + self.of_idling()
    }

    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        self.busy += other.busy;
        self.idle += other.idle;
        self.starts += other.starts;
        self.residue += other.residue;
    }
}

/// How a provider rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Billing {
    /// Every begun one of these is charged.
    pub granularity: Duration,
    /// The least that is charged for an instance.
    pub minimum: Duration,
}

/// Adds up what the instances of one revision cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    costs: Costs,
    /// Since then, prices per second of what starts and of what runs, and whether a request is in flight.
    since: u64,
    starting: f64,
    running: f64,
    busy: bool,
}

impl Meter {
    /// From `now` on (nanoseconds) it is like this.
    pub(super) fn set(&mut self, now: u64, starting: f64, running: f64) {
        self.settle(now);
        (self.starting, self.running) = (starting, running);
    }

    /// From `now` on a request is in flight, or none.
    pub(super) fn set_busy(&mut self, now: u64, busy: bool) {
        if busy != self.busy {
            self.settle(now);
            self.busy = busy;
        }
    }

    /// The bill of an instance was rounded up.
    pub(super) fn charge_residue(&mut self, money: f64) {
        self.costs.residue += money;
    }

    /// Up to `now`.
    pub(super) fn costs(&mut self, now: u64) -> Costs {
        self.settle(now);
        self.costs
    }

    fn settle(&mut self, now: u64) {
        let seconds = Duration::from_nanos(now.saturating_sub(self.since)).as_secs_f64();
        self.since = now;
        self.costs.starts += self.starting * seconds;
        let of = if self.busy {
            &mut self.costs.busy
        } else {
            &mut self.costs.idle
        };
        *of += self.running * seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_is_one_of_three() {
        let second = 1_000_000_000;
        let mut meter = Meter::default();
        meter.set(10 * second, 2.0, 0.0);
        meter.set_busy(10 * second, true);
        meter.set(13 * second, 0.0, 2.0);
        meter.set_busy(14 * second, false);
        meter.set_busy(14 * second, false);
        meter.set(20 * second, 1.0, 2.0);
        meter.charge_residue(0.5);
        let costs = meter.costs(21 * second);
        let want = Costs {
            busy: 2.0,
            idle: 14.0,
            starts: 7.0,
            residue: 0.5,
        };
        assert_eq!((costs, costs.of_idling(), costs.total()), (want, 21.5, 23.5));
    }
}
