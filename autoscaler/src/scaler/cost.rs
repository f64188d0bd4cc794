//! What a revision costs now, for its account.

use manifests::exchange::Rung;
use manifests::ids::SandboxId;
use manifests::revision::Reachability;

use super::Scaler;
use super::types::{Context, Sandbox};
use crate::cost::Rates;
use crate::evict::ASSUMED_START;

impl Scaler {
    /// A sandbox is gone: what its bill is rounded up by.
    pub(super) fn pay_rest(&self, sandbox: &Sandbox, cx: &Context) {
        let over = sandbox.spec.unused(cx.now.since(sandbox.ordered));
        cx.costs
            .charge(&self.revision.id, self.price_of(sandbox) * over.as_secs_f64(), cx.now);
    }

    /// A sandbox that is gone, if it was known.
    pub(super) fn let_go(&mut self, id: &SandboxId, cx: &Context) -> Option<Sandbox> {
        let index = self.sandboxes.iter().position(|sandbox| sandbox.id == *id)?;
        let sandbox = self.sandboxes.remove(index);
        self.pay_rest(&sandbox, cx);
        Some(sandbox)
    }

    /// Brings its account up to date.
    pub(crate) fn account(&self, cx: &Context) {
        let scaling = &self.revision.scaling;
        let throttled = self.specs.on(Rung::Throttled);
        let can_throttle = throttled.rung == Rung::Throttled && !self.setbacks.holds(Rung::Throttled, self.looked);
        let cheaper = if self.can_freeze(cx) {
            Some((Rung::Frozen, self.specs.frozen_price(self.holds())))
        } else {
            can_throttle.then_some((Rung::Throttled, throttled.price))
        };
        let rates = Rates {
            price: self.price().0 / 3600.0,
            full: self.specs.full().price,
            cheaper,
            busy: !self.loads.is_idle(&cx.gateways, cx.now),
            replicas: self.replicas.0,
            min_scale: scaling.min_scale.0,
            reachable: self.revision.reachability != Reachability::Unreachable && !self.removed,
            hold: scaling.stable_window + scaling.retention,
            start: self.starts.median().unwrap_or(ASSUMED_START),
        };
        cx.costs.change(&self.revision.id, rates, cx.now);
    }
}
