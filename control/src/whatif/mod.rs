//! What another policy would have done with the requests of a recording.
//!
//! ```text
//! recording ─▶ Happened: arrivals by second, start latencies ─▶ World: the shipped Fleet among simulated gateways and sandboxes
//!                  │                                                │
//!                  └────────── the same yardstick ──────────────────┘   Happened again, of what the Fleet then does
//! ```
//!
//! Reports tell how many requests came in a second and how long they were here: inside the second they are spread evenly, and
//! each takes what is usual for its revision. Starts take as long as the recording's did. What really happened and what
//! would have are counted alike, from reports and orders.

mod pool;
mod world;

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use manifests::instances::{Instances, SHIPPED};
use manifests::revision::{IdlePolicy, Revision};
use manifests::units::Replicas;
use serde::Serialize;

use crate::happened::Happened;
use world::World;

/// How revisions idle, instead of as they were told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// As they were told to: how far the simulation is off.
    AsRecorded,
    /// `knarr.dev/idle` with this word, for all; `knative` also leaves out min-scale-as, reserve and keep-warm.
    Idle(&'static str),
    /// min-scale at least 1, on full instances.
    AlwaysOn,
    /// The last full replica stays for so long after the last request.
    Fixed(Duration),
}

impl Policy {
    fn apply(self, revision: &mut Revision) {
        let plainly = |revision: &mut Revision| {
            revision.planning.min_scale_as = manifests::exchange::Rung::Full;
            (revision.planning.reserve, revision.planning.keep_warm) = (None, None);
            revision.idle = IdlePolicy::Knative;
        };
        match self {
            Self::AsRecorded => {}
            Self::Idle("knative") => plainly(revision),
            Self::Idle(word) => {
                revision.idle = match word {
                    "auto" => IdlePolicy::Auto,
                    "zero" => IdlePolicy::Zero,
                    "frozen" => IdlePolicy::Frozen { delay: None },
                    "throttled" => IdlePolicy::Throttled,
                    "reserve" => IdlePolicy::Reserve,
                    _ => IdlePolicy::Keep,
                }
            }
            Self::AlwaysOn => {
                plainly(revision);
                revision.scaling.min_scale = revision.scaling.min_scale.max(Replicas(1));
            }
            Self::Fixed(time) => {
                plainly(revision);
                // Counted from the end of the stable window.
                revision.scaling.retention = time.saturating_sub(revision.scaling.stable_window);
            }
        }
    }

    /// Its name in tables.
    pub fn name(self) -> String {
        match self {
            Self::AsRecorded => "as recorded".into(),
            Self::Idle(word) => word.into(),
            Self::AlwaysOn => "always-on".into(),
            Self::Fixed(time) => format!(
                "fixed-{}",
                humantime::format_duration(time).to_string().replace(' ', "")
            ),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "always-on" {
            return Ok(Self::AlwaysOn);
        }
        let fixed = text
            .strip_prefix("fixed-")
            .and_then(|time| humantime::parse_duration(time).ok());
        if let Some(time) = fixed.filter(|time| *time <= Duration::from_secs(14 * 24 * 3600)) {
            return Ok(Self::Fixed(time));
        }
        let known = WORDS.into_iter().find(|word| *word == text).map(Self::Idle);
        known.ok_or_else(|| {
            format!(
                "\"{text}\" is no policy; there are {}, always-on and fixed-TIME, as in fixed-10m",
                WORDS.join(", ")
            )
        })
    }
}

/// A catalogue by its name or from a file.
///
/// # Errors
/// In words for people.
pub fn catalogue(text: &str) -> Result<Instances, String> {
    if let Some(shipped) = Instances::shipped(text) {
        return Ok(shipped);
    }
    let read = std::fs::read_to_string(Path::new(text));
    let file = read.map_err(|error| format!("{text}: {error}; write a file, or one of {}", SHIPPED.join(", ")))?;
    Instances::from_text(text, &file).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

/// One line of the comparison.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which policy.
    pub policy: String,
    /// It is what really happened, not a simulation.
    pub real: bool,
    /// Requests that came.
    pub requests: u64,
    /// Sandboxes that were started.
    pub starts: u64,
    /// Requests that were refused (503).
    pub refused: u64,
    /// Times at which a request came and none was in flight.
    pub idle_arrivals: u64,
    /// Of them, those that waited for longer than the limit of their revision.
    pub violations: u64,
    /// Money, in the catalogue's currency; `None` where another catalogue is compared by, and nobody knows.
    pub cost: Option<f64>,
    /// The part of it while no request was in flight.
    pub idle_cost: Option<f64>,
}

impl Outcome {
    /// What the yardstick says.
    pub fn of(policy: String, real: bool, happened: &Happened) -> Self {
        let mut outcome = Self {
            policy,
            real,
            requests: 0,
            starts: 0,
            refused: 0,
            idle_arrivals: 0,
            violations: 0,
            cost: Some(happened.revisions.values().map(|life| life.cost).sum()),
            idle_cost: Some(happened.revisions.values().map(|life| life.idle_cost).sum()),
        };
        for life in happened.revisions.values() {
            outcome.requests += life.requests();
            outcome.starts += life.starts;
            outcome.refused += life.refused;
            outcome.idle_arrivals += life.idle;
            outcome.violations += life.late;
        }
        outcome
    }
}

/// Runs the requests of a recording against a policy and a catalogue.
pub fn simulate(recorded: &Happened, policy: Policy, instances: &Arc<Instances>) -> Outcome {
    let mut world = World::new(recorded, |revision| policy.apply(revision), instances);
    world.run();
    Outcome::of(policy.name(), false, &world.finish())
}

const WORDS: [&str; 7] = ["knative", "auto", "zero", "frozen", "throttled", "reserve", "keep"];

#[cfg(test)]
mod tests;
