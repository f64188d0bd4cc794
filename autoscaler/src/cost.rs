//! PURE  What each revision costs, today, beside what Knative's defaults and an instance that never goes would have cost.
//!
//! Prices change when something happens to a revision and stand still in between, so that an account is brought forward
//! whenever it is looked at, and an idle revision costs no time. The comparison is made from the same arrivals:
//!
//! ```text
//! Knative's rule    busy: the replicas that serve now, full    idle: one, full, until window and retention are over
//!                   a request after that: a start, paid for    min-scale: so many, full, always
//! always on         at least one, full, always
//! ```
//!
//! A day is one of UTC. What was spent for a revision that is gone stays in the day's sum.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manifests::exchange::Rung;
use manifests::ids::RevisionId;
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

/// What a revision costs from now on, and what it is compared with. Money per second.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Everything of it that runs.
    pub price: f64,
    /// One full instance.
    pub full: f64,
    /// The cheapest rung that min-scale's replicas could stand on while nobody asks.
    pub cheaper: Option<(Rung, f64)>,
    /// A request is in flight.
    pub busy: bool,
    /// Replicas that serve.
    pub replicas: u32,
    /// Replicas that never go.
    pub min_scale: u32,
    /// Somebody can reach it: what nobody can reach is kept by nobody.
    pub reachable: bool,
    /// How long Knative keeps the last replica after the last request.
    pub hold: Duration,
    /// What a start takes.
    pub start: Duration,
}

/// Money, by what it would have been spent on.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// Really.
    pub actual: f64,
    /// By Knative's rule, with the manifest's own annotations for Knative.
    pub knative: f64,
    /// With at least one full instance all the time.
    pub always_on: f64,
    /// Of Knative's: what min-scale adds, that is its replicas while nobody asks.
    pub min_scale: f64,
    /// The same replicas on the cheapest rung.
    pub min_scale_cheaper: f64,
    /// While no request was in flight, really.
    pub idle: f64,
}

impl Spent {
    /// Both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            actual: self.actual + other.actual,
            knative: self.knative + other.knative,
            always_on: self.always_on + other.always_on,
            min_scale: self.min_scale + other.min_scale,
            min_scale_cheaper: self.min_scale_cheaper + other.min_scale_cheaper,
            idle: self.idle + other.idle,
        }
    }
}

/// The account of one revision.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// What holds since `since`.
    pub rates: Rates,
    /// Brought forward to here.
    since: Timestamp,
    /// Nothing is in flight since then.
    idle_since: Option<Timestamp>,
    /// The day that `today` is of, counted from 1970-01-01.
    day: u64,
    /// Since midnight.
    pub today: Spent,
    /// The day before.
    pub yesterday: Spent,
}

impl Account {
    /// Nothing spent yet.
    pub fn new(rates: Rates, now: Timestamp) -> Self {
        Self {
            rates,
            since: now,
            idle_since: (!rates.busy).then_some(now),
            day: day(now),
            today: Spent::default(),
            yesterday: Spent::default(),
        }
    }

    /// As it is at `now`.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.forward(now);
        self
    }

    /// From now on other rates hold.
    pub fn change(&mut self, rates: Rates, now: Timestamp) {
        self.forward(now);
        match (self.idle_since, rates.busy) {
            (Some(since), true) => {
                let Rates {
                    hold,
                    min_scale,
                    reachable,
                    ..
                } = self.rates;
                let is_gone = min_scale == 0 && (now.since(since) >= hold || !reachable);
                if is_gone {
                    self.today.knative += rates.full * rates.start.as_secs_f64();
                }
                self.idle_since = None;
            }
            (None, false) => self.idle_since = Some(now),
            _ => {}
        }
        self.rates = rates;
    }

    /// Money that no time passes for.
    fn charge(&mut self, money: f64, now: Timestamp) {
        self.forward(now);
        self.today.actual += money;
        if !self.rates.busy {
            self.today.idle += money;
        }
    }

    fn forward(&mut self, now: Timestamp) {
        while self.since < now {
            let midnight = Timestamp::EPOCH.plus(DAY * u32::try_from(self.day + 1).unwrap_or(u32::MAX));
            let until = midnight.min(now);
            if until > self.since {
                self.today = self.today.plus(self.between(self.since, until));
                self.since = until;
            }
            if self.since >= midnight {
                self.day += 1;
                (self.yesterday, self.today) = (self.today, Spent::default());
            }
        }
    }

    /// At rates that hold all the time.
    fn between(&self, from: Timestamp, to: Timestamp) -> Spent {
        let Rates {
            price,
            full,
            cheaper,
            busy,
            replicas,
            min_scale,
            reachable,
            hold,
            start: _,
        } = self.rates;
        let seconds = to.since(from).as_secs_f64();
        let min = f64::from(if reachable { min_scale } else { 0 });
        let one = f64::from(u8::from(reachable));
        let mut spent = Spent {
            actual: price * seconds,
            ..Spent::default()
        };
        if busy {
            let serving = f64::from(replicas.max(1)).max(min);
            spent.knative = serving * full * seconds;
            spent.always_on = spent.knative;
            return spent;
        }
        // The part of it in which Knative's window is not over yet.
        let held = self
            .idle_since
            .map_or(Duration::ZERO, |since| since.plus(hold).min(to).since(since.max(from)));
        let held = if reachable { held.as_secs_f64() } else { 0.0 };
        let rest = seconds - held;
        spent.knative = full * (held * min.max(one) + rest * min);
        spent.always_on = full * seconds * min.max(one);
        spent.min_scale = full * (held * (min - one).max(0.0) + rest * min);
        spent.min_scale_cheaper = cheaper.map_or(spent.min_scale, |(_, price)| {
            price * (held * (min - one).max(0.0) + rest * min)
        });
        spent.idle = spent.actual;
        spent
    }
}

/// All accounts; clones share them. Written by scaling, read by whoever shows them.
#[derive(Clone, Debug, Default)]
pub struct Costs(Arc<Mutex<Open>>);

/// The accounts in use. They are looked up with everything that happens to a revision, and put in order when they are read.
#[derive(Debug, Default)]
struct Open {
    /// Boxed: half of the places of a map that has just grown are empty.
    accounts: HashMap<RevisionId, Box<Account>>,
    gone: (u64, Spent),
    /// As it was written before Knarr's start, for revisions that are not back yet.
    before: BTreeMap<RevisionId, Account>,
}

/// Everything that is kept of costs, at one instant.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// By revision.
    #[serde(with = "crate::flight::pairs")]
    pub accounts: BTreeMap<RevisionId, Account>,
    /// Of revisions that are gone: the day, and what was spent on it.
    pub gone: (u64, Spent),
}

impl Costs {
    /// With what was written down before this start of Knarr.
    pub fn resume(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(Open {
            accounts: HashMap::new(),
            gone: ledger.gone,
            before: ledger.accounts,
        })))
    }

    /// Everything, as it is at `now`. What was spent for revisions that are not back is with those that are gone.
    pub fn at(&self, now: Timestamp) -> Ledger {
        let open = self.lock();
        let resting = open.before.values().map(|account| account.at_rest());
        let gone = resting.fold(open.gone, |gone, account| bury(gone, account, now));
        Ledger {
            accounts: open
                .accounts
                .iter()
                .map(|(id, account)| (id.clone(), account.at(now)))
                .collect(),
            gone: if gone.0 == day(now) {
                gone
            } else {
                (day(now), Spent::default())
            },
        }
    }

    /// The account of one revision, as it is at `now`.
    pub fn of(&self, revision: &RevisionId, now: Timestamp) -> Option<Account> {
        self.lock().accounts.get(revision).map(|account| account.at(now))
    }

    pub(crate) fn change(&self, revision: &RevisionId, rates: Rates, now: Timestamp) {
        let mut open = self.lock();
        if let Some(account) = open.accounts.get_mut(revision) {
            if account.rates != rates {
                account.change(rates, now);
            }
            return;
        }
        let mut account = Account::new(rates, now);
        if let Some(before) = open.before.remove(revision) {
            // Nothing ran while Knarr did not.
            let before = before.at_rest().at(now);
            (account.today, account.yesterday) = (before.today, before.yesterday);
        }
        open.accounts.insert(revision.clone(), Box::new(account));
    }

    /// The bill of a sandbox that is gone was rounded up by so much.
    pub(crate) fn charge(&self, revision: &RevisionId, money: f64, now: Timestamp) {
        let mut open = self.lock();
        if let Some(account) = open.accounts.get_mut(revision) {
            account.charge(money, now);
        } else if money > 0.0 {
            let mut account = Account::new(Rates::default(), now);
            account.charge(money, now);
            open.gone = bury(open.gone, account, now);
        }
    }

    pub(crate) fn forget(&self, revision: &RevisionId, now: Timestamp) {
        let mut open = self.lock();
        if let Some(account) = open.accounts.remove(revision) {
            open.gone = bury(open.gone, *account, now);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Nothing runs, and nothing is compared.
    fn at_rest(mut self) -> Self {
        self.rates = Rates::default();
        self
    }
}

impl Ledger {
    /// What is spent today, in all.
    pub fn total(&self) -> Spent {
        let accounts = self.accounts.values().map(|account| account.today);
        accounts.fold(self.gone.1, Spent::plus)
    }
}

/// What was spent for revisions that are gone, with one more of them.
fn bury((day, spent): (u64, Spent), account: Account, now: Timestamp) -> (u64, Spent) {
    let account = account.at(now);
    let so_far = if day == account.day { spent } else { Spent::default() };
    (account.day, so_far.plus(account.today))
}

fn day(now: Timestamp) -> u64 {
    now.as_secs() / DAY.as_secs()
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests;
