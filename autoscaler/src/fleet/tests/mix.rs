//! Load on a mix of specs: which one, how it comes about and goes again, and what holds on the way.

use manifests::instances::{InstanceSpec, Instances};

use super::*;
use crate::explain::Record;
use crate::planner::busy::{Verdict, mix_text};

/// A full one has a CPU, takes 100 requests at once and costs 1; a small one has a quarter of it and another price.
fn catalogue(change: impl FnOnce(&mut InstanceSpec)) -> Arc<Instances> {
    let mut instances = Instances::default();
    let mut full = instances.get("full").unwrap().clone();
    full.in_place = false;
    let mut small = InstanceSpec {
        name: "small".into(),
        cpu: Some(Millicores(250)),
        price: full.price * 0.3,
        slow: 1.0,
        ..full.clone()
    };
    change(&mut small);
    full.in_place = small.in_place;
    instances.specs = [full, small].into();
    Arc::new(instances)
}

fn revision_of(name: &str) -> Revision {
    let mut revision = auto(name);
    let workload = Arc::get_mut(&mut revision.workload).unwrap();
    workload.serving.resources.cpu_limit = Some(Millicores(1000));
    // The decider soon wants more than one: below that there is no mix.
    revision.scaling.metric = Metric::Concurrency {
        target: Concurrency(7.0),
        total: Concurrency(100.0),
    };
    revision
}

/// Knative's: 70 % of 100.
fn knatives_metric() -> Metric {
    Metric::Concurrency {
        target: Concurrency(70.0),
        total: Concurrency(100.0),
    }
}

struct World {
    sim: Sim,
    id: RevisionId,
    asked: u64,
}

fn world(change: impl FnOnce(&mut InstanceSpec)) -> World {
    world_of(sim(), catalogue(change), revision_of("a"))
}

fn world_of(mut sim: Sim, instances: Arc<Instances>, revision: Revision) -> World {
    sim.price_by(instances);
    let id = sim.deploy(revision, 200 * MS);
    sim.until(at(1.0));
    World { sim, id, asked: 0 }
}

impl World {
    /// So many requests in flight for so many seconds; each takes one.
    fn serves(&mut self, many: u32, seconds: u32) -> &mut Self {
        for _ in 0..seconds {
            for _ in 0..many {
                let id = self.id.clone();
                self.sim.request(0, &id, 1000 * MS);
                self.asked += 1;
            }
            let next = self.sim.now.plus(1000 * MS);
            self.sim.until(next);
            assert!(!self.sim.endpoints(&self.id).is_empty(), "somebody always serves");
        }
        self
    }

    /// Ready ones: full and small.
    fn runs(&self) -> (usize, usize) {
        self.runs_of(&self.id)
    }

    fn runs_of(&self, id: &RevisionId) -> (usize, usize) {
        let ready = self.sim.endpoints(id);
        let small = |id: &&SandboxId| self.sim.host[*id].limits.cpu == Some(Millicores(250));
        let small = ready.iter().filter(small).count();
        (ready.len() - small, small)
    }

    fn last(&self) -> Record {
        self.sim.explain.for_revision(&self.id, at(0.0)).pop().unwrap()
    }

    fn verdict(&self, mix: &str) -> Option<Verdict> {
        let busy = self.last().busy?;
        let found = busy.considered.iter().find(|it| mix_text(&it.mix) == mix);
        found.map(|it| it.verdict)
    }
}

#[test]
fn load_is_served_on_the_cheapest_mix() {
    // (in flight, full and small)
    for (many, want) in [(10, (0, 1)), (18, (0, 2)), (60, (1, 0)), (85, (1, 1)), (190, (2, 1))] {
        let mut world = world(|_| ());
        world.serves(many, 130);
        assert_eq!(world.runs(), want, "{many}: {:#?}", world.last());
        let price = world.sim.statuses[&world.id].price.0;
        let cost = |(full, small): (usize, usize)| 1.0 * full as f64 + 0.3 * small as f64;
        assert!((price - cost(want)).abs() < 1e-6, "{many}: {price}");
        assert_eq!(world.sim.served, world.asked, "{many}");
        let weights: Vec<u32> = world.sim.sets[&world.id].endpoints.iter().map(|it| it.weight).collect();
        let mixed = want.0 > 0 && want.1 > 0;
        let expected = |weight: &u32| {
            if mixed {
                [1000, 250].contains(weight)
            } else {
                *weight == 0
            }
        };
        assert!(weights.iter().all(expected), "{many}: {weights:?}");
        let text = world.last().to_string();
        assert!(text.contains("    serves    "), "{text}");
    }
}

#[test]
fn knatives_revisions_and_those_without_a_choice_run_on_full_ones() {
    let mut plain = revision_of("a");
    plain.idle = IdlePolicy::Knative;
    let mut one_spec = revision_of("a");
    one_spec.planning.specs = ["full".into()].into();
    for mut revision in [plain, one_spec] {
        revision.scaling.metric = knatives_metric();
        let mut world = world_of(sim(), catalogue(|_| ()), revision);
        world.serves(85, 100);
        assert_eq!((world.runs(), world.last().busy), ((2, 0), None));
    }
}

#[test]
fn what_the_remainder_needs_is_there_before_a_full_one_goes() {
    let mut world = world(|_| ());
    world.serves(150, 65);
    assert_eq!(world.runs(), (2, 0), "179 with its head room");
    world.sim.told();
    world.serves(90, 200);
    assert_eq!(world.runs(), (1, 1), "{:#?}", world.last());
    let told = world.sim.told();
    let what: Vec<&str> = told.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    let starts = what.iter().position(|word| *word == "start").unwrap();
    let stops = what.iter().position(|word| *word == "stop").unwrap();
    assert!(starts < stops, "{told:#?}");
    let gone = told[stops].split_once("stop ").unwrap().1;
    assert_eq!(
        gone,
        world.sim.named[1].to_string(),
        "the newer of the full ones: {told:#?}"
    );
}

#[test]
fn no_request_is_lost_while_mixes_change() {
    let mut world = world(|_| ());
    for many in [5, 60, 12, 120, 3, 40] {
        world.serves(many, 75);
    }
    world.sim.until(world.sim.now.plus(2000 * MS));
    assert_eq!(world.sim.served, world.asked);
}

#[test]
fn upwards_at_once_and_the_newest_go_first() {
    let mut world = world(|small| small.price *= 0.5);
    world.serves(10, 100);
    assert_eq!(world.runs(), (0, 1));
    let before = seconds(&world.sim);
    world.serves(100, 8);
    assert!(
        world.runs().1 > 1,
        "{:?} after {} s",
        world.runs(),
        seconds(&world.sim) - before
    );
    world.serves(100, 80);
    // 100 and 23 of head room.
    assert_eq!(world.runs(), (0, 5));
    let mut then = world.sim.endpoints(&world.id);
    world.serves(30, 200);
    assert_eq!(world.runs(), (0, 2));
    then.sort_by_key(|id| world.sim.named.iter().position(|named| named == id));
    let mut left = world.sim.endpoints(&world.id);
    left.sort_by_key(|id| world.sim.named.iter().position(|named| named == id));
    assert_eq!(left, then[..2], "the oldest stay");
}

#[test]
fn a_spec_on_which_requests_take_too_long_is_never_used() {
    let mut world = world(|small| small.slow = 8.0);
    world.serves(10, 300);
    assert_eq!(world.runs(), (1, 0));
    assert_eq!(world.sim.named.len(), 1, "none was ever started");
    let mut sim = world.sim;
    sim.until(sim.now.plus(1000 * MS));
    let mut world = self::world(|small| small.slow = 8.0);
    world.serves(10, 20);
    assert_eq!(world.verdict("6 small"), Some(Verdict::TooSlow), "{:#?}", world.last());
}

#[test]
fn a_stock_is_shared_and_what_is_left_over_goes_to_the_next() {
    let mut world = world(|small| {
        small.price *= 0.5;
        small.stock = Some(3);
    });
    let other = world.sim.deploy(revision_of("b"), 200 * MS);
    for _ in 0..200 {
        for _ in 0..40 {
            world.sim.request(0, &other, 1000 * MS);
        }
        world.serves(40, 1);
        let small: usize = world
            .sim
            .host
            .values()
            .filter(|it| it.limits.cpu == Some(Millicores(250)))
            .count();
        assert!(small <= 3, "{small}");
    }
    // 55 with the head room: three small ones, and there are no more of them.
    let mut runs = [world.runs(), world.runs_of(&other)];
    runs.sort_unstable();
    assert_eq!(runs, [(0, 3), (1, 0)]);
    assert_eq!(world.sim.fleet.cx.stock.values().sum::<u32>(), 3);
    for id in [other, world.id.clone()] {
        world.sim.remove(&id);
    }
    world.sim.until(world.sim.now.plus(Duration::from_secs(400)));
    assert!(world.sim.fleet.cx.stock.is_empty() && world.sim.fleet.is_empty());
}

#[test]
fn one_that_cannot_be_had_is_asked_for_again_a_minute_later() {
    let mut world = world(|small| small.price *= 0.5);
    let none = |n: u32| {
        (
            200 * MS,
            if n == 1 {
                Err(StartError::Exhausted("none".into()))
            } else {
                Ok(())
            },
        )
    };
    world.sim.starts_by(&world.id.clone(), Box::new(none));
    world.serves(40, 62);
    assert_eq!(world.runs(), (1, 0));
    let before = seconds(&world.sim);
    while world.runs().1 == 0 && seconds(&world.sim) < before + 200.0 {
        world.serves(40, 1);
    }
    let waited = seconds(&world.sim) - before;
    assert!((50.0..130.0).contains(&waited), "{waited}");
    world.serves(40, 100);
    assert_eq!(world.runs(), (0, 3));
}

#[test]
fn in_place_one_sandbox_changes_with_the_load() {
    let mut world = world(|small| {
        small.in_place = true;
        small.price /= 0.6;
    });
    world.serves(10, 100);
    assert_eq!((world.runs(), world.sim.named.len()), ((0, 1), 1));
    world.serves(50, 10);
    assert_eq!(
        (world.runs(), world.sim.named.len()),
        ((1, 0), 1),
        "{:#?}",
        world.last()
    );
    world.serves(10, 150);
    assert_eq!((world.runs(), world.sim.named.len()), ((0, 1), 1));
}

#[test]
fn bounds_and_delays_of_the_manifest_hold() {
    let mut bounded = revision_of("a");
    bounded.scaling.max_scale = Some(Replicas(3));
    let mut world = world_of(sim(), catalogue(|small| small.price *= 0.5), bounded);
    world.serves(150, 100);
    assert!(world.sim.endpoints(&world.id).len() <= 3, "{:?}", world.runs());
    let capacity = world.runs().0 * 100 + world.runs().1 * 25;
    assert!(capacity >= 179, "{:?}", world.runs());

    let mut kept = revision_of("a");
    kept.scaling.min_scale = Replicas(2);
    let mut world = world_of(sim(), catalogue(|_| ()), kept);
    world.serves(5, 150);
    assert_eq!(world.runs(), (2, 0), "min-scale is of full ones");

    let mut delayed = revision_of("a");
    delayed.scaling.scale_down_delay = Duration::from_secs(300);
    let mut world = world_of(sim(), catalogue(|_| ()), delayed);
    world.serves(190, 20).serves(2, 200);
    let (full, small) = world.runs();
    assert!(
        full * 100 + small * 25 >= 140,
        "three were wanted until a moment ago: {:?}",
        world.runs()
    );
}

#[test]
fn an_idle_time_begins_when_the_load_has_gone() {
    let mut world = world(|_| ());
    world.serves(18, 150);
    assert_eq!(world.runs(), (0, 2));
    world.sim.until(world.sim.now.plus(Duration::from_secs(150)));
    let record = world.last();
    assert!(record.busy.is_none() && record.plan.is_some(), "{record:#?}");
    assert!(world.sim.hosted(&world.id) <= 1);
}

#[test]
fn a_recording_decides_the_same_mixes() {
    let mut world = world_of(
        sim().record(),
        catalogue(|small| small.stock = Some(4)),
        revision_of("a"),
    );
    for many in [10, 85, 18] {
        world.serves(many, 75);
    }
    world.sim.until(world.sim.now.plus(Duration::from_secs(100)));
    let segments = world.sim.recorded.take().unwrap();
    assert!(segments.len() > 2, "{} segments", segments.len());
    crate::flight::decides_again(&segments, "mixes");
}
