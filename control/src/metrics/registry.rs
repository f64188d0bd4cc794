//! Where metrics are kept: one atomic per counter or gauge, one per bucket of a histogram, read as Prometheus' text.
//!
//! Nothing is sampled, queued or aged: recording is a few atomic operations, whether or not anybody reads, and memory
//! depends on the number of series alone. (A recorder that keeps every value of a histogram until the next scrape grows
//! with every request where nobody scrapes.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use manifests::ids::RevisionId;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Every series of the process.
pub(crate) struct Registry {
    /// Bucket bounds of every histogram, in seconds, ascending.
    bounds: &'static [f64],
    families: Mutex<BTreeMap<String, Family>>,
}

/// What has one name.
#[derive(Default)]
struct Family {
    help: SharedString,
    /// By labels, written as they are read: `revision="hello-00001",code="2xx"`.
    series: BTreeMap<Box<str>, Series>,
}

/// One series. Which kinds a name has follows from how it is used; nothing of ours uses one name for two.
enum Series {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

/// A histogram of durations.
pub(crate) struct Buckets {
    bounds: &'static [f64],
    /// Of each bound, those up to it and above the one before; at the end those above all.
    counts: Box<[AtomicU64]>,
    /// In nanoseconds, so that it can be added to at once: 584 years of them fit.
    sum: AtomicU64,
}

/// What a histogram holds at one instant.
#[derive(Clone, Default, Debug, PartialEq)]
pub(crate) struct Distribution {
    /// Bounds in seconds, each with how many were at most that; the last is infinite.
    pub(crate) cumulative: Vec<(f64, u64)>,
    /// In seconds.
    pub(crate) sum: f64,
}

impl Registry {
    /// With these bounds for every histogram.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            families: Mutex::default(),
        }
    }

    /// All of it, in Prometheus' text format 0.0.4, in the order of names and labels.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &*self.lock() {
            let Some(first) = family.series.values().next() else {
                continue;
            };
            let _ = writeln!(
                text,
                "# HELP {name} {}",
                family.help.replace('\\', r"\\").replace('\n', r"\n")
            );
            let _ = writeln!(text, "# TYPE {name} {}", first.kind());
            for (labels, series) in &family.series {
                series.write(&mut text, name, labels);
            }
        }
        text
    }

    /// Every counter of this name, with its labels.
    pub(crate) fn counters(&self, name: &str, mut each: impl FnMut(&str, u64)) {
        self.each(name, |labels, series| {
            if let Series::Counter(value) = series {
                each(labels, value.load(Ordering::Relaxed));
            }
        });
    }

    /// Every histogram of this name, with its labels.
    pub(crate) fn histograms(&self, name: &str, mut each: impl FnMut(&str, &Distribution)) {
        self.each(name, |labels, series| {
            if let Series::Histogram(buckets) = series {
                each(labels, &buckets.read());
            }
        });
    }

    /// Forgets what there is of a revision. Whoever still holds a handle counts for nobody.
    pub(crate) fn forget(&self, revision: &RevisionId) {
        let (namespace, name) = (revision.namespace(), revision.name());
        // Whatever is of one revision has these two labels first.
        let whose = format!("namespace=\"{namespace}\",revision=\"{name}\"");
        for family in self.lock().values_mut() {
            let from = family.series.range(Box::from(whose.as_str())..);
            let of_it = from.map_while(|(labels, _)| labels.strip_prefix(whose.as_str()).map(|rest| (labels, rest)));
            let gone: Vec<Box<str>> = of_it
                .filter(|(_, rest)| rest.is_empty() || rest.starts_with(','))
                .map(|(labels, _)| labels.clone())
                .collect();
            for labels in gone {
                family.series.remove(&labels);
            }
        }
    }

    fn each(&self, name: &str, mut each: impl FnMut(&str, &Series)) {
        if let Some(family) = self.lock().get(name) {
            family.series.iter().for_each(|(labels, series)| each(labels, series));
        }
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        self.lock().entry(name.as_str().to_owned()).or_default().help = help;
    }

    /// The series of a key, made when it is new; `None` when it is of another kind.
    fn series<T>(
        &self,
        key: &Key,
        make: impl FnOnce() -> Series,
        pick: impl FnOnce(&Series) -> Option<T>,
    ) -> Option<T> {
        let mut families = self.lock();
        let labels = written(key);
        if !families.contains_key(key.name()) {
            families.insert(key.name().to_owned(), Family::default());
        }
        let family = families.get_mut(key.name())?;
        pick(family.series.entry(labels.into()).or_insert_with(make))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let made = self.series(
            key,
            || Series::Counter(Arc::default()),
            |series| match series {
                Series::Counter(value) => Some(Counter::from_arc(Arc::clone(value))),
                _ => None,
            },
        );
        made.unwrap_or_else(Counter::noop)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let made = self.series(
            key,
            || Series::Gauge(Arc::default()),
            |series| match series {
                Series::Gauge(value) => Some(Gauge::from_arc(Arc::clone(value))),
                _ => None,
            },
        );
        made.unwrap_or_else(Gauge::noop)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let make = || Series::Histogram(Arc::new(Buckets::new(self.bounds)));
        let made = self.series(key, make, |series| match series {
            Series::Histogram(buckets) => Some(Histogram::from_arc(Arc::clone(buckets))),
            _ => None,
        });
        made.unwrap_or_else(Histogram::noop)
    }
}

impl Series {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let value: &dyn std::fmt::Display = match self {
            Self::Counter(value) => &value.load(Ordering::Relaxed),
            Self::Gauge(value) => &f64::from_bits(value.load(Ordering::Relaxed)),
            Self::Histogram(buckets) => return buckets.read().write(text, name, labels),
        };
        let _ = if labels.is_empty() {
            writeln!(text, "{name} {value}")
        } else {
            writeln!(text, "{name}{{{labels}}} {value}")
        };
    }
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn read(&self) -> Distribution {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut so_far = 0;
        let cumulative = bounds.zip(&self.counts).map(|(bound, count)| {
            so_far += count.load(Ordering::Relaxed);
            (bound, so_far)
        });
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds do not matter in a sum of years")]
        Distribution {
            cumulative: cumulative.collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        let index = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast saturates, and less than nothing counts as nothing"
        )]
        self.sum.fetch_add((seconds * 1e9) as u64, Ordering::Relaxed);
    }
}

impl Distribution {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.cumulative.last().map_or(0, |&(_, count)| count)
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in &self.cumulative {
            let le = if bound.is_finite() {
                bound.to_string()
            } else {
                "+Inf".to_owned()
            };
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {count}");
        }
        let braced = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let _ = writeln!(
            text,
            "{name}_sum{braced} {}\n{name}_count{braced} {}",
            self.sum,
            self.count()
        );
    }
}

/// The value of a label in labels as they are written; ours hold names and words, nothing that is escaped.
pub(crate) fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels
        .split(',')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value.trim_matches('"'))
}

/// The labels of a key, in its order; values escaped as the format wants it.
fn written(key: &Key) -> String {
    let mut text = String::new();
    for label in key.labels() {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}=\"", label.key());
        for c in label.value().chars() {
            match c {
                '\\' => text.push_str(r"\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str(r"\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use metrics::{Label, Level};

    use super::*;

    const ANY: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|&(key, value)| Label::new(key, value)).collect();
        Key::from_parts(name, labels)
    }

    #[test]
    fn writes_what_prometheus_reads() {
        let registry = Registry::new(&[0.1, 1.0]);
        registry.describe_counter("b_total".into(), None, "two\nlines".into());
        registry
            .register_counter(&key("b_total", &[("of", r#"a "quoted\" one"#)]), &ANY)
            .increment(3);
        registry.register_gauge(&key("a", &[]), &ANY).set(1.5);
        let histogram = registry.register_histogram(&key("c_seconds", &[("of", "x")]), &ANY);
        for seconds in [0.0, 0.1, 0.11, 1.0, 7.0, -1.0] {
            histogram.record(seconds);
        }
        registry.describe_gauge("never_set".into(), None, "no series, no lines".into());
        let want = r#"# HELP a 
# TYPE a gauge
a 1.5
# HELP b_total two\nlines
# TYPE b_total counter
b_total{of="a \"quoted\\\" one"} 3
# HELP c_seconds 
# TYPE c_seconds histogram
c_seconds_bucket{of="x",le="0.1"} 3
c_seconds_bucket{of="x",le="1"} 5
c_seconds_bucket{of="x",le="+Inf"} 6
c_seconds_sum{of="x"} 8.21
c_seconds_count{of="x"} 6
"#;
        assert_eq!(registry.text(), want);
    }

    #[test]
    fn one_key_is_one_series() {
        let registry = Registry::new(&[1.0]);
        for _ in 0..2 {
            registry
                .register_counter(&key("n_total", &[("of", "a")]), &ANY)
                .increment(1);
        }
        registry
            .register_counter(&key("n_total", &[("of", "b")]), &ANY)
            .increment(5);
        // Of another kind: counts nowhere, and harms nobody.
        registry.register_gauge(&key("n_total", &[("of", "a")]), &ANY).set(9.0);
        let mut seen = Vec::new();
        registry.counters("n_total", |labels, value| {
            seen.push((label(labels, "of").map(str::to_owned), value))
        });
        assert_eq!(seen, [(Some("a".to_owned()), 2), (Some("b".to_owned()), 5)]);
    }

    #[test]
    fn a_revision_is_forgotten_and_no_other() {
        let registry = Registry::new(&[1.0]);
        for (namespace, revision) in [("a", "x"), ("a", "x-1"), ("b", "x")] {
            let whose = [("namespace", namespace), ("revision", revision)];
            registry.register_gauge(&key("g", &whose), &ANY).set(1.0);
            let with_code = [whose[0], whose[1], ("code", "2xx")];
            registry
                .register_counter(&key("n_total", &with_code), &ANY)
                .increment(1);
        }
        registry.forget(&RevisionId::new("a", "x"));
        let left: Vec<String> = registry
            .text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        let want = [
            r#"g{namespace="a",revision="x-1"} 1"#,
            r#"g{namespace="b",revision="x"} 1"#,
            r#"n_total{namespace="a",revision="x-1",code="2xx"} 1"#,
            r#"n_total{namespace="b",revision="x",code="2xx"} 1"#,
        ];
        assert_eq!(left, want);
    }

    #[test]
    fn recording_takes_no_memory() {
        let registry = Registry::new(&[0.5, 2.0]);
        let histogram = registry.register_histogram(&key("h_seconds", &[]), &ANY);
        for _ in 0..1_000 {
            histogram.record(1.0);
        }
        let mut read = Distribution::default();
        registry.histograms("h_seconds", |_, distribution| read = distribution.clone());
        assert_eq!(read.cumulative, [(0.5, 0), (2.0, 1_000), (f64::INFINITY, 1_000)]);
        assert_eq!((read.count(), read.sum), (1_000, 1_000.0));
    }
}
