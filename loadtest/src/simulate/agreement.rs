//! Whether a simulation tells the truth: what it says beside what really happened, with the same calls. PURE.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::aligned;
use super::statistics::interval;
use super::tally::Tally;
use crate::results::{Ended, Fate, Request};

/// What came of one policy, on either side.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests that came.
    pub arrivals: u64,
    /// Money, all of it.
    pub cost: f64,
    /// Instances that were started.
    pub starts: u64,
    /// Requests that came while none of their function was in flight.
    pub idle: u64,
    /// Of them, those whose added latency exceeded the limit, and those without an answer.
    pub late: u64,
}

impl Outcome {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            arrivals: self.arrivals + other.arrivals,
            cost: self.cost + other.cost,
            starts: self.starts + other.starts,
            idle: self.idle + other.idle,
            late: self.late + other.late,
        }
    }
}

impl Outcome {
    /// Of several runs of the same: the average; counts are rounded.
    pub fn mean(all: &[Self]) -> Self {
        let sum = all.iter().copied().fold(Self::default(), Self::plus);
        let runs = all.len().max(1) as u64;
        let each = |count: u64| (count + runs / 2) / runs;
        Self {
            arrivals: each(sum.arrivals),
            cost: sum.cost / count(runs),
            starts: each(sum.starts),
            idle: each(sum.idle),
            late: each(sum.late),
        }
    }
}

impl From<&Tally> for Outcome {
    fn from(tally: &Tally) -> Self {
        Self {
            arrivals: tally.arrivals,
            cost: tally.costs.total(),
            starts: tally.starts,
            idle: tally.idle,
            late: tally.violations,
        }
    }
}

/// The idle arrivals among the requests of one function, and the late ones of them. `requests` are in the order in which
/// they were due, each with how long it was asked to take.
///
/// A request is in flight from when it was due until its end. What was added is all that `Server-Timing` names, without
/// what was asked for: the time of a client that was itself late is not the server's.
pub fn idle_arrivals<'a>(requests: impl IntoIterator<Item = (&'a Request, Duration)>, limit: Duration) -> (u64, u64) {
    let (mut idle, mut late) = (0, 0);
    let mut busy_until = Duration::ZERO;
    for (request, asked) in requests {
        if busy_until <= request.due {
            idle += 1;
            late += u64::from(is_late(request, asked, limit));
        }
        busy_until = busy_until.max(request.due + request.latency);
    }
    (idle, late)
}

fn is_late(request: &Request, asked: Duration, limit: Duration) -> bool {
    let answered = matches!(request.fate, Fate::Ended(Ended::Status(status)) if status < 400);
    let phases = &request.timing.phases;
    let took = if phases.iter().any(Option::is_some) {
        phases.iter().flatten().sum()
    } else {
        request.latency
    };
    !answered || took.saturating_sub(asked) > limit
}

/// Both sides of one policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Agreement {
    /// What was compared.
    pub name: String,
    /// What happened.
    pub real: Outcome,
    /// What the simulator said.
    pub simulated: Outcome,
    /// Figures may differ by so much, as a share of what happened.
    pub within: f64,
}

impl Agreement {
    /// What does not agree, in words; empty when all does.
    pub fn differs(&self) -> Vec<String> {
        let Self {
            name,
            real,
            simulated,
            within,
        } = self;
        let mut wrong = Vec::new();
        let mut compare = |what: &str, real: f64, simulated: f64| {
            let off = off(real, simulated);
            // The edge itself is within, whatever the last bit says.
            if off.is_nan() || off.abs() > within + 1e-9 {
                wrong.push(format!(
                    "{name}: {what} is {simulated:.6} simulated and {real:.6} really: {} off, more than {}",
                    percent(off),
                    percent(*within)
                ));
            }
        };
        compare("cost", real.cost, simulated.cost);
        compare("the number of starts", count(real.starts), count(simulated.starts));
        let (really, said) = (shares(real), shares(simulated));
        if really.0 > said.1 || said.0 > really.1 {
            wrong.push(format!(
                "{name}: the intervals of late idle arrivals do not overlap: {} simulated and {} really",
                range(said),
                range(really)
            ));
        }
        if real.arrivals != simulated.arrivals {
            wrong.push(format!(
                "{name}: {} requests were simulated and {} really sent",
                simulated.arrivals, real.arrivals
            ));
        }
        wrong
    }
}

/// A table of all of them.
pub fn table(agreements: &[Agreement]) -> String {
    let mut cells = Vec::new();
    for Agreement {
        name, real, simulated, ..
    } in agreements
    {
        let mut row = |what: &str, [real, simulated]: [String; 2], off: String| {
            cells.push(vec![name.clone(), what.into(), real, simulated, off]);
        };
        let both = |of: &dyn Fn(&Outcome) -> String| [of(real), of(simulated)];
        let differ = |of: &dyn Fn(&Outcome) -> f64| percent(off(of(real), of(simulated)));
        row(
            "requests",
            both(&|it| it.arrivals.to_string()),
            differ(&|it| count(it.arrivals)),
        );
        row("cost", both(&|it| format!("{:.6}", it.cost)), differ(&|it| it.cost));
        row(
            "starts",
            both(&|it| it.starts.to_string()),
            differ(&|it| count(it.starts)),
        );
        row(
            "idle arrivals",
            both(&|it| it.idle.to_string()),
            differ(&|it| count(it.idle)),
        );
        row("late of them", both(&|it| it.late.to_string()), String::new());
        row("late, 95 %", both(&|it| range(shares(it))), String::new());
    }
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}",
        aligned(&["POLICY", "WHAT", "REALLY", "SIMULATED", "OFF"], &cells).trim_end()
    );
    text
}

/// The interval of the share of late ones.
fn shares(outcome: &Outcome) -> (f64, f64) {
    interval(outcome.late, outcome.idle, CONFIDENCE)
}

/// How far the simulation is off, as a share of what happened.
fn off(real: f64, simulated: f64) -> f64 {
    match (real == 0.0, simulated == 0.0) {
        (true, true) => 0.0,
        (true, false) => f64::INFINITY,
        (false, _) => simulated / real - 1.0,
    }
}

fn percent(share: f64) -> String {
    format!("{:+.1}%", share * 100.0)
}

fn range((low, high): (f64, f64)) -> String {
    format!("{:.1}% to {:.1}%", low * 100.0, high * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
fn count(count: u64) -> f64 {
    count as f64
}

const CONFIDENCE: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ErrorKind;
    use crate::server_timing::Timing;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn request(due: u64, latency: u64, fate: Fate, phases: [Option<u64>; 5]) -> Request {
        Request {
            stage: 0,
            target: 0,
            due: ms(due),
            fate,
            latency: ms(latency),
            first_byte: None,
            timing: Timing {
                phases: phases.map(|it| it.map(ms)),
                ..Timing::default()
            },
        }
    }

    #[test]
    fn an_idle_arrival_finds_nothing_in_flight_and_is_late_by_what_is_added() {
        let good = Fate::Ended(Ended::Status(200));
        let timed = |start, app| [Some(0), Some(0), Some(start), Some(1), Some(app)];
        let all = [
            // Started for 999 ms and a millisecond to connect: exactly the limit.
            (request(0, 1_105, good, timed(999, 100)), true, false),
            // A millisecond more; nothing in flight at the very instant at which the last one ended.
            (request(1_105, 1_200, good, timed(1_000, 100)), true, true),
            // While that runs.
            (request(1_200, 5_000, good, timed(4_000, 100)), false, true),
            // The client was late, not the server.
            (request(6_200, 3_000, good, timed(0, 100)), true, false),
            // A slow spec.
            (request(10_000, 1_500, good, timed(0, 1_400)), true, true),
            (
                request(20_000, 1, Fate::Ended(Ended::Status(503)), [None; 5]),
                true,
                true,
            ),
            (
                request(30_000, 60_000, Fate::Ended(Ended::Error(ErrorKind::Timeout)), [None; 5]),
                true,
                true,
            ),
            (request(89_999, 1, good, [None; 5]), false, false),
            (request(90_000, 0, Fate::NeverSent, [None; 5]), true, true),
        ];
        let (mut idle, mut late) = (0, 0);
        for until in 1..=all.len() {
            let (_, is_idle, is_late) = all[until - 1];
            idle += u64::from(is_idle);
            late += u64::from(is_idle && is_late);
            let some = all[..until].iter().map(|(request, ..)| (request, ms(100)));
            assert_eq!(idle_arrivals(some, ms(1_000)), (idle, late), "the first {until}");
        }
    }

    fn agreement(real: Outcome, simulated: Outcome) -> Agreement {
        Agreement {
            name: "auto".into(),
            real,
            simulated,
            within: 0.15,
        }
    }

    #[test]
    fn each_figure_is_judged_at_its_edge() {
        let real = Outcome {
            arrivals: 500,
            cost: 2.0,
            starts: 100,
            idle: 200,
            late: 20,
        };
        let with = |change: &dyn Fn(&mut Outcome)| {
            let mut simulated = real;
            change(&mut simulated);
            agreement(real, simulated).differs()
        };
        for fits in [
            with(&|_| {}),
            with(&|it| it.cost = 2.299_9),
            with(&|it| it.cost = 1.700_1),
            with(&|it| it.starts = 115),
            with(&|it| it.starts = 85),
            // Clopper and Pearson: 6.2 to 15.0 % of 20 in 200; 13 are 3.5 to 10.9 %, 38 are 13.8 to 25.1 %.
            with(&|it| it.late = 13),
            with(&|it| it.late = 38),
        ] {
            assert_eq!(fits, Vec::<String>::new());
        }
        for (wrong, words) in [
            (
                with(&|it| it.cost = 2.301),
                "cost is 2.301000 simulated and 2.000000 really: +15.1% off",
            ),
            (with(&|it| it.cost = f64::NAN), "cost is NaN"),
            (with(&|it| it.starts = 84), "the number of starts"),
            (with(&|it| it.late = 3), "do not overlap"),
            (with(&|it| it.late = 60), "do not overlap"),
            (
                with(&|it| it.arrivals = 499),
                "499 requests were simulated and 500 really sent",
            ),
        ] {
            assert!(wrong.len() == 1 && wrong[0].contains(words), "{wrong:?}");
        }
        let none = Outcome { starts: 0, ..real };
        assert!(agreement(none, none).differs().is_empty());
        let some = Outcome { starts: 1, ..real };
        assert_eq!(agreement(none, some).differs().len(), 1, "of nothing there is no share");
    }

    #[test]
    fn an_average_is_rounded() {
        let run = |starts, cost| Outcome {
            arrivals: 7,
            starts,
            cost,
            ..Outcome::default()
        };
        assert_eq!(Outcome::mean(&[run(1, 1.0), run(2, 2.0), run(2, 6.0)]), run(2, 3.0));
        assert_eq!(Outcome::mean(&[]), Outcome::default());
    }

    #[test]
    fn a_table_has_both_sides() {
        let real = Outcome {
            cost: 1.0,
            idle: 20,
            late: 1,
            ..Outcome::default()
        };
        let text = table(&[agreement(real, Outcome { cost: 1.1, ..real })]);
        assert!(text.contains("+10.0%") && text.contains("0.1% to 24.9%"), "{text}");
    }
}
