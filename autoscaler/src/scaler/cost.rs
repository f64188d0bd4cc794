//! What a revision costs now, for its account.

use manifests::exchange::Rung;
use manifests::revision::Reachability;
use manifests::units::PricePerHour;

use super::Scaler;
use super::types::Context;
use crate::cost::Rates;
use crate::evict::ASSUMED_START;

impl Scaler {
    /// Brings its account up to date.
    pub(crate) fn account(&self, cx: &Context) {
        let per_second = |PricePerHour(price): PricePerHour| price / 3600.0;
        let (workload, scaling) = (&self.revision.workload, &self.revision.scaling);
        let throttled = cx.catalogue.throttled(workload);
        let throttled = throttled.first().filter(|_| !self.throttle_fails);
        let cheaper = if self.can_freeze(cx) {
            Some((Rung::Frozen, cx.catalogue.frozen_price(self.holds(), workload)))
        } else {
            throttled.map(|spec| (Rung::Throttled, spec.price_per_hour(workload)))
        };
        let rates = Rates {
            price: per_second(self.price(cx)),
            full: per_second(cx.catalogue.price(Rung::Full, workload)),
            cheaper: cheaper.map(|(rung, price)| (rung, per_second(price))),
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
