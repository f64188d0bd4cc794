//! Distributions of durations: HDR histograms in memory, in JSON (both ways, nothing lost) and as `.hgrm` text. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Decoder, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// A distribution of durations, exact to 0.1 %; what is longer than a day counts as a day. At most 300 KiB.
#[derive(Clone, PartialEq, Debug)]
pub struct Latencies(Histogram<u64>);

const LONGEST: Duration = Duration::from_secs(86_400);

/// Of [`Latencies`], in significant digits.
const DIGITS: u8 = 3;
/// Of [`Sparse`].
const SPARSE_DIGITS: u8 = 2;

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        Self(Histogram::new(DIGITS).expect("3 digits are within what the histogram can do"))
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.0.record(nanos(latency)).expect("the histogram grows as needed");
    }

    /// Adds all of another; nothing is lost.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the histogram grows as needed");
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The smallest; zero when there are none, as for all that follow.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.0.min())
    }
    /// The largest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
    /// The average.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e9)
    }
    /// The smallest recorded value that at least this share of all values do not exceed; `share` is 0 to 1.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }
    /// The share of values that do not exceed this one, 0 to 1.
    pub fn share_within(&self, limit: Duration) -> f64 {
        self.0.quantile_below(nanos(limit))
    }

    /// Values and how often each came, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.0.iter_recorded().map(|step| {
            (
                Duration::from_nanos(step.value_iterated_to()),
                step.count_since_last_iteration(),
            )
        })
    }

    /// HdrHistogram's percentile distribution as text, in milliseconds, as its plotters and `wrk2` write and read it.
    pub fn hgrm(&self) -> String {
        let histogram = &self.0;
        let millis = |nanos: f64| nanos / 1e6;
        let mut text = format!(
            "{:>12} {:>14} {:>10} {:>14}\n\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        let mut total = 0;
        // Five ticks until the distance to 100 % has halved, as the other tools do.
        for step in histogram.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let (value, share) = (step.value_iterated_to(), step.quantile_iterated_to());
            #[expect(clippy::cast_precision_loss, reason = "a day in nanoseconds is exact in f64")]
            let value = millis(value as f64);
            let _ = write!(text, "{value:>12.3} {share:2.12} {total:>10}");
            if share < 1.0 {
                let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - share));
            }
            text.push('\n');
        }
        #[expect(clippy::cast_precision_loss, reason = "a day in nanoseconds is exact in f64")]
        let max = millis(histogram.max() as f64);
        let _ = write!(
            text,
            "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n#[Max     = {max:>12.3}, Total count    = {:>12}]\n\
             #[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
            millis(histogram.mean()),
            millis(histogram.stdev()),
            histogram.len(),
            histogram.buckets(),
            // As HdrHistogram sizes them: twice the power of ten, up to a power of two.
            2048,
        );
        text
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// `count`, and milliseconds: `min_ms`, `mean_ms`, `p50_ms`, `p90_ms`, `p99_ms`, `p999_ms`, `max_ms`; then all of it as
/// `hdr`: HdrHistogram's V2 format of nanoseconds, deflated, in base64. Only `hdr` is read back.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hdr = encode(&self.0).map_err(ser::Error::custom)?;
        figures::WithAll::new(self, hdr).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            hdr: String,
        }
        let mut all = Self::new();
        let read = decode(&Raw::deserialize(deserializer)?.hdr).map_err(de::Error::custom)?;
        all.0.add(read).map_err(de::Error::custom)?;
        Ok(all)
    }
}

/// The figures of [`Latencies`] alone, where the whole distribution stands elsewhere in the document.
pub(crate) mod figures {
    use std::collections::BTreeMap;

    use serde::{Serialize, Serializer};

    use super::{Duration, Latencies};

    #[derive(Serialize)]
    struct Figures {
        count: u64,
        min_ms: f64,
        mean_ms: f64,
        p50_ms: f64,
        p90_ms: f64,
        p99_ms: f64,
        p999_ms: f64,
        max_ms: f64,
    }

    impl Figures {
        fn of(latencies: &Latencies) -> Self {
            let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
            let quantile = |share| millis(latencies.quantile(share));
            Self {
                count: latencies.count(),
                min_ms: millis(latencies.min()),
                mean_ms: millis(latencies.mean()),
                p50_ms: quantile(0.5),
                p90_ms: quantile(0.9),
                p99_ms: quantile(0.99),
                p999_ms: quantile(0.999),
                max_ms: millis(latencies.max()),
            }
        }
    }

    pub(crate) fn serialize<S: Serializer>(latencies: &Latencies, serializer: S) -> Result<S::Ok, S::Error> {
        Figures::of(latencies).serialize(serializer)
    }

    pub(crate) fn map<K: Serialize, S: Serializer>(
        map: &BTreeMap<K, Latencies>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(key, latencies)| (key, Figures::of(latencies))))
    }

    /// The figures, and all of it as `hdr`.
    #[derive(Serialize)]
    pub(super) struct WithAll {
        #[serde(flatten)]
        figures: Figures,
        hdr: String,
    }

    impl WithAll {
        pub(super) fn new(latencies: &Latencies, hdr: String) -> Self {
            Self {
                figures: Figures::of(latencies),
                hdr,
            }
        }
    }
}

/// A distribution that holds only the values that came, exact to 1 %: for the many short stretches of a timeline. Merging
/// loses nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sparse(BTreeMap<u64, u64>);

impl Sparse {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        *self.0.entry(rounded(nanos(latency))).or_default() += 1;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for (value, count) in &other.0 {
            *self.0.entry(*value).or_default() += count;
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The lower edge of each bucket in nanoseconds and how many fell into it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(value, count)| (*value, *count))
    }
}

/// The lower edge of the HDR bucket with two digits: 128 to an octave.
fn rounded(nanos: u64) -> u64 {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(8);
    (nanos >> shift) << shift
}

/// The same text as for [`Latencies`], and nothing beside it.
impl Serialize for Sparse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut histogram = Histogram::<u64>::new(SPARSE_DIGITS).map_err(ser::Error::custom)?;
        for (value, count) in self.iter() {
            histogram.record_n(value, count).map_err(ser::Error::custom)?;
        }
        serializer.serialize_str(&encode(&histogram).map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Sparse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let histogram = decode(&String::deserialize(deserializer)?).map_err(de::Error::custom)?;
        let values = histogram
            .iter_recorded()
            .map(|step| (rounded(step.value_iterated_to()), step.count_since_last_iteration()));
        Ok(Self(values.collect()))
    }
}

fn nanos(latency: Duration) -> u64 {
    u64::try_from(latency.min(LONGEST).as_nanos()).expect("a day fits")
}

fn encode(histogram: &Histogram<u64>) -> Result<String, impl fmt::Display + use<>> {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    written.map(|_| STANDARD.encode(bytes))
}

fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let wrong = |why: &dyn fmt::Display| format!("a histogram (HdrHistogram's V2 format in base64) is damaged: {why}");
    let bytes = STANDARD.decode(text).map_err(|error| wrong(&error))?;
    Decoder::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn close(left: Duration, right: Duration) -> bool {
        left.abs_diff(right) <= right / 1000
    }

    fn spread() -> Latencies {
        let mut latencies = Latencies::new();
        // Once each of 1 to 1000 ms, in an order that is not sorted.
        (0..1000).for_each(|i| latencies.record(ms(i * 37 % 1000 + 1)));
        latencies
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let latencies = spread();
        for (share, expected) in [
            (0.0, 1),
            (0.001, 1),
            (0.5, 500),
            (0.9, 900),
            (0.99, 990),
            (0.999, 999),
            (1.0, 1000),
        ] {
            let got = latencies.quantile(share);
            assert!(close(got, ms(expected)), "{share}: {got:?}");
        }
        assert!(close(latencies.mean(), Duration::from_micros(500_500)));
        assert_eq!((latencies.count(), latencies.iter().count()), (1000, 1000));
        assert!((latencies.share_within(ms(250)) - 0.25).abs() < 0.002);
        assert_eq!(Latencies::new().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn holds_nanoseconds_and_a_day() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_nanos(900));
        latencies.record(Duration::from_secs(90_000));
        assert_eq!(latencies.min(), Duration::from_nanos(900));
        assert!(close(latencies.max(), Duration::from_secs(86_400)));
    }

    #[test]
    fn json_loses_nothing_and_says_what_is_damaged() {
        for latencies in [Latencies::new(), spread()] {
            let text = serde_json::to_string(&latencies).expect("serialises");
            let mut read: Latencies = serde_json::from_str(&text).expect("reads its own text");
            assert_eq!(read, latencies);
            read.record(Duration::from_secs(80_000)); // it still grows
        }
        let damaged = serde_json::from_str::<Latencies>(r#"{"hdr": "AAAA"}"#).expect_err("no histogram");
        assert!(damaged.to_string().contains("HdrHistogram's V2 format"), "{damaged}");
        let bare = serde_json::from_str::<Latencies>(r#"{"count": 3}"#).expect_err("nothing to read");
        assert!(bare.to_string().contains("missing field `hdr`"), "{bare}");
    }

    #[test]
    fn sparse_ones_have_the_buckets_of_two_digits_and_come_back_as_they_were() {
        let mut sparse = Sparse::default();
        let mut dense = Histogram::<u64>::new(SPARSE_DIGITS).expect("two digits");
        let mut nanos = 1_u64;
        while nanos < 86_400_000_000_000 {
            for value in [nanos - 1, nanos, nanos + nanos / 3] {
                sparse.record(Duration::from_nanos(value));
                dense.record(value).expect("grows");
                assert_eq!(rounded(value), dense.lowest_equivalent(value), "{value}");
            }
            nanos = nanos * 13 / 8 + 1;
        }
        let mut twice = sparse.clone();
        twice.merge(&sparse);
        assert_eq!(twice.count(), 2 * dense.len());
        let text = serde_json::to_string(&twice).expect("serialises");
        assert_eq!(serde_json::from_str::<Sparse>(&text).expect("reads"), twice);
    }

    #[test]
    fn hgrm_has_the_columns_that_plotters_read() {
        let text = spread().hgrm();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("Value") && !line.is_empty())
            .map(|line| {
                line.split_whitespace()
                    .map(|cell| cell.parse().expect("a number"))
                    .collect()
            })
            .collect();
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"));
        assert!(
            rows.windows(2)
                .all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2])
        );
        let last = rows.last().expect("rows");
        assert_eq!((last[1], last[2], last.len()), (1.0, 1000.0, 3));
        assert!((last[0] - 1000.0).abs() < 1.0);
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }
}
