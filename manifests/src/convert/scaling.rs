//! The autoscaling annotations over `config-autoscaler`: every number the decider and the scaler need (Knative:
//! ResolveMetricTarget, ScaleBounds, and the deciders' spec).

use std::time::Duration;

use super::{Fault, Faults};
use crate::annotations::{self as table, Annotation};
use crate::config::{AutoscalerConfig, TARGET_MIN};
use crate::domains::StringMap;
use crate::golang;
use crate::revision::{Aggregation, Metric, Scaling};
use crate::units::{Concurrency, Replicas, Rps};
use crate::workload::Workload;

/// The share of a target that is aimed at, where no annotation says otherwise; for rps it cannot be configured.
const RPS_UTILIZATION: f64 = 0.7;
/// `progress-deadline` of Knative's `config-deployment`.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

/// `None` after a fault.
pub(super) fn scaling(
    annotations: &StringMap,
    container_concurrency: u32,
    config: &AutoscalerConfig,
    faults: &mut Faults,
) -> Option<Scaling> {
    let before = faults.0.len();
    let mut read = Reader { annotations, faults };

    let metric = read.metric(container_concurrency, config);
    let stable_window = read.duration(&table::WINDOW).unwrap_or(config.stable_window);
    let panic_percentage = read
        .float(&table::PANIC_WINDOW)
        .unwrap_or(config.panic_window_percentage);
    let panic_threshold = read
        .float(&table::PANIC_THRESHOLD)
        .unwrap_or(config.panic_threshold_percentage)
        / 100.0;
    let burst = read
        .float(&table::TARGET_BURST_CAPACITY)
        .unwrap_or(config.target_burst_capacity);
    let max_scale = read.replicas(&table::MAX_SCALE).unwrap_or(Replicas(config.max_scale));

    let scaling = Scaling {
        metric,
        aggregation: read.aggregation(),
        stable_window,
        panic_window: panic_window(stable_window, panic_percentage),
        panic_threshold,
        max_scale_up_rate: config.max_scale_up_rate,
        max_scale_down_rate: config.max_scale_down_rate,
        // Validation leaves -1 as the only negative value.
        target_burst_capacity: (burst >= 0.0).then_some(burst),
        activator_capacity: config.activator_capacity,
        min_scale: read.replicas(&table::MIN_SCALE).unwrap_or(Replicas(config.min_scale)),
        max_scale: (max_scale.0 > 0).then_some(max_scale),
        initial_scale: read
            .replicas(&table::INITIAL_SCALE)
            .unwrap_or(Replicas(config.initial_scale)),
        activation_scale: read.replicas(&table::ACTIVATION_SCALE).unwrap_or(Replicas(1)),
        scale_down_delay: read
            .duration(&table::SCALE_DOWN_DELAY)
            .unwrap_or(config.scale_down_delay),
        scale_to_zero: config.scale_to_zero,
        scale_to_zero_grace: config.scale_to_zero_grace,
        retention: read.duration(&table::RETENTION).unwrap_or(config.retention),
        progress_deadline: read.duration(&table::PROGRESS_DEADLINE).unwrap_or(PROGRESS_DEADLINE),
    };
    (faults.0.len() == before).then_some(scaling)
}

/// What nobody can share is had by one sandbox at a time: max-scale is 1, and nothing may ask for more.
pub(super) fn one_at_a_time(
    workload: &Workload,
    scaling: Scaling,
    annotations: &StringMap,
    faults: &mut Faults,
) -> Option<Scaling> {
    let Some(claim) = workload.exclusive_claims().next() else {
        return Some(scaling);
    };
    let asked = [
        (&table::MIN_SCALE, Some(scaling.min_scale)),
        (&table::MAX_SCALE, scaling.max_scale),
        (&table::INITIAL_SCALE, Some(scaling.initial_scale)),
        (&table::ACTIVATION_SCALE, Some(scaling.activation_scale)),
    ];
    for (annotation, replicas) in asked {
        if let (Some((key, _)), Some(Replicas(2..))) = (annotation.of(annotations), replicas) {
            let message = format!("is more than 1 with PersistentVolumeClaim {claim}, which one sandbox may have");
            let path = format!("metadata.annotations.{key}");
            let hint = "write accessModes: [ReadWriteMany] in the claim if the app can share it";
            faults.push(Fault::new(path, message, hint));
            return None;
        }
    }
    let one = |replicas: Replicas| Replicas(replicas.0.min(1));
    Some(Scaling {
        max_scale: Some(Replicas(1)),
        min_scale: one(scaling.min_scale),
        initial_scale: one(scaling.initial_scale),
        activation_scale: one(scaling.activation_scale),
        ..scaling
    })
}

/// A share of the stable window, rounded to whole seconds, at least one.
fn panic_window(stable: Duration, percentage: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 % to 100 % of at most an hour"
    )]
    let seconds = (stable.as_secs_f64() * percentage / 100.0).round() as u64;
    Duration::from_secs(seconds.max(1))
}

struct Reader<'a> {
    annotations: &'a StringMap,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    fn metric(&mut self, container_concurrency: u32, config: &AutoscalerConfig) -> Metric {
        let is_rps = match table::METRIC.of(self.annotations) {
            None | Some((_, "concurrency")) => false,
            Some((_, "rps")) => true,
            Some((key, value)) => self.fault(key, value, "concurrency and rps are").unwrap_or(false),
        };
        let limit = f64::from(container_concurrency);
        let (default, utilization) = match (is_rps, container_concurrency) {
            (true, _) => (config.rps_target, RPS_UTILIZATION),
            (false, 0) => (config.concurrency_target, config.target_fraction),
            (false, _) => (limit, config.target_fraction),
        };
        let total = match self.float(&table::TARGET) {
            None => default,
            // A replica never takes more than its containerConcurrency, whatever the target.
            Some(target) if !is_rps && container_concurrency > 0 => target.min(limit),
            Some(target) => target,
        };
        let utilization = self
            .float(&table::TARGET_UTILIZATION)
            .map_or(utilization, |percent| percent / 100.0);
        let target = (total * utilization).max(TARGET_MIN);
        if is_rps {
            Metric::Rps {
                target: Rps(target),
                total: Rps(total),
            }
        } else {
            Metric::Concurrency {
                target: Concurrency(target),
                total: Concurrency(total),
            }
        }
    }

    fn aggregation(&mut self) -> Aggregation {
        match table::AGGREGATION.of(self.annotations) {
            None | Some((_, "linear")) => Aggregation::Linear,
            Some((_, "weighted-exponential" | "weightedExponential")) => Aggregation::WeightedExponential,
            Some((key, value)) => self
                .fault(key, value, "linear and weighted-exponential are")
                .unwrap_or_default(),
        }
    }

    /// Knative lets NaN and infinity pass; nothing could be decided by them.
    fn float(&mut self, annotation: &Annotation) -> Option<f64> {
        let (key, text) = annotation.of(self.annotations)?;
        match golang::parse_float(text) {
            Ok(value) if value.is_finite() => Some(value),
            _ => self.fault(key, text, "must be a finite number"),
        }
    }

    fn replicas(&mut self, annotation: &Annotation) -> Option<Replicas> {
        let (key, text) = annotation.of(self.annotations)?;
        match golang::parse_int(text).ok().and_then(|value| u32::try_from(value).ok()) {
            Some(value) => Some(Replicas(value)),
            None => self.fault(key, text, "must be a whole number, 0 or more"),
        }
    }

    fn duration(&mut self, annotation: &Annotation) -> Option<Duration> {
        let (key, text) = annotation.of(self.annotations)?;
        match golang::parse_duration(text) {
            Ok(value) => Some(value),
            Err(_) => self.fault(key, text, "must be a duration such as 60s"),
        }
    }

    fn fault<T>(&mut self, key: &str, value: &str, hint: &str) -> Option<T> {
        let path = format!("metadata.annotations.{key}");
        self.faults
            .push(Fault::new(path, format!("invalid value: {value}"), hint));
        None
    }
}
