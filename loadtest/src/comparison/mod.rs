//! Two runs side by side: which percentiles differ, by how much, and whether that is more than noise. Pure.
//!
//! The intervals are percentile bootstraps over **blocks of time**: latencies that follow each other are alike (a stall hits
//! everybody who came in it), so single requests must not be drawn as if they were independent. Blocks are circular; their
//! length is chosen from the runs' own autocorrelation (Politis and White 2004, corrected 2009). BCa would need a jackknife,
//! which is not consistent for quantiles. What differs between two runs of the same thing (another minute, another machine)
//! is in no interval of this kind: repeat runs in turns before believing a small difference.

mod bootstrap;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use self::bootstrap::{Resampled, Stretches};
use crate::report::short;
use crate::results::{Results, Sample, Series};
use crate::server_timing::Temperature;

/// How to compare.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Options {
    /// How sure an interval is, 0 to 1. Default 0.99: with a dozen rows, 0.95 would find something in every other pair of
    /// equal runs.
    pub confidence: f64,
    /// Relative differences of latency up to this are noise whatever their interval says. Default 0.05.
    pub ignore: f64,
    /// How often to draw. Default 2,000.
    pub resamples: usize,
    /// Of the draws. Default 1.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            confidence: 0.99,
            ignore: 0.05,
            resamples: 2_000,
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// How it was done.
    pub options: Options,
    /// What the reader must know before believing it.
    pub notes: Vec<String>,
    /// One for each group of requests and each of its figures.
    pub differences: Vec<Difference>,
}

/// One figure of one group of requests in both runs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// Which target, by its name in the first run; `None` for all.
    pub target: Option<String>,
    /// Which answers; `None` for all.
    pub temperature: Option<Temperature>,
    /// `p50`, `p90`, `p99`, `p99.9` in milliseconds, or `errors` as a share of the requests.
    pub figure: &'static str,
    /// In the first run.
    pub a: f64,
    /// In the second.
    pub b: f64,
    /// Of `b - a`.
    pub low: f64,
    /// Of `b - a`.
    pub high: f64,
    /// What it comes to.
    pub verdict: Judgement,
}

/// What a difference comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// It may as well be chance, or is too small to matter.
    Noise,
    /// The second run is better.
    Better,
    /// The second run is worse.
    Worse,
}

/// Why two runs cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComparisonError {
    /// They measure different things.
    #[error(
        "one run was an open loop and the other a closed one: latency from the due time and latency of clients that wait \
         for each answer are different things"
    )]
    Loops,
    /// Nothing in common.
    #[error("the runs have no target in common: {a} in one, {b} in the other")]
    Targets {
        /// Those of the first.
        a: String,
        /// Those of the second.
        b: String,
    },
    /// One of the options is out of range.
    #[error("{0}")]
    Options(&'static str),
}

/// A group of requests: which target (its index in each run) and temperature.
#[derive(Clone, Copy)]
struct Group {
    target: Option<(usize, usize)>,
    temperature: Option<Temperature>,
}

/// Compares `b` to `a`.
pub fn compare(a: &Results, b: &Results, options: Options) -> Result<Comparison, ComparisonError> {
    if !(0.5..1.0).contains(&options.confidence) {
        return Err(ComparisonError::Options(
            "the confidence must be at least 0.5 and less than 1",
        ));
    }
    if !(options.ignore >= 0.0 && options.ignore.is_finite()) {
        return Err(ComparisonError::Options("the difference to ignore must be 0 or more"));
    }
    if !(100..=1_000_000).contains(&options.resamples) {
        return Err(ComparisonError::Options(
            "the number of resamples must be 100 to 1000000",
        ));
    }
    if a.closed_loop != b.closed_loop {
        return Err(ComparisonError::Loops);
    }
    let targets = common_targets(a, b)?;
    let mut notes = notes(a, b);
    let mut differences = Vec::new();
    let mut few = false;
    for group in groups(a, b, &targets) {
        let of = |results: &Results, target| Stretches::of(results, |sample| group.has(sample, target));
        let stretches = (of(a, group.target.map(|it| it.0)), of(b, group.target.map(|it| it.1)));
        let resampled = Resampled::new(&stretches.0, &stretches.1, options);
        let own = group.differences(a, b, &resampled, options);
        few |= !own.is_empty() && (stretches.0.are_few() || stretches.1.are_few());
        differences.extend(own);
    }
    if few {
        notes.push(
            "requests that came at nearly the same time were drawn one by one, as if they did not hinder each other: \
             repeat such runs before believing a difference"
                .to_owned(),
        );
    }
    Ok(Comparison {
        options,
        notes,
        differences,
    })
}

/// Targets of the same name, as indexes; or the only one of each.
fn common_targets(a: &Results, b: &Results) -> Result<Vec<(usize, usize)>, ComparisonError> {
    if let ([_], [_]) = (a.targets.as_slice(), b.targets.as_slice()) {
        return Ok(vec![(0, 0)]);
    }
    let in_b = |name: &str| b.targets.iter().position(|target| target.name == name);
    let both = a.targets.iter().enumerate();
    let both: Vec<_> = both.filter_map(|(index, it)| Some((index, in_b(&it.name)?))).collect();
    if both.is_empty() {
        let names = |results: &Results| {
            let names = results.targets.iter().map(|target| target.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        return Err(ComparisonError::Targets {
            a: names(a),
            b: names(b),
        });
    }
    Ok(both)
}

fn notes(a: &Results, b: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    if a.asked != b.asked {
        notes.push(format!(
            "the runs asked for different load: {:?} and {:?}",
            a.asked, b.asked
        ));
    }
    for (results, which) in [(a, "first"), (b, "second")] {
        let warnings = results.report().warnings();
        notes.extend(warnings.into_iter().map(|warning| format!("{which} run: {warning}")));
    }
    notes
}

/// All requests, each target where there are several, and warm, cold and so on where both runs have them.
fn groups(a: &Results, b: &Results, targets: &[(usize, usize)]) -> Vec<Group> {
    let mut groups = vec![Group {
        target: None,
        temperature: None,
    }];
    let several = targets.len() > 1;
    for &(in_a, in_b) in targets {
        let target = several.then_some((in_a, in_b));
        let of = |results: &Results, target: usize| -> BTreeSet<Temperature> {
            let own = results.series.iter().filter(|series| series.target == target);
            own.map(|series| series.temperature).collect()
        };
        let temperatures = of(a, in_a);
        let temperatures: Vec<_> = temperatures.intersection(&of(b, in_b)).copied().collect();
        if several {
            groups.push(Group {
                target,
                temperature: None,
            });
        }
        groups.extend(
            temperatures
                .iter()
                .filter(|temperature| **temperature != Temperature::Unknown)
                .map(|temperature| Group {
                    target,
                    temperature: Some(*temperature),
                }),
        );
    }
    groups
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Fewer requests than this beyond a quantile say nothing about it.
const BEYOND: f64 = 5.0;

impl Group {
    fn has(self, sample: &Sample, target: Option<usize>) -> bool {
        let right_target = target.is_none_or(|target| sample.target == target);
        right_target
            && self
                .temperature
                .is_none_or(|temperature| sample.temperature == temperature)
    }

    fn has_series(self, series: &Series, target: Option<usize>) -> bool {
        let right_target = target.is_none_or(|target| series.target == target);
        right_target
            && self
                .temperature
                .is_none_or(|temperature| series.temperature == temperature)
    }

    fn differences(self, a: &Results, b: &Results, resampled: &Resampled, options: Options) -> Vec<Difference> {
        let in_a = |series: &Series| self.has_series(series, self.target.map(|it| it.0));
        let in_b = |series: &Series| self.has_series(series, self.target.map(|it| it.1));
        let (latency_a, latency_b) = (a.latency(in_a), b.latency(in_b));
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
        let fewest = latency_a.count().min(latency_b.count()) as f64;
        let row = |figure, a: f64, b: f64, (below, above): (f64, f64), ignore: f64| {
            let (low, high) = (b - a + below, b - a + above);
            let matters = (b - a).abs() > ignore;
            Difference {
                target: self.target.map(|_| String::new()),
                temperature: self.temperature,
                figure,
                a,
                b,
                low,
                high,
                verdict: match () {
                    () if matters && low > 0.0 => Judgement::Worse,
                    () if matters && high < 0.0 => Judgement::Better,
                    () => Judgement::Noise,
                },
            }
        };
        let mut rows = Vec::new();
        for (figure, share) in QUANTILES {
            if fewest * (1.0 - share) >= BEYOND {
                let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
                let (a, b) = (millis(latency_a.quantile(share)), millis(latency_b.quantile(share)));
                let spread = resampled.of_quantile(share);
                rows.push(row(figure, a, b, spread, options.ignore * a));
            }
        }
        if self.temperature.is_none() && fewest > 0.0 {
            let bad = |results: &Results, wanted: &dyn Fn(&Series) -> bool, count: u64| {
                let bad = results.count(|series| wanted(series) && !series.ended.is_good());
                #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
                let share = bad as f64 / count as f64;
                share
            };
            let (a, b) = (bad(a, &in_a, latency_a.count()), bad(b, &in_b, latency_b.count()));
            rows.push(row("errors", a, b, resampled.of_errors(), 0.0));
        }
        if let Some((index, _)) = self.target {
            let name = &a.targets[index].name;
            rows.iter_mut().for_each(|row| row.target = Some(name.clone()));
        }
        rows
    }
}

impl Comparison {
    /// Whether anything is worse.
    pub fn regressed(&self) -> bool {
        self.differences.iter().any(|it| it.verdict == Judgement::Worse)
    }
}

/// A table of plain text.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.options.confidence * 100.0;
        writeln!(
            f,
            "{:<28} {:<7} {:>9} {:>9} {:>8}   {:<22} verdict",
            "requests",
            "figure",
            "first",
            "second",
            "change",
            format!("{percent}% interval")
        )?;
        for it in &self.differences {
            let temperature = it.temperature.map(Temperature::name);
            let name: Vec<_> = it.target.as_deref().into_iter().chain(temperature).collect();
            let name = if name.is_empty() {
                "all".to_owned()
            } else {
                name.join(" ")
            };
            let value = |value: f64| match it.figure {
                "errors" => format!("{:.2}%", value * 100.0),
                _ => short(Duration::from_secs_f64(value / 1e3)),
            };
            let signed = |number: f64| format!("{}{}", if number < 0.0 { "-" } else { "+" }, value(number.abs()));
            let change = match it.figure {
                "errors" => signed(it.b - it.a),
                _ if it.a > 0.0 && it.b / it.a >= 10.0 => format!("x{:.0}", it.b / it.a),
                _ if it.a > 0.0 => format!("{:+.1}%", (it.b / it.a - 1.0) * 100.0),
                _ => "-".to_owned(),
            };
            let interval = format!("{} to {}", signed(it.low), signed(it.high));
            let verdict = match it.verdict {
                Judgement::Noise => "noise",
                Judgement::Better => "BETTER",
                Judgement::Worse => "WORSE",
            };
            writeln!(
                f,
                "{name:<28} {:<7} {:>9} {:>9} {change:>8}   {interval:<22} {verdict}",
                it.figure,
                value(it.a),
                value(it.b)
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
