//! Thresholds: what a run must have been like to have passed, as text, and the verdict over results. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::histogram::Latencies;
use crate::knarr::Comparison;
use crate::report::short;
use crate::results::{Ended, Results, Row, Series, Verdict};
use crate::server_timing::Temperature;

/// A condition on the results of a run, of one stage or of one target: `p99 < 300ms`, `errors == 0`, `cold.p99 < 500ms`,
/// `error_rate < 1%`, `rate >= 95`, `status.503 == 0`, `max_replicas <= 8`.
#[derive(Clone, PartialEq, Debug)]
pub struct Threshold {
    /// Of this stage only, by index.
    pub stage: Option<usize>,
    /// Of this target only, by index.
    pub target: Option<usize>,
    text: String,
    of: Of,
    comparison: Comparison,
    limit: f64,
}

#[derive(Clone, PartialEq, Debug)]
enum Of {
    Latency(Option<Temperature>, Part, Statistic),
    /// Requests without an answer below 400.
    Errors,
    ErrorRate,
    Requests,
    Status(u16),
    /// Answers at this temperature.
    Count(Temperature),
    /// Answers per second.
    Rate,
    MaxReplicas,
    MaxQueue,
    NeverSent,
    Missed,
    Late(Statistic),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Whole,
    FirstByte,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Statistic {
    Min,
    Mean,
    Max,
    /// 0 to 1.
    Quantile(f64),
}

const WORDS: &str = "latencies (p50, p99, p99.9, min, mean, max, cold.p99, warm.p99, first_byte.p99), errors, error_rate, \
                     requests, rate, status.503, cold, max_replicas, max_queue, never_sent, missed, late.p99";
const TEMPERATURES: [Temperature; 5] = [
    Temperature::Warm,
    Temperature::Reserve,
    Temperature::Throttled,
    Temperature::Frozen,
    Temperature::Cold,
];

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, comparison, value) = Comparison::split(text).ok_or_else(|| {
            format!("{text:?} is no threshold: it must compare, with < <= == != >= or >, as in \"p99 < 300ms\"")
        })?;
        let of = Of::read(name).ok_or_else(|| {
            let near = nearest(name).map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near}?"));
            format!("{text:?}: {name:?} is not known{near} There are: {WORDS}")
        })?;
        let limit = of
            .limit(value)
            .map_err(|must| format!("{text:?}: {value:?} must be {must}"))?;
        let threshold = Self {
            stage: None,
            target: None,
            text: text.to_owned(),
            of,
            comparison,
            limit,
        };
        threshold.check()?;
        Ok(threshold)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Threshold {
    /// Whether only a Knarr server can tell.
    pub fn needs_knarr(&self) -> bool {
        matches!(self.of, Of::MaxReplicas | Of::MaxQueue)
    }

    /// Whether it is about the generator, which has one schedule for all stages and targets.
    pub fn is_of_the_whole_run(&self) -> bool {
        matches!(self.of, Of::NeverSent | Of::Missed | Of::Late(_))
    }

    /// What can never be, or cannot but be, is a mistake.
    fn check(&self) -> Result<(), String> {
        let Self {
            text,
            comparison,
            limit,
            ..
        } = self;
        let most = match self.of {
            Of::ErrorRate => Some(1.0),
            _ => None,
        };
        let never = match comparison {
            Comparison::Less => *limit <= 0.0,
            Comparison::AtMost | Comparison::Equal => {
                *limit < 0.0 || most.is_some_and(|most| *comparison == Comparison::Equal && *limit > most)
            }
            Comparison::AtLeast => most.is_some_and(|most| *limit > most),
            Comparison::More => most.is_some_and(|most| *limit >= most),
            Comparison::Unequal => false,
        };
        if never {
            return Err(format!("{text:?} can never hold"));
        }
        if matches!(self.of, Of::Latency(..) | Of::Late(_))
            && matches!(comparison, Comparison::AtMost | Comparison::Equal)
            && *limit == 0.0
        {
            return Err(format!("{text:?} can never hold: nothing takes no time"));
        }
        Ok(())
    }

    /// Of a run.
    pub fn judge(&self, results: &Results) -> Verdict {
        let stage = self.stage.map(|stage| results.stages.get(stage));
        let (seen, held) = match (stage, self.value(results)) {
            (Some(None), _) => ("the stage did not run".to_owned(), false),
            (_, None) => ("nothing to measure".to_owned(), false),
            (_, Some(value)) => (self.of.words(value), self.comparison.holds(value, self.limit)),
        };
        Verdict {
            stage: stage.flatten().map(|stage| stage.name.clone()),
            target: self
                .target
                .and_then(|target| results.targets.get(target))
                .map(|target| target.name.clone()),
            threshold: self.text.clone(),
            seen,
            held,
        }
    }

    /// What was measured; `None` when there was nothing.
    #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
    fn value(&self, results: &Results) -> Option<f64> {
        let own = |series: &Series| {
            self.stage.is_none_or(|stage| stage == series.stage)
                && self.target.is_none_or(|target| target == series.target)
        };
        let count = |wanted: &dyn Fn(&Series) -> bool| results.count(|series| own(series) && wanted(series)) as f64;
        let bad = || count(&|series| !series.ended.is_good());
        let all = count(&|_| true);
        match self.of {
            Of::Latency(temperature, part, statistic) => {
                let wanted =
                    |series: &Series| own(series) && temperature.is_none_or(|wanted| wanted == series.temperature);
                let latencies = match part {
                    Part::Whole => results.latency(wanted),
                    Part::FirstByte => results.first_byte(wanted),
                };
                statistic.of(&latencies)
            }
            Of::Errors => (all > 0.0).then(bad),
            Of::ErrorRate => (all > 0.0).then(|| bad() / all),
            Of::Requests => Some(all),
            Of::Status(status) => Some(count(&|series| series.ended == Ended::Status(status))),
            Of::Count(temperature) => Some(count(&|series| series.temperature == temperature)),
            Of::Rate => {
                let (start, end) = self.span(results)?;
                let answers = count(&|series| matches!(series.ended, Ended::Status(_)));
                let seconds = end.saturating_sub(start).as_secs_f64();
                (seconds > 0.0).then(|| answers / seconds)
            }
            Of::MaxReplicas => self.most(results, |row, target| {
                let seen = row
                    .servers
                    .iter()
                    .filter(|seen| target.is_none_or(|wanted| wanted == seen.target));
                seen.map(|seen| u64::from(seen.replicas)).sum()
            }),
            Of::MaxQueue => self.most(results, |row, target| {
                let seen = row
                    .servers
                    .iter()
                    .filter(|seen| target.is_none_or(|wanted| wanted == seen.target));
                seen.map(|seen| seen.queue).sum()
            }),
            Of::NeverSent => Some(results.schedule.never_sent as f64),
            Of::Missed => Some(results.schedule.missed as f64),
            Of::Late(statistic) => statistic.of(&results.schedule.late),
        }
    }

    fn span(&self, results: &Results) -> Option<(Duration, Duration)> {
        match self.stage {
            Some(stage) => results.stages.get(stage).map(|stage| (stage.start, stage.end)),
            None => Some((Duration::ZERO, results.elapsed.max(results.planned()))),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 replicas are out of reach")]
    fn most(&self, results: &Results, of: impl Fn(&Row, Option<usize>) -> u64) -> Option<f64> {
        let (start, end) = self.span(results)?;
        let rows = results.timeline.rows().iter();
        let interval = results.timeline.interval();
        rows.filter(|row| !row.servers.is_empty() && row.start + interval > start && row.start <= end)
            .map(|row| of(row, self.target))
            .max()
            .map(|most| most as f64)
    }
}

impl Results {
    /// Adds the verdicts over this run.
    pub fn judge(&mut self, thresholds: &[Threshold]) {
        let verdicts: Vec<Verdict> = thresholds.iter().map(|threshold| threshold.judge(self)).collect();
        self.verdicts.extend(verdicts);
    }
}

impl Of {
    fn read(name: &str) -> Option<Self> {
        let temperature = |word: &str| TEMPERATURES.into_iter().find(|known| known.name() == word);
        Some(match name {
            "errors" => Self::Errors,
            "error_rate" => Self::ErrorRate,
            "requests" => Self::Requests,
            "rate" => Self::Rate,
            "max_replicas" => Self::MaxReplicas,
            "max_queue" => Self::MaxQueue,
            "never_sent" => Self::NeverSent,
            "missed" => Self::Missed,
            name => {
                if let Some(temperature) = temperature(name) {
                    return Some(Self::Count(temperature));
                }
                let (first, rest) = name.split_once('.').unwrap_or(("", name));
                match first {
                    "status" => Self::Status(rest.parse().ok().filter(|status| (100..1000).contains(status))?),
                    "late" => Self::Late(Statistic::read(rest)?),
                    "first_byte" => Self::Latency(None, Part::FirstByte, Statistic::read(rest)?),
                    first => match (temperature(first), rest.strip_prefix("first_byte.")) {
                        (Some(temperature), Some(rest)) => {
                            Self::Latency(Some(temperature), Part::FirstByte, Statistic::read(rest)?)
                        }
                        (Some(temperature), None) => {
                            Self::Latency(Some(temperature), Part::Whole, Statistic::read(rest)?)
                        }
                        // The point may be one of `p99.9`.
                        (None, _) => Self::Latency(None, Part::Whole, Statistic::read(name)?),
                    },
                }
            }
        })
    }

    /// What a value of it is; or what it must be.
    fn limit(&self, value: &str) -> Result<f64, &'static str> {
        let number = |value: &str| value.parse::<f64>().ok().filter(|number| number.is_finite());
        match self {
            Self::Latency(..) | Self::Late(_) => humantime::parse_duration(value)
                .map(|limit| limit.as_secs_f64())
                .map_err(|_| "a duration, as in 300ms or 1s"),
            Self::ErrorRate => match value.strip_suffix('%') {
                Some(percent) => number(percent.trim()).map(|percent| percent / 100.0),
                None => number(value),
            }
            .ok_or("a share, as in 1% or 0.01"),
            Self::Rate => {
                number(value.strip_suffix("/s").unwrap_or(value)).ok_or("answers per second, as in 95 or 95/s")
            }
            _ => value.parse::<u32>().map(f64::from).map_err(|_| "a whole number"),
        }
    }

    fn words(&self, value: f64) -> String {
        match self {
            Self::Latency(..) | Self::Late(_) => short(Duration::from_secs_f64(value)),
            Self::ErrorRate => format!("{:.2}%", value * 100.0),
            Self::Rate => format!("{value:.1}/s"),
            _ => format!("{value}"),
        }
    }
}

impl Statistic {
    fn read(name: &str) -> Option<Self> {
        Some(match name {
            "min" => Self::Min,
            "mean" => Self::Mean,
            "max" => Self::Max,
            name => {
                let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
                // p999 is how many write p99.9.
                let percent = if percent > 100.0 && name == "p999" {
                    99.9
                } else {
                    percent
                };
                Self::Quantile((0.0..=100.0).contains(&percent).then_some(percent / 100.0)?)
            }
        })
    }

    fn of(self, latencies: &Latencies) -> Option<f64> {
        (!latencies.is_empty()).then(|| {
            let duration = match self {
                Self::Min => latencies.min(),
                Self::Mean => latencies.mean(),
                Self::Max => latencies.max(),
                Self::Quantile(share) => latencies.quantile(share),
            };
            duration.as_secs_f64()
        })
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let names = [
        "errors",
        "error_rate",
        "requests",
        "rate",
        "max_replicas",
        "max_queue",
        "never_sent",
        "missed",
        "late.p99",
        "cold.p99",
        "warm.p99",
        "first_byte.p99",
        "status.503",
    ];
    crate::scenario_file::nearest(name, &names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Arrivals;
    use crate::engine::shell;
    use crate::results::Observed;
    use crate::scenario::{Scenario, Stage};
    use crate::target::Target;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Two stages of a second; in the first ten warm answers of 10 to 100 ms, in the second a cold one and an error.
    fn results() -> Results {
        let target = Target::new(([127, 0, 0, 1], 80).into(), "app");
        let stage = |name| Stage::new(name, Arrivals::Silence, ms(1_000));
        let mut results = shell(&Scenario::new("x", vec![target], vec![stage("a"), stage("b")]));
        (results.stages[1].start, results.stages[1].end) = (ms(1_000), ms(2_000));
        let series = |stage, ended, temperature, millis: &[u64]| {
            let mut latency = Latencies::new();
            millis.iter().for_each(|millis| latency.record(ms(*millis)));
            Series {
                stage,
                target: 0,
                ended,
                temperature,
                first_byte: latency.clone(),
                latency,
            }
        };
        let warm: Vec<u64> = (1..=10).map(|nth| nth * 10).collect();
        results.series = vec![
            series(0, Ended::Status(200), Temperature::Warm, &warm),
            series(1, Ended::Status(200), Temperature::Cold, &[250]),
            series(1, Ended::Status(503), Temperature::Unknown, &[5]),
        ];
        for (at, replicas) in [(100, 3), (1_500, 9)] {
            results.timeline.at(ms(at)).observe(Observed {
                target: 0,
                replicas,
                starting: 0,
                rung: "full".to_owned(),
                queue: 7,
            });
        }
        results
    }

    #[test]
    fn judges_runs_and_stages() {
        let results = results();
        for (text, stage, seen, held) in [
            ("p50 < 60ms", Some(0), "50.0ms", true),
            ("p99 <= 90ms", Some(0), "100ms", false),
            ("max<1s", None, "250ms", true),
            ("cold.p99 < 200ms", None, "250ms", false),
            ("cold.first_byte.max < 1s", Some(1), "250ms", true),
            ("first_byte.p99.9 > 1ms", Some(0), "100ms", true),
            ("errors == 0", Some(0), "0", true),
            ("errors == 0", None, "1", false),
            ("error_rate <= 10%", None, "8.33%", true),
            ("error_rate < 0.08", None, "8.33%", false),
            ("status.503 == 1", None, "1", true),
            ("requests >= 12", None, "12", true),
            ("cold == 1", None, "1", true),
            ("rate >= 10/s", Some(0), "10.0/s", true),
            ("max_replicas <= 8", Some(0), "3", true),
            ("max_replicas <= 8", None, "9", false),
            ("max_queue < 7", Some(1), "7", false),
            ("never_sent == 0", None, "0", true),
            ("frozen.p99 < 1s", None, "nothing to measure", false),
            ("p99 < 1s", Some(5), "the stage did not run", false),
        ] {
            let mut threshold: Threshold = text.parse().expect(text);
            threshold.stage = stage;
            let verdict = threshold.judge(&results);
            assert_eq!((verdict.seen.as_str(), verdict.held), (seen, held), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_or_impossible_is_said() {
        for (text, words) in [
            ("p99", "it must compare"),
            ("p99 = 1s", "it must compare"),
            ("p99 < fast", "must be a duration, as in 300ms or 1s"),
            ("p101 < 1s", "\"p101\" is not known. There are: latencies"),
            ("error < 1", "did you mean errors?"),
            ("max_replica <= 8", "did you mean max_replicas?"),
            ("errors < 0", "can never hold"),
            ("p99 < 0ms", "can never hold"),
            ("p99 <= 0ms", "nothing takes no time"),
            ("error_rate > 100%", "can never hold"),
            ("error_rate < many", "must be a share"),
            ("max_replicas <= 8.5", "must be a whole number"),
            ("status.99 == 0", "is not known"),
        ] {
            let error = text.parse::<Threshold>().expect_err(text);
            assert!(error.contains(words), "{error}");
        }
    }
}
