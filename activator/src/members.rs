//! Which sandboxes a pool knows: those of the newest endpoint set, and those it has dropped that still run something.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{Draining, Endpoint};
use manifests::ids::SandboxId;

use crate::sandbox::Sandbox;

/// M1. A sandbox is in at most one of the two lists, and there is one [`Sandbox`] for each name.
/// M2. What is in `draining` has its draining flag set; what is in `set` has not.
#[derive(Default)]
pub(crate) struct Members {
    set: Vec<Arc<Sandbox>>,
    draining: Vec<Arc<Sandbox>>,
}

impl Members {
    /// Takes over a new set: keeps whom it knows, also those that were draining, makes the others, drains those that are
    /// not in it. Returns those that begin to drain.
    pub(crate) fn replace(
        &mut self,
        endpoints: &[Endpoint],
        make: impl Fn(&SandboxId, Duration) -> Sandbox,
    ) -> Vec<Arc<Sandbox>> {
        let mut wanted: Vec<&Endpoint> = endpoints.iter().collect();
        wanted.sort_by(|a, b| a.sandbox.cmp(&b.sandbox));
        wanted.dedup_by(|a, b| a.sandbox == b.sandbox);
        let (set, dropped) = (std::mem::take(&mut self.set), &mut Vec::new());
        let mut known = set.into_iter().peekable();
        for endpoint in wanted {
            while let Some(gone) = known.next_if(|known| *known.id() < endpoint.sandbox) {
                dropped.push(gone);
            }
            let sandbox = match known.next_if(|known| *known.id() == endpoint.sandbox) {
                Some(same) => same,
                None => self
                    .recall(&endpoint.sandbox)
                    .unwrap_or_else(|| Arc::new(make(&endpoint.sandbox, endpoint.start))),
            };
            sandbox.weigh(endpoint.weight);
            self.set.push(sandbox);
        }
        dropped.extend(known);
        for sandbox in &*dropped {
            sandbox.word.drain();
        }
        self.draining.extend(dropped.iter().cloned());
        self.check();
        std::mem::take(dropped)
    }

    /// Those of the set that take requests, in the order of their names.
    pub(crate) fn serving(&self) -> Box<[Arc<Sandbox>]> {
        self.set
            .iter()
            .filter(|sandbox| !sandbox.is_ejected())
            .cloned()
            .collect()
    }

    /// What is left on those that drain; forgets those with nothing left, once this has said so.
    pub(crate) fn take_draining(&mut self) -> Vec<Draining> {
        let mut now = Vec::new();
        self.draining.retain(|sandbox| {
            // In this order: without a request no connection is opened any more.
            let in_flight = sandbox.in_flight();
            let connections = sandbox.open_connections();
            now.push(Draining {
                sandbox: sandbox.id().clone(),
                in_flight,
                connections,
                answered: sandbox.has_answered(),
            });
            in_flight > 0 || connections > 0
        });
        now
    }

    /// Those this gateway has given up on and scaling has not replaced yet.
    pub(crate) fn ejected(&self) -> Vec<SandboxId> {
        let all = self.set.iter().chain(&self.draining);
        all.filter(|sandbox| sandbox.is_ejected())
            .map(|sandbox| sandbox.id().clone())
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.draining.is_empty()
    }

    /// One that was draining and is wanted again: the same word, so that what still runs on it stays counted.
    fn recall(&mut self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        let index = self.draining.iter().position(|sandbox| sandbox.id() == id)?;
        let sandbox = self.draining.swap_remove(index);
        sandbox.word.undrain();
        Some(sandbox)
    }

    fn check(&self) {
        debug_assert!(
            self.set.is_sorted_by(|a, b| a.id() < b.id()),
            "M1: {} in the set",
            self.set.len()
        );
        debug_assert!(
            self.draining.iter().all(|sandbox| !sandbox.is_open()),
            "M2: {} drain",
            self.draining.len()
        );
    }
}
