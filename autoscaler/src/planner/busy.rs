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

mod choice;
mod credits;
mod words;

use std::sync::Arc;
use std::time::Duration;

use manifests::instances::Burst;
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use self::choice::{Choice, Mix, parts, sane};
use self::credits::Account;
pub use self::words::{BusyPlan, Considered, Part, Verdict, mix_text};

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

/// After a start, so long nothing is started to save money.
pub const DWELL: Duration = Duration::from_secs(60);

/// More kinds are not looked at.
pub const MOST_KINDS: usize = 8;

/// A need is expected to last as long as they did on average, within these bounds, in seconds.
const SHORTEST: f64 = 60.0;
const LONGEST: f64 = 600.0;
/// The weight of the newest in that average.
const NEWEST: f64 = 0.25;

/// What could not be had is asked for again after this long.
const RESTOCK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
