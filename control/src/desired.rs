//! What shall be, whole: objects, routing and the last word of scaling, and the [`Snapshot`] that follows from them.
//!
//! Pure: [`crate::run`] feeds it manifests and statuses and publishes what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manifests::bundle::Bundle;
use manifests::config::{ClusterConfig, DomainConfig};
use manifests::convert::{Sources, Surroundings, revision_of};
use manifests::domains;
use manifests::exchange::{RevisionStatus, Snapshot};
use manifests::ids::{Generation, ObjectId, RevisionId};
use manifests::instances::Instances;
use manifests::resources::{Configuration, Resource, Revision, Route, Service};
use manifests::revision::{self, Reachability};
use manifests::units::{Bytes, Timestamp};

use crate::gc::{self, Candidate};
use crate::objects::{Key, Kind, Object, Store, id_of};
use crate::pulls::pins::{self, Pins, Saved};
use crate::pulls::{self, Job, Pulls, Standing, Trouble};
use crate::reconcile::{self, Context, Hosts, Routing};

/// Desired state.
pub struct Desired {
    store: Store,
    routing: Routing,
    statuses: BTreeMap<RevisionId, RevisionStatus>,
    cluster: ClusterConfig,
    domains: DomainConfig,
    /// The cluster's catalogue, with prices as they are on this machine.
    instances: Arc<Instances>,
    machine: Option<Machine>,
    sources: Sources,
    /// Objects that manifests asked for by name, as against those that reconcilers made.
    asked: BTreeSet<Key>,
    /// Checked revisions, shared with every snapshot that has them unchanged.
    checked: BTreeMap<ObjectId, Checked>,
    /// Their images.
    pulls: Pulls,
    generation: Generation,
    /// What the last snapshot was made from.
    published: Option<(u64, u64)>,
}

/// What instances share.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// How many CPUs.
    pub cpus: u32,
    /// Memory of all sandboxes together.
    pub budget: Bytes,
}

struct Checked {
    revision: Arc<revision::Revision>,
    /// The object it was made from, and the sources.
    object: Arc<Revision>,
    /// Its images are on disk, and pinned in `revision`.
    has_images: bool,
}

impl Desired {
    /// Nothing wanted yet. `epoch` is the number of this start: generations of snapshots carry it.
    pub fn new(epoch: u64, new_uid: impl FnMut() -> String + Send + Sync + 'static) -> Self {
        Self {
            store: Store::new(new_uid),
            routing: Routing::default(),
            statuses: BTreeMap::new(),
            cluster: ClusterConfig::default(),
            domains: on_this_machine(),
            instances: Arc::default(),
            machine: None,
            sources: Sources::default(),
            asked: BTreeSet::new(),
            checked: BTreeMap::new(),
            pulls: Pulls::default(),
            generation: Generation { epoch, counter: 0 },
            published: None,
        }
    }

    /// On this machine: what memory costs in the catalogue `local` follows from it.
    #[must_use]
    pub fn on(mut self, machine: Machine) -> Self {
        self.machine = Some(machine);
        self.instances = self.priced();
        self
    }

    fn priced(&self) -> Arc<Instances> {
        match self.machine {
            Some(Machine { cpus, budget }) => {
                Arc::new(Instances::clone(&self.cluster.instances).on_machine(cpus, budget))
            }
            None => Arc::clone(&self.cluster.instances),
        }
    }

    /// Takes the manifests as the whole truth: what they no longer name is deleted, with everything it made.
    pub fn apply(&mut self, bundle: &Bundle, now: Timestamp) {
        let mut sources = bundle.sources.clone();
        sources.keep_deleted(&self.sources);
        // Revisions of earlier templates use them too.
        sources.retain_deleted(|claim| bundle.sources.is_deleted(claim) || is_used(&self.store, claim));
        let surroundings_changed = bundle.cluster != self.cluster || sources != self.sources;
        (self.cluster, self.sources) = (bundle.cluster.clone(), sources);
        let said_nothing = self.cluster.domain == DomainConfig::default();
        self.domains = if said_nothing {
            on_this_machine()
        } else {
            self.cluster.domain.clone()
        };
        let mut asked = BTreeSet::new();
        for object in bundle.objects.values() {
            match &object.resource {
                Resource::Service(it) => ask(&mut self.store, &mut asked, it.as_ref(), now),
                Resource::Configuration(it) => ask(&mut self.store, &mut asked, it.as_ref(), now),
                Resource::Route(it) => ask(&mut self.store, &mut asked, it.as_ref(), now),
                Resource::Revision(_)
                | Resource::DomainMapping(_)
                | Resource::ConfigMap(_)
                | Resource::Secret(_)
                | Resource::PersistentVolumeClaim(_) => {}
            }
        }
        for key in self.asked.difference(&asked) {
            match key.kind {
                Kind::Service => self.store.delete::<Service>(&key.id),
                Kind::Configuration => self.store.delete::<Configuration>(&key.id),
                Kind::Route => self.store.delete::<Route>(&key.id),
                Kind::Revision => self.store.delete::<Revision>(&key.id),
            }
        }
        self.asked = asked;
        if surroundings_changed {
            self.instances = self.priced();
            // Templates of hosts, limits and variables may all have changed.
            self.checked.clear();
            self.published = None;
            let routes: Vec<ObjectId> = self.store.all::<Route>().keys().cloned().collect();
            for id in routes {
                self.store.touch(Key { kind: Kind::Route, id });
            }
        }
        self.settle(now);
    }

    /// Takes what scaling says of a revision; an older word than the last is dropped.
    pub fn report(&mut self, status: RevisionStatus, now: Timestamp) {
        let known = self.statuses.get(&status.revision);
        if known.is_some_and(|known| known.generation >= status.generation) {
            return;
        }
        let id = ObjectId::new(status.revision.namespace(), status.revision.name());
        if self.store.get::<Revision>(&id).is_none() {
            return;
        }
        self.statuses.insert(status.revision.clone(), status);
        self.look_again(&id, now);
    }

    /// Deletes revisions that nothing uses and that are old or many enough by `config-gc`.
    pub fn collect_garbage(&mut self, now: Timestamp) {
        let mut gone = Vec::new();
        for configuration in self.store.all::<Configuration>().values() {
            let idle = self
                .store
                .children::<Revision>(&configuration.metadata.uid)
                .filter(|revision| {
                    let meta = &revision.metadata;
                    meta.name != configuration.status.latest_ready_revision_name
                        && meta.name != configuration.status.latest_created_revision_name
                        && meta.annotation("serving.knative.dev/no-gc") != Some("true")
                        && meta.labels.get(ROUTING_STATE).is_some_and(|state| state == "reserve")
                });
            let candidates = idle.map(|revision| {
                let meta = &revision.metadata;
                let created = meta
                    .creation_timestamp
                    .as_deref()
                    .and_then(parse_time)
                    .unwrap_or_default();
                let modified = meta
                    .annotation("serving.knative.dev/routingStateModified")
                    .and_then(parse_time);
                Candidate {
                    name: meta.name.clone(),
                    created,
                    last_active: modified.unwrap_or(created),
                }
            });
            let surplus = gc::surplus(candidates.collect(), &self.cluster.gc, now);
            let namespace = configuration.metadata.namespace.as_str();
            gone.extend(surplus.into_iter().map(|name| ObjectId::new(namespace, name)));
        }
        for id in gone {
            self.store.delete::<Revision>(&id);
        }
        self.settle(now);
    }

    /// The PersistentVolumeClaims that there are.
    pub fn claims(&self) -> impl Iterator<Item = &ObjectId> {
        self.sources.claims()
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What scaling said last of a revision.
    pub fn status(&self, revision: &RevisionId) -> Option<&RevisionStatus> {
        self.statuses.get(revision)
    }

    /// Takes the pins of an earlier Knarr; before the first [`Self::snapshot`].
    pub fn restore_pins(&mut self, saved: Vec<Saved>) {
        self.pulls.restore(saved);
    }

    /// The images of revisions.
    pub fn pulls(&self) -> &Pulls {
        &self.pulls
    }

    /// Images to be resolved and pulled now; each job is given out once.
    pub fn due_pulls(&mut self, now: Timestamp) -> Vec<Job> {
        self.pulls.due(now)
    }

    /// What the tags of a revision's images stand for.
    pub fn images_resolved(&mut self, revision: &ObjectId, uid: &str, pins: Pins, now: Timestamp) {
        if self.pulls.resolved(revision, uid, pins) {
            self.look_again(revision, now);
        }
    }

    /// How a job of [`Self::due_pulls`] has ended.
    pub fn images_ended(&mut self, revision: &ObjectId, uid: &str, result: Result<(), Trouble>, now: Timestamp) {
        let are_there = result.is_ok();
        if self.pulls.ended(revision, uid, result, now) {
            if are_there {
                self.published = None;
            }
            self.look_again(revision, now);
        }
    }

    fn look_again(&mut self, revision: &ObjectId, now: Timestamp) {
        self.store.touch(revision_key(revision));
        self.settle(now);
    }

    /// The snapshot that the objects make, when anything changed since the last one; and what keeps a revision from
    /// being in it, in words. A revision whose images are not there yet is not in it.
    pub fn snapshot(&mut self, now: Timestamp) -> Option<(Snapshot, Vec<String>)> {
        let version = (self.store.wanted_version(), self.routing.version);
        if self.published == Some(version) {
            return None;
        }
        let mut warnings = Vec::new();
        let mut revisions = BTreeMap::new();
        let mut checked = BTreeMap::new();
        let mut newly_wanted = Vec::new();
        for (id, object) in self.store.all::<Revision>() {
            let mut fresh = match self.checked.remove(id) {
                Some(known) if Arc::ptr_eq(&known.object, object) => known,
                known => match check(object, known, &self.cluster, &self.sources) {
                    Ok(fresh) => fresh,
                    Err(warning) => {
                        warnings.push(warning);
                        continue;
                    }
                },
            };
            if !fresh.has_images {
                let uid = &object.metadata.uid;
                let wanted = pulls::wanted(id.clone(), uid, pins::template_of(object), &fresh.revision.workload);
                if wanted.is_some_and(|wanted| self.pulls.want(wanted, now)) {
                    newly_wanted.push(revision_key(id));
                }
                fresh.settle_images(self.pulls.standing(id));
            }
            if fresh.has_images {
                revisions.insert(fresh.revision.id.clone(), Arc::clone(&fresh.revision));
            }
            checked.insert(id.clone(), fresh);
        }
        self.checked = checked;
        let store = &self.store;
        self.pulls.retain(|id| store.get::<Revision>(id).is_some());
        if !newly_wanted.is_empty() {
            newly_wanted.into_iter().for_each(|key| self.store.touch(key));
            self.settle(now);
        }
        let hosts = self
            .routing
            .routes
            .values()
            .flatten()
            .map(|(host, route)| (Arc::clone(host), Arc::clone(route)));
        self.published = Some(version);
        self.generation = self.generation.next();
        Some((
            Snapshot {
                generation: self.generation,
                revisions,
                hosts: hosts.collect(),
                instances: Arc::clone(&self.instances),
            },
            warnings,
        ))
    }

    fn settle(&mut self, now: Timestamp) {
        let context = Context {
            hosts: Hosts {
                knative: domains::Hosts {
                    network: &self.cluster.network,
                    domains: &self.domains,
                },
                by_tag_header: self.cluster.settings.features.tag_header_based_routing.is_enabled(),
            },
            statuses: &self.statuses,
            pulls: &self.pulls,
            now,
        };
        reconcile::settle(&mut self.store, &mut self.routing, &context);
        let store = &self.store;
        if self.statuses.len() <= store.all::<Revision>().len() {
            return;
        }
        self.statuses.retain(|id, _| {
            store
                .get::<Revision>(&ObjectId::new(id.namespace(), id.name()))
                .is_some()
        });
    }
}

/// The domain when `config-domain` says nothing: `localhost`, which needs no DNS. Knative's own default makes every host
/// a cluster-local one, and its installations all replace it.
fn on_this_machine() -> DomainConfig {
    DomainConfig::new(BTreeMap::from([("localhost".to_owned(), BTreeMap::new())]))
}

fn ask<T: Object>(store: &mut Store, asked: &mut BTreeSet<Key>, object: &T, now: Timestamp) {
    asked.insert(Key {
        kind: T::KIND,
        id: id_of(object.metadata()),
    });
    store.apply(object.clone(), now);
}

/// The checked form of a Revision object. Most changes of an object are of its status or labels: its workload is then the
/// one that is known, so that nobody downstream sees a change.
fn check(
    object: &Arc<Revision>,
    known: Option<Checked>,
    cluster: &ClusterConfig,
    sources: &Sources,
) -> Result<Checked, String> {
    let reachability = match object.metadata.labels.get(ROUTING_STATE).map(String::as_str) {
        Some("active") => Reachability::Reachable,
        Some("reserve") => Reachability::Unreachable,
        _ => Reachability::Unknown,
    };
    if let Some(known) = known
        && known.object.metadata.uid == object.metadata.uid
    {
        let revision = if known.revision.reachability == reachability {
            known.revision
        } else {
            Arc::new(revision::Revision {
                reachability,
                ..revision::Revision::clone(&known.revision)
            })
        };
        return Ok(Checked {
            revision,
            object: Arc::clone(object),
            has_images: known.has_images,
        });
    }
    let created = object
        .metadata
        .creation_timestamp
        .as_deref()
        .and_then(parse_time)
        .unwrap_or_default();
    let revision = revision_of(object, created, Surroundings { cluster, sources }).map_err(|faults| {
        let faults: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.path, fault.message))
            .collect();
        format!("revision {} cannot run: {}", id_of(&object.metadata), faults.join("; "))
    })?;
    Ok(Checked {
        revision: Arc::new(revision::Revision {
            reachability,
            ..revision
        }),
        object: Arc::clone(object),
        has_images: false,
    })
}

impl Checked {
    /// Pins the images when they are there; a revision that has none to wait for is ready at once.
    fn settle_images(&mut self, standing: Option<Standing<'_>>) {
        match standing {
            None => self.has_images = true,
            Some(Standing::Ready(_, pins)) => {
                let workload = Arc::new(pulls::pin(&self.revision.workload, pins));
                self.revision = Arc::new(revision::Revision {
                    workload,
                    ..revision::Revision::clone(&self.revision)
                });
                self.has_images = true;
            }
            Some(_) => {}
        }
    }
}

/// Whether a revision has this claim.
fn is_used(store: &Store, claim: &ObjectId) -> bool {
    let of_namespace = |id: &ObjectId| id.namespace() == claim.namespace();
    let mut revisions = store.all::<Revision>().iter().filter(|(id, _)| of_namespace(id));
    revisions.any(|(_, revision)| revision.spec.claims().any(|(_, name)| name == claim.name()))
}

fn revision_key(id: &ObjectId) -> Key {
    Key {
        kind: Kind::Revision,
        id: id.clone(),
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let since = humantime::parse_rfc3339(text)
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    Some(Timestamp::EPOCH.plus(since))
}

const ROUTING_STATE: &str = "serving.knative.dev/routingState";

#[cfg(test)]
mod tests;
