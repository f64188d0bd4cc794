//! What a revision costs now, for its account.

use manifests::exchange::Rung;
use manifests::revision::Reachability;

use super::Scaler;
use super::types::Context;
use crate::cost::Rates;
use crate::evict::ASSUMED_START;

impl Scaler {
    /// Brings its account up to date.
    pub(crate) fn account(&self, cx: &Context) {
        let scaling = &self.revision.scaling;
        let throttled = self.specs.on(Rung::Throttled);
        let can_throttle = throttled.rung == Rung::Throttled && !self.throttle_fails;
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
