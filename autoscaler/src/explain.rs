//! The log of scaling decisions: what was seen, what was decided, what limited it, and why.
//!
//! Bounded per revision and in all. A tick that decides what the one before it did only extends that record. `Display` is
//! what `knarr explain REVISION` prints; the same records go out as JSON.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use manifests::exchange::Rung;
use manifests::ids::RevisionId;
use manifests::units::{Bytes, Replicas, Timestamp};
use sandbox::driver::Reclaimed;
use serde::Serialize;

use crate::planner::Plan;
use crate::planner::busy::BusyPlan;

/// One decision.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Record {
    /// When it was made first.
    pub at: Timestamp,
    /// When it was made last, without anything else in between.
    pub until: Timestamp,
    /// How often it was made.
    pub times: u32,
    /// What made scaling look.
    pub cause: Cause,
    /// What it saw (the last time).
    pub inputs: Inputs,
    /// What the decider alone wants; `None` before it has data.
    pub decided: Option<Replicas>,
    /// The decider is in panic mode.
    pub panicking: bool,
    /// Every limit that changed the count on its way, in order.
    pub clamps: Vec<String>,
    /// Replicas before.
    pub from: Replicas,
    /// Replicas that shall run.
    pub to: Replicas,
    /// The rung they stand on.
    pub rung: Rung,
    /// Why, in a sentence. Before [`Explain::for_revision`] hands it out, only what follows the words of the plan.
    pub reason: String,
    /// The planner's choice with its alternatives, when it was asked.
    pub plan: Option<Plan>,
    /// What the load is served on (the last time), with the alternatives, where there is a choice.
    pub busy: Option<BusyPlan>,
}

/// What made scaling look.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The revision is new.
    Created,
    /// Its manifest or its routes changed.
    Changed,
    /// It was removed.
    Removed,
    /// Two seconds are over.
    Tick,
    /// Requests wait, or came to an idle revision.
    Wake,
    /// Nothing is in flight any more.
    Quiet,
    /// A period of the gate, a back-off or a drain is over, or there is room for another start.
    Due,
    /// A sandbox became ready after this long.
    Started(Duration),
    /// A start failed.
    StartFailed(String),
    /// A sandbox ended without being asked to.
    Exited(String),
    /// A sandbox's readiness probe fails.
    Unready(String),
    /// A sandbox's readiness probe passes again.
    ReadyAgain,
    /// A sandbox's liveness probe failed for good.
    Unhealthy(String),
    /// A gateway gave up on a sandbox.
    Ejected,
    /// A gateway says that a sandbox which had ended soon after its start had answered a request: the start had not failed.
    HadServed,
    /// A sandbox was frozen; it holds this much.
    Frozen(Bytes),
    /// A sandbox could not be frozen or thawed.
    FreezeFailed(String),
    /// A frozen sandbox is ready again, this long after the wake-up call.
    Thawed(Duration),
    /// Memory of a frozen sandbox was moved to swap.
    Reclaimed(Reclaimed),
    /// Memory was short, and its idle sandbox was worth least.
    Evicted,
}

/// What a decision was made from.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Inputs {
    /// `concurrency` or `rps`.
    pub metric: &'static str,
    /// Average over the stable window.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
    /// Wanted average per replica.
    pub target: f64,
    /// Ready replicas.
    pub ready: Replicas,
    /// Replicas being started.
    pub starting: Replicas,
    /// Requests in flight, waiting ones included.
    pub in_flight: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
}

/// The log; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Explain(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    /// Boxed: a queue has room for more than it holds, and there may be a hundred thousand of them.
    revisions: HashMap<RevisionId, VecDeque<(u64, Box<Record>)>>,
    /// Every record made, oldest first; those that their revision has dropped already are skipped.
    order: VecDeque<(u64, RevisionId)>,
    next: u64,
}

impl Explain {
    /// The records of a revision that were still in force at `since`, oldest first; none for an unknown one.
    pub fn for_revision(&self, revision: &RevisionId, since: Timestamp) -> Vec<Record> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let records = log.revisions.get(revision).into_iter().flatten();
        records
            .filter(|(_, record)| record.until >= since)
            .map(|(_, record)| record.in_words())
            .collect()
    }

    /// Adds a decision, or extends the last one when it is the same again. Its reason begins with the words of its plan, which
    /// are found when somebody reads it: most decisions repeat the one before.
    pub(crate) fn add(&self, revision: &RevisionId, record: Record) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let log = &mut *guard;
        let records = log.revisions.entry(revision.clone()).or_default();
        if let Some((_, last)) = records.back_mut()
            && last.is_repeated_by(&record)
        {
            last.until = record.at;
            last.times = last.times.saturating_add(1);
            last.inputs = record.inputs;
            last.busy = record.busy;
            return;
        }
        if records.len() == PER_REVISION {
            records.pop_front();
        }
        records.push_back((log.next, Box::new(record)));
        log.order.push_back((log.next, revision.clone()));
        log.next += 1;
        while log.order.len() > IN_ALL {
            log.evict();
        }
    }

    /// Forgets a revision.
    pub(crate) fn forget(&self, revision: &RevisionId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .revisions
            .remove(revision);
    }
}

impl Log {
    fn evict(&mut self) {
        let Some((number, revision)) = self.order.pop_front() else {
            return;
        };
        let Some(records) = self.revisions.get_mut(&revision) else {
            return;
        };
        if records.front().is_some_and(|(oldest, _)| *oldest == number) {
            records.pop_front();
        }
        if records.is_empty() {
            self.revisions.remove(&revision);
        }
    }
}

impl Record {
    fn in_words(&self) -> Self {
        let mut record = self.clone();
        if let Some(plan) = &record.plan {
            record.reason.insert_str(0, &plan.reason());
        }
        record
    }

    /// Nothing but time and measurements differ, and nothing happened to a sandbox.
    fn is_repeated_by(&self, next: &Self) -> bool {
        matches!(next.cause, Cause::Tick | Cause::Due | Cause::Wake)
            && (next.cause == self.cause || next.cause != Cause::Wake)
            && next.from == self.to
            && (self.to, self.rung, self.decided, self.panicking) == (next.to, next.rung, next.decided, next.panicking)
            && (&self.reason, &self.clamps, &self.plan) == (&next.reason, &next.clamps, &next.plan)
            && self.busy.as_ref().map(|busy| &busy.mix) == next.busy.as_ref().map(|busy| &busy.mix)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}: ", rfc3339(self.at), self.cause)?;
        if self.from == self.to {
            write!(f, "stays at {}", self.to)?;
        } else {
            write!(f, "{} -> {}", self.from, self.to)?;
        }
        writeln!(f, " ({})", self.rung.as_str())?;
        if self.times > 1 {
            writeln!(f, "    repeated  {} times until {}", self.times, rfc3339(self.until))?;
        }
        let inputs = &self.inputs;
        writeln!(
            f,
            "    inputs    {} stable {:.2}, panic {:.2}, target {:.2}; {} ready, {} starting; {} in flight, {} waiting",
            inputs.metric,
            inputs.stable,
            inputs.panic,
            inputs.target,
            inputs.ready,
            inputs.starting,
            inputs.in_flight,
            inputs.waiting
        )?;
        match self.decided {
            Some(decided) => {
                writeln!(
                    f,
                    "    decider   {decided} replicas{}",
                    if self.panicking { ", panicking" } else { "" }
                )?;
            }
            None => writeln!(f, "    decider   no data yet")?,
        }
        for clamp in &self.clamps {
            writeln!(f, "    clamp     {clamp}")?;
        }
        writeln!(f, "    because   {}", self.reason)?;
        if let Some(busy) = &self.busy {
            writeln!(f, "    serves    {}", busy.in_a_line())?;
        }
        for candidate in self.plan.iter().flat_map(|plan| &plan.candidates) {
            let rung = candidate.rung.as_str();
            let name = match candidate.spec.as_deref() {
                Some(spec) if spec != rung => format!("{rung} ({spec})"),
                _ => rung.into(),
            };
            let (bound, verdict) = (candidate.bound_text(), candidate.verdict_text());
            writeln!(
                f,
                "    rung      {name:<10} {:>10}  {bound:<38}  {verdict}",
                candidate.price.to_string()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("new revision"),
            Self::Changed => f.write_str("manifest or routes changed"),
            Self::Removed => f.write_str("revision removed"),
            Self::Tick => f.write_str("tick"),
            Self::Wake => f.write_str("woken by a request"),
            Self::Quiet => f.write_str("nothing is in flight any more"),
            Self::Due => f.write_str("a period is over"),
            Self::Started(after) => write!(f, "a sandbox is ready after {}", crate::planner::short(*after)),
            Self::StartFailed(why) => write!(f, "a start failed ({why})"),
            Self::Exited(how) => write!(f, "a sandbox ended ({how})"),
            Self::Unready(why) => write!(f, "a sandbox is not ready ({why})"),
            Self::ReadyAgain => f.write_str("a sandbox is ready again"),
            Self::Unhealthy(why) => write!(f, "a sandbox is replaced ({why})"),
            Self::Ejected => f.write_str("a gateway gave up on a sandbox"),
            Self::HadServed => f.write_str("the sandbox that ended had served"),
            Self::Frozen(memory) => write!(f, "a sandbox is frozen and holds {}", mib(*memory)),
            Self::FreezeFailed(why) => write!(f, "freezing failed ({why})"),
            Self::Thawed(after) => write!(f, "a sandbox is thawed after {}", crate::planner::short(*after)),
            Self::Reclaimed(Reclaimed { before, after }) => {
                write!(
                    f,
                    "a frozen sandbox holds {} instead of {}: the rest is in swap",
                    mib(*after),
                    mib(*before)
                )
            }
            Self::Evicted => f.write_str("memory is short elsewhere"),
        }
    }
}

fn mib(Bytes(bytes): Bytes) -> String {
    format!("{}.{} MiB", bytes >> 20, (bytes >> 10) % 1024 * 10 / 1024)
}

fn rfc3339(at: Timestamp) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(at.as_nanos()))
}

/// Records kept per revision.
pub const PER_REVISION: usize = 100;

/// Records kept in all; about half a kilobyte each.
pub const IN_ALL: usize = 20_000;

#[cfg(test)]
mod tests;
