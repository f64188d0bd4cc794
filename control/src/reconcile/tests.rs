//! Lives of Services, told as changes and what they settle to.

use manifests::config::{DomainConfig, NetworkConfig};
use manifests::exchange::{Condition, Rung};
use manifests::ids::Generation;
use manifests::resources::{Configuration, Revision, Route, Service, TrafficTarget};
use manifests::units::{PricePerHour, Replicas};

use super::*;
use crate::objects::conditions::ready;

struct World {
    store: Store,
    routing: Routing,
    statuses: BTreeMap<RevisionId, RevisionStatus>,
    pulls: Pulls,
    network: NetworkConfig,
    domains: DomainConfig,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let mut uid = 0;
        Self {
            store: Store::new(move || {
                uid += 1;
                format!("uid-{uid}")
            }),
            routing: Routing::default(),
            statuses: BTreeMap::new(),
            pulls: Pulls::default(),
            network: NetworkConfig::default(),
            domains: DomainConfig::default(),
            now: Timestamp::from_millis(1_000_000),
        }
    }

    fn settle(&mut self) {
        let context = Context {
            hosts: Hosts {
                knative: manifests::domains::Hosts {
                    network: &self.network,
                    domains: &self.domains,
                },
                by_tag_header: false,
            },
            statuses: &self.statuses,
            pulls: &self.pulls,
            now: self.now,
        };
        settle(&mut self.store, &mut self.routing, &context);
    }

    fn apply(&mut self, image: &str, traffic: &[TrafficTarget]) {
        let mut service = Service::default();
        service.metadata.name = "hello".into();
        service.metadata.namespace = "default".into();
        service.spec.template.spec.container_list = Some(vec![manifests::resources::Container {
            image: image.into(),
            ..Default::default()
        }]);
        service.spec.traffic = traffic.to_vec();
        self.store.apply(service, self.now);
        self.settle();
    }

    /// Scaling says that a revision is ready, or how it failed.
    fn report(&mut self, name: &str, failure: Option<(&str, &str)>) {
        let id = RevisionId::new("default", name);
        let container = match failure {
            None => Condition::yes(self.now),
            Some((reason, message)) => Condition::no(reason, message, self.now),
        };
        let status = RevisionStatus {
            revision: id.clone(),
            generation: Generation::first(1),
            desired: Some(Replicas(1)),
            actual: Replicas(u32::from(failure.is_none())),
            starting: Replicas(0),
            active: Condition::yes(self.now),
            initialized: failure.is_none(),
            resources: Condition::yes(self.now),
            container,
            rung: Rung::Full,
            price: PricePerHour(0.0),
        };
        self.statuses.insert(id, status);
        self.store.touch(crate::objects::Key {
            kind: Kind::Revision,
            id: ObjectId::new("default", name),
        });
        self.settle();
    }

    fn hello(&self) -> ObjectId {
        ObjectId::new("default", "hello")
    }

    /// `Ready` of the Service as `status reason`, and where the main host sends requests.
    fn line(&self) -> String {
        let service = self.store.get::<Service>(&self.hello()).unwrap();
        let says = ready(&service.status.conditions);
        let targets = self.routing.routes.get(&self.hello()).map(|hosts| {
            let host = &hosts
                .iter()
                .find(|(host, _)| &**host == "hello.default.localhost")
                .unwrap()
                .1;
            let targets = host
                .targets
                .iter()
                .map(|it| format!("{}={}", it.revision.name(), it.percent.get()));
            targets.collect::<Vec<_>>().join(",")
        });
        format!("{:?} {} [{}]", says.status, says.reason, targets.unwrap_or_default())
    }
}

fn latest(percent: i64) -> TrafficTarget {
    TrafficTarget {
        latest_revision: Some(true),
        percent: Some(percent),
        ..TrafficTarget::default()
    }
}

fn pinned(revision: &str, percent: i64, tag: &str) -> TrafficTarget {
    TrafficTarget {
        revision_name: revision.into(),
        latest_revision: Some(false),
        percent: Some(percent),
        tag: tag.into(),
        ..TrafficTarget::default()
    }
}

#[test]
fn traffic_moves_only_when_the_new_revision_is_ready() {
    let mut world = World::new();
    world.apply("host:a", &[latest(100)]);
    assert_eq!(world.line(), "Unknown Deploying []");
    world.report("hello-00001", None);
    assert_eq!(world.line(), "True  [hello-00001=100]");

    world.apply("host:b", &[latest(100)]);
    assert_eq!(
        world.line(),
        "Unknown Deploying [hello-00001=100]",
        "the old one serves on"
    );
    world.report("hello-00002", None);
    assert_eq!(world.line(), "True  [hello-00002=100]");
    let old = world
        .store
        .get::<Revision>(&ObjectId::new("default", "hello-00001"))
        .unwrap();
    assert_eq!(old.metadata.labels["serving.knative.dev/routingState"], "reserve");
}

#[test]
fn a_broken_revision_never_gets_traffic_and_says_why() {
    let mut world = World::new();
    world.apply("host:a", &[latest(100)]);
    world.report("hello-00001", None);
    world.apply("host:broken", &[latest(100)]);
    world.report("hello-00002", Some(("ExitCode1", "Container failed with: boom")));
    assert_eq!(world.line(), "False RevisionFailed [hello-00001=100]");
    let service = world.store.get::<Service>(&world.hello()).unwrap();
    assert_eq!(
        ready(&service.status.conditions).message,
        "Revision \"hello-00002\" failed with message: Container failed with: boom."
    );
    // Repaired by a third one; the latest ready revision never goes back.
    world.apply("host:c", &[latest(100)]);
    world.report("hello-00003", None);
    assert_eq!(world.line(), "True  [hello-00003=100]");
}

#[test]
fn splits_and_tags_wait_for_all_their_revisions() {
    let mut world = World::new();
    world.apply("host:a", &[latest(100)]);
    world.report("hello-00001", None);
    world.apply(
        "host:b",
        &[pinned("hello-00001", 90, "stable"), pinned("hello-00002", 10, "next")],
    );
    assert_eq!(world.line(), "Unknown Deploying [hello-00001=100]");
    world.report("hello-00002", None);
    assert_eq!(world.line(), "True  [hello-00001=90,hello-00002=10]");
    let hosts: Vec<&str> = world.routing.routes[&world.hello()]
        .iter()
        .map(|(host, _)| &**host)
        .collect();
    assert!(hosts.contains(&"next-hello.default.localhost"), "{hosts:?}");
    assert!(hosts.contains(&"hello.default.svc"), "{hosts:?}");

    world.apply("host:b", &[pinned("hello-00009", 100, "")]);
    assert_eq!(world.line(), "False RevisionMissing [hello-00001=90,hello-00002=10]");
}

#[test]
fn metadata_edits_make_no_revision_and_deleting_takes_all_along() {
    let mut world = World::new();
    world.apply("host:a", &[latest(100)]);
    world.report("hello-00001", None);
    let version = |world: &World| {
        world
            .store
            .get::<Service>(&world.hello())
            .unwrap()
            .metadata
            .resource_version
            .clone()
    };
    let before = version(&world);
    world.apply("host:a", &[latest(100)]);
    assert_eq!(version(&world), before, "nothing changed, nothing written");

    let mut service = Service::clone(world.store.get::<Service>(&world.hello()).unwrap());
    service.metadata.annotations.insert("note".into(), "x".into());
    assert_eq!(
        world.store.apply(service, world.now),
        crate::objects::Applied::Annotated
    );
    world.settle();
    assert_eq!(world.store.all::<Revision>().len(), 1);
    assert_eq!(
        world.store.get::<Route>(&world.hello()).unwrap().metadata.annotations["note"],
        "x"
    );

    world.store.delete::<Service>(&world.hello());
    world.settle();
    assert_eq!(
        (
            world.store.all::<Configuration>().len(),
            world.store.all::<Revision>().len(),
            world.store.all::<Route>().len()
        ),
        (0, 0, 0)
    );
    assert!(world.routing.routes.is_empty());
}

#[test]
fn a_name_of_the_users_own_cannot_come_back_with_another_spec() {
    let mut world = World::new();
    let named = |world: &mut World, image: &str| {
        let mut service = Service::default();
        service.metadata.name = "hello".into();
        service.metadata.namespace = "default".into();
        service.spec.template.metadata.name = "hello-one".into();
        service.spec.template.spec.container_list = Some(vec![manifests::resources::Container {
            image: image.into(),
            ..Default::default()
        }]);
        service.spec.traffic = vec![latest(100)];
        world.store.apply(service, world.now);
        world.settle();
    };
    named(&mut world, "host:a");
    world.report("hello-one", None);
    assert_eq!(world.line(), "True  [hello-one=100]");
    named(&mut world, "host:b");
    assert_eq!(world.line(), "False RevisionFailed [hello-one=100]");
}

#[test]
fn another_owners_route_is_left_alone() {
    let mut world = World::new();
    let mut route = Route::default();
    route.metadata.name = "hello".into();
    route.metadata.namespace = "default".into();
    world.store.apply(route.clone(), world.now);
    world.apply("host:a", &[latest(100)]);
    let service = world.store.get::<Service>(&world.hello()).unwrap();
    assert_eq!(ready(&service.status.conditions).reason, "NotOwned");
    assert!(world.store.get::<Route>(&world.hello()).unwrap().spec == route.spec);
}

#[test]
fn settling_ends_and_is_idempotent() {
    let mut world = World::new();
    world.apply("host:a", &[latest(100)]);
    world.report("hello-00001", None);
    let table = |world: &World| world.store.all::<Service>().clone();
    let before = table(&world);
    for kind in [Kind::Service, Kind::Configuration, Kind::Route] {
        world.store.touch(crate::objects::Key {
            kind,
            id: world.hello(),
        });
    }
    world.now = world.now.plus(std::time::Duration::from_secs(60));
    world.settle();
    assert_eq!(before, table(&world));
}
