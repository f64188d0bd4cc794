use proptest::prelude::*;

use super::choice::instances;
use super::*;

fn kind(name: &str, price: f64, capacity: f64) -> Kind {
    Kind {
        name: name.into(),
        full: name == "full",
        price,
        capacity,
        late: 0.0,
        start: 2.0 * price,
        lead: 2.0,
        prompt: true,
        stock: u32::MAX,
        burst: None,
        running: 0,
        serving: 0,
    }
}

/// A full one takes 100 and costs 1; a small one takes a quarter of that.
fn two(price: f64) -> Vec<Kind> {
    vec![kind("full", 1.0, 100.0), kind("small", price, 25.0)]
}

/// As KPA counts at 70 %.
fn load(average: f64) -> Load {
    Load {
        average,
        now: 0.0,
        count: instances(average, 70.0).max(1),
        target: 70.0,
        quantile: 0.99,
        least: 0,
        least_full: 0,
        most: u32::MAX,
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::EPOCH.plus(Duration::from_secs(1_000_000 + seconds))
}

fn text(plan: &BusyPlan) -> String {
    words::mix_text(&plan.mix)
}

fn fresh(load: &Load, kinds: &[Kind]) -> BusyPlan {
    Busy::default().plan(load, kinds.to_vec(), at(0))
}

/// Lets a mix run.
fn run(kinds: &mut [Kind], plan: &BusyPlan) {
    for kind in kinds {
        let part = plan.mix.iter().find(|part| part.spec == kind.name);
        kind.running = part.map_or(0, |part| part.count);
        kind.serving = kind.running;
    }
}

#[test]
fn the_remainder_goes_to_a_small_one() {
    // (price of a small one, in flight, mix)
    let table = [
        // One request at a time: the smallest there is.
        (0.3, 0.5, "1 small"),
        (0.3, 15.0, "1 small"),
        // 18 and 2.33 x 4.2 of head room are 28: two small ones cost less than a full one.
        (0.3, 18.0, "2 small"),
        (0.3, 60.0, "1 full"),
        (0.3, 85.0, "1 full, 1 small"),
        // 1,000 and 74: ten full ones where Knative has 15, and three small ones; four of them would cost more than a full one.
        (0.3, 1000.0, "10 full, 3 small"),
        (0.3, 1010.0, "11 full"),
        // Cheaper by what they take: small ones alone, as many as it needs.
        (0.2, 1000.0, "43 small"),
        // As dear by what they take: the fewest.
        (0.25, 1000.0, "10 full, 3 small"),
        (0.25, 90.0, "1 full, 1 small"),
        // Dearer than a full one: never.
        (1.5, 18.0, "1 full"),
        // Nothing at all.
        (0.3, 0.0, "1 small"),
    ];
    for (price, average, want) in table {
        let plan = fresh(&load(average), &two(price));
        assert_eq!(text(&plan), want, "{price} {average}: {plan:#?}");
        assert_eq!(
            plan.considered
                .iter()
                .filter(|it| it.verdict == Verdict::Chosen)
                .count(),
            1,
            "{plan:#?}"
        );
    }
}

#[test]
fn the_deciders_count_is_never_outdone_and_always_held() {
    let kinds = two(0.3);
    // One request at a time: a quarter of the requests would find no room; the decider's count wins.
    let single = |count| Load {
        average: 5.0,
        count,
        target: 0.7,
        ..load(0.0)
    };
    let one = [kind("full", 1.0, 1.0)];
    assert_eq!(text(&fresh(&single(8), &one)), "8 full");
    // What load has asked for is held by delays: 99 x 0.7 is 69.3, and 19 of head room.
    assert_eq!(text(&fresh(&single(100), &one)), "89 full");
    // Panic, or a delay, holds four although nothing is in flight any more: room for 210 and more.
    let held = Load { count: 4, ..load(0.0) };
    let plan = fresh(&held, &kinds);
    assert!(plan.need > 210.0 && plan.need <= 400.0, "{}", plan.need);
    assert_eq!(text(&plan), "2 full, 2 small");
    // What is in flight now is not waited out, as far as the decider goes.
    let burst = Load {
        now: 300.0,
        ..load(1.0)
    };
    assert_eq!(text(&fresh(&burst, &kinds)), "1 full");
}

#[test]
fn bounds_hold() {
    let kinds = two(0.2);
    let table = [
        // (least, of these full, most, mix)
        (0, 0, u32::MAX, "9 small"),
        (0, 0, 8, "1 full, 5 small"),
        (0, 0, 3, "2 full, 1 small"),
        (12, 0, u32::MAX, "12 small"),
        (2, 2, u32::MAX, "2 full, 1 small"),
        (5, 5, u32::MAX, "5 full"),
    ];
    for (least, least_full, most, want) in table {
        let load = Load {
            least,
            least_full,
            most,
            count: 4,
            ..load(185.0)
        };
        let load = Load {
            average: 180.0,
            target: 0.0,
            ..load
        };
        assert_eq!(text(&fresh(&load, &kinds)), want, "{least} {least_full} {most}");
    }
}

#[test]
fn what_is_too_slow_or_out_of_stock_is_left_out_and_said() {
    let verdict = |plan: &BusyPlan, spec: &str| {
        let alone = |it: &&Considered| it.mix.len() == 1 && *it.mix[0].spec == *spec;
        plan.considered.iter().find(alone).map(|it| it.verdict)
    };
    let mut kinds = two(0.2);
    kinds.push(kind("tiny", 0.05, 10.0));
    kinds[2].late = 0.02;
    let plan = fresh(&load(300.0), &kinds);
    assert_eq!(
        (text(&plan).as_str(), verdict(&plan, "tiny")),
        ("14 small", Some(Verdict::TooSlow))
    );
    // Ten are there: the rest goes to the next in the order of prices.
    kinds[1].stock = 10;
    let plan = fresh(&load(300.0), &kinds);
    assert_eq!(
        (text(&plan).as_str(), verdict(&plan, "small")),
        ("1 full, 10 small", Some(Verdict::OutOfStock))
    );
    kinds[0].stock = 0;
    let plan = fresh(&load(300.0), &kinds);
    assert_eq!(text(&plan), "10 small", "less than it needs, and all that there is");
    assert!(plan.considered.iter().any(|it| it.verdict == Verdict::AllThereIs));
    kinds[1].stock = 0;
    assert_eq!(fresh(&load(300.0), &kinds).mix, Vec::new());
}

#[test]
fn one_that_could_not_be_had_is_asked_for_again_later() {
    let (mut busy, kinds) = (Busy::default(), two(0.2));
    busy.out_of_stock(&kinds[1].name, at(0));
    assert_eq!(text(&busy.plan(&load(50.0), kinds.clone(), at(1))), "1 full");
    busy.rest();
    assert_eq!(text(&busy.plan(&load(50.0), kinds, at(61))), "3 small");
}

#[test]
fn upwards_at_once_downwards_when_it_pays() {
    let (mut busy, mut kinds) = (Busy::default(), two(0.3));
    let mut look = |busy: &mut Busy, seconds, average| {
        let plan = busy.plan(&load(average), kinds.clone(), at(seconds));
        run(&mut kinds, &plan);
        (text(&plan), plan)
    };
    assert_eq!(look(&mut busy, 0, 10.0).0, "1 small");
    assert_eq!(look(&mut busy, 2, 18.0).0, "2 small");
    assert_eq!(look(&mut busy, 4, 60.0).0, "1 full", "at once");
    let (mix, plan) = look(&mut busy, 6, 10.0);
    assert_eq!(mix, "1 full", "it has just started that");
    let waits = plan.considered.iter().find(|it| it.verdict == Verdict::Waits);
    assert_eq!(waits.map(|it| words::mix_text(&it.mix)).as_deref(), Some("1 small"));
    assert_eq!(look(&mut busy, 63, 10.0).0, "1 full");
    assert_eq!(look(&mut busy, 64, 10.0).0, "1 small", "a minute later");

    // A start that costs more than the cheaper mix saves.
    let (mut busy, mut dear) = (Busy::default(), two(0.3));
    dear[1].start = 1000.0;
    dear[0].running = 1;
    busy.plan(&load(10.0), dear.clone(), at(0));
    let plan = busy.plan(&load(10.0), dear, at(100));
    assert_eq!(text(&plan), "1 full");
    assert!(
        plan.considered.iter().any(|it| it.verdict == Verdict::DoesNotPay),
        "{plan:#?}"
    );
}

#[test]
fn the_woken_are_served_by_what_stands_there() {
    for (running, average, want) in [
        ([0, 1], 3.0, "1 small"),
        ([1, 0], 3.0, "1 full"),
        ([1, 1], 3.0, "1 small"),
        ([0, 1], 40.0, "1 full"),
        ([0, 0], 3.0, "1 small"),
    ] {
        let mut kinds = two(0.3);
        for (kind, running) in kinds.iter_mut().zip(running) {
            (kind.running, kind.serving) = (running, running);
        }
        // It is too slow there, but a start would be slower.
        kinds[1].late = if running[1] > 0 { 0.5 } else { 0.0 };
        let mut busy = Busy::default();
        assert_eq!(
            text(&busy.plan(&load(average), kinds.clone(), at(0))),
            want,
            "{running:?}"
        );
        // Who goes on asking gets what the SLA wants.
        if running == [0, 1] {
            let plan = busy.plan(&load(average), kinds, at(61));
            assert_eq!(text(&plan), "1 full");
        }
    }
    // From nothing, while somebody waits, only on what starts as quickly.
    let mut kinds = two(0.3);
    kinds[1].prompt = false;
    let plan = fresh(&load(3.0), &kinds);
    assert_eq!(text(&plan), "1 full");
    assert!(plan.considered.iter().any(|it| it.verdict == Verdict::StartsSlowly));
}

#[test]
fn bursts_count_by_what_they_can_hold() {
    let burst = Burst {
        baseline: 0.2,
        credits_per_hour: 24.0,
        most: 576.0,
    };
    let mut kinds = vec![kind("full", 1.0, 100.0), kind("burst", 0.4, 100.0)];
    kinds[1].burst = Some((burst, 2.0));
    let mut busy = Busy::default();
    assert_eq!(text(&busy.plan(&load(10.0), kinds.clone(), at(0))), "1 burst");
    assert_eq!(
        text(&fresh(&load(30.0), &kinds)),
        "1 full",
        "43 at its baseline take more than two of them"
    );
    // It has served next to nothing for hours, and has credits for minutes.
    kinds[1].running = 1;
    busy.plan(&load(0.1), kinds.clone(), at(100));
    busy.plan(&load(0.1), kinds.clone(), at(4 * 3600));
    assert_eq!(
        text(&busy.plan(&load(30.0), kinds.clone(), at(4 * 3600 + 2))),
        "1 burst"
    );
    // At work it uses them up.
    let used = (1..400).find(|n| text(&busy.plan(&load(60.0), kinds.clone(), at(4 * 3600 + 60 * n))) != "1 burst");
    assert!(used.is_some_and(|minutes| (20..200).contains(&minutes)), "{used:?}");
}

#[test]
fn a_state_goes_through_json() {
    let (mut busy, mut kinds) = (Busy::default(), two(0.3));
    for seconds in 0..50_u32 {
        let average = f64::from((seconds * 37) % 101);
        let plan = busy.plan(&load(average), kinds.clone(), at(u64::from(seconds) * 7));
        run(&mut kinds, &plan);
        let again: Busy = serde_json::from_str(&serde_json::to_string(&busy).unwrap()).unwrap();
        assert_eq!(again, busy);
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let number = prop_oneof![
        0.001..10.0_f64,
        Just(0.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(-1.0),
        Just(1e300),
        Just(f64::MIN_POSITIVE)
    ];
    let stock = prop_oneof![Just(u32::MAX), 0..20_u32];
    (
        number.clone(),
        number.clone(),
        number.clone(),
        number,
        stock,
        0..30_u32,
        any::<bool>(),
    )
        .prop_map(|(price, capacity, late, start, stock, running, prompt)| Kind {
            late,
            start,
            lead: start,
            stock,
            running,
            prompt,
            ..kind("any", price, capacity)
        })
}

fn sound_kinds() -> impl Strategy<Value = Vec<Kind>> {
    prop::collection::vec((0.05..2.0_f64, 1..100_u32), 0..5).prop_map(|others| {
        let other = |(n, (price, capacity)): (usize, (f64, u32))| kind(&format!("k{n}"), price, f64::from(capacity));
        let mut kinds = vec![kind("full", 1.0, 100.0)];
        kinds.extend(others.into_iter().enumerate().map(other));
        kinds
    })
}

fn bare(plan: &BusyPlan, kinds: &[Kind]) -> (f64, f64, u32) {
    plan.mix.iter().fold((0.0, 0.0, 0), |(price, capacity, count), part| {
        let kind = kinds.iter().find(|kind| kind.name == part.spec).unwrap();
        let n = f64::from(part.count);
        (
            price + n * kind.price,
            capacity + n * kind.capacity,
            count.saturating_add(part.count),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_takes_the_need_and_no_single_kind_does_for_less(
        kinds in sound_kinds(), average in 0.0..5000.0_f64,
    ) {
        let load = load(average);
        let plan = fresh(&load, &kinds);
        let (price, capacity, _) = bare(&plan, &kinds);
        prop_assert!(capacity >= plan.need * (1.0 - 1e-6), "{plan:#?}");
        prop_assert!(plan.mix.len() <= 2);
        for kind in &kinds {
            // With what a start costs, since that is what a fresh choice weighs: 2 s of a minute.
            let alone = f64::from(instances(plan.need, kind.capacity).max(1)) * kind.price;
            prop_assert!(price <= alone * (1.0 + 1e-9), "{} alone costs {alone}: {plan:#?}", kind.name);
        }
        prop_assert!(price <= f64::from(load.count) + 1e-9, "never dearer than Knative's count");
    }

    #[test]
    fn more_load_never_costs_less(kinds in sound_kinds(), average in 0.0..3000.0_f64, more in 0.0..500.0_f64) {
        let (low, high) = (fresh(&load(average), &kinds), fresh(&load(average + more), &kinds));
        prop_assert!(low.price.0 <= high.price.0 * (1.0 + 1e-9), "{low:#?} {high:#?}");
    }

    #[test]
    fn a_dearer_spec_never_makes_it_cheaper(kinds in sound_kinds(), average in 0.0..3000.0_f64, by in 1.0..3.0_f64) {
        let mut dearer = kinds.clone();
        for kind in &mut dearer[1..] {
            kind.price *= by;
            kind.start *= by;
        }
        let (low, high) = (fresh(&load(average), &kinds), fresh(&load(average), &dearer));
        prop_assert!(low.price.0 <= high.price.0 * (1.0 + 1e-9), "{low:#?} {high:#?}");
    }

    #[test]
    fn any_input_gives_a_plan_within_stock_and_bounds(
        kinds in prop::collection::vec(any_kind(), 0..12),
        full in prop::option::of(0..12_usize),
        numbers in prop::array::uniform4(prop_oneof![0.0..1e4_f64, Just(f64::NAN), Just(f64::INFINITY), Just(-1.0)]),
        counts in prop::array::uniform4(prop_oneof![0..50_u32, Just(u32::MAX)]),
        seconds in prop::collection::vec(0..10_000_u64, 1..4),
    ) {
        let mut kinds = kinds;
        for (n, kind) in kinds.iter_mut().enumerate() {
            kind.name = format!("k{n}").into();
            kind.full = full == Some(n);
        }
        let load = Load {
            average: numbers[0],
            now: numbers[1],
            target: numbers[2],
            quantile: numbers[3],
            count: counts[0],
            least: counts[1],
            least_full: counts[2],
            most: counts[3],
        };
        let mut busy = Busy::default();
        for seconds in seconds {
            let plan = busy.plan(&load, kinds.clone(), at(seconds));
            let (_, _, count) = bare(&plan, &kinds);
            prop_assert!(count <= load.most);
            prop_assert!(plan.mix.is_empty() || count >= load.least.max(1));
            for part in &plan.mix {
                let kind = kinds.iter().find(|kind| kind.name == part.spec).unwrap();
                prop_assert!(part.count <= kind.stock, "{plan:#?}");
                prop_assert!(kind.price.is_finite() && kind.capacity > 0.0, "{plan:#?}");
            }
        }
    }
}
