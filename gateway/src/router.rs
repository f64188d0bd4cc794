//! From a host name to what serves it: an immutable table. PURE.
//!
//! Built and freed on the control runtime (a table of 100,000 hosts takes milliseconds to build and to drop); data
//! threads read it through one atomic load. `T` is what a revision resolves to, found once at build, so that a request
//! needs no second lookup. Entries that did not change are shared with the table before.

use std::collections::HashMap;
use std::sync::Arc;

use manifests::exchange::{HostRoute, Snapshot};
use manifests::ids::{Generation, RevisionId};

use crate::split::Split;

/// Every host that routes.
pub(crate) struct Router<T> {
    /// The snapshot it was made from.
    pub(crate) generation: Generation,
    hosts: HashMap<Arc<str>, Arc<Entry<T>>>,
}

/// What a host serves.
pub(crate) struct Entry<T> {
    /// The route as control gave it.
    pub(crate) route: Arc<HostRoute>,
    /// Same order as `route.targets`; `None` for a revision that the snapshot does not have.
    targets: Box<[Option<Arc<T>>]>,
    split: Split,
    /// Knative: tag-header routing; few, so a list.
    tags: Box<[Tag<T>]>,
}

/// A tag and what it addresses.
type Tag<T> = (Arc<str>, Option<Arc<T>>);

/// How a request came to its target; the app is told (Knative: B7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    /// The host says it all; tag-header routing is off.
    Host,
    /// Tag-header routing is on and no tag matched: `Knative-Serving-Default-Route: true`.
    DefaultRoute,
    /// Tag-header routing is on and a tag was addressed, by header or by the tag's own host.
    Tag,
}

impl<T> Router<T> {
    /// No host routes.
    pub(crate) fn empty() -> Self {
        Self {
            generation: Generation::default(),
            hosts: HashMap::new(),
        }
    }

    /// The table of `snapshot`. `resolve` finds what a revision is served by; it must return the same `Arc` for a revision
    /// as long as nothing about it changes.
    pub(crate) fn build(
        snapshot: &Snapshot,
        before: &Self,
        mut resolve: impl FnMut(&RevisionId) -> Option<Arc<T>>,
    ) -> Self {
        // Several hosts share one route: one entry for all of them.
        let mut made: HashMap<*const HostRoute, Arc<Entry<T>>> = HashMap::new();
        let mut hosts = HashMap::with_capacity(snapshot.hosts.len());
        for (host, route) in &snapshot.hosts {
            let entry = made.entry(Arc::as_ptr(route)).or_insert_with(|| {
                let fresh = Entry::new(route, &mut resolve);
                match before.hosts.get(host) {
                    Some(old) if old.same(&fresh) => Arc::clone(old),
                    _ => Arc::new(fresh),
                }
            });
            hosts.insert(Arc::clone(host), Arc::clone(entry));
        }
        Self {
            generation: snapshot.generation,
            hosts,
        }
    }

    /// What serves `host`, the value of a `Host` header or a URI's authority: in any case, with or without a port.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<Entry<T>>> {
        let mut buffer = [0; LONGEST_HOST];
        self.hosts.get(canonical(host, &mut buffer)?)
    }

    /// How many hosts route.
    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }
}

impl<T> Entry<T> {
    fn new(route: &Arc<HostRoute>, mut resolve: impl FnMut(&RevisionId) -> Option<Arc<T>>) -> Self {
        Self {
            targets: route.targets.iter().map(|target| resolve(&target.revision)).collect(),
            split: Split::new(route.targets.iter().map(|target| target.percent)),
            tags: route
                .by_tag_header
                .iter()
                .map(|(tag, revision)| (Arc::clone(tag), resolve(revision)))
                .collect(),
            route: Arc::clone(route),
        }
    }

    fn same(&self, other: &Self) -> bool {
        fn alike<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            }
        }
        self.route == other.route
            && self
                .targets
                .iter()
                .zip(&other.targets)
                .all(|(a, b)| alike(a.as_ref(), b.as_ref()))
            && self
                .tags
                .iter()
                .zip(&other.tags)
                .all(|((_, a), (_, b))| alike(a.as_ref(), b.as_ref()))
    }

    /// The target of a request with this `Knative-Serving-Tag` header; `draw` is asked for only where there is a choice,
    /// for a number in `0..DRAWS`. `None` when no revision is ready yet.
    ///
    /// Knative: the header counts on the route's own host only, and only where the feature is on; a tag's own host is
    /// that tag, whatever the header says.
    pub(crate) fn pick(&self, tag: Option<&[u8]>, draw: impl FnOnce() -> u8) -> Option<(&Arc<T>, Via)> {
        let via = match (self.tags.is_empty(), &self.route.tag) {
            (true, _) => Via::Host,
            (false, Some(_)) => Via::Tag,
            (false, None) => Via::DefaultRoute,
        };
        if via == Via::DefaultRoute
            && let Some(tag) = tag
            && let Some((_, target)) = self.tags.iter().find(|(name, _)| name.as_bytes() == tag)
        {
            return Some((target.as_ref()?, Via::Tag));
        }
        let index = self.split.only().or_else(|| self.split.pick(draw()))?;
        Some((self.targets[index].as_ref()?, via))
    }
}

/// A host name in the form of the table's keys: lower case, no port, no final dot. An IPv6 address keeps its brackets.
/// `None` when it can be no host name, or none that anybody could have.
fn canonical<'a>(host: &'a str, buffer: &'a mut [u8; LONGEST_HOST]) -> Option<&'a str> {
    let name = match host.rfind(']') {
        Some(end) if host.starts_with('[') => &host[..=end],
        _ => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST_HOST {
        return None;
    }
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(name);
    }
    let lower = &mut buffer[..name.len()];
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    str::from_utf8(lower).ok()
}

/// The longest domain name, RFC 1035 2.3.4.
const LONGEST_HOST: usize = 255;

#[cfg(test)]
mod tests {
    use manifests::exchange::RouteTarget;
    use manifests::ids::ObjectId;
    use manifests::units::Percent;

    use super::*;

    fn revision(name: &str) -> RevisionId {
        RevisionId::new("default", name)
    }

    fn route(tag: Option<&str>, targets: &[(&str, u8)], tags: &[(&str, &str)]) -> Arc<HostRoute> {
        Arc::new(HostRoute {
            route: ObjectId::new("default", "hello"),
            tag: tag.map(Into::into),
            targets: targets
                .iter()
                .map(|&(name, percent)| RouteTarget {
                    revision: revision(name),
                    percent: Percent::new(percent).expect("a percentage"),
                })
                .collect(),
            by_tag_header: tags.iter().map(|&(tag, name)| (tag.into(), revision(name))).collect(),
        })
    }

    fn snapshot(counter: u64, hosts: &[(&str, &Arc<HostRoute>)]) -> Snapshot {
        Snapshot {
            generation: Generation { epoch: 1, counter },
            hosts: hosts
                .iter()
                .map(|&(host, route)| (host.into(), Arc::clone(route)))
                .collect(),
            ..Snapshot::default()
        }
    }

    /// Resolves every revision but `missing`, to the same thing each time.
    struct Known(HashMap<RevisionId, Arc<String>>);

    impl Known {
        fn get(&mut self, id: &RevisionId) -> Option<Arc<String>> {
            (id.name() != "missing")
                .then(|| Arc::clone(self.0.entry(id.clone()).or_insert_with(|| Arc::new(id.name().into()))))
        }
    }

    fn pick(entry: &Entry<String>, tag: Option<&str>, draw: u8) -> Option<(String, Via)> {
        entry
            .pick(tag.map(str::as_bytes), || draw)
            .map(|(target, via)| ((**target).clone(), via))
    }

    #[test]
    fn hosts_are_found_in_any_spelling() {
        let mut known = Known(HashMap::new());
        let hello = route(None, &[("hello-00001", 100)], &[]);
        let table = Router::build(
            &snapshot(1, &[("hello.default.example.com", &hello), ("[::1]", &hello)]),
            &Router::empty(),
            |id| known.get(id),
        );
        for host in [
            "hello.default.example.com",
            "HELLO.Default.example.COM",
            "hello.default.example.com:8080",
            "hello.default.example.com:",
            "hello.default.example.com.",
            "Hello.default.example.com.:80",
            "[::1]",
            "[::1]:8080",
        ] {
            assert!(table.find(host).is_some(), "{host}");
        }
        let long = "a".repeat(LONGEST_HOST + 1);
        for host in [
            "",
            ".",
            ":8080",
            "other.example.com",
            "::1",
            "[::1",
            "xhello.default.example.com",
            &long,
        ] {
            assert!(table.find(host).is_none(), "{host}");
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn picks_by_share_and_tag() {
        let mut known = Known(HashMap::new());
        let plain = Entry::new(&route(None, &[("a", 90), ("b", 10)], &[]), |id| known.get(id));
        assert_eq!(pick(&plain, None, 89), Some(("a".into(), Via::Host)));
        assert_eq!(pick(&plain, None, 90), Some(("b".into(), Via::Host)));
        assert_eq!(
            pick(&plain, Some("canary"), 0),
            Some(("a".into(), Via::Host)),
            "the feature is off"
        );

        let tagged = Entry::new(
            &route(None, &[("a", 100)], &[("canary", "b"), ("gone", "missing")]),
            |id| known.get(id),
        );
        assert_eq!(pick(&tagged, Some("canary"), 0), Some(("b".into(), Via::Tag)));
        assert_eq!(pick(&tagged, Some("unknown"), 0), Some(("a".into(), Via::DefaultRoute)));
        assert_eq!(pick(&tagged, None, 0), Some(("a".into(), Via::DefaultRoute)));
        assert_eq!(pick(&tagged, Some("gone"), 0), None, "its revision does not exist");

        let own_host = Entry::new(
            &route(Some("canary"), &[("b", 100)], &[("canary", "b"), ("old", "a")]),
            |id| known.get(id),
        );
        assert_eq!(pick(&own_host, Some("old"), 0), Some(("b".into(), Via::Tag)));

        let nothing_ready = Entry::new(&route(None, &[], &[]), |id| known.get(id));
        assert_eq!(pick(&nothing_ready, None, 0), None);
    }

    #[test]
    fn one_target_needs_no_draw() {
        let mut known = Known(HashMap::new());
        let entry = Entry::new(&route(None, &[("old", 0), ("new", 100)], &[]), |id| known.get(id));
        let (target, _) = entry.pick(None, || panic!("drew")).expect("a target");
        assert_eq!(**target, "new");
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let mut known = Known(HashMap::new());
        let (same, old) = (route(None, &[("a", 100)], &[]), route(None, &[("b", 100)], &[]));
        let first = Router::build(
            &snapshot(1, &[("a", &same), ("alias", &same), ("b", &old)]),
            &Router::empty(),
            |id| known.get(id),
        );
        assert!(Arc::ptr_eq(
            first.find("a").expect("a"),
            first.find("alias").expect("alias")
        ));

        // An equal route in a new allocation, as a reconciler makes it, and a route that changed.
        let (equal, new) = (route(None, &[("a", 100)], &[]), route(None, &[("c", 100)], &[]));
        let second = Router::build(&snapshot(2, &[("a", &equal), ("b", &new)]), &first, |id| known.get(id));
        assert!(Arc::ptr_eq(first.find("a").expect("a"), second.find("a").expect("a")));
        assert!(!Arc::ptr_eq(first.find("b").expect("b"), second.find("b").expect("b")));
        assert!(second.find("alias").is_none());

        // A revision that came back is served by something new: nothing of the old may stay.
        known.0.clear();
        let third = Router::build(&snapshot(3, &[("a", &equal)]), &second, |id| known.get(id));
        assert!(!Arc::ptr_eq(second.find("a").expect("a"), third.find("a").expect("a")));
    }
}
