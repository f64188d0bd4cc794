//! PURE  Which start may be made now: at most two per core in flight, and none that does not fit into memory.
//!
//! Starts that find no slot stand in line by revision. When a slot comes free, the revision at the head decides anew how
//! many replicas it wants, starts at most one, and goes to the end: what a queue asked for when it was long is not started
//! when it is short, and no revision starves another.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use manifests::ids::{RevisionId, SandboxId};
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::Capacity;
use serde::{Deserialize, Serialize};

use crate::flight::Answers;

/// Asks the host what it can take; only called when a start is considered.
pub type CapacityOf = Box<dyn Fn() -> Capacity + Send>;

/// The starts in flight, and who waits for one.
pub(crate) struct Admission {
    capacity: CapacityOf,
    /// What it answered in this step: it looks into a dozen files.
    answered: Cell<Option<Capacity>>,
    /// It does not change while Knarr runs.
    budget: Option<Bytes>,
    in_flight: BTreeMap<SandboxId, InFlight>,
    /// The memory of all of them.
    reserved: Bytes,
    line: VecDeque<RevisionId>,
    turn: Turn,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct InFlight {
    since: Timestamp,
    memory: Bytes,
}

/// All of it but the way to ask the host, between two steps: it is nobody's turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    budget: Option<Bytes>,
    in_flight: BTreeMap<SandboxId, InFlight>,
    line: VecDeque<RevisionId>,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nobody's: who comes first starts, unless somebody stands in line.
    Open,
    /// The head of the line decides; it may start one.
    Head,
    /// It has.
    Used,
}

/// Why a start may not be made now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Too many in flight, or others stand in line.
    Busy,
    /// It does not fit.
    Memory(Short),
}

/// A start that does not fit into memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Short {
    pub(crate) needs: Bytes,
    /// What can be given to new sandboxes, what starts in flight were promised taken off.
    pub(crate) free: Bytes,
    pub(crate) budget: Bytes,
    pub(crate) used: Bytes,
}

impl Short {
    /// In words for the user, with the numbers.
    pub(crate) fn text(&self) -> String {
        let mib = |Bytes(bytes): Bytes| bytes >> 20;
        format!(
            "another replica needs {} MiB of memory, {} MiB are left: sandboxes use {} of {} MiB",
            mib(self.needs),
            mib(self.free),
            mib(self.used),
            mib(self.budget)
        )
    }
}

impl Admission {
    pub(crate) fn new(capacity: CapacityOf) -> Self {
        let budget = Some(capacity().budget);
        Self {
            capacity,
            answered: Cell::new(None),
            budget,
            in_flight: BTreeMap::new(),
            reserved: Bytes(0),
            line: VecDeque::new(),
            turn: Turn::Open,
        }
    }

    /// What the host answers from now on is kept by `answers` too.
    pub(crate) fn listen(&mut self, answers: &Answers) {
        let capacity = std::mem::replace(&mut self.capacity, Box::new(Capacity::default));
        self.capacity = answers.listen(capacity);
    }

    /// For a recording.
    pub(crate) fn save(&self) -> Saved {
        Saved {
            budget: self.budget,
            in_flight: self.in_flight.clone(),
            line: self.line.clone(),
        }
    }

    /// From a recording.
    pub(crate) fn restore(saved: Saved, capacity: CapacityOf) -> Self {
        Self {
            capacity,
            answered: Cell::new(None),
            budget: saved.budget,
            reserved: Bytes(saved.in_flight.values().map(|start| start.memory.0).sum()),
            in_flight: saved.in_flight,
            line: saved.line,
            turn: Turn::Open,
        }
    }

    /// Cores, and how many more replicas of `needs` fit into free memory.
    pub(crate) fn room(&self, needs: Bytes) -> (u32, u32) {
        let capacity = self.look();
        let fits = self.free(capacity).0 / needs.0.max(1);
        (capacity.cores, u32::try_from(fits).unwrap_or(u32::MAX))
    }

    /// What all sandboxes together may use; `None` where nobody says.
    pub(crate) fn budget(&self) -> Option<Bytes> {
        self.budget.filter(|budget| budget.0 > 0)
    }

    /// What the host says, once in each step.
    pub(crate) fn look(&self) -> Capacity {
        let capacity = self.answered.get().unwrap_or_else(|| (self.capacity)());
        self.answered.set(Some(capacity));
        capacity
    }

    /// Another step begins: the host is asked anew when somebody wants to know.
    pub(crate) fn begin_step(&self) {
        self.answered.set(None);
    }

    /// Takes a start slot and the memory.
    pub(crate) fn admit(&mut self, id: &SandboxId, needs: Bytes, now: Timestamp) -> Result<(), Refused> {
        let capacity = self.look();
        let free = self.free(capacity);
        if needs > free {
            return Err(Refused::Memory(Short {
                needs,
                free,
                budget: capacity.budget,
                used: capacity.used,
            }));
        }
        let blocked = match self.turn {
            Turn::Open => !self.line.is_empty(),
            Turn::Head => false,
            Turn::Used => true,
        };
        if blocked || self.busy(now) >= most(capacity) {
            return Err(Refused::Busy);
        }
        if self.turn == Turn::Head {
            self.turn = Turn::Used;
        }
        self.release(id);
        self.reserved.0 += needs.0;
        let start = InFlight {
            since: now,
            memory: needs,
        };
        self.in_flight.insert(id.clone(), start);
        Ok(())
    }

    /// The start has ended, one way or the other.
    pub(crate) fn release(&mut self, id: &SandboxId) {
        if let Some(start) = self.in_flight.remove(id) {
            self.reserved.0 -= start.memory.0;
        }
    }

    /// Joins the line. The caller sees to it that it stands there once.
    pub(crate) fn join(&mut self, revision: RevisionId) {
        self.line.push_back(revision);
    }

    /// The head of the line, when there is a slot for it: the next decision is its turn, until [`Self::end_turn`].
    pub(crate) fn begin_turn(&mut self, now: Timestamp) -> Option<RevisionId> {
        if self.line.is_empty() || self.busy(now) >= most(self.look()) {
            return None;
        }
        self.turn = Turn::Head;
        self.line.pop_front()
    }

    /// Whoever comes next comes by itself.
    pub(crate) fn end_turn(&mut self) {
        self.turn = Turn::Open;
    }

    /// When a slot comes free by time alone while somebody stands in line.
    pub(crate) fn next_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        if self.line.is_empty() {
            return None;
        }
        let ends = self.in_flight.values().map(|start| start.since.plus(SLOW));
        ends.filter(|end| *end > now).min()
    }

    fn busy(&self, now: Timestamp) -> usize {
        self.in_flight
            .values()
            .filter(|start| now.since(start.since) < SLOW)
            .count()
    }

    /// What starts in flight will take is not free any more; ready sandboxes are the host's own business.
    fn free(&self, capacity: Capacity) -> Bytes {
        Bytes(capacity.free_memory.0.saturating_sub(self.reserved.0))
    }
}

fn most(capacity: Capacity) -> usize {
    usize::try_from(capacity.cores.max(1))
        .unwrap_or(usize::MAX)
        .saturating_mul(PER_CORE)
}

/// Starts in flight per core.
const PER_CORE: usize = 2;

/// A start that takes longer waits rather than works, and gives its slot back: apps that never become ready must not
/// keep others from starting.
const SLOW: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(cores: u32, mib: u64) -> Admission {
        Admission::new(Box::new(move || Capacity {
            cores,
            free_memory: Bytes(mib << 20),
            ..Capacity::default()
        }))
    }

    fn id(n: u32) -> SandboxId {
        SandboxId::new(format!("s-{n}"))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1000 * (100 + seconds))
    }

    const MIB: Bytes = Bytes(1 << 20);

    #[test]
    fn two_starts_per_core_until_they_are_slow() {
        let mut admission = admission(1, 100);
        assert_eq!(admission.admit(&id(1), MIB, at(0)), Ok(()));
        assert_eq!(admission.admit(&id(2), MIB, at(1)), Ok(()));
        assert_eq!(admission.admit(&id(3), MIB, at(1)), Err(Refused::Busy));
        admission.join(RevisionId::new("default", "a"));
        assert_eq!(admission.next_timeout(at(1)), Some(at(5)));
        assert_eq!(admission.begin_turn(at(4)), None);
        assert_eq!(admission.begin_turn(at(5)), Some(RevisionId::new("default", "a")));
        assert_eq!(admission.admit(&id(3), MIB, at(5)), Ok(()));
        assert_eq!(admission.admit(&id(4), MIB, at(9)), Err(Refused::Busy), "one in a turn");
        admission.end_turn();
        admission.release(&id(2));
        assert_eq!(admission.admit(&id(4), MIB, at(5)), Ok(()));
    }

    #[test]
    fn who_stands_in_line_goes_first() {
        let mut admission = admission(4, 100);
        admission.join(RevisionId::new("default", "a"));
        assert_eq!(admission.admit(&id(1), MIB, at(0)), Err(Refused::Busy));
        assert!(admission.begin_turn(at(0)).is_some());
        assert_eq!(admission.admit(&id(1), MIB, at(0)), Ok(()));
    }

    #[test]
    fn memory_of_starts_in_flight_is_taken() {
        let mut admission = admission(8, 100);
        assert_eq!(admission.room(Bytes(30 << 20)), (8, 3));
        assert_eq!(admission.admit(&id(1), Bytes(80 << 20), at(0)), Ok(()));
        assert_eq!(admission.room(Bytes(30 << 20)), (8, 0));
        let (needs, free) = (Bytes(30 << 20), Bytes(20 << 20));
        assert_eq!(
            admission.admit(&id(2), needs, at(0)),
            Err(Refused::Memory(Short {
                needs,
                free,
                budget: Bytes(0),
                used: Bytes(0)
            }))
        );
        admission.release(&id(1));
        assert_eq!(admission.admit(&id(2), needs, at(0)), Ok(()));
    }
}
