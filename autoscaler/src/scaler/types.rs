//! What a revision's scaling is made of: orders to the shell, what all revisions share, the states of a sandbox.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{EndpointSet, RevisionStatus};
use manifests::ids::{Generation, RevisionId, SandboxId};
use manifests::instances::Instances;
use manifests::revision::Revision;
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::{Limits, SandboxSpec};
use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::claims::Claims;
use crate::collect::{Collector, Gateways};
use crate::cost::Costs;
use crate::decider::{Decider, Decision};
use crate::evict::Evictions;
use crate::explain::Explain;
use crate::flight::digest::Tally;
use crate::names::Names;
use crate::planner::{IdlePlanner, Population};
use crate::specs::{Spec, Specs};

/// What the shell shall do. The order matters: limits before endpoints, endpoints before stops.
#[derive(Clone, Debug)]
pub enum Output {
    /// Start a sandbox; its end comes back as [`crate::fleet::Event::Started`].
    Start(SandboxSpec),
    /// Drop the future of that start; nothing comes back unless it was ready already.
    Cancel(SandboxId),
    /// Stop a sandbox; comes back as [`crate::fleet::Event::Stopped`].
    Stop {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
        /// How long it may take to end by itself.
        grace: Duration,
    },
    /// Change limits in place; comes back as [`crate::fleet::Event::LimitsSet`].
    SetLimits {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
        /// To what.
        limits: Limits,
    },
    /// Freeze a sandbox; comes back as [`crate::fleet::Event::Frozen`].
    Freeze {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
    },
    /// Let it run on; comes back as [`crate::fleet::Event::Thawed`].
    Thaw {
        /// Of which revision.
        revision: RevisionId,
        /// Which one.
        id: SandboxId,
    },
    /// For every gateway.
    Endpoints(EndpointSet),
    /// For control.
    Status(RevisionStatus),
}

impl Output {
    /// In words, for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::Start(spec) => format!("start {}", spec.id),
            Self::Cancel(id) => format!("cancel the start of {id}"),
            Self::Stop { id, .. } => format!("stop {id}"),
            Self::SetLimits { id, limits, .. } => match limits.cpu {
                Some(cpu) => format!("limit {id} to {cpu}"),
                None => format!("lift the limit of {id}"),
            },
            Self::Freeze { id, .. } => format!("freeze {id}"),
            Self::Thaw { id, .. } => format!("thaw {id}"),
            Self::Endpoints(set) => format!(
                "{} endpoints of {}, {}",
                set.endpoints.len(),
                set.revision,
                set.rung.as_str()
            ),
            Self::Status(status) => format!("status of {}: {} ready", status.revision, status.actual),
        }
    }
}
/// Makes the planner of a revision.
pub type Planners = Box<dyn Fn(&Revision) -> Box<dyn IdlePlanner> + Send>;

/// What all revisions share, and where they put what they want done.
pub(crate) struct Context {
    pub(crate) now: Timestamp,
    pub(crate) instances: Arc<Instances>,
    pub(crate) gateways: Gateways,
    pub(crate) admission: Admission,
    pub(crate) names: Names,
    pub(crate) explain: Explain,
    /// The last one given out. One count for all revisions, so that it also grows for one that was deleted and made anew.
    pub(crate) generation: Generation,
    pub(crate) outputs: VecDeque<Output>,
    /// The driver can freeze.
    pub(crate) freezes: bool,
    /// What stands idle and holds memory, for evictions and for those who ask.
    pub(crate) evictions: Evictions,
    /// Whose turn it is with claims that one sandbox may have at a time.
    pub(crate) claims: Claims,
    /// What is believed of the idle times of revisions that are not known yet.
    pub(crate) population: Population,
    /// Makes the planner of a revision with `knarr.dev/idle: auto`.
    pub(crate) planners: Planners,
    /// The specs made last, shared by revisions that are alike.
    pub(crate) specs: Option<Arc<Specs>>,
    /// Instances on each spec of which not everybody can have as many as they like.
    pub(crate) stock: BTreeMap<Arc<str>, u32>,
    /// Revisions whose next start does not fit, the first that found so in front, with what each lacks.
    pub(crate) hungry: VecDeque<(RevisionId, Bytes)>,
    /// What every revision costs; nothing here reads it.
    pub(crate) costs: Costs,
    /// What the step at hand decides, while that is recorded or compared.
    pub(crate) tally: Option<Tally>,
}

impl Context {
    /// What a revision may run on.
    pub(super) fn specs(&mut self, revision: &Revision) -> Arc<Specs> {
        let specs = Specs::of(&self.instances, revision);
        match &self.specs {
            Some(known) if **known == specs => Arc::clone(known),
            _ => Arc::clone(self.specs.insert(Arc::new(specs))),
        }
    }

    /// What of limited specs a revision had, and has.
    pub(crate) fn take_stock(&mut self, before: &[Arc<str>], after: &[Arc<str>]) {
        for name in after {
            *self.stock.entry(Arc::clone(name)).or_default() += 1;
        }
        for name in before {
            if let Some(count) = self.stock.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        }
        if !before.is_empty() {
            self.stock.retain(|_, count| *count > 0);
        }
    }

    pub(super) fn next_generation(&mut self) -> Generation {
        self.generation = self.generation.next();
        self.generation
    }
}

/// What only a revision with recent load has; the rest of 100,000 idle ones is small.
#[derive(Serialize, Deserialize)]
pub(super) struct Hot {
    pub(super) collector: Collector,
    pub(super) decider: Decider,
    pub(super) decision: Option<Decision>,
    pub(super) next_tick: Timestamp,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Sandbox {
    pub(super) id: SandboxId,
    pub(super) ordered: Timestamp,
    pub(super) state: State,
    /// What it runs on, as far as the driver has said.
    pub(super) spec: Arc<Spec>,
    /// What it was asked to change to in place.
    pub(super) changes: Option<Arc<Spec>>,
    /// Why its readiness probe fails, while it does.
    pub(super) unready: Option<Arc<str>>,
    /// What it held when that was last looked at.
    pub(super) memory: Option<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Starting,
    Ready {
        since: Timestamp,
        start: Duration,
    },
    /// `since` and `start` as they were when it was ready first.
    Unready {
        since: Timestamp,
        start: Duration,
    },
    /// `set` is the first endpoint set without it; `None` until that is published.
    Draining {
        set: Option<Generation>,
        since: Timestamp,
        then: Then,
    },
    /// `woken` when a request came meanwhile: it is thawed as soon as it stands still.
    Freezing {
        woken: Option<Timestamp>,
    },
    Frozen,
    /// Since the request that it is thawed for.
    Thawing {
        since: Timestamp,
    },
    Stopping {
        retry: Option<Timestamp>,
    },
}

/// What a drain ends in.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Then {
    Stop,
    /// Only when no connection is open either.
    Freeze,
}

impl Sandbox {
    /// One that nobody wants any more.
    pub(super) fn surplus(id: SandboxId, spec: Arc<Spec>, now: Timestamp) -> Self {
        Self {
            state: State::drain(now),
            ..Self::ordered(id, spec, now)
        }
    }

    /// One that is being started.
    pub(super) const fn ordered(id: SandboxId, spec: Arc<Spec>, now: Timestamp) -> Self {
        Self {
            id,
            ordered: now,
            state: State::Starting,
            spec,
            changes: None,
            unready: None,
            memory: None,
        }
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Runs or is on its way, ready or not.
    pub(super) const fn is_live(&self) -> bool {
        matches!(
            self.state,
            State::Ready { .. }
                | State::Unready { .. }
                | State::Starting
                | State::Thawing { .. }
                | State::Freezing { woken: Some(_) }
        )
    }
}

impl State {
    /// Out of the endpoint set, to be stopped.
    pub(super) const fn drain(now: Timestamp) -> Self {
        Self::Draining {
            set: None,
            since: now,
            then: Then::Stop,
        }
    }

    /// Frozen, or on the way there or back.
    pub(super) const fn is_cold(self) -> bool {
        matches!(
            self,
            Self::Draining { then: Then::Freeze, .. } | Self::Freezing { .. } | Self::Frozen | Self::Thawing { .. }
        )
    }

    pub(super) const fn of(ready: bool, since: Timestamp, start: Duration) -> Self {
        if ready {
            Self::Ready { since, start }
        } else {
            Self::Unready { since, start }
        }
    }
}
