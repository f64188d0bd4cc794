//! PURE  The busy plan: how many instances of which spec serve the load at hand, so that they cost least.
//!
//! ```text
//! in flight, the decider's count ─▶ need: load + head room by its square root, at most what that count of full ones takes
//! specs: price, capacity, slowness, stock, credits ─▶ mixes of at most two kinds that take the need
//! what runs, what starts cost, how long a need like this lasts ─▶ the cheapest of them, or what there is
//! ```
//!
//! A mix of more kinds than two is hardly ever cheaper, and nobody could read it. What is left of a need that full instances
//! do not fill exactly is where a small one pays. Capacities count requests as they would be in flight on full instances, so
//! that a spec on which they take longer takes fewer of them.
//!
//! A mix changes upwards at once. It changes to a cheaper one when that saves, for as long as needs like this usually last,
//! more than its starts cost; and not sooner than [`DWELL`] after it last started something.

mod credits;
mod words;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use manifests::instances::Burst;
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use self::credits::Account;
pub use self::words::{BusyPlan, Considered, Part, Verdict, mix_text};
use crate::specs::per_hour;
use crate::start_latency::Spread;

/// An instance spec as a revision could serve on it now.
#[derive(Clone, PartialEq, Debug)]
pub struct Kind {
    /// Its name in the catalogue.
    pub name: Arc<str>,
    /// The one that the decider counts in.
    pub full: bool,
    /// Money per second.
    pub price: f64,
    /// Requests at once that one takes, as they would be in flight on full instances.
    pub capacity: f64,
    /// How likely a request takes longer there by more than the SLA allows.
    pub late: f64,
    /// Money that a start costs.
    pub start: f64,
    /// How long it takes, in seconds.
    pub lead: f64,
    /// Its starts keep nobody waiting for longer than those of full ones.
    pub prompt: bool,
    /// How many can be had at once.
    pub stock: u32,
    /// CPU credits, and the cores that they are for.
    pub burst: Option<(Burst, f64)>,
    /// Instances that can be had without a start: on it already, on their way, or changed to it in place.
    pub running: u32,
    /// Of them, those that a request meets there anyhow.
    pub serving: u32,
}

/// What is asked of a revision, and what the manifest says of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Load {
    /// Requests in flight on average, as they would be on full instances.
    pub average: f64,
    /// In flight now, likewise, while some of them wait; else 0.
    pub now: f64,
    /// Full instances that the decider, the queue and the manifest's bounds come to; at least 1.
    pub count: u32,
    /// The average that the decider wants per full instance.
    pub target: f64,
    /// The SLA's quantile: so often a request shall find room.
    pub quantile: f64,
    /// At least so many instances.
    pub least: u32,
    /// Of these so many full ones.
    pub least_full: u32,
    /// At most so many instances.
    pub most: u32,
}

impl Load {
    /// Requests at once that there must be room for. What delays, panic and bounds of the decider hold is load too; a count
    /// of full instances is never outdone.
    fn need(&self, full: f64) -> f64 {
        let held = f64::from(self.count.saturating_sub(1)) * sane(self.target);
        let load = sane(self.average).max(held);
        // So many requests come together with that probability, when they come at random.
        let z = Normal::standard().inverse_cdf(sane(self.quantile).clamp(0.5, 0.999_999));
        let staffed = load + z * load.sqrt();
        staffed.max(sane(self.now)).min(f64::from(self.count.max(1)) * full)
    }
}

/// So many of one kind, and so many of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mix {
    kinds: [usize; 2],
    counts: [u32; 2],
}

impl Mix {
    fn of(kinds: [usize; 2], counts: [u32; 2]) -> Self {
        Self { kinds, counts }
    }

    fn parts(self) -> impl Iterator<Item = (usize, u32)> {
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

    fn price(self, kinds: &[Kind]) -> f64 {
        self.sum(kinds, |kind| kind.price)
    }

    fn capacity(self, kinds: &[Kind]) -> f64 {
        self.sum(kinds, |kind| kind.capacity)
    }
}

/// What one revision remembers between two looks.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Busy {
    /// In force; nothing while it stands idle.
    mix: Vec<Part>,
    /// When it last started something.
    changed: Option<Timestamp>,
    lasting: Lasting,
    accounts: Vec<(Arc<str>, Account)>,
    /// Could not be had, until when nobody asks again.
    gone: Vec<(Arc<str>, Timestamp)>,
    service: Spread,
}

impl Busy {
    /// It stands idle: the next load is met with what stands there.
    pub fn rest(&mut self) {
        self.mix.clear();
        self.changed = None;
    }

    /// A start failed because there is none of this spec.
    pub fn out_of_stock(&mut self, spec: &Arc<str>, now: Timestamp) {
        self.gone.retain(|(name, _)| name != spec);
        self.gone.push((Arc::clone(spec), now.plus(RESTOCK)));
    }

    /// A request took this long, or would have on a full instance.
    pub fn served(&mut self, service: Duration) {
        self.service.add(service);
    }

    /// How likely a request takes longer by more than `limit` where it takes `slow` times as long.
    pub fn late(&self, slow: f64, limit: Duration) -> f64 {
        if slow > 1.0 {
            self.service.beyond(limit.as_secs_f64() / (slow - 1.0), SERVICE_PRIOR)
        } else {
            0.0
        }
    }

    /// The mix for the load. `kinds` has a full one; with none that can be had the plan is empty. At most [`MOST_KINDS`] count.
    pub fn plan(&mut self, load: &Load, kinds: Vec<Kind>, now: Timestamp) -> BusyPlan {
        let mut kinds = kinds;
        kinds.truncate(MOST_KINDS);
        self.gone.retain(|(_, until)| *until > now);
        self.keep_accounts(load, &kinds, now);
        let holding = self.lasting.expected(now);
        for kind in &mut kinds {
            if let Some((burst, cores)) = kind.burst {
                let account = self.account(&kind.name);
                kind.capacity *= account.map_or(burst.baseline, |it| it.sustained(burst, cores, holding));
            }
            if self.gone.iter().any(|(name, _)| *name == kind.name) {
                kind.stock = kind.running;
            }
        }
        let full = kinds
            .iter()
            .find(|kind| kind.full)
            .map_or(1.0, |kind| sane(kind.capacity));
        let need = load.need(full);
        let choice = Choice {
            kinds: &kinds,
            load,
            need,
            holding: holding.as_secs_f64(),
            lenient: self.mix.is_empty() || self.dwells(now),
        };
        let cheapest = choice.best(|mix| mix.price(&kinds), |_| true);
        if let Some(mix) = cheapest {
            self.lasting.wants(parts(mix, &kinds), now);
        }
        let (chosen, waits) = self.choose(&choice, now);
        let plan = choice.words(chosen, cheapest, waits);
        let starts = |(kind, count): (usize, u32)| count > kinds[kind].running;
        if let Some(mix) = chosen
            && (self.changed.is_none() || self.mix != plan.mix && mix.parts().any(starts))
        {
            self.changed = Some(now);
        }
        self.mix.clone_from(&plan.mix);
        plan
    }

    /// The mix, and whether a cheaper one waits for the end of the dwell.
    fn choose(&self, choice: &Choice<'_>, now: Timestamp) -> (Option<Mix>, bool) {
        let kinds = choice.kinds;
        let stands = |mix: &Mix| mix.parts().all(|(kind, count)| count <= kinds[kind].serving);
        let price = |mix: Mix| mix.price(kinds);
        if self.mix.is_empty() {
            // Woken: what stands there serves, when that is enough.
            let there = choice.best(price, stands);
            return (there.or_else(|| choice.best(|mix| choice.money(mix), |_| true)), false);
        }
        let best = choice.best(|mix| choice.money(mix), |_| true);
        let same = self
            .in_force(kinds)
            .filter(|mix| choice.takes(*mix) && choice.may(*mix));
        match same {
            Some(mix) if self.dwells(now) => (Some(mix), best.is_some_and(|best| best != mix)),
            _ => (best.or(same), false),
        }
    }

    fn dwells(&self, now: Timestamp) -> bool {
        self.changed.is_some_and(|changed| now < changed.plus(DWELL))
    }

    /// The mix in force, when its kinds are all there still.
    fn in_force(&self, kinds: &[Kind]) -> Option<Mix> {
        let mut mix = Mix::of([0, 0], [0, 0]);
        for (slot, part) in self.mix.iter().take(2).enumerate() {
            mix.kinds[slot] = kinds.iter().position(|kind| kind.name == part.spec)?;
            mix.counts[slot] = part.count;
        }
        Some(mix)
    }

    fn account(&self, name: &Arc<str>) -> Option<Account> {
        let found = self.accounts.iter().find(|(of, _)| of == name);
        found.map(|(_, account)| *account)
    }

    /// What each burstable kind has earned and used since the last look.
    fn keep_accounts(&mut self, load: &Load, kinds: &[Kind], now: Timestamp) {
        let has = |kind: &Kind| f64::from(kind.running) * sane(kind.capacity);
        let capacity: f64 = kinds.iter().map(has).sum();
        let share = (sane(load.average) / capacity.max(f64::MIN_POSITIVE)).min(1.0);
        self.accounts
            .retain(|(name, _)| kinds.iter().any(|kind| kind.name == *name && kind.running > 0));
        for kind in kinds.iter().filter(|kind| kind.running > 0) {
            let Some((burst, cores)) = kind.burst else { continue };
            match self.accounts.iter_mut().find(|(name, _)| *name == kind.name) {
                Some((_, account)) => account.advance(burst, cores * share, now),
                None => self.accounts.push((Arc::clone(&kind.name), Account::new(now))),
            }
        }
    }
}

/// How long needs last that call for one and the same mix.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Lasting {
    wanted: Vec<Part>,
    since: Timestamp,
    /// Seconds, on average; 0 before the first has ended.
    mean: f64,
}

impl Lasting {
    fn wants(&mut self, mix: Vec<Part>, now: Timestamp) {
        if self.wanted == mix {
            return;
        }
        if !self.wanted.is_empty() {
            self.mean += (now.since(self.since).as_secs_f64() - self.mean) * NEWEST;
        }
        (self.wanted, self.since) = (mix, now);
    }

    fn expected(&self, now: Timestamp) -> Duration {
        let lasted = if self.wanted.is_empty() {
            0.0
        } else {
            now.since(self.since).as_secs_f64()
        };
        Duration::from_secs_f64(self.mean.max(lasted).clamp(SHORTEST, LONGEST))
    }
}

/// One choice: everything that it is made from.
struct Choice<'a> {
    kinds: &'a [Kind],
    load: &'a Load,
    need: f64,
    /// Seconds.
    holding: f64,
    /// What runs may serve on although it is too slow: who asks but once is served there sooner than by a start.
    lenient: bool,
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

    fn takes(&self, mix: Mix) -> bool {
        mix.capacity(self.kinds) >= self.need * (1.0 - ROUNDING)
    }

    /// Within stock and bounds.
    fn may(&self, mix: Mix) -> bool {
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
    fn money(&self, mix: Mix) -> f64 {
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
    fn best(&self, cost: impl Fn(Mix) -> f64, from: impl Fn(&Mix) -> bool) -> Option<Mix> {
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
    fn words(&self, chosen: Option<Mix>, cheapest: Option<Mix>, waits: bool) -> BusyPlan {
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

fn parts(mix: Mix, kinds: &[Kind]) -> Vec<Part> {
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
fn instances(need: f64, capacity: f64) -> u32 {
    (need / capacity * (1.0 - ROUNDING)).ceil() as u32
}

fn sane(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// After a start, so long nothing is started to save money.
pub const DWELL: Duration = Duration::from_secs(60);

/// More kinds are not looked at.
pub const MOST_KINDS: usize = 8;

/// So many of a second kind are tried beside a first.
const MOST_OTHERS: u32 = 8;

/// A need is expected to last as long as they did on average, within these bounds, in seconds.
const SHORTEST: f64 = 60.0;
const LONGEST: f64 = 600.0;
/// The weight of the newest in that average.
const NEWEST: f64 = 0.25;

/// What could not be had is asked for again after this long.
const RESTOCK: Duration = Duration::from_secs(60);

/// Sums of capacities are as exact as this.
const ROUNDING: f64 = 1e-9;

/// Service times before any was seen: a median of 0.2 s, and so wide that a second is not rare.
const SERVICE_PRIOR: (f64, f64, f64) = (-1.5, 1.0, 2.0);

#[cfg(test)]
mod tests;
