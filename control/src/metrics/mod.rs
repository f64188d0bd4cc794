//! The metrics recorder of the process, and what the status document reads back from it.

mod registry;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub(crate) use self::registry::Registry;
use self::registry::{Distribution, label};
use crate::status::{ColdStarts, Latency, Requests};

/// Installs the recorder; the one that is there, when there is one (several servers in one test process).
pub(crate) fn install() -> Arc<Registry> {
    static INSTALLED: OnceLock<Arc<Registry>> = OnceLock::new();
    let registry = INSTALLED.get_or_init(|| {
        let registry = Arc::new(Registry::new(gateway::metrics::BUCKETS));
        if metrics::set_global_recorder(Arc::clone(&registry)).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics will be empty");
        }
        gateway::metrics::describe();
        registry
    });
    Arc::clone(registry)
}

/// What the status document says of one revision's requests.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(crate) struct Totals {
    /// Answered requests.
    pub(crate) requests: Requests,
    /// Their latency.
    pub(crate) latency: Latency,
    /// Cold starts.
    pub(crate) cold_starts: ColdStarts,
}

/// Totals by (namespace, revision).
pub(crate) fn totals(registry: &Registry) -> BTreeMap<(String, String), Totals> {
    let mut all: BTreeMap<(String, String), Totals> = BTreeMap::new();
    registry.counters("knarr_requests_total", |labels, count| {
        let (Some(key), Some(code)) = (revision(labels), label(labels, "code")) else {
            return;
        };
        let requests = &mut all.entry(key).or_default().requests;
        let class = match code {
            "1xx" => &mut requests.informational,
            "2xx" => &mut requests.success,
            "3xx" => &mut requests.redirection,
            "4xx" => &mut requests.client_error,
            "5xx" => &mut requests.server_error,
            _ => return,
        };
        *class += count;
        requests.total += count;
    });
    registry.histograms("knarr_request_duration_seconds", |labels, took| {
        let Some(key) = revision(labels) else { return };
        all.entry(key).or_default().latency = Latency {
            count: took.count(),
            mean_ms: mean(took) * 1e3,
            p50_ms: quantile(took, 0.5) * 1e3,
            p99_ms: quantile(took, 0.99) * 1e3,
        };
    });
    registry.histograms("knarr_cold_start_seconds", |labels, took| {
        let Some(key) = revision(labels).filter(|_| label(labels, "phase") == Some("total")) else {
            return;
        };
        all.entry(key).or_default().cold_starts = ColdStarts {
            count: took.count(),
            mean_ms: mean(took) * 1e3,
            p50_ms: quantile(took, 0.5) * 1e3,
            p99_ms: quantile(took, 0.99) * 1e3,
        };
    });
    all
}

fn revision(labels: &str) -> Option<(String, String)> {
    Some((
        label(labels, "namespace")?.to_owned(),
        label(labels, "revision")?.to_owned(),
    ))
}

#[expect(clippy::cast_precision_loss, reason = "a mean of 2^53 requests needs no last digit")]
fn mean(of: &Distribution) -> f64 {
    match of.count() {
        0 => 0.0,
        count => of.sum / count as f64,
    }
}

/// As Prometheus' `histogram_quantile`: linear within the bucket; the highest finite bound beyond it.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rank among 2^53 requests needs no last digit"
)]
fn quantile(of: &Distribution, quantile: f64) -> f64 {
    let rank = quantile * of.count() as f64;
    let mut below = (0.0, 0.0);
    for &(bound, cumulative) in &of.cumulative {
        let cumulative = cumulative as f64;
        if cumulative >= rank && cumulative > below.1 {
            if bound.is_infinite() {
                return below.0;
            }
            return below.0 + (bound - below.0) * (rank - below.1) / (cumulative - below.1);
        }
        below = (if bound.is_finite() { bound } else { below.0 }, cumulative);
    }
    0.0
}

#[cfg(test)]
mod tests {
    use metrics::{Key, Label, Level, Metadata, Recorder as _};

    use super::*;

    const ANY: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    fn of(name: &'static str, label: &'static str, value: &'static str) -> Key {
        let labels = [("namespace", "default"), ("revision", "a-00001"), (label, value)];
        Key::from_parts(name, labels.map(|(key, value)| Label::new(key, value)).to_vec())
    }

    #[test]
    fn reads_counts_and_quantiles_back() {
        let registry = Registry::new(&[0.1, 0.2]);
        for (code, count) in [("2xx", 7), ("5xx", 1), ("0xx", 9)] {
            registry
                .register_counter(&of("knarr_requests_total", "code", code), &ANY)
                .increment(count);
        }
        let duration = registry.register_histogram(&of("knarr_request_duration_seconds", "x", "y"), &ANY);
        for _ in 0..5 {
            duration.record(0.1);
            duration.record(0.2);
        }
        let cold = |phase| registry.register_histogram(&of("knarr_cold_start_seconds", "phase", phase), &ANY);
        cold("app").record(0.15);
        cold("total").record(9.0);
        cold("total").record(0.05);
        let totals = totals(&registry)[&("default".to_owned(), "a-00001".to_owned())];
        let requests = totals.requests;
        assert_eq!((requests.total, requests.success, requests.server_error), (8, 7, 1));
        let latency = totals.latency;
        assert_eq!((latency.count, latency.p50_ms), (10, 100.0));
        assert!((latency.mean_ms - 150.0).abs() < 1e-9, "{}", latency.mean_ms);
        assert!((latency.p99_ms - 198.0).abs() < 1e-9, "{}", latency.p99_ms);
        assert_eq!(totals.cold_starts.count, 2);
        assert_eq!(totals.cold_starts.p99_ms, 200.0, "beyond the last bound");
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(totals(&Registry::new(&[1.0])).is_empty());
        assert_eq!(quantile(&Distribution::default(), 0.5), 0.0);
    }
}
