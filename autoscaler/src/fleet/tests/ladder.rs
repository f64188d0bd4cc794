//! The ladder by a schedule: each way down and up at its instant, what requests meet there, and what goes wrong on the way.

use std::sync::Mutex;

use manifests::instances::{InstanceSpec, Instances};

use super::*;
use crate::explain::Cause;
use crate::planner::{Arrival, IdlePlanner, Ladder, Schedule, Step, View};

const RUNGS: [Rung; 5] = [Rung::Zero, Rung::Frozen, Rung::Throttled, Rung::Reserve, Rung::Full];

/// Stands where it was told to, and remembers what came.
#[derive(Clone, Default)]
pub(super) struct Fixed {
    pub(super) steps: Vec<(Duration, Rung)>,
    pub(super) stay_low: bool,
    pub(super) arrived: Arc<Mutex<Vec<(Arrival, Rung)>>>,
}

impl IdlePlanner for Fixed {
    fn plan(&mut self, view: &View<'_>) -> Schedule {
        let offer = |rung| view.menu.find(rung).unwrap_or_else(|| view.menu.full());
        // Full until somebody has asked for the first time.
        let steps = if self.arrived.lock().unwrap().is_empty() {
            &[(Duration::ZERO, Rung::Full)][..]
        } else {
            &self.steps
        };
        let step = |(age, rung): &(Duration, Rung)| Step {
            age: *age,
            offer: offer(*rung),
        };
        Schedule {
            ladder: Ladder {
                steps: steps.iter().map(step).collect(),
                ..Ladder::default()
            },
            stay_low: self.stay_low,
        }
    }

    fn arrived(&mut self, arrival: &Arrival, view: &View<'_>) {
        let met = view.menu.offers[arrival.at].rung;
        self.arrived.lock().unwrap().push((*arrival, met));
    }

    fn stays_low(&self) -> bool {
        self.stay_low
    }
}

/// Prices of [`Instances::default`], with a reserve: in place, or another sandbox; so many times slower.
pub(super) fn catalogue(in_place: bool, slow: f64) -> Arc<Instances> {
    let mut instances = Instances::default();
    let full = instances.get("full").unwrap().clone();
    let throttled = instances.specs.iter().find(|spec| spec.throttled).unwrap().clone();
    let reserve = InstanceSpec {
        name: "small".into(),
        cpu: Some(Millicores(250)),
        memory: Some(Bytes(32 << 20)),
        price: full.price * 0.3,
        in_place,
        slow,
        ..full.clone()
    };
    instances.specs = [full, throttled, reserve].into();
    Arc::new(instances)
}

struct World {
    sim: Sim,
    id: RevisionId,
    arrived: Arc<Mutex<Vec<(Arrival, Rung)>>>,
}

/// A revision that starts in 200 ms and stands by `steps` (seconds, rung); one request at 3.5 s, which the report at 4.0 s
/// tells to be over.
fn world(in_place: bool, steps: &[(f64, Rung)]) -> World {
    world_of(in_place, steps, true, |_| ())
}

fn world_of(in_place: bool, steps: &[(f64, Rung)], stay_low: bool, change: impl FnOnce(&mut Revision)) -> World {
    let fixed = Fixed {
        steps: steps
            .iter()
            .map(|(age, rung)| (Duration::from_secs_f64(*age), *rung))
            .collect(),
        stay_low,
        ..Fixed::default()
    };
    let arrived = Arc::clone(&fixed.arrived);
    let mut sim = sim();
    sim.fleet.cx.freezes = true;
    sim.fleet.cx.planners = Box::new(move |_| Box::new(fixed.clone()));
    sim.price_by(catalogue(in_place, 1.0));
    let mut revision = auto("a");
    change(&mut revision);
    let id = sim.deploy(revision, 200 * MS);
    sim.until(at(3.5));
    sim.request(0, &id, 10 * MS);
    sim.until(at(3.95));
    sim.told();
    sim.until(at(4.0));
    World { sim, id, arrived }
}

impl World {
    fn until(&mut self, seconds: f64) -> &mut Self {
        self.sim.until(at(seconds));
        self
    }

    fn rung(&self) -> Rung {
        self.sim.statuses[&self.id].rung
    }

    /// What was told since the last call, without the names of sandboxes: `s1` is the first one.
    fn told(&mut self) -> Vec<String> {
        let names: Vec<String> = self.sim.named.iter().map(ToString::to_string).collect();
        let short = |mut line: String| {
            for (n, name) in names.iter().enumerate() {
                line = line.replace(name, &format!("s{}", n + 1));
            }
            line
        };
        self.sim.told().into_iter().map(short).collect()
    }

    fn asks(&mut self, length: Duration) {
        let id = self.id.clone();
        self.sim.request(0, &id, length);
    }

    fn causes(&self) -> Vec<Cause> {
        let records = self.sim.explain.for_revision(&self.id, at(0.0));
        records.into_iter().map(|record| record.cause).collect()
    }
}

#[test]
fn it_goes_down_the_whole_ladder_by_age() {
    let steps = [
        (0.0, Rung::Full),
        (3.0, Rung::Reserve),
        (10.0, Rung::Throttled),
        (20.0, Rung::Frozen),
        (40.0, Rung::Zero),
    ];
    let mut world = world(true, &steps);
    world.until(100.0);
    let told = world.told();
    assert_eq!(
        told,
        [
            "7.000 1 endpoints, reserve",
            "8.500 limit s1 to Some(250)",
            "14.000 1 endpoints, throttled",
            "15.500 limit s1 to Some(50)",
            "24.000 0 endpoints, frozen",
            "24.301 freeze s1",
            "44.000 stop s1",
            "44.000 0 endpoints, zero",
        ]
    );
    // It stands at zero for good, and costs no time.
    assert_eq!((world.sim.hosted(&world.id), world.rung()), (0, Rung::Zero));
    world.until(200.0);
    assert_eq!(world.sim.fleet.active(), 0);
}

#[test]
fn at_zero_it_costs_no_time_wherever_its_ticks_fall() {
    for tenth in 0..20 {
        let mut world = world(true, &[(0.0, Rung::Zero)]);
        let asked = 100.0 + f64::from(tenth) / 10.0;
        world.until(asked);
        // It runs over a report, so that its load is known before it ends.
        world.asks(Duration::from_millis(1200));
        world.until(asked + 100.0);
        assert_eq!(world.sim.served, 2, "asked at {asked}");
        assert_eq!(
            (world.rung(), world.sim.fleet.active()),
            (Rung::Zero, 0),
            "asked at {asked}"
        );
    }
}

#[test]
fn a_bill_is_rounded_up_when_a_sandbox_is_gone() {
    // (granularity, minimum) to what is paid of an hour's price of one full instance, in seconds: one sandbox was there from
    // its deployment to 44.0 s, and on its way to be gone for a moment.
    for (granularity, minimum, least, most) in [
        (1, 0, 44.0, 45.0),
        (1, 60, 60.0, 60.0),
        (50, 0, 50.0, 50.0),
        (30, 70, 90.0, 90.0),
    ] {
        let mut world = world(true, &[(0.0, Rung::Full), (40.0, Rung::Zero)]);
        let mut instances = (*catalogue(true, 1.0)).clone();
        let secs = Duration::from_secs;
        for spec in Arc::make_mut(&mut instances.specs) {
            (spec.granularity, spec.minimum) = (secs(granularity), secs(minimum));
        }
        let full = instances.get("full").unwrap().price;
        world.sim.price_by(Arc::new(instances));
        world.until(100.0);
        let account = world.sim.fleet.cx.costs.of(&world.id, at(100.0)).unwrap();
        let paid = account.today.actual / full;
        assert!(
            (least - 1e-6..=most + 1e-6).contains(&paid),
            "{granularity} {minimum}: {paid}"
        );
    }
}

#[test]
fn a_step_upwards_is_there_before_the_request() {
    for (from, to) in [
        (Rung::Zero, Rung::Full),
        (Rung::Zero, Rung::Reserve),
        (Rung::Frozen, Rung::Full),
        (Rung::Throttled, Rung::Full),
        (Rung::Reserve, Rung::Full),
        (Rung::Throttled, Rung::Reserve),
    ] {
        for in_place in [true, false] {
            let case = format!("{from:?} to {to:?}, in place {in_place}");
            let mut world = world(in_place, &[(0.0, from), (30.0, to), (60.0, Rung::Zero)]);
            world.until(33.0);
            assert_eq!(world.rung(), from, "{case}");
            world.until(37.0);
            assert_eq!(world.rung(), to, "{case}: {:#?}", world.told());
            world.told();
            world.asks(10 * MS);
            world.until(37.5);
            assert_eq!((world.sim.served, world.told().len()), (2, 0), "{case}: it was ready");
            world.until(39.0);
            let (arrival, met) = *world.arrived.lock().unwrap().last().unwrap();
            assert_eq!((met, arrival.late), (to, false), "{case}");
            assert!(
                arrival
                    .gap
                    .is_some_and(|gap| (32.0..=34.0).contains(&gap.as_secs_f64())),
                "{case}: {arrival:?}"
            );
        }
    }
}

#[test]
fn a_pre_warmed_one_that_nobody_asks_for_goes_again() {
    let mut world = world(false, &[(0.0, Rung::Zero), (30.0, Rung::Full), (60.0, Rung::Zero)]);
    world.until(100.0);
    assert_eq!(
        world.told(),
        [
            "4.000 0 endpoints, zero",
            "4.001 stop s1",
            "34.000 start s2",
            "34.200 1 endpoints, full",
            "64.000 0 endpoints, zero",
            "64.001 stop s2",
        ]
    );
    assert_eq!(world.sim.statuses[&world.id].active.reason.as_ref(), "NoTraffic");
}

#[test]
fn another_sandbox_takes_over_before_the_first_one_goes() {
    let mut world = world(false, &[(0.0, Rung::Reserve)]);
    world.until(20.0);
    assert_eq!(
        world.told(),
        ["4.000 start s2", "4.200 1 endpoints, reserve", "4.201 stop s1"]
    );
    let only = world.sim.host.values().next().unwrap();
    assert_eq!((world.sim.host.len(), only.limits.cpu), (1, Some(Millicores(250))));
    assert_eq!(only.limits.memory, Some(Bytes(32 << 20)), "with less memory too");
    let price = world.sim.statuses[&world.id].price.0;
    assert!((price - 0.3).abs() < 1e-9, "{price}");

    // Requests one at a time stay there, however often they come.
    for _ in 0..20 {
        world.asks(100 * MS);
        let next = world.sim.now.plus(700 * MS);
        world.sim.until(next);
    }
    assert_eq!(
        (world.sim.served, world.told().len(), world.rung()),
        (21, 0, Rung::Reserve)
    );

    // More at once than its share of a full one's target: a full one is started, and takes over when it is ready.
    world.sim.price_by(catalogue(false, 4.0));
    let begin = seconds(&world.sim);
    for _ in 0..40 {
        world.asks(8000 * MS);
    }
    world.until(begin + 80.0);
    let told = world.told();
    let what: Vec<&str> = told.iter().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        what,
        [
            "start s3",
            "1 endpoints, full",
            "stop s2",
            "start s4",
            "1 endpoints, reserve",
            "stop s3"
        ],
        "{told:#?}"
    );
    assert_eq!(world.sim.served, 61, "those that ran on the small one ended there");
}

#[test]
fn where_the_schedule_says_so_the_first_request_brings_a_full_one() {
    for in_place in [true, false] {
        let mut world = world_of(in_place, &[(0.0, Rung::Reserve)], false, |_| ());
        world.until(20.0);
        world.told();
        world.asks(10 * MS);
        world.until(20.9);
        let told = world.told();
        let what: Vec<&str> = told.iter().map(|line| line.split_once(' ').unwrap().1).collect();
        let want: &[&str] = if in_place {
            &["limit s1 to None", "1 endpoints, full"]
        } else {
            &["start s3", "1 endpoints, full", "stop s2"]
        };
        assert_eq!(what, want, "{told:#?}");
        assert_eq!(world.sim.served, 2);
    }
}

#[test]
fn what_requests_met_is_told_with_what_it_added() {
    // (rung, whether it waits for a start)
    for rung in RUNGS {
        let mut world = world_of(true, &[(0.0, rung)], true, |revision| {
            revision.planning.sla.limit = 100 * MS;
        });
        world.until(50.0);
        let before = world.arrived.lock().unwrap().len();
        world.asks(40 * MS);
        world.until(53.0);
        let arrived = world.arrived.lock().unwrap().clone();
        assert_eq!(arrived.len(), before + 1, "{rung:?}");
        let (arrival, met) = arrived[before];
        assert_eq!(
            (met, arrival.late),
            (rung, rung == Rung::Zero),
            "{rung:?}: a start takes 200 ms"
        );
        let gap = arrival.gap.unwrap().as_secs_f64();
        assert!((45.9..=47.1).contains(&gap), "{rung:?}: {gap}");
        let service = arrival.service.unwrap();
        assert!(service.abs_diff(40 * MS) < 2 * MS, "{rung:?}: {service:?}");
    }
    let first = world(true, &[(0.0, Rung::Full)]).arrived.lock().unwrap()[0].0;
    assert_eq!(first.gap, None, "nothing came before the first");
}

#[test]
fn slow_requests_on_the_reserve_are_late_by_what_it_adds() {
    let mut world = world(true, &[(0.0, Rung::Reserve)]);
    world.sim.price_by(catalogue(true, 3.0));
    for (length, late) in [(300 * MS, false), (2000 * MS, true)] {
        world.sim.until(world.sim.now.plus(20_000 * MS));
        world.asks(length);
        world.sim.until(world.sim.now.plus(20_000 * MS));
        let (arrival, met) = *world.arrived.lock().unwrap().last().unwrap();
        assert_eq!((met, arrival.late), (Rung::Reserve, late), "{length:?}");
        let ratio = length.as_secs_f64() / arrival.service.unwrap().as_secs_f64();
        // What the catalogue says, and then a little of what was seen: the first one took 10 ms on a full instance.
        assert!(
            (2.9..6.0).contains(&ratio),
            "it would have been faster on a full one: {ratio}"
        );
    }
}

#[test]
fn a_slow_request_is_late_whatever_comes_after_it() {
    let mut world = world(true, &[(0.0, Rung::Reserve)]);
    world.sim.price_by(catalogue(true, 3.0));
    world.until(24.0);
    world.asks(2000 * MS);
    for _ in 0..50 {
        world.sim.until(world.sim.now.plus(20 * MS));
        world.asks(10 * MS);
    }
    world.until(50.0);
    let (arrival, met) = *world.arrived.lock().unwrap().last().unwrap();
    assert_eq!((met, arrival.late), (Rung::Reserve, true), "not by the mean of all");
    assert!(arrival.service.unwrap() > 300 * MS, "{:?}", arrival.service);
}

#[test]
fn a_start_that_fails_changes_nothing_for_what_serves() {
    // The reserve cannot be started: the full one stays, and the reserve is tried again later.
    let fails = |which: u32| -> sim::StartPlan {
        Box::new(move |n| {
            let fails = n == which || which == 1 && n > 1;
            (
                200 * MS,
                if fails {
                    Err(StartError::Refused("no".into()))
                } else {
                    Ok(())
                },
            )
        })
    };
    let mut world = world(false, &[(0.0, Rung::Full), (2.0, Rung::Reserve)]);
    world.sim.starts_by(&world.id, fails(1));
    world.until(30.0);
    assert_eq!(world.told(), ["6.000 start s2", "16.200 start s3"]);
    assert_eq!((world.sim.hosted(&world.id), world.rung()), (1, Rung::Full));
    assert!(
        world
            .causes()
            .iter()
            .any(|cause| matches!(cause, Cause::StartFailed(_)))
    );
    assert_eq!(world.sim.statuses[&world.id].container.status, ConditionStatus::True);

    // The full one cannot be started: the reserve serves on, and the start is tried again.
    let mut world = world_of(false, &[(0.0, Rung::Reserve)], false, |_| ());
    world.sim.price_by(catalogue(false, 4.0));
    world.until(10.0);
    world.sim.starts_by(&world.id, fails(2));
    world.told();
    for _ in 0..40 {
        world.asks(15_000 * MS);
    }
    world.until(10.1);
    let told = world.told();
    assert_eq!(
        (told, world.sim.endpoints(&world.id).len()),
        (vec!["10.000 start s3".to_owned()], 1)
    );
    for _ in 0..5 {
        world.asks(100 * MS);
    }
    world.until(10.4);
    assert_eq!(
        (world.sim.served, world.rung()),
        (6, Rung::Reserve),
        "served there meanwhile"
    );
    world.until(40.0);
    let told = world.told();
    assert!(told.iter().any(|line| line.ends_with("start s4")), "{told:#?}");
    assert!(told.iter().any(|line| line.ends_with("1 endpoints, full")), "{told:#?}");
    assert_eq!(world.sim.served, 46);
}

#[test]
fn a_rung_that_this_host_has_not_is_left_out() {
    let steps = [(0.0, Rung::Throttled), (10.0, Rung::Frozen)];
    let mut world = world(true, &steps);
    world.sim.cannot_limit = true;
    world.until(12.0);
    assert_eq!(
        world.told(),
        [
            "4.000 1 endpoints, throttled",
            "5.500 limit s1 to Some(50)",
            "5.500 1 endpoints, full"
        ]
    );
    world.sim.cannot_freeze = true;
    world.until(100.0);
    let told = world.told();
    assert_eq!(world.rung(), Rung::Full, "{told:#?}");
    let tries = |what: &str| -> Vec<String> {
        let lines = told.iter().filter(|line| line.contains(what));
        lines
            .map(|line| line.split('.').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(tries("freeze"), ["14", "24", "44", "84"], "ever later: {told:#?}");
    // It works again.
    (world.sim.cannot_limit, world.sim.cannot_freeze) = (false, false);
    world.until(200.0);
    assert_eq!(world.rung(), Rung::Frozen, "{:#?}", world.told());
    assert_eq!(world.told().iter().filter(|line| line.contains("freeze")).count(), 1);
}

#[test]
fn a_request_in_the_very_instant_of_a_step_is_served() {
    for in_place in [true, false] {
        for from in RUNGS {
            for to in RUNGS {
                for offset in [-2_i32, -1, 0, 1, 2, 199, 200, 201, 301, 303, 1499, 1500, 1501] {
                    let case = format!("{from:?} to {to:?} in place {in_place}, {offset} ms off");
                    let mut world = world(in_place, &[(0.0, from), (30.0, to)]);
                    world.sim.freeze_takes = 3 * MS;
                    let when = if offset < 0 {
                        at(34.0 - 0.001 * f64::from(-offset))
                    } else {
                        at(34.0).plus(offset.unsigned_abs() * MS)
                    };
                    world.sim.until(when);
                    world.asks(10 * MS);
                    world.sim.until(when.plus(700 * MS));
                    let served = world.sim.served;
                    assert_eq!(served, 2, "{case}: {:#?}", world.told());
                    world.sim.until(when.plus(90_000 * MS));
                    // What does not run cannot be frozen, and the small one is not.
                    let small = from == Rung::Reserve && !in_place;
                    let none = to == Rung::Frozen && (from == Rung::Zero || small);
                    assert_eq!(
                        world.rung(),
                        if none { Rung::Zero } else { to },
                        "{case}: {:#?}",
                        world.told()
                    );
                    assert!(world.sim.hosted(&world.id) <= 1, "{case}");
                }
            }
        }
    }
}

#[test]
fn a_removal_anywhere_leaves_nothing() {
    for in_place in [true, false] {
        for rung in RUNGS {
            for after in [0.0, 0.1, 0.25, 1.6, 20.0] {
                let mut world = world(in_place, &[(0.0, Rung::Full), (5.0, rung)]);
                world.until(9.0 + after);
                let id = world.id.clone();
                world.sim.remove(&id);
                world.until(60.0);
                let left = (
                    world.sim.host.len(),
                    world.sim.fleet.len(),
                    world.sim.fleet.next_timeout(),
                );
                assert_eq!(left, (0, 0, None), "{rung:?} in place {in_place} after {after}");
            }
        }
    }
}

#[test]
fn one_that_dies_where_it_stands_is_replaced_where_something_shall_run() {
    for rung in RUNGS {
        for in_place in [true, false] {
            let mut world = world(in_place, &[(0.0, rung)]);
            world.until(30.0);
            let Some(sandbox) = world.sim.host.keys().next().cloned() else {
                assert_eq!(rung, Rung::Zero);
                continue;
            };
            world.sim.kill(&sandbox, ExitStatus::Signal(9));
            world.until(60.0);
            let runs = usize::from(rung >= Rung::Throttled);
            assert_eq!(world.sim.hosted(&world.id), runs, "{rung:?} in place {in_place}");
            let want = if rung == Rung::Frozen { Rung::Zero } else { rung };
            assert_eq!(world.rung(), want, "{rung:?} in place {in_place}");
        }
    }
}

#[test]
fn memory_that_is_needed_elsewhere_takes_what_stands_on_any_rung() {
    for rung in [Rung::Frozen, Rung::Throttled, Rung::Reserve, Rung::Full] {
        for in_place in [true, false] {
            let case = format!("{rung:?} in place {in_place}");
            let mut world = world(in_place, &[(0.0, rung), (1000.0, Rung::Full)]);
            world.until(30.0);
            assert_eq!(world.rung(), rung, "{case}");
            world.sim.memory = Bytes(1000 << 20);
            let mut other = revision("default", "other");
            Arc::get_mut(&mut other.workload)
                .unwrap()
                .serving
                .resources
                .memory_request = Some(Bytes(500 << 20));
            let other = world.sim.deploy(other, 200 * MS);
            world.until(31.0);
            assert_eq!(
                (world.sim.endpoints(&other).len(), world.sim.hosted(&world.id)),
                (1, 0),
                "{case}"
            );
            assert!(world.causes().contains(&Cause::Evicted), "{case}");
            assert_eq!(world.rung(), Rung::Zero, "{case}: until it is woken");
            world.sim.memory = Bytes(0);
            world.asks(10 * MS);
            world.until(60.0);
            assert_eq!((world.sim.served, world.rung()), (2, rung), "{case}");
        }
    }
}

#[test]
fn knatives_delays_and_bounds_hold() {
    type Change = fn(&mut manifests::revision::Scaling);
    let scaling = |change: Change| move |revision: &mut Revision| change(&mut revision.scaling);
    // (what the manifest says, when it leaves full)
    let table: [(Change, Option<f64>); 6] = [
        (|_| (), Some(4.0)),
        (|scaling| scaling.retention = Duration::from_secs(20), Some(24.0)),
        (|scaling| scaling.scale_down_delay = Duration::from_secs(30), Some(34.0)),
        (|scaling| scaling.min_scale = Replicas(1), None),
        (|scaling| scaling.scale_to_zero = false, None),
        (|scaling| scaling.max_scale = Some(Replicas(1)), Some(4.0)),
    ];
    for (n, (change, leaves)) in table.into_iter().enumerate() {
        let mut world = world_of(true, &[(0.0, Rung::Zero)], true, scaling(change));
        world.until(100.0);
        let told = world.told();
        let left = told.iter().find(|line| line.contains("0 endpoints"));
        let left = left.map(|line| line.split_once(' ').unwrap().0.parse::<f64>().unwrap());
        assert_eq!(left, leaves, "row {n}: {told:#?}");
    }
}

#[test]
fn a_burst_is_scaled_down_by_knative_before_the_schedule_begins() {
    let mut world = world_of(true, &[(0.0, Rung::Frozen)], true, |revision| {
        revision.container_concurrency = ContainerConcurrency(1);
        revision.scaling.metric = Metric::Concurrency {
            target: Concurrency(0.7),
            total: Concurrency(1.0),
        };
    });
    world.until(10.0);
    for _ in 0..6 {
        world.asks(3000 * MS);
    }
    world.until(20.0);
    assert!(
        world.sim.endpoints(&world.id).len() > 1,
        "the decider wants them for a while"
    );
    world.until(150.0);
    assert_eq!((world.sim.frozen(), world.sim.hosted(&world.id)), (1, 1));
}

#[test]
fn min_scale_stands_on_a_cheaper_rung_and_never_below() {
    for (policy, least, replicas) in [
        (IdlePolicy::Knative, Rung::Frozen, 1),
        (IdlePolicy::Knative, Rung::Throttled, 1),
        (IdlePolicy::Knative, Rung::Reserve, 1),
        (IdlePolicy::Knative, Rung::Full, 2),
        (IdlePolicy::Knative, Rung::Frozen, 3),
        (IdlePolicy::Knative, Rung::Reserve, 2),
        (IdlePolicy::Throttled, Rung::Frozen, 1),
        (IdlePolicy::Auto, Rung::Frozen, 1),
        (IdlePolicy::Auto, Rung::Reserve, 2),
    ] {
        for in_place in [true, false] {
            let case = format!("{policy:?} {least:?} {replicas} in place {in_place}");
            // Its own way would be to nothing at all.
            let mut world = world_of(in_place, &[(0.0, least)], true, |revision| {
                revision.idle = policy.clone();
                revision.scaling.min_scale = Replicas(replicas);
                revision.planning.min_scale_as = least;
            });
            world.until(200.0);
            let want = if policy == IdlePolicy::Throttled {
                Rung::Throttled
            } else {
                least
            };
            assert_eq!(world.rung(), want, "{case}: {:#?}", world.told());
            let hosted = usize::try_from(replicas).unwrap();
            assert_eq!(world.sim.hosted(&world.id), hosted, "{case}");
            if want == Rung::Frozen {
                assert_eq!(world.sim.frozen(), hosted, "{case}");
            }
            let standing = world.sim.fleet.cx.evictions.order(world.sim.now);
            assert!(standing.is_empty(), "{case}: min-scale asks for it");
            world.asks(10 * MS);
            world.until(201.0);
            assert_eq!(world.sim.served, 2, "{case}");
            world.until(400.0);
            assert_eq!(
                (world.rung(), world.sim.hosted(&world.id)),
                (want, hosted),
                "{case}: and back"
            );
        }
    }
}

#[test]
fn policies_that_are_named_stand_at_knatives_instant() {
    for (policy, rung) in [
        (IdlePolicy::Zero, Rung::Zero),
        (IdlePolicy::Frozen { delay: None }, Rung::Frozen),
        (IdlePolicy::Throttled, Rung::Throttled),
        (IdlePolicy::Reserve, Rung::Reserve),
        (IdlePolicy::Keep, Rung::Full),
    ] {
        let mut world = world_of(false, &[], true, |revision| revision.idle = policy.clone());
        world.until(60.0);
        assert_eq!(world.rung(), Rung::Full, "{policy:?}");
        world.until(70.0);
        assert_eq!(world.rung(), rung, "{policy:?}: {:#?}", world.told());
        world.until(300.0);
        assert_eq!((world.rung(), world.sim.fleet.active()), (rung, 0), "{policy:?}");
        world.asks(10 * MS);
        world.until(301.0);
        assert_eq!(world.sim.served, 2, "{policy:?}");
    }
}

#[test]
fn hours_of_keep_warm_have_a_full_instance_in_time() {
    // The world begins at 1970-01-12 13:46:40 UTC, a Monday.
    for policy in [
        IdlePolicy::Knative,
        IdlePolicy::Auto,
        IdlePolicy::Frozen { delay: Some(MS) },
    ] {
        let mut world = world_of(true, &[(0.0, Rung::Zero)], true, |revision| {
            revision.idle = policy.clone();
            revision.planning.keep_warm = Some("Mon-Fri 14:00-15:00 UTC".parse().unwrap());
        });
        let (opens, closes) = (13.0 * 60.0 + 20.0, 73.0 * 60.0 + 20.0);
        world.until(opens - 60.0);
        assert_ne!(world.rung(), Rung::Full, "{policy:?}");
        world.until(opens);
        assert_eq!(
            world.sim.endpoints(&world.id).len(),
            1,
            "{policy:?}: ready before it opens"
        );
        world.told();
        world.until(closes - 1.0);
        assert_eq!((world.rung(), world.told().len()), (Rung::Full, 0), "{policy:?}");
        world.until(closes + 200.0);
        assert!(world.sim.endpoints(&world.id).is_empty(), "{policy:?}");
    }
}

#[test]
fn the_log_says_the_whole_schedule() {
    let mut world = world(true, &[(0.0, Rung::Full), (2.0, Rung::Frozen), (3600.0, Rung::Zero)]);
    world.until(30.0);
    let records = world.sim.explain.for_revision(&world.id, at(0.0));
    let text = records.last().unwrap().to_string();
    for word in [
        "full, frozen from 2s, zero from 60m",
        "rung      zero",
        "rung      reserve (small)",
        "chosen",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
