//! PURE  What a gateway does for one revision: slots, a queue, and what it reports; as the crate `activator` does it.
//!
//! A slot for each request up to `containerConcurrency` per sandbox, a queue behind them in the order of arrival. Scaling
//! hears at once when nothing is there to serve, when the queue has doubled, and of the first request at a rung below full;
//! everything else waits for the report of the second. A sandbox that leaves the endpoint set drains.

use std::collections::VecDeque;
use std::time::Duration;

use manifests::exchange::{Draining, EndpointSet, LoadKind, RevisionLoad, Rung, Work};
use manifests::ids::{Generation, RevisionId, SandboxId};
use manifests::units::{Concurrency, Rps, Timestamp};

use super::arena::Key;

/// One revision at the gateway.
pub(super) struct Pool {
    revision: RevisionId,
    /// Requests that one sandbox takes at once.
    limit: u32,
    acked: Generation,
    rung: Rung,
    refuses: bool,
    serving: Vec<Member>,
    draining: Vec<Member>,
    /// Where the round over the sandboxes stands.
    next: usize,
    waiting: VecDeque<Key>,
    running: u32,
    /// On the list of those that have something to report.
    active: bool,
    /// What scaling has heard of since the last report.
    told: u32,
    low_rung_told: bool,
    refusal_told: bool,
    counted_by_wake: bool,
    /// Requests in flight, added up over time, and arrivals; since the last report.
    area: f64,
    touched: Timestamp,
    arrivals: u32,
    /// [`Work::first`] since the last report.
    first: Option<Duration>,
    since: Timestamp,
    in_table: bool,
}

struct Member {
    key: Key,
    id: SandboxId,
    running: u32,
    /// A connection to it is kept: it ran something. The gateway looks once a second for those that lead nowhere any more.
    connected: bool,
    /// What it takes beside the others; 0 where all are alike.
    weight: u32,
}

/// Whether scaling must hear of something at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// The next report will do.
    Later,
    /// It must.
    Now,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It runs here.
    Runs(Key),
    /// It stands in line.
    Waits,
    /// Nothing will run soon: 503.
    Refused,
}

impl Pool {
    /// `concurrency` is the revision's `containerConcurrency`.
    pub(super) fn new(revision: RevisionId, concurrency: u32) -> Self {
        Self {
            revision,
            limit: if concurrency == 0 { u32::MAX } else { concurrency },
            acked: Generation::default(),
            rung: Rung::Zero,
            refuses: false,
            serving: Vec::new(),
            draining: Vec::new(),
            next: 0,
            waiting: VecDeque::new(),
            running: 0,
            active: false,
            told: 0,
            low_rung_told: false,
            refusal_told: false,
            counted_by_wake: false,
            area: 0.0,
            touched: Timestamp::EPOCH,
            arrivals: 0,
            first: None,
            since: Timestamp::EPOCH,
            in_table: false,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.running + self.waiting()
    }

    pub(super) const fn rung(&self) -> Rung {
        self.rung
    }

    fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// Puts it on the list; true when it was not there.
    pub(super) fn activate(&mut self, now: Timestamp) -> bool {
        if !self.active {
            self.since = now;
        }
        !std::mem::replace(&mut self.active, true)
    }

    /// A request comes.
    pub(super) fn arrive(&mut self, request: Key, now: Timestamp) -> (Place, Told) {
        self.touch(now);
        self.arrivals += 1;
        if self.waiting.is_empty()
            && let Some(key) = self.slot()
        {
            return (Place::Runs(key), self.low_rung());
        }
        if self.refuses {
            let told = std::mem::replace(&mut self.refusal_told, true);
            return (Place::Refused, if told { Told::Later } else { Told::Now });
        }
        self.waiting.push_back(request);
        let (waiting, slots) = (self.waiting(), self.slots());
        if slots == 0 && waiting == 1 {
            self.told = 0;
        }
        // While something serves, a short queue says nothing that the report of the second does not say in time.
        let worth = waiting >= self.told.saturating_mul(2).max(slots).max(1);
        if worth {
            self.told = waiting;
        }
        (Place::Waits, if worth { Told::Now } else { Told::Later })
    }

    /// The next in line, with a slot; nothing when either is missing.
    pub(super) fn serve(&mut self, now: Timestamp) -> Option<(Key, Key, Told)> {
        if self.waiting.is_empty() {
            return None;
        }
        self.touch(now);
        let sandbox = self.slot()?;
        let request = self.waiting.pop_front()?;
        Some((request, sandbox, self.low_rung()))
    }

    /// The first in line.
    pub(super) fn first(&self) -> Option<Key> {
        self.waiting.front().copied()
    }

    /// The first in line leaves without a slot.
    pub(super) fn dismiss(&mut self, now: Timestamp) -> Option<Key> {
        self.touch(now);
        self.waiting.pop_front()
    }

    /// A request on `sandbox` has ended; true when it was the last on one that drains.
    pub(super) fn release(&mut self, sandbox: Key, now: Timestamp) -> bool {
        self.touch(now);
        self.running -= 1;
        if let Some(member) = self.serving.iter_mut().find(|member| member.key == sandbox) {
            member.running -= 1;
            return false;
        }
        let found = self.draining.iter_mut().find(|member| member.key == sandbox);
        found.is_some_and(|member| {
            member.running -= 1;
            // Nothing more can come over it.
            member.connected = member.running > 0;
            member.running == 0
        })
    }

    /// The gateway closes connections to what is not in the set any more; true when there was one.
    pub(super) fn sweep(&mut self) -> bool {
        let mut any = false;
        for member in self.draining.iter_mut().filter(|member| member.running == 0) {
            any |= std::mem::take(&mut member.connected);
        }
        any
    }

    /// Requests that run on `sandbox`.
    pub(super) fn running_on(&self, sandbox: Key) -> u32 {
        let all = self.serving.iter().chain(&self.draining);
        all.filter(|member| member.key == sandbox)
            .map(|member| member.running)
            .sum()
    }

    /// Puts a newer endpoint set in place; `key_of` knows its sandboxes. Says whether it drops some, and whether nobody is
    /// left for those who wait.
    pub(super) fn apply(&mut self, set: &EndpointSet, key_of: impl Fn(&SandboxId) -> Option<Key>) -> (bool, Told) {
        self.acked = set.generation;
        self.rung = set.rung;
        self.refuses = set.refuses;
        self.low_rung_told = false;
        let mut before = std::mem::take(&mut self.serving);
        let served = !before.is_empty();
        for endpoint in &set.endpoints {
            let known = |member: &Member| member.id == endpoint.sandbox;
            let mut member = if let Some(at) = before.iter().position(known) {
                before.swap_remove(at)
            } else if let Some(at) = self.draining.iter().position(known) {
                self.draining.swap_remove(at)
            } else if let Some(key) = key_of(&endpoint.sandbox) {
                Member {
                    key,
                    id: endpoint.sandbox.clone(),
                    running: 0,
                    connected: false,
                    weight: 0,
                }
            } else {
                continue;
            };
            member.weight = endpoint.weight;
            self.serving.push(member);
        }
        let drops = !before.is_empty();
        self.draining.extend(before);
        let deserted = served && self.serving.is_empty() && !self.waiting.is_empty();
        if deserted {
            self.told = self.waiting();
        }
        (drops, if deserted { Told::Now } else { Told::Later })
    }

    /// The entry of the periodic report, and whether the revision stays on the list.
    pub(super) fn sample(&mut self, now: Timestamp, period: Duration) -> (RevisionLoad, bool) {
        self.touch(now);
        let busy = self.area > 0.0 || self.arrivals > 0 || self.in_flight() > 0;
        let elapsed = now.since(self.since).as_secs_f64();
        let average = if elapsed > 0.0 {
            self.area / elapsed
        } else {
            f64::from(self.in_flight())
        };
        let mut load = self.load(LoadKind::Periodic);
        load.concurrency = Concurrency(match (self.counted_by_wake, busy && !self.in_table) {
            (true, _) => (average - 1.0).max(0.0),
            (false, true) => average.max(1.0),
            (false, false) => average,
        });
        load.work = Work {
            arrivals: self.arrivals,
            time: Duration::from_secs_f64(self.area),
            first: self.first.take(),
        };
        let counted = f64::from(u8::from(self.counted_by_wake));
        load.rps = Rps((f64::from(self.arrivals) - counted).max(0.0) / period.as_secs_f64().max(1e-9));
        (self.area, self.arrivals, self.since, self.in_table) = (0.0, 0, now, busy);
        (self.counted_by_wake, self.refusal_told) = (false, false);
        self.told = self.waiting();
        let stays = busy || !load.draining.is_empty();
        if !stays {
            self.low_rung_told = false;
        }
        self.active = stays;
        (load, stays)
    }

    /// A request that came while nothing was in flight has ended.
    pub(super) fn ended_first(&mut self, took: Duration) {
        self.first.get_or_insert(took);
    }

    /// The entry of a wake-up.
    pub(super) fn wake(&mut self) -> RevisionLoad {
        let mut load = self.load(LoadKind::Wake);
        if !std::mem::replace(&mut self.counted_by_wake, true) {
            (load.concurrency.0, load.rps.0) = (1.0, 1.0);
        }
        load
    }

    /// An entry without averages.
    pub(super) fn load(&mut self, kind: LoadKind) -> RevisionLoad {
        let mut draining = Vec::new();
        self.draining.retain(|member| {
            draining.push(Draining {
                sandbox: member.id.clone(),
                in_flight: member.running,
                connections: u32::from(member.connected),
                // None ends by itself here.
                answered: true,
            });
            member.connected
        });
        RevisionLoad {
            revision: self.revision.clone(),
            kind,
            concurrency: Concurrency(0.0),
            rps: Rps(0.0),
            work: Work::default(),
            in_flight: self.in_flight(),
            waiting: self.waiting(),
            acked: self.acked,
            draining,
            ejected: Vec::new(),
        }
    }

    /// Knative's choice: the first with room for a small `containerConcurrency`, else one after the other.
    fn slot(&mut self) -> Option<Key> {
        if self.serving.iter().any(|member| member.weight > 0) {
            return self.least_loaded();
        }
        let count = self.serving.len();
        let begin = if self.limit <= FEW { 0 } else { self.next };
        for step in 0..count {
            let at = (begin + step) % count;
            let member = &mut self.serving[at];
            if member.running < self.limit {
                member.running += 1;
                member.connected = true;
                self.running += 1;
                self.next = (at + 1) % count;
                return Some(member.key);
            }
        }
        None
    }

    /// Where sandboxes do not take equally many; the gateway looks at two random ones of them.
    fn least_loaded(&mut self) -> Option<Key> {
        let limit = self.limit;
        let free = self.serving.iter_mut().filter(|member| member.running < limit);
        let least = free.min_by_key(|member| relative_load(member.running, member.weight))?;
        least.running += 1;
        least.connected = true;
        self.running += 1;
        Some(least.key)
    }

    fn low_rung(&mut self) -> Told {
        if self.rung < Rung::Full && !std::mem::replace(&mut self.low_rung_told, true) {
            Told::Now
        } else {
            Told::Later
        }
    }

    fn slots(&self) -> u32 {
        let serving = u32::try_from(self.serving.len()).unwrap_or(u32::MAX);
        self.limit.saturating_mul(serving)
    }

    fn touch(&mut self, now: Timestamp) {
        self.area += f64::from(self.in_flight()) * now.since(self.touched).as_secs_f64();
        self.touched = now;
    }
}

/// As the gateway weighs it.
const fn relative_load(running: u32, weight: u32) -> u64 {
    (running as u64 + 1) * (1 << 20) / if weight == 0 { 1 } else { weight as u64 }
}

/// Up to this `containerConcurrency` the first sandbox with room is taken.
const FEW: u32 = 3;

#[cfg(test)]
mod tests {
    use manifests::exchange::Endpoint;

    use super::*;
    use crate::simulate::arena::Arena;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs_f64(100.0 + seconds))
    }

    fn set(counter: u64, rung: Rung, names: &[&str]) -> EndpointSet {
        EndpointSet {
            revision: RevisionId::new("default", "a"),
            generation: Generation { epoch: 1, counter },
            rung,
            endpoints: names
                .iter()
                .map(|name| Endpoint {
                    sandbox: SandboxId::new(*name),
                    start: Duration::ZERO,
                    weight: 0,
                })
                .collect(),
            trouble: None,
            refuses: false,
        }
    }

    #[test]
    fn a_queue_wakes_when_it_has_doubled_and_is_served_in_order() {
        let mut arena = Arena::default();
        let mut pool = Pool::new(RevisionId::new("default", "a"), 2);
        let requests: Vec<Key> = (0..5).map(|n| arena.insert(n)).collect();
        assert!(pool.activate(at(0.0)) && !pool.activate(at(0.0)));
        let told: Vec<_> = requests.iter().map(|key| pool.arrive(*key, at(0.0))).collect();
        let now = |told| (Place::Waits, told);
        assert_eq!(
            told,
            [Told::Now, Told::Now, Told::Later, Told::Now, Told::Later].map(now)
        );
        let first = pool.wake();
        assert_eq!((first.concurrency.0, first.rps.0, first.waiting), (1.0, 1.0, 5));
        assert_eq!(pool.wake().concurrency.0, 0.0);

        let one = arena.insert(10);
        assert_eq!(
            pool.apply(&set(1, Rung::Full, &["one"]), |_| Some(one)),
            (false, Told::Later)
        );
        let mut served = Vec::new();
        while let Some((request, sandbox, told)) = pool.serve(at(0.5)) {
            assert_eq!((sandbox, told), (one, Told::Later));
            served.push(request);
        }
        assert_eq!(served, requests[..2]);
        // 5 in flight for the whole second, 1 of them told already.
        let (load, stays) = pool.sample(at(1.0), Duration::from_secs(1));
        assert!(
            stays && (load.concurrency.0 - 4.0).abs() < 1e-9 && load.rps.0 == 4.0,
            "{load:?}"
        );
        assert_eq!((load.in_flight, load.waiting), (5, 3));

        assert_eq!(
            pool.apply(&set(2, Rung::Zero, &[]), |_| None),
            (true, Told::Now),
            "it drops one"
        );
        assert_eq!(pool.load(LoadKind::Sandboxes).draining[0].in_flight, 2);
        assert!(
            !pool.release(one, at(1.0)) && pool.release(one, at(1.5)),
            "the last one"
        );
        assert_eq!(pool.load(LoadKind::Sandboxes).draining[0].in_flight, 0);
        assert!(pool.load(LoadKind::Sandboxes).draining.is_empty(), "said once");
    }

    #[test]
    fn a_connection_outlasts_its_request_until_the_gateway_looks() {
        let mut arena = Arena::default();
        let mut pool = Pool::new(RevisionId::new("default", "a"), 0);
        let (one, two) = (arena.insert(0), arena.insert(1));
        let keys = |id: &SandboxId| Some(if id.as_str() == "one" { one } else { two });
        pool.apply(&set(1, Rung::Full, &["one", "two"]), keys);
        pool.activate(at(0.0));
        assert_eq!(pool.arrive(arena.insert(2), at(0.0)), (Place::Runs(one), Told::Later));
        pool.release(one, at(0.1));
        assert!(!pool.sweep(), "what serves keeps its connection");
        pool.apply(&set(2, Rung::Frozen, &[]), |_| None);
        let left = |pool: &mut Pool| {
            let draining = pool.load(LoadKind::Sandboxes).draining;
            draining
                .iter()
                .map(|it| (it.sandbox.to_string(), it.connections))
                .collect::<Vec<_>>()
        };
        // The other one never ran anything.
        assert_eq!(left(&mut pool), [("one".to_owned(), 1), ("two".to_owned(), 0)]);
        assert_eq!(left(&mut pool), [("one".to_owned(), 1)]);
        assert!(pool.sweep() && !pool.sweep());
        assert_eq!(left(&mut pool), [("one".to_owned(), 0)]);
        assert!(left(&mut pool).is_empty(), "said once");
    }

    #[test]
    fn below_full_the_first_request_is_told_at_once() {
        let mut arena = Arena::default();
        let mut pool = Pool::new(RevisionId::new("default", "a"), 0);
        let one = arena.insert(0);
        pool.apply(&set(1, Rung::Throttled, &["one"]), |_| Some(one));
        pool.activate(at(0.0));
        let request = arena.insert(1);
        assert_eq!(pool.arrive(request, at(0.0)), (Place::Runs(one), Told::Now));
        assert_eq!(pool.arrive(request, at(0.1)), (Place::Runs(one), Told::Later));
        pool.release(one, at(0.2));
        pool.release(one, at(0.2));
        // 0.1 s with one, 0.1 s with two; nobody was woken through the queue.
        let (load, stays) = pool.sample(at(1.0), Duration::from_secs(1));
        assert!(stays && load.concurrency.0 == 1.0 && load.rps.0 == 2.0, "{load:?}");
        let (load, stays) = pool.sample(at(2.0), Duration::from_secs(1));
        assert!(!stays && load.concurrency.0 == 0.0, "{load:?}");
        pool.activate(at(3.0));
        assert_eq!(
            pool.arrive(request, at(3.0)),
            (Place::Runs(one), Told::Now),
            "after a rest it is told again"
        );
    }
}
