//! PURE  Knative's KPA: averages in, desired replicas out; stable and panic mode, rate limits, scale-down delay.
//!
//! Knative: `pkg/autoscaler/scaling`, equal in every value including the state after each tick. What comes after (bounds,
//! scale to zero, the queue) is not decided here.

use std::collections::VecDeque;
use std::time::Duration;

use manifests::revision::{Metric, Reachability, Revision};
use manifests::units::{Replicas, Timestamp};
use serde::{Deserialize, Serialize};

/// The part of a revision the decider looks at.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeciderSpec {
    /// Wanted average per replica, more than 0; in the metric's own unit.
    pub target: f64,
    /// The most one replica can take; same unit.
    pub total: f64,
    /// `None` is unlimited: the excess burst capacity is then always -1.
    pub target_burst_capacity: Option<f64>,
    /// Enter panic when the panic window wants this many times the ready replicas.
    pub panic_threshold: f64,
    /// Largest factor up per decision.
    pub max_scale_up_rate: f64,
    /// Largest factor down per decision.
    pub max_scale_down_rate: f64,
    /// How long panic lasts after the last tick over the threshold.
    pub stable_window: Duration,
    /// Least replicas when there is any load; 0 and 1 mean none.
    pub activation_scale: Replicas,
    /// Unreachable revisions go down without rate limit or delay.
    pub reachable: bool,
}

impl DeciderSpec {
    /// From a checked revision.
    pub fn of(revision: &Revision) -> Self {
        let scaling = &revision.scaling;
        let (target, total) = match scaling.metric {
            Metric::Concurrency { target, total } => (target.0, total.0),
            Metric::Rps { target, total } => (target.0, total.0),
        };
        Self {
            target,
            total,
            target_burst_capacity: scaling.target_burst_capacity,
            panic_threshold: scaling.panic_threshold,
            max_scale_up_rate: scaling.max_scale_up_rate,
            max_scale_down_rate: scaling.max_scale_down_rate,
            stable_window: scaling.stable_window,
            activation_scale: scaling.activation_scale,
            reachable: revision.reachability != Reachability::Unreachable,
        }
    }
}

/// Averages of the metric the revision scales by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Observed {
    /// Over the stable window.
    pub stable: f64,
    /// Over the panic window.
    pub panic: f64,
}

/// What one tick decided, and what it was limited by.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// Replicas wanted.
    pub desired: Replicas,
    /// Requests that could come at once beyond the target burst; -1 when that is unlimited.
    pub excess_burst_capacity: i32,
    /// Panicking after this tick.
    pub panicking: bool,
    /// What the stable window alone asks for, before any limit.
    pub stable_wants: f64,
    /// What the panic window alone asks for, before any limit.
    pub panic_wants: f64,
    /// The rate limits of this tick, replicas.
    pub rate_limits: (f64, f64),
    /// Before panic's memory and the scale-down delay raised it.
    pub undelayed: Replicas,
}

/// The state between ticks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decider {
    spec: DeciderSpec,
    /// The last tick over the panic threshold; `None` is not panicking.
    panic_since: Option<Timestamp>,
    max_panic: Replicas,
    delay: Option<MaxWindow>,
}

impl Decider {
    /// A decider made while more than one replica is ready starts in panic, so that a restart never scales down before
    /// it has data. `scale_down_delay` is read here only: a later [`Self::update`] does not change it.
    pub fn new(spec: DeciderSpec, scale_down_delay: Duration, ready: Replicas, now: Timestamp) -> Self {
        Self {
            spec,
            panic_since: (ready.0 > 1).then_some(now),
            max_panic: ready,
            delay: (!scale_down_delay.is_zero()).then(|| MaxWindow::new(scale_down_delay)),
        }
    }

    /// Takes a changed spec over; the state stays.
    pub fn update(&mut self, spec: DeciderSpec) {
        self.spec = spec;
    }

    /// One evaluation. `None` (and no change of state) when there is no data.
    pub fn tick(&mut self, now: Timestamp, observed: Option<Observed>, ready: Replicas) -> Option<Decision> {
        let Observed { stable, panic } = observed?;
        let spec = &self.spec;
        let base = f64::from(ready.0.max(1));
        let up = (spec.max_scale_up_rate * base).ceil();
        let down = if spec.reachable {
            (base / spec.max_scale_down_rate).floor()
        } else {
            0.0
        };
        let stable_wants = (stable / spec.target).ceil();
        let panic_wants = (panic / spec.target).ceil();
        let limited = |wants: f64| {
            let clamped = whole(wants.max(down).min(up));
            // After the rate limits, so that they do not limit it.
            if spec.activation_scale.0 > 1 && wants > 0.0 {
                clamped.max(spec.activation_scale)
            } else {
                clamped
            }
        };
        let (by_stable, by_panic) = (limited(stable_wants), limited(panic_wants));

        if panic_wants / base >= spec.panic_threshold {
            self.panic_since = Some(now);
        } else if self
            .panic_since
            .is_some_and(|since| since.plus(spec.stable_window) < now)
        {
            self.panic_since = None;
            self.max_panic = Replicas(0);
        }
        let undelayed = if self.panic_since.is_some() {
            by_stable.max(by_panic)
        } else {
            by_stable
        };
        let mut desired = undelayed;
        if self.panic_since.is_some() {
            self.max_panic = self.max_panic.max(desired);
            desired = self.max_panic;
        }
        if spec.reachable
            && let Some(delay) = &mut self.delay
        {
            desired = delay.record(now, desired);
        }
        Some(Decision {
            desired,
            excess_burst_capacity: self.excess_burst_capacity(ready, panic),
            panicking: self.panic_since.is_some(),
            stable_wants,
            panic_wants,
            rate_limits: (down, up),
            undelayed,
        })
    }

    /// Whether the decider remembers anything that time alone will change.
    pub fn is_settled(&self, now: Timestamp) -> bool {
        self.panic_since.is_none() && self.delay.as_ref().is_none_or(|delay| delay.is_settled(now))
    }

    /// Room for a burst: total capacity of the ready replicas, less the burst to be ready for, less the load.
    fn excess_burst_capacity(&self, ready: Replicas, panic: f64) -> i32 {
        match self.spec.target_burst_capacity {
            Some(0.0) => 0,
            Some(burst) if burst > 0.0 => whole_signed((f64::from(ready.0) * self.spec.total - burst - panic).floor()),
            _ => -1,
        }
    }
}

/// The largest value recorded within a sliding window of two-second buckets.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct MaxWindow {
    buckets: u64,
    /// (bucket, value), values falling: an entry that a later one reaches can never be the largest again.
    falling: VecDeque<(u64, Replicas)>,
}

impl MaxWindow {
    fn new(window: Duration) -> Self {
        Self {
            buckets: window
                .as_millis()
                .div_ceil(TICK.as_millis())
                .try_into()
                .unwrap_or(u64::MAX),
            falling: VecDeque::new(),
        }
    }

    fn record(&mut self, now: Timestamp, value: Replicas) -> Replicas {
        let bucket = now.as_secs() / TICK.as_secs();
        while self.falling.back().is_some_and(|(_, smaller)| *smaller <= value) {
            self.falling.pop_back();
        }
        self.falling.push_back((bucket, value));
        while self
            .falling
            .front()
            .is_some_and(|(old, _)| old + self.buckets <= bucket)
        {
            self.falling.pop_front();
        }
        self.falling.front().map_or(value, |(_, largest)| *largest)
    }

    fn is_settled(&self, now: Timestamp) -> bool {
        let bucket = now.as_secs() / TICK.as_secs();
        self.falling
            .iter()
            .all(|(old, value)| *value == Replicas(0) || old + self.buckets <= bucket)
    }
}

/// The time between two evaluations of a revision; Knative's `tickInterval`.
pub const TICK: Duration = Duration::from_secs(2);

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "out of range saturates"
)]
fn whole(value: f64) -> Replicas {
    Replicas(value as u32)
}

#[expect(clippy::cast_possible_truncation, reason = "out of range saturates")]
fn whole_signed(value: f64) -> i32 {
    value as i32
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn spec(json: &Value) -> DeciderSpec {
        let number = |key: &str| json[key].as_f64().unwrap();
        DeciderSpec {
            target: number("targetValue"),
            total: number("totalValue"),
            target_burst_capacity: Some(number("targetBurstCapacity")).filter(|burst| *burst >= 0.0),
            panic_threshold: number("panicThreshold"),
            max_scale_up_rate: number("maxScaleUpRate"),
            max_scale_down_rate: number("maxScaleDownRate"),
            stable_window: Duration::from_millis(json["stableWindow_ms"].as_u64().unwrap()),
            activation_scale: Replicas(replicas(&json["activationScale"])),
            reachable: json["reachable"].as_bool().unwrap(),
        }
    }

    fn replicas(json: &Value) -> u32 {
        u32::try_from(json.as_i64().unwrap().max(0)).unwrap()
    }

    #[test]
    fn equals_every_tick_of_knative() {
        let (mut cases, mut ticks) = (0, 0);
        for line in include_str!("../tests/vectors/kpa_decider.jsonl").lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let id = case["id"].as_str().unwrap();
            let delay = Duration::from_millis(case["spec"]["scaleDownDelay_ms"].as_u64().unwrap());
            let ready = case["initial_ready"]
                .as_u64()
                .filter(|_| case["initial_ready_error"] != true)
                .unwrap_or(0);
            let created = Timestamp::from_millis(case["created_ms"].as_u64().unwrap());
            let ready = Replicas(u32::try_from(ready).unwrap());
            let mut decider = Decider::new(spec(&case["spec"]), delay, ready, created);
            assert_eq!(
                decider.panic_since.is_some(),
                case["initial_panic"].as_bool().unwrap(),
                "{id}"
            );
            for (n, tick) in case["ticks"].as_array().unwrap().iter().enumerate() {
                if tick["update"].is_object() {
                    decider.update(spec(&tick["update"]));
                }
                let failed = !tick["metric_error"].is_null() || tick["ready_error"] == "other";
                let observed = (!failed).then(|| Observed {
                    stable: tick["stable"].as_f64().unwrap(),
                    panic: tick["panic"].as_f64().unwrap(),
                });
                let ready = Replicas(if tick["ready"].is_null() {
                    0
                } else {
                    replicas(&tick["ready"])
                });
                let ready = if tick["ready_error"].is_null() {
                    ready
                } else {
                    Replicas(0)
                };
                let got = decider.tick(
                    Timestamp::from_millis(tick["now_ms"].as_u64().unwrap()),
                    observed,
                    ready,
                );
                let want = &tick["want"];
                let at = format!("{id} tick {n}");
                assert_eq!(got.is_some(), want["valid"].as_bool().unwrap(), "{at}: valid");
                assert_eq!(
                    got.map_or(0, |d| d.desired.0),
                    replicas(&want["desired"]),
                    "{at}: desired"
                );
                let ebc = got.map_or(0, |d| d.excess_burst_capacity);
                assert_eq!(i64::from(ebc), want["ebc"].as_i64().unwrap(), "{at}: ebc");
                assert_eq!(
                    decider.panic_since.is_some(),
                    want["panic"].as_bool().unwrap(),
                    "{at}: panic"
                );
                assert_eq!(
                    decider.panic_since.map(Timestamp::as_millis),
                    want["panic_ms"].as_u64(),
                    "{at}: panic time"
                );
                assert_eq!(
                    decider.max_panic.0,
                    replicas(&want["max_panic_pods"]),
                    "{at}: max panic pods"
                );
                ticks += 1;
            }
            cases += 1;
        }
        assert_eq!((cases, ticks), (270, 10_777));
    }
}
