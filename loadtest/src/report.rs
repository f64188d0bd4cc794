//! The figures of a run, made from its results: the table for people, and the summary for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use manifests::units::Rps;
use serde::Serialize;

use crate::histogram::{Latencies, figures};
use crate::record::{ErrorKind, Failures, StatusClass, TOLERANCE};
use crate::results::{Connections, Ended, Results, Schedule, Series, Verdict};
use crate::server_timing::{Phase, Temperature};

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for, in words: `poisson 200/s for 10s, seed 1`.
    pub asked: String,
    /// Whether clients waited for answers before they asked again.
    pub closed_loop: bool,
    /// The stages in which they did, by name, where others are an open loop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed_stages: Vec<String>,
    /// Whether the run was ended before its end.
    pub interrupted: bool,
    /// Requests that were due.
    pub due: u64,
    /// Requests per second asked for, over all stages; `None` where one of them has no rate.
    pub asked_rate: Option<Rps>,
    /// Whole answers per second, from the start to the last answer (or to the planned end, if that is later).
    pub achieved_rate: Rps,
    /// From the start to the last answer.
    #[serde(serialize_with = "crate::results::millis::serialize", rename = "elapsed_ms")]
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
    #[serde(serialize_with = "figures::serialize")]
    pub latency: Latencies,
    /// From the due time to the head of the answer.
    #[serde(serialize_with = "figures::serialize")]
    pub first_byte: Latencies,
    /// `latency` of whole answers, by status and by the temperature that the server named.
    pub classes: Vec<Class>,
    /// `latency` by target, where there are several.
    pub targets: Vec<Part>,
    /// `latency` by stage, where there are several.
    pub stages: Vec<Part>,
    /// How well the generator itself did; the results have it beside the summary.
    #[serde(skip)]
    pub schedule: Schedule,
    /// How late the generator's timer was; likewise.
    #[serde(skip)]
    pub timer: (String, Latencies),
    /// How connections were come by; likewise.
    #[serde(skip)]
    pub connections: Connections,
    /// What the thresholds said; likewise.
    #[serde(skip)]
    pub verdicts: Vec<Verdict>,
}

/// Answers of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    /// The kind of status.
    pub status: StatusClass,
    /// In the server's words.
    pub temperature: Temperature,
    /// From the due time to the end of the answer.
    #[serde(serialize_with = "figures::serialize")]
    pub latency: Latencies,
    /// Where the time went, by `Server-Timing`; all answers of this temperature, whatever their status.
    #[serde(serialize_with = "figures::map")]
    pub phases: BTreeMap<Phase, Latencies>,
}

/// A stage, or a target.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Requests without a whole answer below 400.
    pub bad: u64,
    /// From the due time to the end of the answer, or to the error.
    #[serde(serialize_with = "figures::serialize")]
    pub latency: Latencies,
}

impl Report {
    pub(crate) fn of(results: &Results) -> Self {
        let mut statuses = BTreeMap::new();
        let mut classes = BTreeMap::<_, Latencies>::new();
        for series in &results.series {
            if let Ended::Status(status) = series.ended {
                *statuses.entry(status).or_default() += series.latency.count();
                let class = classes.entry((StatusClass::of(status), series.temperature));
                class.or_default().merge(&series.latency);
            }
        }
        let phases_of = |temperature: Temperature| {
            let mut phases = BTreeMap::<_, Latencies>::new();
            for it in results.phases.iter().filter(|it| it.temperature == temperature) {
                phases.entry(it.phase).or_default().merge(&it.times);
            }
            phases
        };
        let classes = classes.into_iter().map(|((status, temperature), latency)| Class {
            status,
            temperature,
            latency,
            phases: phases_of(temperature),
        });
        let part = |name: &str, wanted: &dyn Fn(&Series) -> bool| Part {
            name: name.to_owned(),
            bad: results.count(|series| wanted(series) && !series.ended.is_good()),
            latency: results.latency(wanted),
        };
        let stages = results.stages.iter().enumerate();
        let targets = results.targets.iter().enumerate();
        Self {
            asked: results.asked.clone(),
            closed_loop: results.closed_loop,
            closed_stages: closed_stages(results),
            interrupted: results.interrupted,
            due: results.schedule.late.count(),
            asked_rate: asked_rate(results),
            achieved_rate: achieved_rate(results),
            elapsed: results.elapsed,
            classes: classes.collect(),
            statuses,
            errors: results.errors.clone(),
            aborted: results.aborted,
            body_bytes: results.body_bytes,
            latency: results.latency(|_| true),
            first_byte: results.first_byte(|_| true),
            targets: match results.targets.len() {
                ..2 => Vec::new(),
                _ => targets
                    .map(|(nth, it)| part(&it.name, &|series| series.target == nth))
                    .collect(),
            },
            stages: match results.stages.len() {
                ..2 => Vec::new(),
                _ => stages
                    .map(|(nth, it)| part(&it.name, &|series| series.stage == nth))
                    .collect(),
            },
            schedule: results.schedule.clone(),
            timer: (results.clock.timer.clone(), results.clock.late.clone()),
            connections: results.connections.clone(),
            verdicts: results.verdicts.clone(),
        }
    }

    /// Whole answers with this status.
    pub fn count(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// Requests that got no whole answer: errors only, neither planned aborts nor what the generator never sent.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|failures| failures.count).sum()
    }

    /// The targets with the most requests, as many as a reader will look at, and how many are left out.
    pub(crate) fn busiest_targets(&self) -> (Vec<&Part>, usize) {
        const MOST: usize = 12;
        let mut targets: Vec<&Part> = self.targets.iter().collect();
        let more = targets.len().saturating_sub(MOST);
        if more > 0 {
            targets.sort_by_key(|part| std::cmp::Reverse(part.latency.count()));
            targets.truncate(MOST);
        }
        (targets, more)
    }

    /// What the reader must know before believing the figures; empty when the generator kept its schedule.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let Schedule {
            missed,
            never_sent,
            line,
            longest_line,
            ..
        } = &self.schedule;
        if self.interrupted {
            warnings.push("the run was ended before its end".to_owned());
        }
        if !self.closed_stages.is_empty() {
            warnings.push(format!(
                "closed loop in {}: each client waited for its answer before it asked again, so a stall of the server is \
                 seen by few; the figures of all requests are of both, so read those of the stages",
                self.closed_stages
                    .iter()
                    .map(|name| format!("{name:?}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        } else if self.closed_loop {
            warnings.push(
                "closed loop: each client waited for its answer before it asked again, so a stall of the server is seen \
                 by few; do not compare with an open loop"
                    .to_owned(),
            );
        }
        if *never_sent > 0 {
            warnings.push(format!(
                "{never_sent} of {} requests were never sent: too many waited for a connection, or for the generator",
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

/// Empty where all are.
fn closed_stages(results: &Results) -> Vec<String> {
    if results.stages.iter().all(|stage| stage.closed_loop) {
        return Vec::new();
    }
    let closed = results.stages.iter().filter(|stage| stage.closed_loop);
    closed.map(|stage| stage.name.clone()).collect()
}

/// Of all stages together, by their lengths.
fn asked_rate(results: &Results) -> Option<Rps> {
    let length = |stage: &crate::results::Stage| stage.end.saturating_sub(stage.start).as_secs_f64();
    let requests: Option<f64> = results
        .stages
        .iter()
        .map(|stage| stage.asked_rate.map(|rate| rate.0 * length(stage)))
        .sum();
    let total: f64 = results.stages.iter().map(length).sum();
    requests.filter(|_| total > 0.0).map(|requests| Rps(requests / total))
}

fn achieved_rate(results: &Results) -> Rps {
    let answers = results.count(|series| matches!(series.ended, Ended::Status(_)));
    let span = results.elapsed.max(results.planned()).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "2^53 answers are out of reach")]
    Rps(if answers == 0 { 0.0 } else { answers as f64 / span })
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
        let Connections { opened, reused, .. } = self.connections;
        if opened > 0 {
            writeln!(
                f,
                "opened    {opened} connections, {reused} requests over one that stood already"
            )?;
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
        let (targets, more) = self.busiest_targets();
        for part in self.stages.iter().chain(targets) {
            row(f, &part.name, &part.latency)?;
        }
        if more > 0 {
            writeln!(f, "and {more} more targets")?;
        }
        let Connections { dns, connect, tls, .. } = &self.connections;
        for (name, times) in [
            ("resolving names", dns),
            ("connecting", connect),
            ("TLS handshake", tls),
        ] {
            if !times.is_empty() {
                row(f, name, times)?;
            }
        }
        row(f, "generator late", &self.schedule.late)?;
        let (timer, late) = &self.timer;
        if !late.is_empty() {
            row(f, &format!("  of it its {timer}"), late)?;
        }
        for verdict in &self.verdicts {
            let held = if verdict.held { "held" } else { "BROKEN" };
            let of = [&verdict.stage, &verdict.target].into_iter().flatten();
            let of: String = of.map(|name| format!("{name}: ")).collect();
            writeln!(f, "{held:<9} {of}{} (was {})", verdict.threshold, verdict.seen)?;
        }
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
pub(crate) fn short(duration: Duration) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Arrivals;
    use crate::engine::shell;
    use crate::plan::Plan;
    use crate::record::{Answer, Outcome, Recorder, Sent};
    use crate::server_timing::Timing;
    use crate::target::Target;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Nine warm answers after 1 to 9 ms, a cold one after 250 ms, a timeout; the generator late once.
    fn sample() -> Results {
        let target = Target::new(([127, 0, 0, 1], 80).into(), "app");
        let plan = Plan::new(target, Arrivals::Constant(Rps(11.0)), Duration::from_secs(1));
        let mut recorder = Recorder::new();
        for i in 1..=11 {
            let due = ms(i * 90);
            let request = Sent {
                stage: 0,
                target: 0,
                due,
            };
            recorder.issued(due, due + if i == 3 { ms(5) } else { Duration::ZERO });
            let (latency, temperature, start) = match i {
                11 => {
                    recorder.over(
                        request,
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
            recorder.over(request, Outcome::Answered(answer), due + latency);
        }
        let mut results = shell(&plan.scenario());
        recorder.fill(&mut results);
        results
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
        assert_eq!(sample().report().to_string(), expected);
    }

    #[test]
    fn json_has_the_same_figures() {
        let text = sample().to_json().expect("serialises");
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let json = &all["summary"];
        assert_eq!(json["statuses"]["200"], 10);
        assert_eq!(json["errors"]["timeout"]["count"], 1);
        assert_eq!(json["asked_rate"], 11.0);
        assert_eq!(json["classes"][1]["status"], "2xx");
        assert_eq!(json["classes"][1]["temperature"], "cold");
        assert_eq!(json["classes"][1]["phases"]["start"]["count"], 1);
        let p50 = json["latency"]["p50_ms"].as_f64().expect("a number");
        assert!((p50 - 6.0).abs() < 0.01, "{p50}");
        assert_eq!(all["schedule"]["missed"], 1);
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
