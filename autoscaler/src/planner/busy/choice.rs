//! PURE  Which mixes there are, which of them will do, and the best of them by a cost.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::words::{BusyPlan, Considered, Part, Verdict};
use super::{Kind, Load};
use crate::specs::per_hour;

/// So many of one kind, and so many of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mix {
    pub(super) kinds: [usize; 2],
    pub(super) counts: [u32; 2],
}

impl Mix {
    pub(super) fn of(kinds: [usize; 2], counts: [u32; 2]) -> Self {
        Self { kinds, counts }
    }

    pub(super) fn parts(self) -> impl Iterator<Item = (usize, u32)> {
        let parts = self.kinds.into_iter().zip(self.counts);
        parts.filter(|(_, count)| *count > 0)
    }

    fn count(self) -> u32 {
        self.counts[0].saturating_add(self.counts[1])
    }

    fn of_kind(self, kind: usize) -> u32 {
        self.sum_of(|it| it == kind)
    }

    fn sum_of(self, which: impl Fn(usize) -> bool) -> u32 {
        let parts = self.parts().filter(|(kind, _)| which(*kind));
        parts.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    fn sum(self, kinds: &[Kind], what: impl Fn(&Kind) -> f64) -> f64 {
        self.parts()
            .fold(0.0, |sum, (kind, count)| sum + f64::from(count) * what(&kinds[kind]))
    }

    pub(super) fn price(self, kinds: &[Kind]) -> f64 {
        self.sum(kinds, |kind| kind.price)
    }

    fn capacity(self, kinds: &[Kind]) -> f64 {
        self.sum(kinds, |kind| kind.capacity)
    }
}

/// One choice: everything that it is made from.
pub(super) struct Choice<'a> {
    pub(super) kinds: &'a [Kind],
    pub(super) load: &'a Load,
    pub(super) need: f64,
    /// Seconds.
    pub(super) holding: f64,
    /// What runs may serve on although it is too slow: who asks but once is served there sooner than by a start.
    pub(super) lenient: bool,
}

impl Choice<'_> {
    /// Why a kind cannot serve; `None` when it can.
    fn rejected(&self, kind: &Kind) -> Option<Verdict> {
        let sound = kind.price.is_finite() && kind.price >= 0.0 && kind.capacity.is_finite() && kind.capacity > 0.0;
        if !sound {
            Some(Verdict::TooLittle)
        } else if !kind.full && (kind.late.is_nan() || kind.late > 1.0 - self.load.quantile) {
            Some(Verdict::TooSlow)
        } else if kind.stock == 0 {
            Some(Verdict::OutOfStock)
        } else if !kind.prompt && kind.running == 0 && self.nothing_runs() {
            Some(Verdict::StartsSlowly)
        } else {
            None
        }
    }

    fn nothing_runs(&self) -> bool {
        self.kinds.iter().all(|kind| kind.running == 0)
    }

    pub(super) fn takes(&self, mix: Mix) -> bool {
        mix.capacity(self.kinds) >= self.need * (1.0 - ROUNDING)
    }

    /// Within stock and bounds.
    pub(super) fn may(&self, mix: Mix) -> bool {
        let full = mix.sum_of(|kind| self.kinds[kind].full);
        let can = |(kind, count): (usize, u32)| {
            let kind = &self.kinds[kind];
            let serves_on = self.lenient && count <= kind.serving;
            let rejected = self.rejected(kind);
            count <= kind.stock && (rejected.is_none() || serves_on && rejected == Some(Verdict::TooSlow))
        };
        let enough = mix.count() >= self.load.least.max(1) && full >= self.load.least_full;
        enough && mix.count() <= self.load.most && mix.parts().all(can)
    }

    /// What a mix comes to for as long as the need lasts: its price, the starts that it takes, and what serves on until those
    /// are ready.
    pub(super) fn money(&self, mix: Mix) -> f64 {
        let (mut starts, mut lead) = (0.0_f64, 0.0_f64);
        for (kind, count) in mix.parts() {
            let kind = &self.kinds[kind];
            let new = f64::from(count.saturating_sub(kind.running));
            if new > 0.0 {
                starts += new * sane(kind.start);
                lead = lead.max(sane(kind.lead));
            }
        }
        let goes = |(index, kind): (usize, &Kind)| {
            f64::from(kind.running.saturating_sub(mix.of_kind(index))) * sane(kind.price)
        };
        let leaves: f64 = self.kinds.iter().enumerate().map(goes).sum();
        mix.price(self.kinds) * self.holding + starts + leaves * lead
    }

    /// The mix that takes the need at the least `cost`; of those `from`. When none takes it, the one that takes most.
    pub(super) fn best(&self, cost: impl Fn(Mix) -> f64, from: impl Fn(&Mix) -> bool) -> Option<Mix> {
        let mut best: Option<(f64, Mix)> = None;
        let mut most: Option<(f64, Mix)> = None;
        self.each(|mix| {
            if !self.may(mix) || !from(&mix) {
                return;
            }
            let better = |than: &Option<(f64, Mix)>, value: f64| {
                than.is_none_or(|(known, other)| match value.total_cmp(&known) {
                    Ordering::Equal => mix.count() < other.count(),
                    order => order == Ordering::Less,
                })
            };
            if self.takes(mix) {
                let cost = cost(mix);
                if better(&best, cost) {
                    best = Some((cost, mix));
                }
            } else if best.is_none() {
                let lack = self.need - mix.capacity(self.kinds);
                if better(&most, lack) {
                    most = Some((lack, mix));
                }
            }
        });
        // Of what runs already only what is enough will do.
        let short = most.filter(|(_, mix)| !self.could_more(*mix));
        best.or(short).map(|(_, mix)| mix)
    }

    /// Whether stock and bounds leave room for more than this mix.
    fn could_more(&self, mix: Mix) -> bool {
        let can = |(index, kind): (usize, &Kind)| self.rejected(kind).is_none() && mix.of_kind(index) < kind.stock;
        let two = mix.parts().count() == 2;
        let more = |(index, kind): (usize, &Kind)| can((index, kind)) && !(two && mix.of_kind(index) == 0);
        mix.count() < self.load.most && self.kinds.iter().enumerate().any(more)
    }

    /// Every mix worth a look: each kind alone, and each beside every other: up to [`MOST_OTHERS`] of the other, all that run,
    /// or all that can be had; and as many of the one as the rest takes.
    fn each(&self, mut look: impl FnMut(Mix)) {
        for one in 0..self.kinds.len() {
            for other in 0..self.kinds.len() {
                let (kind, beside) = (&self.kinds[one], &self.kinds[other]);
                let mut with = |count: u32| {
                    let most = kind.stock.min(self.load.most.saturating_sub(count));
                    let rest = self.need - f64::from(count) * sane(beside.capacity);
                    let rest = instances(rest, kind.capacity);
                    let floor = self.load.least.max(1).saturating_sub(count);
                    let floor = floor.max(if kind.full { self.load.least_full } else { 0 });
                    look(Mix::of([one, other], [rest.max(floor).min(most), count]));
                };
                if one == other {
                    with(0);
                    continue;
                }
                let can = beside.stock.min(self.load.most);
                (1..=can.min(MOST_OTHERS)).for_each(&mut with);
                for more in [
                    beside.running.min(can),
                    can,
                    instances(self.need, beside.capacity).min(can),
                ] {
                    if more > MOST_OTHERS {
                        with(more);
                    }
                }
            }
        }
    }

    /// The choice and what else there was, for people.
    pub(super) fn words(&self, chosen: Option<Mix>, cheapest: Option<Mix>, waits: bool) -> BusyPlan {
        let mut considered: Vec<(Considered, Mix)> = Vec::new();
        let mut add = |mix: Mix, verdict: Verdict| {
            let mix_parts = parts(mix, self.kinds);
            if considered.iter().all(|(known, _)| known.mix != mix_parts) {
                let words = Considered {
                    mix: mix_parts,
                    capacity: mix.capacity(self.kinds),
                    price: per_hour(mix.price(self.kinds)),
                    full: mix.parts().all(|(kind, _)| self.kinds[kind].full),
                    verdict,
                };
                considered.push((words, mix));
            }
        };
        if let Some(mix) = chosen {
            add(
                mix,
                if self.takes(mix) {
                    Verdict::Chosen
                } else {
                    Verdict::AllThereIs
                },
            );
        }
        let price = |mix: Mix| mix.price(self.kinds);
        let alone = |index: usize| {
            let kind = &self.kinds[index];
            let count = instances(self.need, sane(kind.capacity).max(f64::MIN_POSITIVE));
            let floor = self.load.least.max(if kind.full { self.load.least_full } else { 0 });
            Mix::of([index, index], [count.max(floor).max(1), 0])
        };
        let verdict = |mix: Mix| match chosen {
            Some(chosen) if price(mix) < price(chosen) && waits => Verdict::Waits,
            Some(chosen) if price(mix) < price(chosen) => Verdict::DoesNotPay,
            _ => Verdict::Dearer,
        };
        if let Some(mix) = cheapest.filter(|mix| self.takes(*mix)) {
            add(mix, verdict(mix));
        }
        for (index, kind) in self.kinds.iter().enumerate() {
            let mix = alone(index);
            let verdict = match self.rejected(kind) {
                _ if self.may(mix) => verdict(mix),
                Some(rejected) => rejected,
                None if kind.stock < mix.count() => Verdict::OutOfStock,
                None => Verdict::TooMany,
            };
            add(mix, verdict);
        }
        let mut two: Option<Mix> = None;
        self.each(|mix| {
            let better = |than: Mix| price(mix) < price(than);
            if mix.parts().count() == 2 && self.may(mix) && self.takes(mix) && two.is_none_or(better) {
                two = Some(mix);
            }
        });
        if let Some(mix) = two {
            add(mix, verdict(mix));
        }
        considered.sort_by(|(a, _), (b, _)| a.price.0.total_cmp(&b.price.0));
        let mix = chosen.map(|mix| parts(mix, self.kinds)).unwrap_or_default();
        let price = chosen.map_or(0.0, price);
        BusyPlan {
            average: sane(self.load.average),
            need: self.need,
            count: self.load.count,
            mix,
            price: per_hour(price),
            holding: Duration::from_secs_f64(self.holding),
            considered: considered.into_iter().map(|(words, _)| words).collect(),
        }
    }
}

pub(super) fn parts(mix: Mix, kinds: &[Kind]) -> Vec<Part> {
    let part = |(kind, count): (usize, u32)| Part {
        spec: Arc::clone(&kinds[kind].name),
        count,
    };
    let mut parts: Vec<Part> = mix.parts().map(part).collect();
    // The same mix is the same whichever came first.
    parts.sort_by(|a, b| a.spec.cmp(&b.spec));
    parts
}

/// How many of this capacity take so much.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "out of range saturates"
)]
pub(super) fn instances(need: f64, capacity: f64) -> u32 {
    (need / capacity * (1.0 - ROUNDING)).ceil() as u32
}

pub(super) fn sane(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// So many of a second kind are tried beside a first.
const MOST_OTHERS: u32 = 8;

/// Sums of capacities are as exact as this.
const ROUNDING: f64 = 1e-9;
