//! `config-autoscaler`: the cluster's numbers of the autoscaler (Knative: `autoscalerconfig.Config`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::{ConfigError, Keys, flag};
use crate::golang::{parse_duration_nanos, parse_float, parse_int};

/// The numbers of `config-autoscaler`, which annotations override per revision.
#[derive(Clone, PartialEq, Debug)]
pub struct AutoscalerConfig {
    /// `container-concurrency-target-percentage` / 100; more than 0, at most 1; 0.7.
    pub target_fraction: f64,
    /// `container-concurrency-target-default`: requests in flight per replica; 100.
    pub concurrency_target: f64,
    /// `requests-per-second-target-default`; at least 0.01; 200.
    pub rps_target: f64,
    /// `target-burst-capacity`: requests; at least 0, or -1 for no limit; 211.
    pub target_burst_capacity: f64,
    /// `stable-window`: 6 s to 1 h in whole seconds; 60 s.
    pub stable_window: Duration,
    /// `panic-window-percentage` of the stable window; 1 to 100; 10.
    pub panic_window_percentage: f64,
    /// `panic-threshold-percentage`; 200.
    pub panic_threshold_percentage: f64,
    /// `max-scale-up-rate`: factor per decision; more than 1; 1000.
    pub max_scale_up_rate: f64,
    /// `max-scale-down-rate`: factor per decision; more than 1; 2.
    pub max_scale_down_rate: f64,
    /// `enable-scale-to-zero`; true.
    pub scale_to_zero: bool,
    /// `scale-to-zero-grace-period`; more than 0; 30 s.
    pub scale_to_zero_grace: Duration,
    /// `scale-to-zero-pod-retention-period`; 0 s.
    pub retention: Duration,
    /// `pod-autoscaler-class`; `kpa.autoscaling.knative.dev`.
    pub class: String,
    /// `activator-capacity`: requests; at least 1; 100.
    pub activator_capacity: f64,
    /// `initial-scale`: replicas; at least 1, or 0 where allowed; 1.
    pub initial_scale: u32,
    /// `allow-zero-initial-scale`; false.
    pub allow_zero_initial_scale: bool,
    /// `min-scale`: replicas; 0.
    pub min_scale: u32,
    /// `max-scale`: replicas; 0 is no limit; 0.
    pub max_scale: u32,
    /// `max-scale-limit`: the most `max-scale` may be; 0 is no limit; 0.
    pub max_scale_limit: u32,
    /// `scale-down-delay`: whole seconds; 0 s.
    pub scale_down_delay: Duration,
}

/// The class that Knarr implements.
pub const KPA: &str = "kpa.autoscaling.knative.dev";
/// Knative's other class: Kubernetes' HorizontalPodAutoscaler.
pub const HPA: &str = "hpa.autoscaling.knative.dev";
/// The shortest stable window.
pub const WINDOW_MIN: Duration = Duration::from_secs(6);
/// The longest stable window, and the longest delay and retention.
pub const WINDOW_MAX: Duration = Duration::from_secs(3600);
/// The least target per replica.
pub const TARGET_MIN: f64 = 0.01;

impl Default for AutoscalerConfig {
    fn default() -> Self {
        Self::read(&mut Keys::new(&BTreeMap::new()))
    }
}

impl AutoscalerConfig {
    /// From the ConfigMap's `data`.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut keys = Keys::new(data);
        let config = Self::read(&mut keys);
        config.check(&mut keys);
        keys.finish(config)
    }

    fn read(keys: &mut Keys<'_>) -> Self {
        let mut percentage = keys.value("container-concurrency-target-percentage", "", 0.7, float);
        // For reasons of age a value up to 1 is a fraction already.
        if percentage > 1.0 {
            percentage /= 100.0;
        }
        Self {
            target_fraction: percentage,
            concurrency_target: keys.value("container-concurrency-target-default", "", 100.0, float),
            rps_target: keys.value("requests-per-second-target-default", "", 200.0, float),
            target_burst_capacity: keys.value("target-burst-capacity", "", 211.0, float),
            stable_window: keys.value("stable-window", "", Duration::from_secs(60), duration),
            panic_window_percentage: keys.value("panic-window-percentage", "", 10.0, float),
            panic_threshold_percentage: keys.value("panic-threshold-percentage", "", 200.0, float),
            max_scale_up_rate: keys.value("max-scale-up-rate", "", 1000.0, float),
            max_scale_down_rate: keys.value("max-scale-down-rate", "", 2.0, float),
            scale_to_zero: keys.value("enable-scale-to-zero", "", true, flag),
            scale_to_zero_grace: keys.value("scale-to-zero-grace-period", "", Duration::from_secs(30), duration),
            retention: keys.value("scale-to-zero-pod-retention-period", "", Duration::ZERO, duration),
            class: keys.text("pod-autoscaler-class", "").unwrap_or(KPA).to_owned(),
            activator_capacity: keys.value("activator-capacity", "", 100.0, float),
            initial_scale: keys.value("initial-scale", "", 1, count),
            allow_zero_initial_scale: keys.value("allow-zero-initial-scale", "", false, flag),
            min_scale: keys.value("min-scale", "", 0, count),
            max_scale: keys.value("max-scale", "", 0, count),
            max_scale_limit: keys.value("max-scale-limit", "", 0, count),
            scale_down_delay: keys.value("scale-down-delay", "", Duration::ZERO, duration),
        }
    }

    fn check(&self, keys: &mut Keys<'_>) {
        let mut wrong = |is_right: bool, key: &str, value: String, range: &str| {
            if !is_right {
                keys.error(key, format!("{value} is out of range"), format!("must be {range}"));
            }
        };
        let whole_seconds = |duration: Duration| duration.subsec_nanos() == 0;
        let window = self.stable_window;
        let window_fits = (WINDOW_MIN..=WINDOW_MAX).contains(&window) && whole_seconds(window);
        wrong(
            window_fits,
            "stable-window",
            format!("{window:?}"),
            "6s to 1h in whole seconds",
        );
        let delay = self.scale_down_delay;
        wrong(
            whole_seconds(delay),
            "scale-down-delay",
            format!("{delay:?}"),
            "in whole seconds",
        );
        let grace = self.scale_to_zero_grace;
        wrong(
            !grace.is_zero(),
            "scale-to-zero-grace-period",
            format!("{grace:?}"),
            "more than 0s",
        );
        let fraction = self.target_fraction;
        let key = "container-concurrency-target-percentage";
        wrong(
            fraction > 0.0 && fraction <= 1.0,
            key,
            fraction.to_string(),
            "more than 0, at most 100",
        );
        let target = self.concurrency_target;
        let key = "container-concurrency-target-default";
        wrong(
            fraction * target >= TARGET_MIN,
            key,
            target.to_string(),
            "at least 0.01 after the target percentage",
        );
        let rps = self.rps_target;
        wrong(
            rps >= TARGET_MIN,
            "requests-per-second-target-default",
            rps.to_string(),
            "at least 0.01",
        );
        let burst = self.target_burst_capacity;
        let burst_fits = burst >= 0.0 || burst.to_bits() == (-1.0f64).to_bits();
        wrong(
            burst_fits,
            "target-burst-capacity",
            burst.to_string(),
            "at least 0, or -1 for no limit",
        );
        let panic = self.panic_window_percentage;
        wrong(
            (1.0..=100.0).contains(&panic),
            "panic-window-percentage",
            panic.to_string(),
            "1 to 100",
        );
        let threshold = self.panic_threshold_percentage;
        wrong(
            threshold.is_finite(),
            "panic-threshold-percentage",
            threshold.to_string(),
            "a number",
        );
        let capacity = self.activator_capacity;
        wrong(
            capacity >= 1.0,
            "activator-capacity",
            capacity.to_string(),
            "at least 1",
        );
        for (key, rate) in [
            ("max-scale-up-rate", self.max_scale_up_rate),
            ("max-scale-down-rate", self.max_scale_down_rate),
        ] {
            wrong(rate > 1.0, key, rate.to_string(), "more than 1");
        }
        let initial = self.initial_scale;
        let initial_fits = initial > 0 || self.allow_zero_initial_scale;
        wrong(
            initial_fits,
            "initial-scale",
            initial.to_string(),
            "at least 1 unless allow-zero-initial-scale is true",
        );
        let (max, limit) = (self.max_scale, self.max_scale_limit);
        let max_fits = limit == 0 || (1..=limit).contains(&max);
        wrong(
            max_fits,
            "max-scale",
            max.to_string(),
            &format!("1 to max-scale-limit, {limit}"),
        );
    }
}

fn float(text: &str) -> Result<f64, String> {
    parse_float(text).map_err(|_| "write a number".to_owned())
}

fn count(text: &str) -> Result<u32, String> {
    let limit = i64::from(i32::MAX);
    let value = parse_int(text).ok().filter(|value| (0..=limit).contains(value));
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| format!("write a whole number from 0 to {limit}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let nanos = parse_duration_nanos(text)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok());
    nanos
        .map(Duration::from_nanos)
        .ok_or_else(|| "write a duration such as 30s or 1m30s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_ranges() {
        let read = |pairs: &[(&str, &str)]| {
            let data = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            AutoscalerConfig::from_data(&data)
        };
        assert_eq!(read(&[]), Ok(AutoscalerConfig::default()));
        for (value, fraction) in [("70", 0.7), ("1", 1.0), ("0.5", 0.5), ("100", 1.0), ("1.5", 0.015)] {
            let config = read(&[("container-concurrency-target-percentage", value)]).unwrap();
            assert_eq!(config.target_fraction.to_bits(), f64::to_bits(fraction), "{value}");
        }
        assert_eq!(
            read(&[("max-scale", "3"), ("max-scale-limit", "5")]).unwrap().max_scale,
            3
        );
        assert_eq!(
            read(&[("initial-scale", "0"), ("allow-zero-initial-scale", "true")])
                .unwrap()
                .initial_scale,
            0
        );
        for (key, value) in [
            ("container-concurrency-target-percentage", "101"),
            ("container-concurrency-target-percentage", "0"),
            ("container-concurrency-target-default", "0.001"),
            ("requests-per-second-target-default", "0"),
            ("target-burst-capacity", "-2"),
            ("stable-window", "5s"),
            ("stable-window", "61m"),
            ("stable-window", "6500ms"),
            ("panic-window-percentage", "0.9"),
            ("panic-window-percentage", "NaN"),
            ("max-scale-up-rate", "1"),
            ("max-scale-down-rate", "1"),
            ("scale-to-zero-grace-period", "0s"),
            ("scale-to-zero-pod-retention-period", "-1s"),
            ("scale-down-delay", "1500ms"),
            ("activator-capacity", "0.5"),
            ("initial-scale", "0"),
            ("min-scale", "-1"),
            ("max-scale", "2147483648"),
            ("enable-scale-to-zero", "maybe"),
            ("stable-windw", "60s"),
        ] {
            let errors = read(&[(key, value)]).unwrap_err();
            let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
            assert!(keys.contains(&key), "{key}: {value}: {errors:?}");
        }
        assert!(
            read(&[("max-scale-limit", "5")]).is_err(),
            "max-scale must be given with a limit"
        );
    }
}
