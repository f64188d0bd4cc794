//! What happens to the fleet, and how one snapshot differs from the next.

use std::cmp::Ordering;
use std::sync::Arc;

use manifests::exchange::{LoadReport, Snapshot};
use manifests::ids::{Generation, RevisionId, SandboxId};
use manifests::instances::Instances;
use manifests::revision::Revision;
use manifests::units::Bytes;
use sandbox::driver::{DriverError, Exit, Reclaimed, StartError, Started};
use serde::{Deserialize, Serialize};

use crate::learned::Learned;

/// What happens to the fleet.
#[derive(Debug)]
pub enum Event {
    /// Desired state; one that is older than the one in place is refused.
    Snapshot(Arc<Snapshot>),
    /// The same, as what it changes: so it stands in recordings.
    Changes {
        /// Of the snapshot.
        generation: Generation,
        /// What can be had, when that changed.
        instances: Option<Arc<Instances>>,
        /// In order of names.
        changes: Vec<Change>,
    },
    /// What a gateway sees.
    Report(LoadReport),
    /// A start ended.
    Started {
        /// Of which revision.
        revision: RevisionId,
        /// Which sandbox.
        id: SandboxId,
        /// How.
        result: Result<Started, StartError>,
    },
    /// A sandbox is gone.
    Exited {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
        /// How it ended.
        exit: Exit,
    },
    /// The readiness of a sandbox changed.
    Readiness {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
        /// Why its readiness probe fails; `None` when it passes again.
        unready: Option<Arc<str>>,
    },
    /// The liveness probe of a sandbox failed for good, and its driver is ending it.
    Unhealthy {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
        /// What the probe said.
        why: Arc<str>,
    },
    /// A stop ended.
    Stopped {
        /// Of which revision.
        revision: RevisionId,
        /// Which sandbox.
        id: SandboxId,
        /// Whether it is gone.
        result: Result<(), DriverError>,
    },
    /// Limits were changed, or not.
    LimitsSet {
        /// Of which revision.
        revision: RevisionId,
        /// Which sandbox.
        id: SandboxId,
        /// Whether they are.
        result: Result<(), DriverError>,
    },
    /// A freeze ended.
    Frozen {
        /// Of which revision.
        revision: RevisionId,
        /// Which sandbox.
        id: SandboxId,
        /// What it holds.
        result: Result<Bytes, DriverError>,
    },
    /// A thaw ended.
    Thawed {
        /// Of which revision.
        revision: RevisionId,
        /// Which sandbox.
        id: SandboxId,
        /// Whether it runs.
        result: Result<(), DriverError>,
    },
    /// Memory of a frozen sandbox was moved to swap.
    Reclaimed {
        /// Of which revision.
        revision: RevisionId,
        /// Which sandbox.
        id: SandboxId,
        /// How much.
        reclaimed: Reclaimed,
    },
    /// Events were missed: this is what runs, and what of it is not ready.
    Running {
        /// Every started sandbox.
        running: Vec<SandboxId>,
        /// Those whose readiness probe fails, and why.
        unready: Vec<(SandboxId, Arc<str>)>,
    },
}

/// What a new snapshot changes about one revision.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is there now.
    New(
        #[serde(with = "crate::flight::manifest")] Arc<Revision>,
        /// What it has taught before a restart of Knarr.
        #[serde(default)]
        Option<Box<Learned>>,
    ),
    /// Another one of the same name took its place.
    Replaced(#[serde(with = "crate::flight::manifest")] Arc<Revision>),
    /// Its routes or annotations changed.
    Updated(#[serde(with = "crate::flight::manifest")] Arc<Revision>),
    /// It is there no more.
    Gone(RevisionId),
}

/// Walks both in order of names; what they share costs one comparison of pointers.
pub(super) fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let (mut old, mut new) = (old.revisions.iter().peekable(), new.revisions.iter().peekable());
    let mut changes = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((_, before)), Some((_, after))) if Arc::ptr_eq(before, after) => {
                old.next();
                new.next();
                continue;
            }
            (Some((before, _)), Some((after, _))) => before.cmp(after),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        match (before, after) {
            (Some((_, before)), Some((_, after))) if before.created != after.created => {
                changes.push(Change::Replaced(Arc::clone(after)));
            }
            (Some(_), Some((_, after))) => changes.push(Change::Updated(Arc::clone(after))),
            (Some((id, _)), None) => changes.push(Change::Gone(id.clone())),
            (None, Some((_, revision))) => changes.push(Change::New(Arc::clone(revision), None)),
            (None, None) => {}
        }
    }
}
