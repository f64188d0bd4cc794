//! PURE  A plan in words and numbers, for people: where an idle revision stands by age, and what became of every other rung.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::revision::ColdStartSla;
use manifests::units::{Bytes, Millicores, PricePerHour};
use serde::Serialize;

/// Where to stand, and why.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Plan {
    /// The rung now.
    pub rung: Rung,
    /// The spec on it; `None` at zero and frozen.
    pub spec: Option<Arc<str>>,
    /// What it costs.
    pub price: PricePerHour,
    /// The SLA, as the annotation writes it.
    pub sla: String,
    /// The whole idle time, by age.
    pub steps: Vec<PlannedStep>,
    /// Money that it is expected to come to until the next request, from when it was planned on.
    pub cost: f64,
    /// Probability that the next request is later than the SLA allows.
    pub late: f64,
    /// Every rung that was looked at, cheapest first.
    pub candidates: Vec<Candidate>,
}

/// From this age on, stand there.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PlannedStep {
    /// Time since the last request ended.
    pub age: Duration,
    /// Which rung.
    pub rung: Rung,
    /// The cheaper spec on it.
    pub spec: Option<Arc<str>>,
}

/// One rung that was looked at.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Candidate {
    /// Which rung.
    pub rung: Rung,
    /// The spec on it; `None` at zero and frozen.
    pub spec: Option<Arc<str>>,
    /// The CPU of that spec; `None` is no limit.
    pub cpu: Option<Millicores>,
    /// What standing there costs.
    pub price: PricePerHour,
    /// Upper bound on what a wake-up adds, at the SLA's quantile; `None` when nobody can say.
    pub bound: Option<Duration>,
    /// Measurements behind the bound.
    pub samples: usize,
    /// Probability that a wake-up from there is later than the SLA allows.
    pub late: f64,
    /// How many times longer a request takes there than on a full instance.
    pub slow: f64,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Verdict {
    /// The revision stands there.
    Chosen,
    /// It will, from this age on.
    Later(Duration),
    /// It keeps the SLA, but costs more.
    Dearer,
    /// Its bound is over the limit.
    TooSlow,
    /// Most wake-ups were fast enough, but too many were not.
    Missed,
    /// Nothing was measured yet.
    Unmeasured,
    /// The last start failed.
    StartFails,
    /// This host cannot change limits in place, or could not start the cheaper instance.
    Unavailable,
    /// This host cannot freeze, or not this one.
    CannotFreeze,
    /// min-scale, keep-warm or scale-to-zero want a higher one.
    TooLow,
}

impl Plan {
    /// The choice in a sentence.
    pub fn reason(&self) -> String {
        let mut by_age = String::new();
        for step in &self.steps {
            let rung = step.rung.as_str();
            // Written to a string, which takes everything.
            let _ = if by_age.is_empty() {
                write!(by_age, "{rung}")
            } else {
                write!(by_age, ", {rung} from {}", rough(step.age))
            };
        }
        format!(
            "{} at {}, by the plan for {}: {by_age}; {:.2}% of next requests late",
            self.rung.as_str(),
            self.price,
            self.sla,
            self.late * 100.0
        )
    }
}

impl Candidate {
    /// What a request meets there, in words.
    pub fn bound_text(&self) -> String {
        match (self.bound, self.samples) {
            (None, _) => "wake-up unknown".into(),
            (Some(Duration::ZERO), _) if self.slow > 1.005 => {
                format!("takes {} times as long", (self.slow * 100.0).round() / 100.0)
            }
            (Some(Duration::ZERO), _) => "adds nothing".into(),
            (Some(bound), 0) => format!("adds at most {}, not measured yet", short(bound)),
            (Some(bound), 1) => format!("adds at most {}, 1 measured", short(bound)),
            (Some(bound), n) => format!("adds at most {}, {n} measured", short(bound)),
        }
    }

    /// The verdict in words.
    pub fn verdict_text(&self) -> String {
        let text = match self.verdict {
            Verdict::Chosen => "chosen",
            Verdict::Later(age) => return format!("chosen from {} on", rough(age)),
            Verdict::Dearer => "keeps the SLA, costs more",
            Verdict::TooSlow => "rejected: may be slower than the SLA allows",
            Verdict::Missed => "rejected: too many were slower than the SLA allows",
            Verdict::Unmeasured => "rejected: no start was measured yet",
            Verdict::StartFails => "rejected: the last start failed",
            Verdict::Unavailable => "rejected: this host could not do it, tried again later",
            Verdict::CannotFreeze => "rejected: this host could not freeze it",
            Verdict::TooLow => "rejected: min-scale, keep-warm or scale-to-zero want more",
        };
        text.into()
    }
}

/// An SLA as its annotation writes it.
pub(crate) fn sla_text(sla: &ColdStartSla) -> String {
    format!("p{}<{}", (sla.quantile * 1e8).round() / 1e6, short(sla.limit))
}

/// A duration as people write it: three digits and a unit.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    let text = if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// An age as people say it, up to days.
fn rough(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..=119 => short(age),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Rewriting a limit takes far less; this stands in until it was measured once.
pub(crate) const ASSUMED_UPGRADE: Duration = Duration::from_millis(5);

/// So does a thaw, unless the memory was moved to swap.
pub(crate) const ASSUMED_THAW: Duration = Duration::from_millis(5);

/// The memory an instance is assumed to need when the manifest sets no limit.
pub const ASSUMED_MEMORY: Bytes = Bytes(64 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let table = [
            (0, "0us", "0us"),
            (900, "900us", "900us"),
            (1_000, "1ms", "1ms"),
            (31_949, "31.9ms", "31.9ms"),
            (12_778_000, "12.8s", "12.8s"),
            (600_000_000, "600s", "10m"),
            (7_300_000_000, "7300s", "2h"),
            (200_000_000_000, "200000s", "2d"),
        ];
        for (micros, exactly, roughly) in table {
            let duration = Duration::from_micros(micros);
            assert_eq!((short(duration).as_str(), rough(duration).as_str()), (exactly, roughly));
        }
    }

    #[test]
    fn a_plan_says_its_ages() {
        let step = |seconds, rung| PlannedStep {
            age: Duration::from_secs(seconds),
            rung,
            spec: None,
        };
        let plan = Plan {
            rung: Rung::Frozen,
            spec: None,
            price: PricePerHour(0.025),
            sla: sla_text(&ColdStartSla::default()),
            steps: vec![step(0, Rung::Full), step(2, Rung::Frozen), step(7200, Rung::Zero)],
            cost: 0.001,
            late: 0.0012,
            candidates: Vec::new(),
        };
        assert_eq!(
            plan.reason(),
            "frozen at 0.0250/h, by the plan for p99<1s: full, frozen from 2s, zero from 2h; 0.12% of next requests late"
        );
    }
}
