//! The fleet and the flight recorder: steps, what all revisions share, and the way back from a recording.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use manifests::ids::{Generation, RevisionId, SandboxId};
use manifests::instances::Instances;
use manifests::units::{Bytes, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Entry, Event, Fleet};
use crate::admission::{self, Admission, CapacityOf};
use crate::claims::Claims;
use crate::collect::Gateways;
use crate::evict::Standing;
use crate::explain::Explain;
use crate::flight::digest::{Digest, Tally};
use crate::flight::{Answers, Lines, Recorded, Recording};
use crate::names::Names;
use crate::planner::Population;
use crate::scaler::{Context, Output, Scaler};

/// What all revisions share, as a recording has it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Shared {
    snapshot: Generation,
    instances: Arc<Instances>,
    population: Population,
    gateways: Gateways,
    admission: admission::Saved,
    names: Names,
    generation: Generation,
    freezes: bool,
    evictions: Vec<Standing>,
    claims: Claims,
    #[serde(default)]
    stock: BTreeMap<Arc<str>, u32>,
    hungry: VecDeque<(RevisionId, Bytes)>,
    freeing: BTreeMap<SandboxId, Bytes>,
    relieve_at: Timestamp,
}

/// A step that has begun.
pub(super) struct Begun {
    event: Option<Recorded>,
    /// Orders that were there before.
    orders: usize,
}

impl Fleet {
    /// Turns the recorder on, which listens to what `capacity` answers. To be called before anything happens.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        let answers = Answers::default();
        self.cx.admission.listen(&answers);
        self.cx.tally = Some(Tally::default());
        self.recording = Some(Recording::new(answers));
        self.begin_segment();
        self
    }

    /// What was recorded since this was called last; nothing while the recorder is off.
    pub fn take_recorded(&mut self) -> Lines {
        self.recording.as_mut().map(Recording::take).unwrap_or_default()
    }

    /// Begins another segment of the recording, which can be read without those before. What was recorded before must have
    /// been taken.
    pub fn begin_segment(&mut self) {
        if self.recording.is_none() {
            return;
        }
        let (shared, now) = (self.shared(), self.cx.now);
        if let Some(recording) = &mut self.recording {
            recording.begin(shared, now);
        }
    }

    /// What all revisions share.
    pub(crate) fn shared(&self) -> Shared {
        // All fields by name: whatever is new must be thought of here.
        let Context {
            now: _,
            instances,
            population,
            planners: _,
            specs: _,
            gateways,
            admission,
            names,
            explain: _,
            generation,
            stock,
            outputs: _,
            freezes,
            evictions,
            claims,
            hungry,
            costs: _,
            tally: _,
        } = &self.cx;
        Shared {
            snapshot: self.generation,
            instances: Arc::clone(instances),
            population: population.clone(),
            gateways: gateways.clone(),
            admission: admission.save(),
            names: names.clone(),
            generation: *generation,
            freezes: *freezes,
            evictions: evictions.all(),
            claims: claims.clone(),
            stock: stock.clone(),
            hungry: hungry.clone(),
            freeing: self.freeing.clone(),
            relieve_at: self.relieve_at,
        }
    }

    /// A fleet without revisions, as it was when `shared` was written: they come by [`Self::put_back`].
    pub(crate) fn from_recording(shared: Shared, capacity: CapacityOf, explain: Explain) -> Self {
        let mut fleet = Self::new(explain, 0, Box::new(Default::default));
        fleet.generation = shared.snapshot;
        fleet.freeing = shared.freeing;
        fleet.relieve_at = shared.relieve_at;
        let cx = &mut fleet.cx;
        cx.instances = shared.instances;
        cx.population = shared.population;
        cx.gateways = shared.gateways;
        cx.admission = Admission::restore(shared.admission, capacity);
        cx.names = shared.names;
        cx.generation = shared.generation;
        cx.freezes = shared.freezes;
        cx.claims = shared.claims;
        cx.stock = shared.stock;
        cx.hungry = shared.hungry;
        cx.tally = Some(Tally::default());
        for standing in shared.evictions {
            cx.evictions.set(standing);
        }
        fleet
    }

    /// A revision as a recording has it. One that is there already is left alone.
    pub(crate) fn put_back(&mut self, due: Option<Timestamp>, scaler: Scaler) {
        let id = scaler.id().clone();
        if self.revisions.contains_key(&id) {
            return;
        }
        self.due.extend(due.map(|at| (at, id.clone())));
        let entry = Entry {
            scaler: Box::new(scaler),
            due,
            segment: 0,
            touched: false,
        };
        self.revisions.insert(id, entry);
    }

    /// A revision as it stands, with the instant to look at it again.
    pub(crate) fn state(&self, id: &RevisionId) -> Option<(Option<Timestamp>, &Scaler)> {
        let entry = self.revisions.get(id)?;
        Some((entry.due, &entry.scaler))
    }

    /// What was decided since this was called last, by a fleet from a recording: its orders are taken.
    pub(crate) fn take_decided(&mut self) -> (Digest, Vec<Output>) {
        let orders: Vec<Output> = self.cx.outputs.drain(..).collect();
        let tally = self.cx.tally.get_or_insert_default();
        orders.iter().for_each(|order| tally.order(order));
        (tally.take(), orders)
    }

    pub(super) fn begin_step(&mut self, event: Option<&Event>, now: Timestamp) -> Option<Begun> {
        self.cx.now = now;
        self.cx.admission.begin_step();
        let recording = self.recording.as_mut()?;
        Some(Begun {
            event: recording.event(event),
            orders: self.cx.outputs.len(),
        })
    }

    pub(super) fn end_step(&mut self, begun: Option<Begun>) {
        let (Some(begun), Some(recording), Some(tally)) = (begun, &mut self.recording, &mut self.cx.tally) else {
            return;
        };
        let orders = self.cx.outputs.iter().skip(begun.orders);
        orders.for_each(|order| tally.order(order));
        recording.step(self.cx.now, begun.event, tally.take());
    }
}
