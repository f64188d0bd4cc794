//! The metrics recorder of the process, and what the status document reads back from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use autoscaler::cost::{Account, Ledger};
use manifests::units::Bytes;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sandbox::driver::Capacity;
use tokio_util::sync::CancellationToken;

use crate::status::{ColdStarts, Egress, Latency, Requests};

/// Installs the recorder; the one that is there, when there is one (several servers in one test process).
pub(crate) fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let mut builder = PrometheusBuilder::new();
            let buckets = gateway::metrics::BUCKETS;
            if let Ok(with_buckets) =
                PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), buckets)
            {
                builder = with_buckets;
            }
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed; /metrics will be empty");
            }
            gateway::metrics::describe();
            sandbox::egress::describe();
            sandbox::describe_pool();
            handle
        })
        .clone()
}

/// `knarr_memory_budget_bytes` and `knarr_memory_used_bytes`, as they are when somebody asks.
pub(crate) fn memory(capacity: &Capacity) {
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
    let bytes = |bytes: Bytes| bytes.0 as f64;
    ::metrics::gauge!("knarr_memory_budget_bytes").set(bytes(capacity.budget));
    ::metrics::gauge!("knarr_memory_used_bytes").set(bytes(capacity.used));
}

/// Money of an account.
type Figure = fn(&Account) -> f64;

/// `knarr_cost_today` and its siblings, as they are when somebody asks, in Prometheus' words. Not by the recorder: that never
/// forgets a revision, and the costs of one that is gone are nobody's.
pub(crate) fn costs(ledger: &Ledger) -> String {
    let mut text = String::new();
    let each: [(&str, Figure); 6] = [
        ("knarr_cost_per_hour", |it| it.rates.price * 3600.0),
        ("knarr_cost_today", |it| it.today.actual),
        ("knarr_cost_today_idle", |it| it.today.idle),
        ("knarr_cost_today_knative_default", |it| it.today.knative),
        ("knarr_cost_today_always_on", |it| it.today.always_on),
        ("knarr_cost_today_min_scale", |it| it.today.min_scale),
    ];
    for (name, money) in each {
        let _ = writeln!(text, "# TYPE {name} gauge");
        // Names of revisions and namespaces need no escapes.
        for (revision, account) in &ledger.accounts {
            let (namespace, revision) = (revision.namespace(), revision.name());
            let money = money(account);
            let _ = writeln!(
                text,
                "{name}{{namespace=\"{namespace}\",revision=\"{revision}\"}} {money}"
            );
        }
        text.push('\n');
    }
    let total = ledger.total();
    for (name, money) in [
        ("knarr_cost_total_today", total.actual),
        ("knarr_cost_total_today_knative_default", total.knative),
        ("knarr_cost_total_today_always_on", total.always_on),
    ] {
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {money}\n");
    }
    text
}

/// Sums up what was recorded, once a second: the exporter keeps every single value of a histogram until somebody asks, and
/// perhaps nobody does.
pub(crate) async fn sum_up(recorded: PrometheusHandle, stop: CancellationToken) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(second.tick()).await.is_some() {
        recorded.run_upkeep();
    }
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
    /// What its sandboxes did outside.
    pub(crate) egress: Egress,
}

/// Totals by (namespace, revision), read from the text that `/metrics` serves: one source for both.
pub(crate) fn totals(text: &str) -> BTreeMap<(String, String), Totals> {
    let mut all: BTreeMap<(String, String), Totals> = BTreeMap::new();
    let mut histograms: BTreeMap<(&'static str, String, String), Buckets> = BTreeMap::new();
    for sample in text.lines().filter_map(Sample::parse) {
        let (Some(namespace), Some(revision)) = (sample.label("namespace"), sample.label("revision")) else {
            continue;
        };
        let key = (namespace.to_owned(), revision.to_owned());
        match sample.name {
            "knarr_requests_total" => {
                let requests = &mut all.entry(key).or_default().requests;
                let count = whole(sample.value);
                match sample.label("code") {
                    Some("1xx") => requests.informational += count,
                    Some("2xx") => requests.success += count,
                    Some("3xx") => requests.redirection += count,
                    Some("4xx") => requests.client_error += count,
                    Some("5xx") => requests.server_error += count,
                    _ => continue,
                }
                requests.total += count;
            }
            "knarr_egress_connections_total" => {
                let egress = &mut all.entry(key).or_default().egress;
                let count = whole(sample.value);
                match sample.label("result") {
                    Some("connected") => egress.connected += count,
                    Some("service") => egress.to_services += count,
                    Some("denied") => egress.denied += count,
                    Some("failed") => egress.failed += count,
                    Some("limited") => egress.limited += count,
                    _ => {}
                }
            }
            "knarr_egress_bytes_total" => {
                let egress = &mut all.entry(key).or_default().egress;
                match sample.label("direction") {
                    Some("out") => egress.bytes_out += whole(sample.value),
                    Some("in") => egress.bytes_in += whole(sample.value),
                    _ => {}
                }
            }
            "knarr_egress_connections_open" => all.entry(key).or_default().egress.open += whole(sample.value),
            name => {
                let family = ["knarr_request_duration_seconds", "knarr_cold_start_seconds"];
                let Some(family) = family.into_iter().find(|family| name.starts_with(family)) else {
                    continue;
                };
                if sample.label("phase").is_some_and(|phase| phase != "total") {
                    continue;
                }
                let buckets = histograms.entry((family, key.0, key.1)).or_default();
                match &name[family.len()..] {
                    "_bucket" => {
                        if let Some(bound) = sample.label("le").and_then(|bound| bound.parse().ok()) {
                            buckets.cumulative.push((bound, sample.value));
                        }
                    }
                    "_sum" => buckets.sum = sample.value,
                    "_count" => buckets.count = sample.value,
                    _ => {}
                }
            }
        }
    }
    for ((family, namespace, revision), buckets) in histograms {
        let totals = all.entry((namespace, revision)).or_default();
        let (count, mean_ms) = (whole(buckets.count), buckets.mean() * 1e3);
        let (p50_ms, p99_ms) = (buckets.quantile(0.5) * 1e3, buckets.quantile(0.99) * 1e3);
        if family == "knarr_request_duration_seconds" {
            totals.latency = Latency {
                count,
                mean_ms,
                p50_ms,
                p99_ms,
            };
        } else {
            totals.cold_starts = ColdStarts {
                count,
                mean_ms,
                p50_ms,
                p99_ms,
            };
        }
    }
    all
}

/// One line of Prometheus' text format.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(Self {
            name,
            labels,
            value: value.parse().ok()?,
        })
    }

    /// Our label values are names and numbers: no quotes or commas in them.
    fn label(&self, name: &str) -> Option<&'a str> {
        self.labels
            .split(',')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value.trim_matches('"'))
    }
}

#[derive(Default)]
struct Buckets {
    cumulative: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

impl Buckets {
    fn mean(&self) -> f64 {
        if self.count > 0.0 { self.sum / self.count } else { 0.0 }
    }

    /// As Prometheus' `histogram_quantile`: linear within the bucket; the highest finite bound beyond it.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count;
        let mut below = (0.0, 0.0);
        for &(bound, cumulative) in &self.cumulative {
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
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and not negative"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_what_is_gone_are_not_told_of() {
        use autoscaler::cost::Rates;
        use manifests::ids::RevisionId;
        use manifests::units::Timestamp;

        let rates = Rates {
            price: 0.5,
            ..Rates::default()
        };
        let now = Timestamp::from_millis(1_000_000);
        let mut ledger = Ledger::default();
        for name in ["a-00001", "b-00001"] {
            let id = RevisionId::new("default", name);
            ledger
                .accounts
                .insert(id, Account::new(rates, now).at(now.plus(Duration::from_secs(8))));
        }
        let text = costs(&ledger);
        for line in [
            "# TYPE knarr_cost_today gauge",
            "knarr_cost_today{namespace=\"default\",revision=\"a-00001\"} 4",
            "knarr_cost_per_hour{namespace=\"default\",revision=\"b-00001\"} 1800",
            "knarr_cost_total_today 8",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        ledger.accounts.remove(&RevisionId::new("default", "a-00001"));
        let text = costs(&ledger);
        assert!(!text.contains("a-00001") && text.contains("b-00001"), "{text}");
    }

    #[test]
    fn reads_counts_and_quantiles_back() {
        let text = r#"# TYPE knarr_requests_total counter
knarr_requests_total{namespace="default",revision="a-00001",code="2xx"} 7
knarr_requests_total{namespace="default",revision="a-00001",code="5xx"} 1
knarr_requests_total{namespace="default",revision="a-00001",code="0xx"} 9
knarr_request_duration_seconds_bucket{namespace="default",revision="a-00001",le="0.1"} 5
knarr_request_duration_seconds_bucket{namespace="default",revision="a-00001",le="0.2"} 10
knarr_request_duration_seconds_bucket{namespace="default",revision="a-00001",le="+Inf"} 10
knarr_request_duration_seconds_sum{namespace="default",revision="a-00001"} 1.5
knarr_request_duration_seconds_count{namespace="default",revision="a-00001"} 10
"#;
        let totals = totals(text)[&("default".to_owned(), "a-00001".to_owned())];
        assert_eq!(
            (
                totals.requests.total,
                totals.requests.success,
                totals.requests.server_error
            ),
            (8, 7, 1)
        );
        assert_eq!(
            (totals.latency.count, totals.latency.mean_ms, totals.latency.p50_ms),
            (10, 150.0, 100.0)
        );
        assert!(
            (totals.latency.p99_ms - 198.0).abs() < 1e-9,
            "{}",
            totals.latency.p99_ms
        );
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(totals("").is_empty());
        let beyond = Buckets {
            cumulative: vec![(1.0, 0.0), (f64::INFINITY, 3.0)],
            sum: 9.0,
            count: 3.0,
        };
        assert_eq!(beyond.quantile(0.5), 1.0);
    }
}
