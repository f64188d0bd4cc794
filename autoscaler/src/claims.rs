//! PURE  Whose turn it is with a claim that one sandbox may have at a time (`ReadWriteOnce`): stop before start.
//!
//! Every revision with such a claim says how it stands; one of those that share a claim is its *owner*, and the others run
//! nothing. A revision starts when it is the owner of all of its claims and no sandbox of another one has any of them. The
//! owner gives way when that is right by [`Entry::gives_way`]; its sandbox then drains as any other, and its requests wait in
//! their queue until it is its turn again.
//!
//! ```text
//! new revision ── Rollout ──▶ the old one's sandbox drains, stops ──▶ the new one's starts ──▶ ready: routes follow
//!                                                                       └─ fails: it waits (Retry), the old one comes back
//! ```
//!
//! C1. Of revisions that share a claim at most one is its owner.
//! C2. Nobody starts while a sandbox of another has one of its claims.
//! C3. A revision whose requests wait becomes the owner in the end: others keep a claim for a turn ([`turn_of`]) at most.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId};
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

/// How a revision with exclusive claims stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// What it claims.
    pub(crate) claims: Arc<[ObjectId]>,
    /// What made it.
    pub(crate) configuration: ObjectId,
    /// When.
    pub(crate) created: Timestamp,
    /// A route sends it requests, or may soon.
    pub(crate) reachable: bool,
    /// A request is in flight or waits.
    pub(crate) busy: bool,
    /// A request waits that its ready sandbox has not taken yet.
    pub(crate) queued: bool,
    /// What it has.
    pub(crate) has: Has,
    /// What it wants one for.
    pub(crate) wants: Wants,
}

/// The sandbox of a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Has {
    /// None.
    Nothing,
    /// One that drains or stops.
    Ending,
    /// One on its way to ready.
    Starting,
    /// One that runs, or stands frozen; its turn is over then.
    Running(Timestamp),
}

/// What a sandbox is wanted for, the least urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Wants {
    /// None is wanted, or not yet.
    Nothing,
    /// Nobody waits for it: a minimum, or a window that is not over.
    Standby,
    /// A new revision's first replica, after a start that failed.
    Retry,
    /// Requests wait.
    Requests,
    /// A new revision's first replica.
    Rollout,
    /// Requests wait that came before the routes went elsewhere: they are the last.
    Leftover,
}

/// All revisions with exclusive claims.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Claims(#[serde(with = "crate::flight::pairs")] BTreeMap<RevisionId, Entry>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    standing: Standing,
    owner: bool,
    /// What it was told last, while it wants a sandbox and has none.
    told: Option<Told>,
    /// Since when it wants what it wants.
    since: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Told {
    /// Somebody is in the way.
    Wait,
    Start,
}

impl Claims {
    /// Says how a revision stands now.
    pub(crate) fn set(&mut self, revision: &RevisionId, standing: Standing, now: Timestamp) {
        match self.0.get_mut(revision) {
            Some(entry) => {
                if entry.standing.wants != standing.wants {
                    entry.since = now;
                }
                let pending = standing.has == Has::Nothing && standing.wants > Wants::Nothing;
                entry.told = entry.told.filter(|_| pending);
                entry.standing = standing;
            }
            None => {
                let entry = Entry {
                    standing,
                    owner: false,
                    told: None,
                    since: now,
                };
                self.0.insert(revision.clone(), entry);
            }
        }
    }

    /// Nothing of it is left.
    pub(crate) fn forget(&mut self, revision: &RevisionId) {
        self.0.remove(revision);
    }

    /// Whether it is its turn.
    pub(crate) fn owns(&self, revision: &RevisionId) -> bool {
        self.0.get(revision).is_some_and(|entry| entry.owner)
    }

    /// Whether it may start a sandbox now.
    pub(crate) fn may_start(&self, revision: &RevisionId) -> bool {
        self.owns(revision) && self.in_the_way(revision).is_none()
    }

    /// Who has, or is to have, one of its claims, and which; `None` when it may start.
    pub(crate) fn in_the_way<'a>(&'a self, revision: &'a RevisionId) -> Option<(&'a ObjectId, &'a RevisionId)> {
        let own = self.0.get(revision)?;
        let rivals = self.rivals(revision, own);
        let mut holding = rivals.filter(|(_, _, rival)| rival.standing.has != Has::Nothing || rival.owner);
        holding.next().map(|(claim, id, _)| (claim, id))
    }

    /// Gives turns: every revision for which something has changed. Call it again when these have acted on it.
    pub(crate) fn arbitrate(&mut self, now: Timestamp) -> Vec<RevisionId> {
        let mut changed = Vec::new();
        for waiter in self.waiters() {
            let Some(own) = self.0.get(&waiter) else { continue };
            let owners = || self.rivals(&waiter, own).filter(|(_, _, rival)| rival.owner);
            if !owners().all(|(_, _, rival)| rival.gives_way(own, now)) {
                continue;
            }
            let ended: Vec<RevisionId> = owners().map(|(_, id, _)| id.clone()).collect();
            for id in &ended {
                if let Some(entry) = self.0.get_mut(id) {
                    entry.owner = false;
                }
            }
            changed.extend(ended);
            if let Some(own) = self.0.get_mut(&waiter) {
                own.owner = true;
            }
        }
        changed.extend(self.news());
        changed
    }

    /// When somebody's turn is over for whom others wait.
    pub(crate) fn next_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let turns = self.0.iter().filter_map(|(id, entry)| match entry.standing.has {
            Has::Running(until) if entry.owner && until > now => Some((id, entry, until)),
            _ => None,
        });
        let contested = turns.filter(|(id, entry, _)| {
            self.rivals(id, entry)
                .any(|(_, _, rival)| rival.waits() && rival.standing.wants >= Wants::Requests)
        });
        contested.map(|(_, _, until)| until).min()
    }

    /// Those who want to be an owner and are not, the most urgent first.
    fn waiters(&self) -> Vec<RevisionId> {
        let mut waiters: Vec<_> = self.0.iter().filter(|(_, entry)| entry.waits()).collect();
        waiters.sort_by_key(|(_, entry)| (Reverse(entry.standing.wants), entry.since));
        waiters.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Those that want a sandbox and have none, and do not know yet whether they may start.
    fn news(&mut self) -> Vec<RevisionId> {
        let pending = |entry: &Entry| entry.standing.wants > Wants::Nothing && entry.standing.has == Has::Nothing;
        let news = self
            .0
            .iter()
            .filter(|(_, entry)| pending(entry))
            .filter_map(|(id, entry)| {
                let now = if self.may_start(id) { Told::Start } else { Told::Wait };
                (entry.told != Some(now)).then(|| (id.clone(), now))
            });
        let news: Vec<(RevisionId, Told)> = news.collect();
        for (id, now) in &news {
            if let Some(entry) = self.0.get_mut(id) {
                entry.told = Some(*now);
            }
        }
        news.into_iter().map(|(id, _)| id).collect()
    }

    /// The others that share a claim with it, each with the first such claim.
    fn rivals<'a>(
        &'a self,
        revision: &'a RevisionId,
        own: &'a Entry,
    ) -> impl Iterator<Item = (&'a ObjectId, &'a RevisionId, &'a Entry)> {
        let others = self.0.iter().filter(move |(id, _)| *id != revision);
        others.filter_map(move |(id, entry)| {
            let theirs = &entry.standing.claims;
            let shared = own.standing.claims.iter().find(|claim| theirs.contains(claim));
            shared.map(|claim| (claim, id, entry))
        })
    }
}

impl Entry {
    fn waits(&self) -> bool {
        !self.owner && self.standing.wants > Wants::Nothing && matches!(self.standing.has, Has::Nothing | Has::Ending)
    }

    /// Whether this owner's turn ends for `waiter`.
    fn gives_way(&self, waiter: &Self, now: Timestamp) -> bool {
        let (own, wanted) = (&self.standing, waiter.standing.wants);
        let urgent = wanted >= Wants::Requests;
        let succeeds = wanted == Wants::Rollout
            && waiter.standing.configuration == own.configuration
            && waiter.standing.created >= own.created;
        match own.has {
            // Nothing runs, and nothing is about to.
            Has::Nothing | Has::Ending if own.wants == Wants::Nothing => true,
            // What runs the old code goes, whatever it does: its requests wait, none is lost.
            _ if succeeds => true,
            // About to start, or starting: a first try has all the time of its deadline, another one has not.
            Has::Nothing | Has::Ending => urgent && own.wants <= Wants::Retry,
            Has::Starting => urgent && own.wants == Wants::Retry,
            Has::Running(until) => match wanted {
                Wants::Nothing | Wants::Standby => false,
                Wants::Retry => !own.busy,
                Wants::Leftover => true,
                Wants::Requests | Wants::Rollout => {
                    let served = !own.reachable && !own.queued;
                    !own.busy || served || until <= now
                }
            },
        }
    }
}

/// How long a sandbox serves at least while others' requests wait: most of the time shall not go by with starts.
pub(crate) fn turn_of(start: Duration) -> Duration {
    TURN.max(start * 4)
}

const TURN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RevisionId {
        RevisionId::new("ns", name)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// Revision `nth` of service `of`, with these claims.
    fn standing(of: &str, nth: u64, claims: &[&str], wants: Wants) -> Standing {
        Standing {
            claims: claims.iter().map(|name| ObjectId::new("ns", *name)).collect(),
            configuration: ObjectId::new("ns", of),
            created: at(nth),
            reachable: true,
            busy: false,
            queued: false,
            has: Has::Nothing,
            wants,
        }
    }

    fn runs(standing: Standing, until: u64) -> Standing {
        let (has, wants) = (Has::Running(at(until)), Wants::Standby);
        Standing { has, wants, ..standing }
    }

    #[test]
    fn who_gives_way_to_whom() {
        use Wants::{Leftover, Nothing, Requests, Retry, Rollout, Standby};
        let base = |wants| standing("app", 1, &["a"], wants);
        let busy = |until| Standing {
            busy: true,
            ..runs(base(Standby), until)
        };
        let gone = |queued| Standing {
            reachable: false,
            queued,
            ..busy(99)
        };
        let starting = |wants| Standing {
            has: Has::Starting,
            ..base(wants)
        };
        let ending = |wants| Standing {
            has: Has::Ending,
            ..base(wants)
        };
        // The owner at second 10; who of the others gets it: (another revision of the service, the next one), by what it wants.
        let table = [
            (base(Nothing), vec![Standby, Retry, Requests, Rollout, Leftover]),
            (ending(Nothing), vec![Standby, Retry, Requests, Rollout, Leftover]),
            (base(Standby), vec![Requests, Rollout, Leftover]),
            (base(Retry), vec![Requests, Rollout, Leftover]),
            (base(Requests), vec![]),
            (ending(Rollout), vec![]),
            (starting(Rollout), vec![]),
            (starting(Requests), vec![]),
            (starting(Retry), vec![Requests, Rollout, Leftover]),
            (runs(base(Standby), 99), vec![Retry, Requests, Rollout, Leftover]),
            (busy(99), vec![Leftover]),
            (busy(10), vec![Requests, Rollout, Leftover]),
            (gone(true), vec![Leftover]),
            (gone(false), vec![Requests, Rollout, Leftover]),
        ];
        for (nth, (owner, gets)) in table.into_iter().enumerate() {
            for wants in [Nothing, Standby, Retry, Requests, Rollout, Leftover] {
                let mut claims = Claims::default();
                claims.set(
                    &id("owner"),
                    Standing {
                        has: Has::Nothing,
                        ..base(Requests)
                    },
                    at(0),
                );
                assert_eq!(claims.arbitrate(at(0)), [id("owner")]);
                claims.set(&id("owner"), owner.clone(), at(1));
                claims.set(&id("other"), standing("other", 2, &["a"], wants), at(2));
                claims.arbitrate(at(10));
                assert_eq!(claims.owns(&id("other")), gets.contains(&wants), "row {nth}, {wants:?}");
                assert_ne!(claims.owns(&id("other")), claims.owns(&id("owner")));
                // The next revision of the same service need not wait for its first try.
                claims.set(&id("next"), standing("app", 3, &["a"], Rollout), at(11));
                if claims.owns(&id("owner")) {
                    claims.arbitrate(at(11));
                    assert!(claims.owns(&id("next")), "row {nth}");
                }
            }
        }
    }

    #[test]
    fn an_owner_starts_when_the_other_is_gone_and_is_told_once() {
        let mut claims = Claims::default();
        let old = standing("app", 1, &["a"], Wants::Rollout);
        claims.set(&id("old"), old.clone(), at(0));
        assert_eq!(claims.arbitrate(at(0)), [id("old")]);
        assert!(claims.may_start(&id("old")));
        assert!(claims.arbitrate(at(0)).is_empty());
        claims.set(&id("old"), runs(old.clone(), 5), at(1));
        claims.set(&id("new"), standing("app", 2, &["a"], Wants::Rollout), at(2));
        assert_eq!(
            claims.arbitrate(at(2)),
            [id("old"), id("new")],
            "it gives way, and the other one waits"
        );
        assert!(claims.owns(&id("new")) && !claims.may_start(&id("new")));
        let claim = ObjectId::new("ns", "a");
        assert_eq!(claims.in_the_way(&id("new")), Some((&claim, &id("old"))));
        claims.set(
            &id("old"),
            Standing {
                has: Has::Ending,
                ..old.clone()
            },
            at(3),
        );
        assert!(claims.arbitrate(at(3)).is_empty(), "nobody starts while it ends");
        claims.set(
            &id("old"),
            Standing {
                wants: Wants::Standby,
                ..old
            },
            at(4),
        );
        assert_eq!(
            claims.arbitrate(at(4)),
            [id("new"), id("old")],
            "one may start, the other waits"
        );
        assert_eq!(claims.in_the_way(&id("new")), None);
        claims.forget(&id("new"));
        assert_eq!(claims.arbitrate(at(5)), [id("old")]);
    }

    #[test]
    fn all_claims_or_none() {
        let mut claims = Claims::default();
        for (name, of) in [("a", &["a"][..]), ("b", &["b"]), ("both", &["a", "b"])] {
            claims.set(&id(name), standing(name, 1, of, Wants::Requests), at(0));
        }
        claims.arbitrate(at(0));
        assert!(claims.owns(&id("a")) && claims.owns(&id("b")) && !claims.owns(&id("both")));
        for name in ["a", "b"] {
            let busy = Standing {
                busy: true,
                ..runs(
                    standing(name, 1, &[name], Wants::Standby),
                    if name == "a" { 5 } else { 9 },
                )
            };
            claims.set(&id(name), busy, at(1));
        }
        assert_eq!(claims.next_timeout(at(1)), Some(at(5)));
        claims.arbitrate(at(5));
        assert!(claims.owns(&id("a")), "one of two is of no use");
        assert_eq!(claims.next_timeout(at(5)), Some(at(9)));
        let mut changed = claims.arbitrate(at(9));
        changed.sort();
        assert_eq!(changed, [id("a"), id("b")]);
        assert!(claims.owns(&id("both")));
        assert_eq!(claims.next_timeout(at(9)), None);
    }
}
