//! PURE  Which idle sandbox goes first when memory is short: the one whose loss costs least for what it holds.
//!
//! What a sandbox that stands idle is worth is the waiting it saves: what a start from zero takes longer than a wake-up from
//! where it stands, times how often it is woken. Divided by the memory it holds this orders them (FaasCache's greedy-dual
//! value, ASPLOS 21, without its clock: the time since the last request takes that part here):
//!
//! ```text
//! value = (start from zero - wake-up) * wake-ups per hour / MiB held
//! ```
//!
//! Frozen ones go before throttled ones, and those before full ones that only a plan keeps: a frozen one has shown that it
//! can wait. What `min-scale` asks for, and what serves, is never here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::{RevisionId, SandboxId};
use manifests::units::{Bytes, Timestamp};
use serde::{Deserialize, Serialize};

/// A sandbox that stands idle by policy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Of which revision.
    pub revision: RevisionId,
    /// Which one.
    pub sandbox: SandboxId,
    /// Where it stands.
    pub rung: Rung,
    /// What it holds.
    pub memory: Bytes,
    /// What a start from zero takes: the median measured, or [`ASSUMED_START`].
    pub start: Duration,
    /// What a wake-up from here takes.
    pub wake: Duration,
    /// How it is used.
    pub rhythm: Rhythm,
}

/// How often something is woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rhythm {
    /// The last request.
    last: Option<Timestamp>,
    /// The usual time without one before the next: each new one counts half.
    gap: Option<Duration>,
}

/// Whether memory that cannot be freed entirely is freed as far as possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enough {
    /// A start fits or it does not: nothing is given up in vain.
    All,
    /// Less pressure is better than more.
    Some,
}

impl Rhythm {
    /// There were requests in the last second.
    pub fn asked(&mut self, now: Timestamp) {
        if let Some(last) = self.last {
            let gap = now.since(last);
            if gap >= SHORTEST_GAP {
                self.gap = Some(self.gap.map_or(gap, |usual| usual / 2 + gap / 2));
            }
        }
        self.last = Some(now);
    }

    /// Whether there ever was one.
    pub const fn asked_before(&self) -> bool {
        self.last.is_some()
    }

    /// Wake-ups per hour to expect: by the usual gap, and by the current one when that is longer already.
    pub fn per_hour(&self, now: Timestamp) -> f64 {
        let current = self.last.map_or(Duration::ZERO, |last| now.since(last));
        let gap = self.gap.unwrap_or(ASSUMED_GAP).max(current).max(SHORTEST_GAP);
        3600.0 / gap.as_secs_f64()
    }
}

impl Standing {
    /// Seconds of waiting it saves per hour and MiB.
    pub fn value(&self, now: Timestamp) -> f64 {
        let saved = self.start.saturating_sub(self.wake).as_secs_f64();
        saved * self.rhythm.per_hour(now) / mib(self.memory).max(0.1)
    }
}

/// The order of eviction, the first to go in front. Total and deterministic.
pub fn order(mut standing: Vec<Standing>, now: Timestamp) -> Vec<Standing> {
    standing.sort_by(|a, b| {
        a.rung
            .cmp(&b.rung)
            .then_with(|| a.value(now).total_cmp(&b.value(now)))
            .then_with(|| a.rhythm.last.cmp(&b.rhythm.last))
            .then_with(|| a.sandbox.cmp(&b.sandbox))
    });
    standing
}

/// As many from the front of the order as it takes to free `shortage`.
pub fn choose(order: Vec<Standing>, shortage: Bytes, enough: Enough) -> Vec<Standing> {
    let mut freed = 0;
    let mut chosen = order;
    let needed = chosen
        .iter()
        .take_while(|standing| {
            let more = freed < shortage.0;
            if more {
                freed = freed.saturating_add(standing.memory.0);
            }
            more
        })
        .count();
    if freed < shortage.0 && enough == Enough::All {
        return Vec::new();
    }
    chosen.truncate(needed);
    chosen
}

/// Everything that stands idle and could be evicted; clones share it. Written by scaling, read by whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct Evictions(Arc<Mutex<HashMap<RevisionId, Standing>>>);

impl Evictions {
    /// In the order of eviction.
    pub fn order(&self, now: Timestamp) -> Vec<Standing> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = all.values().cloned().collect();
        drop(all);
        order(standing, now)
    }

    /// By name.
    pub(crate) fn all(&self) -> Vec<Standing> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standing: Vec<Standing> = all.values().cloned().collect();
        drop(all);
        standing.sort_unstable_by(|a, b| a.revision.cmp(&b.revision));
        standing
    }

    pub(crate) fn set(&self, standing: Standing) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(standing.revision.clone(), standing);
    }

    pub(crate) fn forget(&self, revision: &RevisionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(revision);
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
fn mib(Bytes(bytes): Bytes) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What a start is taken for before one was measured.
pub const ASSUMED_START: Duration = Duration::from_secs(1);

/// How often something is woken that was never woken yet.
const ASSUMED_GAP: Duration = Duration::from_secs(600);

/// Reports come once a second: anything shorter is one and the same use.
const SHORTEST_GAP: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
