//! The lines of a segment: JSON, one after the other.

use manifests::ids::RevisionId;
use manifests::units::Timestamp;
use sandbox::driver::Capacity;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, is_default};
use super::event::Recorded;
use crate::fleet::Shared;
use crate::scaler::Scaler;

/// One line, as it is read. Written by [`super::Recording`].
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line {
    /// The first one of a segment.
    Segment(Box<Segment>),
    /// A revision as it was just before the next step, the first one in this segment that touches it.
    State(Box<State>),
    /// Something happened, or time was up.
    Step(Box<Step>),
}

/// The beginning of a segment.
#[derive(Serialize, Deserialize)]
pub(super) struct Segment {
    /// The version of this format: [`FORMAT`].
    pub(super) format: u32,
    /// Who wrote it.
    pub(super) knarr: String,
    /// Steps of this recording that came before.
    pub(super) steps: u64,
    /// When it was begun.
    pub(super) at: Timestamp,
    /// What all revisions share.
    pub(super) shared: Shared,
}

/// A revision.
#[derive(Deserialize)]
pub(super) struct State {
    pub(super) due: Option<Timestamp>,
    pub(super) scaler: Scaler,
}

/// The same, to be written.
#[derive(Serialize)]
pub(super) struct StateRef<'a> {
    pub(super) due: Option<Timestamp>,
    pub(super) scaler: &'a Scaler,
}

/// One call of the fleet.
#[derive(Serialize, Deserialize)]
pub(super) struct Step {
    #[serde(rename = "t")]
    pub(super) now: Timestamp,
    /// What happened; without it time was up.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Recorded>,
    /// What the host answered when it was asked what it can take: `null` is the same as before.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) capacity: Vec<Option<Answer>>,
    /// What was decided.
    #[serde(rename = "d", default, skip_serializing_if = "is_default")]
    pub(super) digest: Digest,
}

/// A [`Capacity`]: cores, free memory, budget, used memory.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer(u32, u64, u64, u64);

impl From<Capacity> for Answer {
    fn from(capacity: Capacity) -> Self {
        let Capacity {
            cores,
            free_memory,
            budget,
            used,
        } = capacity;
        Self(cores, free_memory.0, budget.0, used.0)
    }
}

impl From<Answer> for Capacity {
    fn from(Answer(cores, free_memory, budget, used): Answer) -> Self {
        use manifests::units::Bytes;
        Self {
            cores,
            free_memory: Bytes(free_memory),
            budget: Bytes(budget),
            used: Bytes(used),
        }
    }
}

impl State {
    pub(super) fn revision(&self) -> &RevisionId {
        self.scaler.id()
    }
}

/// Changes when a line changes that an older Knarr would misread.
pub(super) const FORMAT: u32 = 3;
