//! Desired state as Kubernetes-style objects: uid, resourceVersion, generation, owners and conditions, held in memory.
//!
//! The reconcilers of [`crate::reconcile`] are the only callers. A change of an object marks the objects whose state
//! depends on it; [`Store::next_dirty`] hands them out until nothing is left to settle. Pure: the time and the source of
//! uids come from outside.

pub mod conditions;
mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use manifests::ids::ObjectId;
use manifests::resources::{ObjectMeta, OwnerReference};
use manifests::units::Timestamp;

pub use self::conditions::{Conditions, READY, TRUE};
pub use self::kinds::{Kind, Object};

/// An object's place in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// Which table.
    pub kind: Kind,
    /// Which row.
    pub id: ObjectId,
}

/// All objects of one kind by namespace and name.
pub type Table<T> = BTreeMap<ObjectId, Arc<T>>;

/// All objects, and what is left to reconcile.
pub struct Store {
    tables: kinds::Tables,
    links: kinds::Links,
    /// The last resourceVersion given out; one sequence for all kinds, as etcd's.
    version: u64,
    /// The version of the last change that was more than a status.
    wanted_version: u64,
    /// The version of the last change of anything of a kind.
    versions: [u64; Kind::COUNT],
    new_uid: Box<dyn FnMut() -> String + Send + Sync>,
    dirty: BTreeSet<Key>,
}

/// What [`Store::apply`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It is new.
    Created,
    /// Its spec changed: a new generation.
    Changed,
    /// Only labels, annotations or owners changed.
    Annotated,
    /// Nothing changed.
    Unchanged,
}

impl Store {
    /// An empty store. `new_uid` makes uids; random ones outside of tests.
    pub fn new(new_uid: impl FnMut() -> String + Send + Sync + 'static) -> Self {
        Self {
            tables: kinds::Tables::default(),
            links: kinds::Links::default(),
            version: 0,
            wanted_version: 0,
            versions: [0; Kind::COUNT],
            new_uid: Box::new(new_uid),
            dirty: BTreeSet::new(),
        }
    }

    /// All objects of a kind.
    pub fn all<T: Object>(&self) -> &Table<T> {
        T::table(&self.tables)
    }

    /// One object.
    pub fn get<T: Object>(&self, id: &ObjectId) -> Option<&Arc<T>> {
        self.all::<T>().get(id)
    }

    /// Creates the object, or gives an existing one this spec, these labels, annotations and owners. Status, uid and
    /// creation time stay the server's; the generation grows when the spec changes.
    pub fn apply<T: Object>(&mut self, mut object: T, now: Timestamp) -> Applied {
        let id = id_of(object.metadata());
        let applied = match self.get::<T>(&id) {
            None => {
                let meta = object.metadata_mut();
                meta.uid = (self.new_uid)();
                meta.generation = 1;
                meta.creation_timestamp = Some(rfc3339(now));
                Applied::Created
            }
            Some(old) => {
                let same_spec = object.same_spec(old);
                let (old_meta, meta) = (old.metadata(), object.metadata_mut());
                let same_meta = meta.labels == old_meta.labels
                    && meta.annotations == old_meta.annotations
                    && meta.owner_references == old_meta.owner_references;
                if same_spec && same_meta {
                    return Applied::Unchanged;
                }
                meta.uid.clone_from(&old_meta.uid);
                meta.creation_timestamp.clone_from(&old_meta.creation_timestamp);
                meta.generation = old_meta.generation + i64::from(!same_spec);
                *object.status_mut() = old.status().clone();
                if same_spec {
                    Applied::Annotated
                } else {
                    Applied::Changed
                }
            }
        };
        self.put(id, object);
        self.wanted_version = self.version;
        applied
    }

    /// Gives an object a status; nothing happens when it has that status already.
    pub fn set_status<T: Object>(&mut self, id: &ObjectId, status: T::Status) {
        let Some(old) = self.get::<T>(id) else { return };
        if *old.status() == status {
            return;
        }
        let mut object = T::clone(old);
        *object.status_mut() = status;
        self.put(id.clone(), object);
    }

    /// Removes an object and everything that it controls.
    pub fn delete<T: Object>(&mut self, id: &ObjectId) {
        let Some(old) = T::table_mut(&mut self.tables).remove(id) else {
            return;
        };
        self.version += 1;
        self.wanted_version = self.version;
        self.versions[T::KIND as usize] = self.version;
        self.dirty.extend(self.links.update(id, Some(old.as_ref()), None));
        // Its own reconciler may have something to take back, too.
        self.dirty.insert(Key {
            kind: T::KIND,
            id: id.clone(),
        });
        let owned: Vec<Key> = self.links.children(&old.metadata().uid).cloned().collect();
        for key in &owned {
            kinds::delete(self, key);
        }
    }

    /// The objects of kind `T` that the object with this uid controls.
    pub fn children<'a, T: Object>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        self.links
            .children(uid)
            .filter(|key| key.kind == T::KIND)
            .filter_map(|key| self.get::<T>(&key.id))
    }

    /// The objects of kind `T` that name an object in spec or status.
    pub fn naming<'a, T: Object>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Arc<T>> {
        self.links
            .named_by(key)
            .filter(|key| key.kind == T::KIND)
            .filter_map(|key| self.get::<T>(&key.id))
    }

    /// Marks an object to be looked at again, for what the store cannot see (a status from scaling, a timer).
    pub fn touch(&mut self, key: Key) {
        self.dirty.insert(key);
    }

    /// Grows with every change of any object that is more than a status.
    pub fn wanted_version(&self) -> u64 {
        self.wanted_version
    }

    /// Grows with every change of any object of this kind, its status included.
    pub fn version_of(&self, kind: Kind) -> u64 {
        self.versions[kind as usize]
    }

    /// The next object to reconcile. Revisions come first, then what stands on them, so that one pass settles most.
    pub fn next_dirty(&mut self) -> Option<Key> {
        self.dirty.pop_first()
    }

    fn put<T: Object>(&mut self, id: ObjectId, mut object: T) {
        self.version += 1;
        self.versions[T::KIND as usize] = self.version;
        object.metadata_mut().resource_version = self.version.to_string();
        let object = Arc::new(object);
        let old = T::table_mut(&mut self.tables).insert(id.clone(), Arc::clone(&object));
        self.dirty
            .extend(self.links.update(&id, old.as_deref(), Some(object.as_ref())));
        self.dirty.insert(Key { kind: T::KIND, id });
    }
}

/// The namespace and name of an object.
pub fn id_of(meta: &ObjectMeta) -> ObjectId {
    ObjectId::new(meta.namespace.as_str(), meta.name.as_str())
}

/// The reference by which `owner` controls an object.
pub fn controlled_by<T: Object>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::API_VERSION.to_owned(),
        kind: T::NAME.to_owned(),
        name: owner.metadata().name.clone(),
        uid: owner.metadata().uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The uid of the controller of an object.
pub fn controller(meta: &ObjectMeta) -> Option<&str> {
    let owner = meta
        .owner_references
        .iter()
        .find(|owner| owner.controller == Some(true));
    owner.map(|owner| owner.uid.as_str())
}

/// A time as Kubernetes writes it: RFC 3339, whole seconds, UTC.
pub fn rfc3339(time: Timestamp) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(time.as_nanos())).to_string()
}
