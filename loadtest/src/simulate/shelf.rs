//! What one simulated function can stand on, for the quick engine: the planner's menu, and what each of its offers does. PURE.

use std::sync::Arc;
use std::time::Duration;

use autoscaler::planner::menu::MOST_OFFERS;
use autoscaler::planner::{Menu, Offer};
use autoscaler::specs::{Spec, Specs};
use autoscaler::start_latency::Latencies;
use manifests::exchange::Rung;
use manifests::units::Timestamp;

use super::market::{Market, start_factor};
use super::settings::Settings;
use crate::trace::Trace;

/// Everything that it can stand on: cheapest first, full last.
pub(super) struct Shelf {
    goods: Vec<Good>,
    specs: Specs,
}

/// One thing of it.
pub(super) struct Good {
    /// Its rung.
    pub(super) rung: Rung,
    /// What runs or stands there; `None` at zero and frozen.
    spec: Option<Arc<Spec>>,
    /// Per second.
    pub(super) price: f64,
    /// A call takes so many times as long there.
    pub(super) slow: f64,
    /// A start takes so many times as long as one of a full instance.
    factor: f64,
}

impl Shelf {
    /// Of a function of the trace.
    pub(super) fn of(market: &Market, trace: &Trace, settings: &Settings, function: usize) -> Self {
        let of = &trace.functions[function];
        let memory = of.memory.unwrap_or(settings.memory_of_app);
        let revision = super::policy::revision(function, of, settings, Timestamp::EPOCH);
        let specs = Specs::of(&market.instances(&settings.starts), &revision);
        let full = specs.full();
        let nothing = |rung, price| Good {
            rung,
            spec: None,
            price,
            slow: 1.0,
            factor: 1.0,
        };
        let running = |spec: &Arc<Spec>| Good {
            rung: spec.rung,
            spec: Some(Arc::clone(spec)),
            price: spec.price,
            slow: if spec.rung == Rung::Reserve { spec.slow } else { 1.0 },
            factor: start_factor(spec, full),
        };
        let mut goods = vec![nothing(Rung::Zero, 0.0)];
        if specs.freezes() {
            goods.push(nothing(Rung::Frozen, specs.frozen_price(memory)));
        }
        goods.extend(specs.cheaper().iter().map(running));
        goods.truncate(MOST_OFFERS - 1);
        goods.sort_by(|a, b| a.price.total_cmp(&b.price).then(a.rung.cmp(&b.rung)));
        goods.push(running(full));
        Self { goods, specs }
    }

    /// One thing; the full instance beyond them.
    pub(super) fn at(&self, index: usize) -> &Good {
        &self.goods[index.min(self.goods.len() - 1)]
    }

    /// The first on a rung; the full instance where there is none.
    pub(super) fn find(&self, rung: Rung) -> usize {
        let found = self.goods.iter().position(|good| good.rung == rung);
        found.unwrap_or(self.goods.len() - 1)
    }

    /// Whether there is anything on a rung.
    pub(super) fn has(&self, rung: Rung) -> bool {
        self.goods.iter().any(|good| good.rung == rung)
    }

    /// The one that serves load.
    pub(super) fn full(&self) -> &Spec {
        self.specs.full()
    }

    /// What a start for a move takes, when one of a full instance takes `start`; `None` where the same instance goes on.
    pub(super) fn start(&self, from: usize, to: usize, start: Duration) -> Option<Duration> {
        let (from, to) = (self.at(from), self.at(to));
        let target = to.spec.as_ref().filter(|_| to.rung >= Rung::Reserve)?;
        let goes_on = from.rung == Rung::Frozen || self.same(from, to);
        (!goes_on).then(|| start.mul_f64(start_factor(target, self.specs.full())))
    }

    /// Both run, and one can be changed to the other.
    fn same(&self, from: &Good, to: &Good) -> bool {
        match (&from.spec, &to.spec) {
            (Some(from), Some(to)) => self.specs.changes(from, to),
            _ => false,
        }
    }

    /// As the planner sees it that knows of these starts.
    pub(super) fn menu(&self, settings: &Settings, learned: &Latencies) -> Menu {
        let (full, limit) = (self.specs.full(), settings.sla.limit);
        let starts = learned.estimate(&settings.sla, full.prior()).unwrap_or_default();
        let mean = starts.mean;
        let over = |takes: Duration| if takes > limit { 1.0 } else { 0.0 };
        let offer = |good: &Good| {
            let wake = if good.rung == Rung::Zero {
                full.start_money(mean)
            } else {
                0.0
            };
            let late = match good.rung {
                Rung::Zero => starts.late,
                Rung::Frozen => over(settings.thaw),
                Rung::Throttled => over(settings.resize),
                Rung::Reserve | Rung::Full => 0.0,
            };
            Offer {
                spec: good.spec.as_ref().map(|spec| Arc::clone(&spec.name)),
                slow: good.slow,
                lead: starts.most * good.factor,
                ..Offer::new(good.rung, good.price).woken(wake, late)
            }
        };
        let moves = self.goods.iter().map(|from| {
            let to = self.goods.iter().map(|to| self.money(from, to, mean));
            to.collect()
        });
        Menu {
            moves: moves.collect(),
            offers: self.goods.iter().map(offer).collect(),
        }
    }

    fn money(&self, from: &Good, to: &Good, start: f64) -> f64 {
        const NO_WAY: f64 = f64::INFINITY;
        let itself =
            from.rung == to.rung && from.spec.as_ref().map(|it| &it.name) == to.spec.as_ref().map(|it| &it.name);
        let runs = from.spec.as_ref();
        match (to.rung, &to.spec) {
            _ if itself => 0.0,
            (Rung::Zero, _) => 0.0,
            (Rung::Frozen, _) if runs.is_some_and(|from| self.specs.changes(from, self.specs.full())) => 0.0,
            (_, Some(_)) if self.same(from, to) => 0.0,
            (Rung::Full, _) if from.rung == Rung::Frozen => 0.0,
            (Rung::Reserve | Rung::Full, Some(spec)) if from.rung != Rung::Frozen => {
                spec.start_money(start * to.factor)
            }
            _ => NO_WAY,
        }
    }
}
