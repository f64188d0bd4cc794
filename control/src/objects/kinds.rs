//! The kinds that live in the store, and which kind's state depends on which.

use std::collections::{BTreeMap, BTreeSet};

use manifests::ids::ObjectId;
use manifests::resources::{
    Configuration, ConfigurationStatus, ObjectMeta, Revision, RevisionStatus, Route, RouteStatus, Service,
    ServiceStatus,
};

use super::{Key, Store, Table, controller};

/// A kind with a reconciler, in the order in which changes rise: a revision's readiness reaches its Configuration, that
/// reaches Routes, and both reach the Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `revisions.serving.knative.dev`.
    Revision,
    /// `configurations.serving.knative.dev`.
    Configuration,
    /// `routes.serving.knative.dev`.
    Route,
    /// `services.serving.knative.dev`.
    Service,
}

impl Kind {
    /// How many kinds there are.
    pub(super) const COUNT: usize = 4;
}

/// An object with metadata, a spec and a status.
pub trait Object: Clone + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;
    /// Its kind as manifests write it.
    const NAME: &'static str;
    /// `group/version`.
    const API_VERSION: &'static str = "serving.knative.dev/v1";
    /// What it reports.
    type Status: Clone + PartialEq;

    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Its metadata, to change it.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// What it reports.
    fn status(&self) -> &Self::Status;
    /// What it reports, to change it.
    fn status_mut(&mut self) -> &mut Self::Status;
    /// Whether both want the same.
    fn same_spec(&self, other: &Self) -> bool;
    /// The objects it names, beside its owner: a Route's Configurations and Revisions, in spec and status.
    fn names(&self) -> BTreeSet<Key> {
        BTreeSet::new()
    }
    #[doc(hidden)]
    fn table(tables: &Tables) -> &Table<Self>;
    #[doc(hidden)]
    fn table_mut(tables: &mut Tables) -> &mut Table<Self>;
}

/// One table per kind.
#[derive(Default)]
pub struct Tables {
    revisions: Table<Revision>,
    configurations: Table<Configuration>,
    routes: Table<Route>,
    services: Table<Service>,
}

macro_rules! object {
    ($($kind:ident, $status:ident, $table:ident $(, $names:item)?;)*) => { $(
        impl Object for $kind {
            const KIND: Kind = Kind::$kind;
            const NAME: &'static str = stringify!($kind);
            type Status = $status;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
            fn status(&self) -> &$status {
                &self.status
            }
            fn status_mut(&mut self) -> &mut $status {
                &mut self.status
            }
            fn same_spec(&self, other: &Self) -> bool {
                self.spec == other.spec
            }
            $($names)?
            fn table(tables: &Tables) -> &Table<Self> {
                &tables.$table
            }
            fn table_mut(tables: &mut Tables) -> &mut Table<Self> {
                &mut tables.$table
            }
        }
    )* };
}

object! {
    Revision, RevisionStatus, revisions;
    Configuration, ConfigurationStatus, configurations;
    Route, RouteStatus, routes, fn names(&self) -> BTreeSet<Key> {
        let namespace = self.metadata.namespace.as_str();
        let key = |kind, name: &str| Key { kind, id: ObjectId::new(namespace, name) };
        let targets = self.spec.traffic.iter().chain(&self.status.traffic);
        targets
            .flat_map(|it| [(Kind::Revision, &it.revision_name), (Kind::Configuration, &it.configuration_name)])
            .filter(|(_, name)| !name.is_empty())
            .map(|(kind, name)| key(kind, name))
            .collect()
    };
    Service, ServiceStatus, services;
}

/// Who stands on whom, kept in step with the tables so that no change costs a scan.
#[derive(Default)]
pub(super) struct Links {
    /// By the controller's uid: what it controls.
    children: BTreeMap<String, BTreeSet<Key>>,
    /// By the object named: who names it.
    named_by: BTreeMap<Key, BTreeSet<Key>>,
}

impl Links {
    /// Records one row's change; `None` stands for a row that is not there. Returns what must be looked at again.
    pub(super) fn update<T: Object>(&mut self, id: &ObjectId, old: Option<&T>, new: Option<&T>) -> BTreeSet<Key> {
        let key = Key {
            kind: T::KIND,
            id: id.clone(),
        };
        let names = |row: Option<&T>| row.map(T::names).unwrap_or_default();
        let (before, after) = (names(old), names(new));
        for named in &before {
            drop_from(&mut self.named_by, named, &key);
        }
        for named in &after {
            self.named_by.entry(named.clone()).or_default().insert(key.clone());
        }
        let parent = |row: Option<&T>| row.and_then(|row| controller(row.metadata()).map(str::to_owned));
        if let Some(uid) = parent(old) {
            drop_from(&mut self.children, &uid, &key);
        }
        if let Some(uid) = parent(new) {
            self.children.entry(uid).or_default().insert(key.clone());
        }
        let owner = new.or(old).and_then(|row| {
            row.metadata()
                .owner_references
                .iter()
                .find(|it| it.controller == Some(true))
        });
        let owner = owner.and_then(|owner| {
            let kind = match owner.kind.as_str() {
                "Service" => Kind::Service,
                "Configuration" => Kind::Configuration,
                _ => return None,
            };
            Some(Key {
                kind,
                id: ObjectId::new(id.namespace(), owner.name.as_str()),
            })
        });
        // A Route's Revisions carry its name as a label; whoever names this object looks at its readiness.
        let routed = before
            .into_iter()
            .chain(after)
            .filter(|named| named.kind == Kind::Revision);
        self.named_by
            .get(&key)
            .into_iter()
            .flatten()
            .cloned()
            .chain(owner)
            .chain(routed)
            .collect()
    }

    /// What the object with this uid controls.
    pub(super) fn children(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.children.get(uid).into_iter().flatten()
    }

    /// Who names an object.
    pub(super) fn named_by(&self, key: &Key) -> impl Iterator<Item = &Key> {
        self.named_by.get(key).into_iter().flatten()
    }
}

fn drop_from<K: Ord>(map: &mut BTreeMap<K, BTreeSet<Key>>, at: &K, key: &Key) {
    if let Some(set) = map.get_mut(at) {
        set.remove(key);
        if set.is_empty() {
            map.remove(at);
        }
    }
}

/// Deletes by key.
pub(super) fn delete(store: &mut Store, key: &Key) {
    match key.kind {
        Kind::Revision => store.delete::<Revision>(&key.id),
        Kind::Configuration => store.delete::<Configuration>(&key.id),
        Kind::Route => store.delete::<Route>(&key.id),
        Kind::Service => store.delete::<Service>(&key.id),
    }
}
