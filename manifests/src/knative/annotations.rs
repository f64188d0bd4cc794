//! Annotations of Knative's own (Knative: `autoscaling.ValidateAnnotations` and the annotations of `serving`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::field_error::{FieldErrors, generic, invalid, invalid_key, out_of_bounds};
use super::go;
use crate::annotations::{self as table, Annotation};
use crate::config::{AutoscalerConfig, HPA, KPA, TARGET_MIN, WINDOW_MAX, WINDOW_MIN};
use crate::golang::{parse_duration_nanos, parse_float, parse_int};
use crate::resources::Quantity;

type Annotations = BTreeMap<String, String>;

const NANOS: i64 = 1_000_000_000;

/// The autoscaling annotations of a template or revision.
pub(super) fn autoscaling(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let checks = [
        class(annotations),
        scale_bounds(annotations, config),
        floats(annotations),
        durations(annotations),
        metric(annotations, config),
        algorithm(annotations),
        initial_scale(annotations, config),
    ];
    checks.into_iter().fold(FieldErrors::none(), FieldErrors::also)
}

/// They have no effect on the object around a template, so they must not stand there.
pub(super) fn no_autoscaling(annotations: &Annotations) -> FieldErrors {
    let hint = "autoscaling annotations must be put under \"spec.template.metadata.annotations\" to work";
    let mut errors = FieldErrors::none();
    for key in annotations
        .keys()
        .filter(|key| key.starts_with("autoscaling.knative.dev"))
    {
        errors.add(invalid_key(key, "", &[hint.to_owned()]));
    }
    errors
}

/// The rollout of a Service or Route.
pub(super) fn rollout_duration(annotations: &Annotations) -> FieldErrors {
    positive_seconds(annotations, &table::ROLLOUT_DURATION, "rollout-duration")
}

/// How long a revision may take to become ready.
pub(super) fn progress_deadline(annotations: &Annotations) -> FieldErrors {
    positive_seconds(annotations, &table::PROGRESS_DEADLINE, "progress-deadline")
}

/// Quantities for queue-proxy. The errors' keys stand in brackets: Knative's own form.
pub(super) fn queue_sidecar(annotations: &Annotations) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for known in [
        &table::QP_CPU_REQUEST,
        &table::QP_CPU_LIMIT,
        &table::QP_MEMORY_REQUEST,
        &table::QP_MEMORY_LIMIT,
        &table::QP_STORAGE_REQUEST,
        &table::QP_STORAGE_LIMIT,
    ] {
        if let Some((key, value)) = known.of(annotations)
            && value.parse::<Quantity>().is_err()
        {
            errors.add(invalid(value, "").via_key(key));
        }
    }
    if let Some((key, value)) = table::QP_PERCENTAGE.of(annotations) {
        let message = "Queue proxy resource percentage annotation is deprecated. Please use the available annotations to \
                       explicitly set resource values per service";
        errors.add(generic(message, Vec::<&str>::new()).into_warnings());
        match parse_float(value) {
            Err(_) => errors.add(invalid(value, "").via_key(key)),
            Ok(percentage) if is_outside(percentage, 0.1, 100.0) => {
                errors.add(out_of_bounds(go::float(percentage), "0.1", 100, "").via_key(key));
            }
            Ok(_) => {}
        }
    }
    errors
}

/// Networking annotations that Knative does not know (Knative networking: ValidateAnnotations).
pub(super) fn networking(annotations: &Annotations) -> FieldErrors {
    const PREFIX: &str = "networking.knative.dev";
    const KNOWN: [&str; 9] = [
        "certificate.class",
        "certificate-class",
        "disableAutoTLS",
        "disable-auto-tls",
        "disable-external-domain-tls",
        "httpOption",
        "http-protocol",
        "ingress.class",
        "ingress-class",
    ];
    let mut errors = FieldErrors::none();
    for key in annotations.keys() {
        let name = key.strip_prefix(PREFIX);
        if name.is_some_and(|name| !name.strip_prefix('/').is_some_and(|name| KNOWN.contains(&name))) {
            errors.add(invalid_key(key, "", &[]));
        }
    }
    errors
}

/// A duration in whole seconds; the first thing wrong. Empty is not given.
fn positive_seconds(annotations: &Annotations, known: &Annotation, name: &str) -> FieldErrors {
    let Some((key, value)) = known.of(annotations).filter(|(_, value)| !value.is_empty()) else {
        return FieldErrors::none();
    };
    match parse_duration_nanos(value) {
        Err(_) => invalid(value, key),
        Ok(nanos) if nanos % NANOS != 0 => generic(format!("{name}={value} is not at second precision"), [key]),
        Ok(nanos) if nanos < 0 => generic(format!("{name}={value} must be positive"), [key]),
        Ok(_) => FieldErrors::none(),
    }
}

fn class(annotations: &Annotations) -> FieldErrors {
    match table::CLASS.of(annotations) {
        Some((key, class)) if class.ends_with(".knative.dev") && class != KPA && class != HPA => invalid(class, key),
        _ => FieldErrors::none(),
    }
}

fn scale_bounds(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let (min, mut errors) = count(annotations, &table::MIN_SCALE);
    let (max, wrong_max) = count(annotations, &table::MAX_SCALE);
    errors.add(wrong_max);
    if max != 0 && max < min {
        let paths = [table::MAX_SCALE.key, table::MIN_SCALE.key];
        errors.add(generic(format!("max-scale={max} is less than min-scale={min}"), paths));
    }
    let limit = i64::from(config.max_scale_limit);
    if let Some((key, _)) = table::MAX_SCALE.of(annotations)
        && limit != 0
    {
        if max > limit {
            errors.add(out_of_bounds(max, 1, limit, key));
        }
        if max == 0 {
            errors.add(generic(
                format!("max-scale=0 (unlimited), must be less than {limit}"),
                [key],
            ));
        }
    }
    if let Some((key, value)) = table::ACTIVATION_SCALE.of(annotations) {
        let message = match parse_int(value).ok().filter(|value| i32::try_from(*value).is_ok()) {
            None => return errors.also(invalid(value, key)),
            Some(scale) if min > scale => format!("min-scale={min} is greater than activation-scale={scale}"),
            Some(scale) if max != 0 && max < scale => format!("max-scale={max} is less than activation-scale={scale}"),
            Some(scale) if scale < 2 => format!("activation-scale={scale} must be greater than 1"),
            Some(_) => return errors,
        };
        errors.add(generic(message, [key]));
    }
    errors
}

/// A count of replicas; 0 when not given or wrong.
fn count(annotations: &Annotations, known: &Annotation) -> (i64, FieldErrors) {
    let Some((key, value)) = known.of(annotations) else {
        return (0, FieldErrors::none());
    };
    match parse_int(value) {
        Ok(count) if (0..=i64::from(i32::MAX)).contains(&count) => (count, FieldErrors::none()),
        Err(reason) if !reason.ends_with("out of range") => (0, invalid(value, key)),
        _ => (0, out_of_bounds(value, 0, i32::MAX, key)),
    }
}

fn floats(annotations: &Annotations) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut check = |known: &Annotation, judge: fn(f64, &str, &str) -> FieldErrors| {
        if let Some((key, value)) = known.of(annotations) {
            errors.add(parse_float(value).map_or_else(|_| invalid(value, key), |number| judge(number, value, key)));
        }
    };
    check(&table::PANIC_WINDOW, |number, value, key| {
        bounded(number, value, key, 1, 100)
    });
    check(&table::PANIC_THRESHOLD, |number, value, key| {
        bounded(number, value, key, 110, 1000)
    });
    check(&table::TARGET_UTILIZATION, |number, value, key| {
        bounded(number, value, key, 1, 100)
    });
    check(&table::TARGET, |number, value, key| {
        if number < TARGET_MIN {
            generic(
                format!("target {value} should be at least {}", go::float(TARGET_MIN)),
                [key],
            )
        } else {
            FieldErrors::none()
        }
    });
    check(&table::TARGET_BURST_CAPACITY, |number, value, key| {
        let is_unlimited = number.to_bits() == (-1.0f64).to_bits();
        if number < 0.0 && !is_unlimited {
            invalid(value, key)
        } else {
            FieldErrors::none()
        }
    });
    errors
}

fn bounded(number: f64, value: &str, key: &str, low: u16, high: u16) -> FieldErrors {
    if is_outside(number, f64::from(low), f64::from(high)) {
        return out_of_bounds(value, low, high, key);
    }
    FieldErrors::none()
}

/// NaN is never outside, as in Go.
fn is_outside(number: f64, low: f64, high: f64) -> bool {
    number < low || number > high
}

fn durations(annotations: &Annotations) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut check = |known: &Annotation, low: Duration, whole_seconds: bool, always_today: bool| {
        let Some((written, value)) = known.of(annotations) else {
            return;
        };
        let key = if always_today { known.key } else { written };
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        errors.add(match parse_duration_nanos(value) {
            Err(_) => invalid(value, key),
            Ok(given) if given < nanos(low) || given > nanos(WINDOW_MAX) => {
                out_of_bounds(value, go::duration(low), go::duration(WINDOW_MAX), key)
            }
            Ok(given) if whole_seconds && given % NANOS != 0 => {
                generic("must be specified with at most second precision", [key])
            }
            Ok(_) => FieldErrors::none(),
        });
    };
    check(&table::WINDOW, WINDOW_MIN, true, true);
    check(&table::RETENTION, Duration::ZERO, false, false);
    check(&table::SCALE_DOWN_DELAY, Duration::ZERO, true, false);
    errors
}

fn metric(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let Some(metric) = table::METRIC.value(annotations) else {
        return FieldErrors::none();
    };
    let class = table::CLASS.value(annotations).unwrap_or(&config.class);
    let is_right = match class {
        KPA => matches!(metric, "concurrency" | "rps"),
        HPA => !metric.is_empty(),
        _ => true,
    };
    if is_right {
        FieldErrors::none()
    } else {
        invalid(metric, table::METRIC.key)
    }
}

/// Only where the class is written out: other autoscalers have algorithms of their own.
fn algorithm(annotations: &Annotations) -> FieldErrors {
    match table::AGGREGATION.of(annotations) {
        Some((key, algorithm)) if table::CLASS.value(annotations) == Some(KPA) => match algorithm {
            "" | "linear" | "weightedExponential" | "weighted-exponential" => FieldErrors::none(),
            _ => invalid(algorithm, key),
        },
        _ => FieldErrors::none(),
    }
}

/// Knative puts the reason into the path.
fn initial_scale(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let Some((key, value)) = table::INITIAL_SCALE.of(annotations) else {
        return FieldErrors::none();
    };
    match parse_int(value) {
        Err(_) => invalid(value, key),
        Ok(scale) if scale < 0 => invalid(value, &format!("{key} must be greater than 0")),
        Ok(0) if !config.allow_zero_initial_scale => invalid(value, &format!("{key}=0 not allowed by cluster")),
        Ok(_) => FieldErrors::none(),
    }
}
