//! Capacity, assignment and picking, equal to Knative in every case of the golden vectors (`vectors/NOTICE`).

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::collections::BTreeMap;

use activator::assign::{Indices, MAX_CAPACITY, assign_slice, calculate_capacity, infer_index, pick_indices};
use activator::pick::{Policy, first_available, round_robin, two_choices};
use activator::throttler::Throttler;
use activator::{Limits, Slot};
use manifests::exchange::Rung;
use manifests::units::ContainerConcurrency;
use serde_json::Value;
use support::World;

#[test]
fn every_case_equals_knative() {
    let mut seen = BTreeMap::new();
    for line in include_str!("vectors/activator_capacity.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let kind = text(&case["kind"]);
        match kind.as_str() {
            "pick_indices" => indices(&case),
            "assign_slice" => slices(&case),
            "calculate_capacity" => capacity(&case),
            "infer_index" => index(&case),
            "throttler" => throttler(&case),
            "lb_first_available" | "lb_round_robin" => policy(&case, kind == "lb_round_robin"),
            "lb_random_choice_2" => choice(&case),
            "policy_by_cc" => policy_by_limit(&case),
            other => panic!("{}: unknown kind {other}", case["id"]),
        }
        *seen.entry(kind).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
    assert_eq!(seen.values().sum::<i32>(), 278, "{seen:?}");
}

fn indices(case: &Value) {
    let got = pick_indices(
        number(&case["num_trackers"]),
        number(&case["self_index"]),
        number(&case["num_activators"]),
    );
    let want = &case["want"];
    let run = number(&want["begin"])..number(&want["end"]);
    assert_eq!(
        got,
        Indices {
            run,
            remnants: number(&want["remnants"])
        },
        "{}",
        case["id"]
    );
}

fn slices(case: &Value) {
    let all: Vec<String> = (0..number(&case["num_trackers"])).map(|n| format!("p{n:03}")).collect();
    for (place, want) in case["want_by_self_index_from_minus_1"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let got = assign_slice(&all, place.checked_sub(1), number(&case["num_activators"]));
        assert_eq!(got, texts(want), "{} at {place}", case["id"]);
    }
}

fn capacity(case: &Value) {
    let got = calculate_capacity(
        limit(case),
        number(&case["backend_count"]),
        number(&case["num_trackers"]),
        number(&case["activator_count"]),
    );
    assert_eq!(got as usize, number(&case["want"]), "{case}");
}

fn index(case: &Value) {
    let got = infer_index(&texts(&case["endpoints_sorted"]), &text(&case["self_ip"]));
    assert_eq!(
        got,
        usize::try_from(case["want"].as_i64().unwrap()).ok(),
        "{}",
        case["id"]
    );
}

fn throttler(case: &Value) {
    let mut throttler = Throttler::new(limit(case), text(&case["self_ip"]));
    for (number_of_step, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        match text(&step["op"]).as_str() {
            "init" => {}
            "dests" => {
                let cluster_ip = Some(text(&step["cluster_ip"])).filter(|ip| !ip.is_empty());
                throttler.update_backends(&texts(&step["dests"]), cluster_ip);
            }
            // Addresses under another port's name are not this protocol's.
            "activators" if step["port_name"] == case["protocol_port_name"] => {
                throttler.update_gateways(&texts(&step["ips"]));
            }
            "activators" => throttler.update_gateways(&[]),
            other => panic!("unknown step {other}"),
        }
        let want = &step["want"];
        let context = format!("{} step {number_of_step}: {step}", case["id"]);
        let unlimited = limit(case).limit().is_none();
        let capacity = if unlimited {
            throttler.capacity().min(1)
        } else {
            throttler.capacity()
        };
        assert_eq!(capacity as usize, number(&want["capacity"]), "{context}");
        assert_eq!(throttler.assigned(), texts(&want["assigned"]), "{context}");
        assert_eq!(throttler.trackers(), texts(&want["all_trackers"]), "{context}");
        assert_eq!(
            throttler.cluster_ip().unwrap_or_default(),
            text(&want["cluster_ip"]),
            "{context}"
        );
        assert_eq!(throttler.gateways(), number(&want["num_activators"]), "{context}");
        assert_eq!(
            throttler.index(),
            usize::try_from(want["activator_index"].as_i64().unwrap()).ok(),
            "{context}"
        );
        assert_eq!(throttler.backends(), number(&want["backend_count"]), "{context}");
        let each = limit(case).limit().unwrap_or(1);
        for got in want["assigned_capacity"].as_array().unwrap() {
            assert_eq!(number(got), each as usize, "{context}");
        }
    }
}

/// Replays reservations against counters; only the choice is the policy's.
fn policy(case: &Value, goes_round: bool) {
    let mut capacity: Vec<usize> = case["capacities"].as_array().unwrap().iter().map(number).collect();
    let mut running = vec![0; capacity.len()];
    let mut targets: Vec<usize> = (0..capacity.len()).collect();
    let (mut next, mut tokens) = (0, BTreeMap::new());
    for step in case["steps"].as_array().unwrap() {
        match text(&step["op"]).as_str() {
            "acquire" => {
                let reserve = |place: usize| running[targets[place]] < capacity[targets[place]];
                let place = if goes_round {
                    round_robin(&mut next, targets.len(), reserve)
                } else {
                    first_available(targets.len(), reserve)
                };
                let got = place.map(|place| targets[place]);
                assert_eq!(got, step["want"].as_str().map(tracker), "{} at {step}", case["id"]);
                if let Some(got) = got {
                    running[got] += 1;
                    tokens.insert(number(&step["token"]), got);
                }
            }
            "release" => running[tokens.remove(&number(&step["token"])).unwrap()] -= 1,
            "set_capacity" => capacity[tracker(&text(&step["tracker"]))] = number(&step["capacity"]),
            "set_targets" => targets = texts(&step["targets"]).iter().map(|name| tracker(name)).collect(),
            other => panic!("unknown step {other}"),
        }
    }
}

fn choice(case: &Value) {
    let weights: Vec<u32> = case["weights"]
        .as_array()
        .unwrap()
        .iter()
        .map(|weight| u32::try_from(number(weight)).unwrap())
        .collect();
    let got = two_choices(
        weights.len(),
        |place| weights[place],
        |_| panic!("{}: asked for a lot", case["id"]),
    );
    assert_eq!(got, Some(tracker(&text(&case["want"]))), "{}", case["id"]);
}

/// The whole pool must pick as Knative does, not only the pure policy.
fn policy_by_limit(case: &Value) {
    let limit = limit(case);
    assert_eq!(
        Policy::of(limit) == Policy::TwoChoices,
        case["infinite_breaker"].as_bool().unwrap()
    );
    let Some(want) = case.get("first_four_picks_of_3_free") else {
        return;
    };
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", limit.0);
    world.serve("a", &["p2", "p0", "p1"]);
    let got: Vec<String> = (0..4)
        .map(|_| pool.try_slot().unwrap().sandbox().id().to_string())
        .collect();
    assert_eq!(got, texts(want), "{}", case["id"]);
}

#[test]
fn two_choices_follow_the_lots() {
    let loads = [5, 1, 3, 3];
    let pick = |lots: &[usize]| {
        let mut lots = lots.iter().copied();
        two_choices(4, |place| loads[place], |_| lots.next().unwrap())
    };
    assert_eq!(
        pick(&[0, 0]),
        Some(1),
        "0 against 1: the second lot skips the first contestant"
    );
    assert_eq!(pick(&[3, 0]), Some(3), "3 against 0");
    assert_eq!(pick(&[2, 2, 0]), Some(3), "2 against 3, equal: the coin says the other");
    assert_eq!(pick(&[2, 2, 1]), Some(2), "2 against 3, equal: the coin says the first");
    assert_eq!(two_choices(0, |_| 0, |_| 0), None);
    assert_eq!(MAX_CAPACITY, 2_147_483_647);
}

/// Ours, not Knative's, whose sandboxes are all alike.
#[test]
fn where_sandboxes_do_not_take_equally_many_each_gets_its_part() {
    for limit in [0, 1, 10, 100] {
        let mut world = World::new(1, Limits::default());
        let pool = world.deploy("a", limit);
        let mut set = world.set("a", Rung::Full, &["big", "small"]);
        (set.endpoints[0].weight, set.endpoints[1].weight) = (1000, 250);
        world.pools.apply(&set);
        let most = if limit == 0 { 100 } else { 2 * limit };
        let slots: Vec<Slot> = (0..most).map(|_| pool.try_slot().unwrap()).collect();
        let small = |slots: &[Slot]| {
            slots
                .iter()
                .filter(|slot| slot.sandbox().id().to_string() == "small")
                .count()
        };
        assert!(
            limit == 0 || pool.try_slot().is_none(),
            "{limit}: every slot is used in the end"
        );
        if limit != 1 {
            let first = slots.len() / 2;
            let share = small(&slots[..first]);
            assert!(share.abs_diff(first / 5) <= 1, "{limit}: {share} of {first}");
        }
        drop(slots);
        // All alike again: Knative's way.
        world.serve("a", &["big", "small"]);
        let slots: Vec<Slot> = (0..most).map(|_| pool.try_slot().unwrap()).collect();
        assert!(small(&slots).abs_diff(slots.len() / 2) <= 1, "{limit}");
    }
}

fn limit(case: &Value) -> ContainerConcurrency {
    ContainerConcurrency(u32::try_from(number(&case["container_concurrency"])).unwrap())
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap_or_else(|| panic!("{value} is not a count"))).unwrap()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not a text"))
        .to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(text).collect()
}

fn tracker(name: &str) -> usize {
    name.strip_prefix('p').unwrap().parse().unwrap()
}
