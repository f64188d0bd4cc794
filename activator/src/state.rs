//! What a pool serves from: one immutable picture, replaced as a whole when the endpoint set or the settings change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifests::exchange::{EndpointSet, Rung};
use manifests::ids::Generation;
use manifests::revision::Revision;

use crate::assign::calculate_capacity;
use crate::pick::{self, Policy};
use crate::sandbox::Sandbox;

/// Settings and endpoints, as one request sees them.
pub(crate) struct State {
    pub(crate) revision: Arc<Revision>,
    /// Of the newest endpoint set in place.
    pub(crate) acked: Generation,
    pub(crate) rung: Rung,
    pub(crate) trouble: Option<Arc<str>>,
    refuses: bool,
    policy: Policy,
    /// The sandboxes do not take equally many requests.
    weighted: bool,
    /// The set's sandboxes, sorted by name, without those that were ejected here.
    pub(crate) serving: Box<[Arc<Sandbox>]>,
    next: Next,
}

/// Where round robin goes on; in a cache line of its own, because it is all that requests write here.
#[repr(align(64))]
#[derive(Default)]
struct Next(AtomicUsize);

impl State {
    /// Before the first endpoint set.
    pub(crate) fn empty(revision: Arc<Revision>) -> Self {
        let policy = Policy::of(revision.container_concurrency);
        Self {
            revision,
            acked: Generation::default(),
            rung: Rung::Zero,
            trouble: None,
            refuses: false,
            policy,
            weighted: false,
            serving: Box::default(),
            next: Next::default(),
        }
    }

    /// The same with other settings.
    pub(crate) fn with_revision(&self, revision: Arc<Revision>) -> Self {
        Self {
            policy: Policy::of(revision.container_concurrency),
            revision,
            ..self.with_serving(self.serving.clone())
        }
    }

    /// The same with other sandboxes.
    pub(crate) fn with_serving(&self, serving: Box<[Arc<Sandbox>]>) -> Self {
        Self {
            revision: Arc::clone(&self.revision),
            acked: self.acked,
            rung: self.rung,
            trouble: self.trouble.clone(),
            refuses: self.refuses,
            policy: self.policy,
            weighted: serving.iter().any(|sandbox| sandbox.weight() > 0),
            serving,
            next: Next(AtomicUsize::new(self.next.0.load(Ordering::Relaxed))),
        }
    }

    /// Takes a slot by the revision's policy.
    pub(crate) fn acquire(&self) -> Option<&Arc<Sandbox>> {
        let serving = &*self.serving;
        let reserve = |index: usize| serving[index].word.try_acquire(serving[index].limit);
        let picked = match self.policy {
            _ if self.weighted => {
                let load = |index: usize| pick::relative_load(serving[index].in_flight(), serving[index].weight());
                pick::two_choices(serving.len(), load, rand_below)
                    .filter(|&index| reserve(index))
                    .or_else(|| pick::first_available(serving.len(), reserve))
            }
            Policy::FirstAvailable => pick::first_available(serving.len(), reserve),
            Policy::RoundRobin => {
                let mut next = self.next.0.load(Ordering::Relaxed);
                let picked = pick::round_robin(&mut next, serving.len(), reserve);
                // Two threads at once may pick the same next one; the order is a preference, the word is the bound.
                self.next.0.store(next, Ordering::Relaxed);
                picked
            }
            Policy::TwoChoices => {
                pick::two_choices(serving.len(), |index| serving[index].word.in_flight(), rand_below)
                    .filter(|&index| reserve(index))
                    // It was ejected or drained just now; any other will do.
                    .or_else(|| pick::first_available(serving.len(), reserve))
            }
        };
        picked.map(|index| &serving[index])
    }

    /// The endpoint set that follows.
    pub(crate) fn with_set(&self, set: &EndpointSet, serving: Box<[Arc<Sandbox>]>) -> Self {
        let (acked, rung, trouble) = (set.generation, set.rung, set.trouble.clone());
        Self {
            acked,
            rung,
            trouble,
            refuses: set.refuses,
            ..self.with_serving(serving)
        }
    }

    /// Why requests are refused instead of waiting; `None` when they are not.
    pub(crate) fn refused(&self) -> Option<Arc<str>> {
        self.trouble.clone().filter(|_| self.refuses && self.serving.is_empty())
    }

    /// How many requests can run at once.
    pub(crate) fn capacity(&self) -> u32 {
        let count = self.serving.len();
        calculate_capacity(self.revision.container_concurrency, count, count, 1)
    }
}

fn rand_below(bound: usize) -> usize {
    rand::random_range(0..bound)
}
