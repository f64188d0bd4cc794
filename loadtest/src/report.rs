//! What a run found, for people (the table) and for programs (JSON, by `serde`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use manifests::units::Rps;
use serde::{Serialize, Serializer};

use crate::arrivals::Arrivals;
use crate::plan::Plan;
use crate::record::{ErrorKind, Failures, Latencies, Recorder, StatusClass, TOLERANCE};
use crate::server_timing::{Phase, Temperature};

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for, in words: `poisson 200/s for 10s, seed 1`.
    pub asked: String,
    /// Requests that were due.
    pub due: u64,
    /// Requests per second asked for; `None` for a burst.
    pub asked_rate: Option<Rps>,
    /// Whole answers per second, from the start to the last answer (or to the planned end, if that is later).
    pub achieved_rate: Rps,
    /// From the start to the last answer.
    #[serde(serialize_with = "millis", rename = "elapsed_ms")]
    pub elapsed: Duration,
    /// Whole answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without one.
    pub errors: BTreeMap<ErrorKind, Failures>,
    /// Requests that our own client aborted, as planned.
    pub aborted: u64,
    /// Of all answers' bodies.
    pub body_bytes: u64,
    /// From the due time to the end of the answer, or to the error; planned aborts left out.
    pub latency: Latencies,
    /// From the due time to the head of the answer.
    pub first_byte: Latencies,
    /// `latency` of whole answers, by status and by the temperature that the server named.
    pub classes: Vec<Class>,
    /// How well the generator itself did.
    pub schedule: Schedule,
}

/// Answers of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    /// The kind of status.
    pub status: StatusClass,
    /// In the server's words.
    pub temperature: Temperature,
    /// From the due time to the end of the answer.
    pub latency: Latencies,
    /// Where the time went, by `Server-Timing`; all answers of this temperature, whatever their status.
    pub phases: BTreeMap<Phase, Latencies>,
}

/// The generator's own lateness: when it is large, the figures tell of the generator, not of the target.
#[derive(Clone, Debug, Serialize)]
pub struct Schedule {
    /// From the due time to the moment the generator got to it.
    pub late: Latencies,
    /// Requests that were late by more than a millisecond.
    pub missed: u64,
    /// From there to a free connection.
    pub line: Latencies,
    /// The most that stood in line at once.
    pub longest_line: usize,
    /// Requests that were never sent: the line was full, or the generator later than the timeout.
    pub refused: u64,
}

impl Report {
    pub(crate) fn new(plan: &Plan, recorder: Recorder, longest_line: usize) -> Self {
        let answers = recorder.answers();
        let (asked_rate, planned) = match plan.arrivals {
            Arrivals::Constant(rate) | Arrivals::Poisson(rate) => (Some(rate), plan.duration),
            Arrivals::Burst(_) => (None, Duration::ZERO),
        };
        let span = recorder.last_end.max(planned).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "2^53 answers are out of reach")]
        let achieved_rate = Rps(if answers == 0 { 0.0 } else { answers as f64 / span });
        let phases_of = |temperature: Temperature| {
            let own = recorder.phases.iter().filter(|((of, _), _)| *of == temperature);
            own.map(|((_, phase), times)| (*phase, times.clone())).collect()
        };
        let classes = recorder.classes.iter().map(|(&(status, temperature), latency)| Class {
            status,
            temperature,
            latency: latency.clone(),
            phases: phases_of(temperature),
        });
        Self {
            asked: asked(plan),
            due: recorder.due,
            asked_rate,
            achieved_rate,
            elapsed: recorder.last_end,
            classes: classes.collect(),
            statuses: recorder.statuses,
            errors: recorder.errors,
            aborted: recorder.aborted,
            body_bytes: recorder.body_bytes,
            latency: recorder.latency,
            first_byte: recorder.first_byte,
            schedule: Schedule {
                late: recorder.late,
                missed: recorder.missed,
                line: recorder.line,
                longest_line,
                refused: recorder.refused,
            },
        }
    }

    /// Whole answers with this status.
    pub fn count(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// Requests that got no whole answer: errors only, neither planned aborts nor refusals of the generator.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|failures| failures.count).sum()
    }

    /// What the reader must know before believing the figures; empty when the generator kept its schedule.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let Schedule {
            missed,
            refused,
            line,
            longest_line,
            ..
        } = &self.schedule;
        if *refused > 0 {
            warnings.push(format!(
                "{refused} of {} requests were never sent: too many waited for a connection, or for the generator",
                self.due
            ));
        }
        if *longest_line > 0 {
            warnings.push(format!(
                "up to {longest_line} requests stood in line for a connection, for up to {}: more connections would send them",
                short(line.max())
            ));
        }
        // One in a hundred: a tenth of a percent would do for a p99, but a shared machine stalls now and then.
        if *missed * 100 > self.due {
            warnings.push(format!(
                "{missed} of {} requests were issued more than {} late: the generator is part of the figures",
                self.due,
                short(TOLERANCE)
            ));
        }
        warnings
    }
}

fn asked(plan: &Plan) -> String {
    let seconds = plan.duration.as_secs_f64();
    let arrivals = match plan.arrivals {
        Arrivals::Constant(Rps(rate)) => format!("constant {rate}/s for {seconds}s"),
        Arrivals::Poisson(Rps(rate)) => format!("poisson {rate}/s for {seconds}s, seed {}", plan.seed),
        Arrivals::Burst(count) => format!("burst of {count}"),
    };
    match plan.abort {
        Some(abort) => format!(
            "{arrivals}, {}% aborted after {}",
            abort.share * 100.0,
            short(abort.after)
        ),
        None => arrivals,
    }
}

/// A table of plain text.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers: u64 = self.statuses.values().sum();
        writeln!(f, "asked     {}", self.asked)?;
        writeln!(
            f,
            "requests  {} due, {answers} answered, {} failed, {} aborted",
            self.due,
            self.failed(),
            self.aborted
        )?;
        if let Some(Rps(rate)) = self.asked_rate {
            writeln!(f, "rate      {rate:.1}/s asked, {:.1}/s achieved", self.achieved_rate.0)?;
        }
        let statuses: Vec<_> = self
            .statuses
            .iter()
            .map(|(status, count)| format!("{status}: {count}"))
            .collect();
        writeln!(
            f,
            "status    {}",
            if statuses.is_empty() {
                "none".to_owned()
            } else {
                statuses.join(", ")
            }
        )?;
        for (kind, failures) in &self.errors {
            writeln!(f, "error     {kind}: {} (first: {})", failures.count, failures.first)?;
        }
        writeln!(f)?;
        write!(f, "{:<24} {:>8}", "from the due time", "count")?;
        for column in ["min", "p50", "p90", "p99", "p99.9", "max"] {
            write!(f, " {column:>8}")?;
        }
        writeln!(f)?;
        row(f, "all", &self.latency)?;
        row(f, "to the first byte", &self.first_byte)?;
        for class in &self.classes {
            let name = match class.temperature {
                Temperature::Unknown => class.status.to_string(),
                temperature => format!("{} {}", class.status, temperature.name()),
            };
            row(f, &name, &class.latency)?;
        }
        let mut shown = Vec::new();
        for class in self.classes.iter().filter(|class| !class.phases.is_empty()) {
            if !shown.contains(&class.temperature) {
                shown.push(class.temperature);
                for (phase, times) in &class.phases {
                    row(f, &format!("  {}: {}", class.temperature.name(), phase.name()), times)?;
                }
            }
        }
        row(f, "generator late", &self.schedule.late)?;
        for warning in self.warnings() {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, latencies: &Latencies) -> fmt::Result {
    write!(f, "{name:<24} {:>8}", latencies.count())?;
    let quantiles = [0.5, 0.9, 0.99, 0.999].map(|share| latencies.quantile(share));
    for value in [latencies.min()].into_iter().chain(quantiles).chain([latencies.max()]) {
        write!(f, " {:>8}", short(value))?;
    }
    writeln!(f)
}

/// Three digits and a unit.
fn short(duration: Duration) -> String {
    let nanos = duration.as_secs_f64() * 1e9;
    let (value, unit) = match nanos {
        ..1e3 => return format!("{nanos:.0}ns"),
        // Where three digits would round up to 1000, the next unit begins.
        ..999.5e3 => (nanos / 1e3, "us"),
        ..999.5e6 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{unit}")
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;
    use crate::record::{Answer, Outcome};
    use crate::server_timing::Timing;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Nine warm answers after 1 to 9 ms, a cold one after 250 ms, a timeout; the generator late once.
    fn sample() -> Report {
        let target = Target::new(([127, 0, 0, 1], 80).into(), "app");
        let plan = Plan::new(target, Arrivals::Constant(Rps(11.0)), Duration::from_secs(1));
        let mut recorder = Recorder::new();
        for i in 1..=11 {
            let due = ms(i * 90);
            recorder.issued(due, due + if i == 3 { ms(5) } else { Duration::ZERO });
            let (latency, temperature, start) = match i {
                11 => {
                    recorder.over(
                        due,
                        Outcome::Failed(ErrorKind::Timeout, "no whole answer in time".into()),
                        ms(2_000),
                    );
                    continue;
                }
                10 => (ms(250), Temperature::Cold, Some(ms(200))),
                _ => (ms(i), Temperature::Warm, None),
            };
            let timing = Timing {
                temperature,
                phases: [None, None, start, None, None],
            };
            let answer = Answer {
                status: 200,
                first_byte: due + latency,
                body_bytes: 3,
                timing,
            };
            recorder.over(due, Outcome::Answered(answer), due + latency);
        }
        Report::new(&plan, recorder, 0)
    }

    #[test]
    fn the_table_says_it_all() {
        let expected = "\
asked     constant 11/s for 1s
requests  11 due, 10 answered, 1 failed, 0 aborted
rate      11.0/s asked, 5.0/s achieved
status    200: 10
error     timeout: 1 (first: no whole answer in time)

from the due time           count      min      p50      p90      p99    p99.9      max
all                            11   1.00ms   6.00ms    250ms    1.01s    1.01s    1.01s
to the first byte              10   1.00ms   5.00ms   9.00ms    250ms    250ms    250ms
2xx warm                        9   1.00ms   5.00ms   9.00ms   9.00ms   9.00ms   9.00ms
2xx cold                        1    250ms    250ms    250ms    250ms    250ms    250ms
  cold: start                   1    200ms    200ms    200ms    200ms    200ms    200ms
generator late                 11      0ns      0ns      0ns   5.00ms   5.00ms   5.00ms
warning: 1 of 11 requests were issued more than 1.00ms late: the generator is part of the figures
";
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn json_has_the_same_figures() {
        let json = serde_json::to_value(sample()).expect("serialises");
        assert_eq!(json["statuses"]["200"], 10);
        assert_eq!(json["errors"]["timeout"]["count"], 1);
        assert_eq!(json["asked_rate"], 11.0);
        assert_eq!(json["classes"][1]["status"], "2xx");
        assert_eq!(json["classes"][1]["temperature"], "cold");
        assert_eq!(json["classes"][1]["phases"]["start"]["count"], 1);
        let p50 = json["latency"]["p50_ms"].as_f64().expect("a number");
        assert!((p50 - 6.0).abs() < 0.01, "{p50}");
        assert_eq!(json["schedule"]["missed"], 1);
    }

    #[test]
    fn durations_have_three_digits_and_the_unit_that_fits() {
        for (nanos, expected) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (9_996, "10.0us"),
            (99_960, "100us"),
            (999_600, "1.00ms"),
            (999_400_000, "999ms"),
            (999_600_000, "1.00s"),
            (61_000_000_000, "61.0s"),
        ] {
            assert_eq!(short(Duration::from_nanos(nanos)), expected);
        }
    }
}
