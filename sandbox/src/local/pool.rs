//! Shells made ahead: some that any app can take, and one or two with their root mounted for the services started last, or
//! expected to start.
//! Pure: it says what to make and what to end, and does neither.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use manifests::ids::RevisionId;

use crate::spawner::protocol::{RootPlan, ShellId, Users};

/// What a shell that is kept for a service depends on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub users: Users,
    pub root: RootPlan,
}

/// Alive while the image is.
pub(super) type Lease = Weak<dyn Any + Send + Sync>;

/// How many shells are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// For any app.
    pub generic: usize,
    /// Services that have shells of their own.
    pub services: usize,
}

/// A shell of the pool.
pub(super) trait Pooled {
    fn id(&self) -> ShellId;
    /// It has ended, or is about to.
    fn is_dead(&self) -> bool;
}

/// The shells, oldest first.
#[derive(Debug)]
pub(super) struct Pool<S> {
    generic: VecDeque<S>,
    services: HashMap<Arc<Key>, Service<S>>,
    /// Counts the starts: what was used last has the highest.
    clock: u64,
    /// Counts those that never started, which are all before the first start.
    expected: u64,
    pub counts: Counts,
}

/// All services with the same root: one's shell is as good as another's.
#[derive(Debug)]
struct Service<S> {
    shells: VecDeque<S>,
    /// What its root stands on.
    lease: Option<Lease>,
    /// When each revision was started last, and how many shells it is worth.
    revisions: HashMap<RevisionId, (u64, usize)>,
}

impl<S> Service<S> {
    fn wanted(&self) -> usize {
        self.revisions.values().map(|(_, wanted)| wanted).sum()
    }

    fn used(&self) -> u64 {
        self.revisions.values().map(|(used, _)| *used).max().unwrap_or(0)
    }
}

/// How starts found the pool, since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// A shell with the root mounted.
    pub rooted: u64,
    /// A shell for any app.
    pub generic: u64,
    /// None: one was made on the path.
    pub missed: u64,
}

/// Those that are only expected come before it.
const FIRST_START: u64 = 1 << 32;

/// A service that was found empty has this many shells from then on.
const AT_MOST: usize = 2;

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Self {
            generic: VecDeque::new(),
            services: HashMap::new(),
            clock: FIRST_START,
            expected: 0,
            counts: Counts::default(),
        }
    }
}

impl<S: Pooled> Pool<S> {
    /// A shell for a start of `revision`, and whether it has the root already. The revision is remembered: it will have
    /// shells of its own, the least recently started one loses them.
    pub(super) fn take(
        &mut self,
        (key, revision): (&Arc<Key>, &RevisionId),
        lease: Option<Lease>,
        generic: bool,
        bounds: Bounds,
    ) -> Option<(S, bool)> {
        self.clock += 1;
        let used = self.clock;
        let mut rooted = None;
        if bounds.services > 0 {
            let service = self.service(key, lease);
            rooted = live(&mut service.shells);
            let known = service.revisions.get(revision).map(|(_, wanted)| *wanted);
            let wanted = match known {
                Some(_) if rooted.is_none() => AT_MOST,
                Some(wanted) => wanted,
                None => 1,
            };
            service.revisions.insert(revision.clone(), (used, wanted));
        }
        if let Some(shell) = rooted {
            self.counts.rooted += 1;
            return Some((shell, true));
        }
        let shell = generic.then(|| live(&mut self.generic)).flatten();
        match &shell {
            Some(_) => self.counts.generic += 1,
            None => self.counts.missed += 1,
        }
        shell.map(|shell| (shell, false))
    }

    /// Whether one more service would be remembered, without another losing its shells.
    pub(super) fn has_room(&self, bounds: Bounds) -> bool {
        self.services.values().map(|it| it.revisions.len()).sum::<usize>() < bounds.services
    }

    /// A revision that never started is remembered, if there is room: its first start shall find a shell.
    pub(super) fn expect(&mut self, (key, revision): (&Arc<Key>, &RevisionId), lease: Option<Lease>, bounds: Bounds) {
        if self.has_room(bounds) {
            self.expected += 1;
            let used = self.expected;
            let service = self.service(key, lease);
            service.revisions.entry(revision.clone()).or_insert((used, 1));
        }
    }

    fn service(&mut self, key: &Arc<Key>, lease: Option<Lease>) -> &mut Service<S> {
        let service = self.services.entry(Arc::clone(key)).or_insert_with(|| Service {
            shells: VecDeque::new(),
            lease: None,
            revisions: HashMap::new(),
        });
        service.lease = lease;
        service
    }

    /// Which shell is missing most: a generic one, or one for the service started last that has too few.
    pub(super) fn missing(&self, bounds: Bounds) -> Option<Option<Arc<Key>>> {
        if self.generic.len() < bounds.generic {
            return Some(None);
        }
        let short = self
            .services
            .iter()
            .filter(|(_, service)| service.shells.len() < service.wanted());
        short
            .max_by_key(|(_, service)| service.used())
            .map(|(key, _)| Some(Arc::clone(key)))
    }

    /// Keeps a shell; one for a service that is not remembered any more comes back, to be ended.
    pub(super) fn put(&mut self, key: Option<&Arc<Key>>, shell: S) -> Option<S> {
        let Some(key) = key else {
            self.generic.push_back(shell);
            return None;
        };
        match self.services.get_mut(key) {
            Some(service) => {
                service.shells.push_back(shell);
                None
            }
            None => Some(shell),
        }
    }

    /// Forgets the revisions started longest ago, as many as are too many; shells that are then too many are to be ended.
    pub(super) fn trim(&mut self, bounds: Bounds) -> Vec<S> {
        let mut all: Vec<u64> = self
            .services
            .values()
            .flat_map(|s| s.revisions.values().map(|(used, _)| *used))
            .collect();
        all.sort_unstable();
        let keep_from = all.len().saturating_sub(bounds.services);
        let oldest = all.get(keep_from).copied().unwrap_or(u64::MAX);
        let mut ended = Vec::new();
        for service in self.services.values_mut() {
            service.revisions.retain(|_, (used, _)| *used >= oldest);
            let wanted = service.wanted();
            while service.shells.len() > wanted {
                ended.extend(service.shells.pop_front());
            }
        }
        self.services.retain(|_, service| !service.revisions.is_empty());
        ended
    }

    /// Whether a service stands on something that may go.
    pub(super) fn has_leases(&self) -> bool {
        self.services.values().any(|service| service.lease.is_some())
    }

    /// Forgets every service whose image is gone; their shells are to be ended.
    pub(super) fn sweep(&mut self) -> Vec<S> {
        let gone = |service: &Service<S>| service.lease.as_ref().is_some_and(|lease| lease.strong_count() == 0);
        let stale = self.services.iter().filter(|(_, service)| gone(service));
        let keys: Vec<_> = stale.map(|(key, _)| Arc::clone(key)).collect();
        let services = keys.iter().filter_map(|key| self.services.remove(key));
        services.flat_map(|service| service.shells).collect()
    }

    /// Forgets a service whose root cannot be mounted; its next start says why, and remembers it anew.
    pub(super) fn forget_one(&mut self, key: &Key) {
        self.services.remove(key);
    }

    /// It is dead.
    pub(super) fn remove(&mut self, id: ShellId) {
        self.generic.retain(|shell| shell.id() != id);
        for service in self.services.values_mut() {
            service.shells.retain(|shell| shell.id() != id);
        }
    }

    /// Every revision that has shells of its own, by name, with the shells that its next start may take.
    pub(super) fn revisions(&self) -> Vec<(RevisionId, usize)> {
        let services = self.services.values();
        let all = services.flat_map(|service| service.revisions.keys().map(|id| (id.clone(), service.shells.len())));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    }

    /// Shells for any app, and shells with a root.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let rooted = self.services.values().map(|service| service.shells.len()).sum();
        (self.generic.len(), rooted)
    }
}

fn live<S: Pooled>(shells: &mut VecDeque<S>) -> Option<S> {
    while let Some(shell) = shells.pop_front() {
        if !shell.is_dead() {
            return Some(shell);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Fake(u64, bool);

    impl Pooled for Fake {
        fn id(&self) -> ShellId {
            ShellId(self.0)
        }
        fn is_dead(&self) -> bool {
            self.1
        }
    }

    const BOUNDS: Bounds = Bounds {
        generic: 1,
        services: 2,
    };

    fn key(name: &str) -> Arc<Key> {
        Arc::new(Key {
            users: Users::Own,
            root: RootPlan::Image {
                layers: vec![name.into()],
                size: 1,
                userxattr: false,
                steps: Vec::new(),
            },
        })
    }

    fn revision(name: &str) -> RevisionId {
        RevisionId::new("default", name)
    }

    #[test]
    fn services_of_one_image_have_a_shell_each_and_share_them() {
        let mut pool = Pool::default();
        let a = key("a");
        let many = Bounds {
            generic: 0,
            services: 3,
        };
        for (id, name) in [(1, "x"), (2, "y"), (3, "z")] {
            // The first start of a revision has no shell of its own, but takes that of another.
            pool.put(Some(&a), Fake(id, false));
            pool.take((&a, &revision(name)), None, true, many);
        }
        for id in 4..7 {
            assert_eq!(pool.missing(many), Some(Some(a.clone())));
            pool.put(Some(&a), Fake(id, false));
        }
        assert_eq!(pool.missing(many), None);
        for (id, name) in [(4, "z"), (5, "x"), (6, "y")] {
            assert_eq!(
                pool.take((&a, &revision(name)), None, true, many),
                Some((Fake(id, false), true))
            );
        }
        for id in 7..10 {
            pool.put(Some(&a), Fake(id, false));
        }
        assert_eq!(pool.trim(BOUNDS), [Fake(7, false)], "two of the three are remembered");
    }

    #[test]
    fn a_service_that_was_started_gets_a_shell_of_its_own_and_a_second_one_when_that_was_not_enough() {
        let mut pool = Pool::default();
        let a = key("a");
        assert_eq!(pool.missing(BOUNDS), Some(None));
        pool.put(None, Fake(1, false));
        assert_eq!(pool.missing(BOUNDS), None);
        // The same key, made anew for each start.
        assert_eq!(
            pool.take((&key("a"), &revision("a")), None, true, BOUNDS),
            Some((Fake(1, false), false))
        );
        pool.put(None, Fake(2, false));
        assert_eq!(pool.missing(BOUNDS), Some(Some(a.clone())));
        assert_eq!(pool.put(Some(&a), Fake(3, false)), None);
        assert_eq!(pool.missing(BOUNDS), None);
        assert_eq!(
            pool.take((&a, &revision("a")), None, true, BOUNDS),
            Some((Fake(3, false), true))
        );
        assert_eq!(
            pool.take((&a, &revision("a")), None, true, BOUNDS),
            Some((Fake(2, false), false))
        );
        assert_eq!(pool.take((&a, &revision("a")), None, true, BOUNDS), None);
        pool.put(None, Fake(4, false));
        for id in 5..7 {
            assert_eq!(pool.missing(BOUNDS), Some(Some(a.clone())));
            pool.put(Some(&a), Fake(id, false));
        }
        assert_eq!(pool.missing(BOUNDS), None);
        let counts = Counts {
            rooted: 1,
            generic: 2,
            missed: 1,
        };
        assert_eq!(pool.counts, counts);
    }

    #[test]
    fn an_expected_service_has_a_shell_before_its_first_start_and_loses_it_to_those_that_started() {
        let mut pool = Pool::default();
        pool.put(None, Fake(0, false));
        for name in ["a", "b", "c"] {
            pool.expect((&key(name), &revision(name)), None, BOUNDS);
        }
        for (id, name) in [(1, "b"), (2, "a")] {
            assert_eq!(
                pool.missing(BOUNDS),
                Some(Some(key(name))),
                "there is no room for the third"
            );
            pool.put(Some(&key(name)), Fake(id, false));
        }
        assert_eq!(pool.missing(BOUNDS), None);
        pool.expect((&key("a"), &revision("a")), None, BOUNDS);
        assert_eq!(pool.missing(BOUNDS), None, "known");
        let first = pool.take((&key("a"), &revision("a")), None, true, BOUNDS);
        assert_eq!(first, Some((Fake(2, false), true)));
        pool.take((&key("d"), &revision("d")), None, false, BOUNDS);
        assert_eq!(pool.trim(BOUNDS), [Fake(1, false)], "b never started");
    }

    #[test]
    fn the_service_started_longest_ago_loses_its_shells_first() {
        let mut pool = Pool::default();
        for (id, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            pool.take((&key(name), &revision(name)), None, false, BOUNDS);
            pool.put(Some(&key(name)), Fake(id, false));
        }
        assert_eq!(pool.trim(BOUNDS), [Fake(2, false)]);
        assert_eq!(pool.put(Some(&key("b")), Fake(5, false)), Some(Fake(5, false)));
        assert_eq!(pool.sizes(), (0, 2));
        assert_eq!(pool.trim(BOUNDS), []);
    }

    #[test]
    fn the_dead_and_those_of_a_removed_image_are_not_given_out() {
        let mut pool = Pool::default();
        for name in ["a", "b"] {
            pool.take((&key(name), &revision(name)), None, false, BOUNDS);
        }
        pool.put(Some(&key("a")), Fake(1, true));
        pool.put(Some(&key("a")), Fake(2, false));
        pool.put(Some(&key("b")), Fake(3, false));
        assert_eq!(
            pool.take((&key("a"), &revision("a")), None, false, BOUNDS),
            Some((Fake(2, false), true))
        );
        let image: Arc<dyn Any + Send + Sync> = Arc::new(());
        let lease = Arc::downgrade(&image);
        pool.take((&key("c"), &revision("c")), Some(lease), false, BOUNDS);
        pool.put(Some(&key("c")), Fake(5, false));
        assert!(pool.has_leases());
        assert_eq!(pool.sweep(), []);
        drop(image);
        assert_eq!(pool.sweep(), [Fake(5, false)]);
        assert!(!pool.has_leases());
        pool.put(None, Fake(4, false));
        pool.remove(ShellId(4));
        assert_eq!(pool.sizes(), (0, 1));
    }

    #[test]
    fn without_a_pool_nothing_is_kept_or_missing() {
        let none = Bounds {
            generic: 0,
            services: 0,
        };
        let mut pool = Pool::<Fake>::default();
        assert_eq!(pool.take((&key("a"), &revision("a")), None, true, none), None);
        assert_eq!(pool.missing(none), None);
        assert_eq!(pool.sizes(), (0, 0));
    }
}
