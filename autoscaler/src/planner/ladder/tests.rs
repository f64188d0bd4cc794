use std::sync::Arc;

use manifests::exchange::Rung;
use proptest::prelude::*;

use super::super::menu::Offer;
use super::*;

const FULL: f64 = 1.0;

fn offer(rung: Rung, price: f64, wake: f64, late: f64, lead: f64) -> Offer {
    Offer {
        spec: Some(Arc::from(rung.as_str())),
        lead,
        ..Offer::new(rung, price).woken(wake, late)
    }
}

/// Zero, frozen, full: a start takes 2 s and is always late, a thaw is not.
fn menu(frozen: f64) -> Menu {
    let start = 2.0 * FULL;
    Menu {
        offers: vec![
            offer(Rung::Zero, 0.0, start, 1.0, 3.0),
            offer(Rung::Frozen, frozen, 0.0, 0.0, 3.0),
            offer(Rung::Full, FULL, 0.0, 0.0, 3.0),
        ],
        moves: vec![
            vec![0.0, f64::INFINITY, start],
            vec![0.0, 0.0, f64::INFINITY],
            vec![0.0, 0.0, 0.0],
        ],
    }
}

fn all_in(gap: f64) -> Hazard {
    let wanted = bin(Duration::from_secs_f64(gap));
    Hazard::from_ends(|bin| if bin == wanted { 1.0 } else { 0.0 })
}

fn plan(menu: &Menu, hazard: &Hazard, worth: f64, at: usize) -> Ladder {
    let late: Vec<f64> = menu.offers.iter().map(|offer| offer.late).collect();
    ladder(menu, &late, hazard, worth, at, Duration::ZERO)
}

fn steps(menu: &Menu, ladder: &Ladder) -> Vec<(u64, Rung)> {
    let step = |step: &Step| (step.age.as_secs(), menu.offers[step.offer].rung);
    ladder.steps.iter().map(step).collect()
}

#[test]
fn hand_made_ladders() {
    let (no_freezer, cheap) = (menu(f64::INFINITY), menu(0.001));
    let table = [
        // A timer every hour: zero at once, and a start 3 s before the bin in which it fires.
        (&no_freezer, 3600.0, 600.0, vec![(0, Rung::Zero), (3441, Rung::Full)]),
        // Every 2 s: a start would cost as much as to stay, and would have to begin at once.
        (&no_freezer, 2.0, 600.0, vec![(0, Rung::Full)]),
        // Nobody minds being late: zero, and no start in advance.
        (&no_freezer, 3600.0, 0.0, vec![(0, Rung::Zero)]),
        // Frozen costs 3.6 in an hour, less than a start; nobody is late.
        (&cheap, 1000.0, 600.0, vec![(0, Rung::Frozen)]),
    ];
    for (n, (menu, gap, worth, want)) in table.into_iter().enumerate() {
        let ladder = plan(menu, &all_in(gap), worth, menu.full());
        assert_eq!(steps(menu, &ladder)[..want.len()], want, "row {n}: {ladder:?}");
    }
}

#[test]
fn what_cannot_be_reached_is_not_in_it() {
    let menu = menu(0.0);
    let ladder = plan(&menu, &all_in(3600.0), 600.0, 0);
    let rungs: Vec<Rung> = steps(&menu, &ladder).into_iter().map(|(_, rung)| rung).collect();
    assert_eq!(
        rungs,
        [Rung::Full, Rung::Frozen],
        "there is no way from zero to frozen but through full"
    );
}

#[test]
fn a_plan_made_late_begins_late() {
    let menu = menu(f64::INFINITY);
    let late = [1.0, 0.0, 0.0];
    let age = Duration::from_secs(7200);
    let ladder = ladder(&menu, &late, &all_in(3600.0), 600.0, menu.full(), age);
    assert_eq!(ladder.steps[0].age, age);
    assert!(ladder.steps.windows(2).all(|two| two[0].age < two[1].age));
}

fn hazards() -> impl Strategy<Value = Hazard> {
    prop::collection::vec(0.0..1.0_f64, BINS).prop_map(|ends| Hazard::from_ends(|bin| ends[bin].powi(8)))
}

fn menus() -> impl Strategy<Value = Menu> {
    let offers = prop::collection::vec((0.0..2.0_f64, 0.0..20.0_f64, 0.0..1.0_f64, 0.0..60.0_f64), 1..6);
    (offers, prop::collection::vec(0.0..30.0_f64, 36)).prop_map(|(offers, moves)| {
        let count = offers.len();
        let offers = offers
            .into_iter()
            .map(|(price, wake, late, lead)| offer(Rung::Full, price, wake, late, lead));
        let row = |from: usize| {
            (0..count)
                .map(|to| if from == to { 0.0 } else { moves[from * 6 + to] })
                .collect()
        };
        Menu {
            offers: offers.collect(),
            moves: (0..count).map(row).collect(),
        }
    })
}

/// What the model says of standing on one offer for ever after moving there.
fn value_of_single(menu: &Menu, hazard: &Hazard, worth: f64, at: usize, to: usize) -> f64 {
    let offer = &menu.offers[to];
    let met = offer.wake + worth * offer.late;
    let (mut left, mut sum) = (1.0, menu.moves[at][to]);
    for bin in 0..BINS {
        let (length, chance) = (edge(bin + 1) - edge(bin), hazard.at(bin));
        sum += left * (offer.price * length * (1.0 - chance / 2.0) + chance * met);
        left *= 1.0 - chance;
    }
    sum
}

/// What a ladder comes to in the model: money and the worth of being late.
fn value_of(ladder: &Ladder, worth: f64) -> f64 {
    ladder.cost + worth * ladder.late
}

proptest! {
    #[test]
    fn never_worse_than_the_best_single_rung(menu in menus(), hazard in hazards(), worth in 0.0..1e4_f64) {
        let at = menu.full();
        let value = value_of(&plan(&menu, &hazard, worth, at), worth);
        for to in 0..menu.offers.len() {
            let single = value_of_single(&menu, &hazard, worth, at, to);
            prop_assert!(value <= single * (1.0 + 1e-9) + 1e-6, "{value} against {single} of offer {to}");
        }
    }

    #[test]
    fn the_dearer_being_late_the_less_often_it_is(menu in menus(), hazard in hazards(), worth in 0.0..1e3_f64, more in 1.0..1e3_f64) {
        let (low, high) = (plan(&menu, &hazard, worth, menu.full()), plan(&menu, &hazard, worth * more, menu.full()));
        prop_assert!(high.late <= low.late + 1e-9, "{} then {}", low.late, high.late);
        prop_assert!(low.cost <= high.cost * (1.0 + 1e-9) + 1e-6, "{} then {}", low.cost, high.cost);
    }

    #[test]
    fn a_rung_that_costs_more_makes_nothing_cheaper(menu in menus(), hazard in hazards(), worth in 0.0..1e3_f64, which in 0..6_usize, more in 1.0..10.0_f64) {
        let mut dearer = menu.clone();
        let which = which % menu.offers.len();
        dearer.offers[which].price *= more;
        let value = |menu: &Menu| value_of(&plan(menu, &hazard, worth, menu.full()), worth);
        prop_assert!(value(&menu) <= value(&dearer) * (1.0 + 1e-9) + 1e-6);
    }

    #[test]
    fn total_for_any_input(numbers in prop::collection::vec(prop::num::f64::ANY, 60), count in 0..12_usize, at in 0..20_usize, worth in prop::num::f64::ANY, ends in prop::collection::vec(prop::num::f64::ANY, BINS), age in 0..u64::MAX) {
        let number = |n: usize| numbers[n % numbers.len()];
        let offers = (0..count).map(|n| offer(Rung::Zero, number(n), number(n + 12), number(n + 24), number(n + 36)));
        let moves = (0..count).map(|from| (0..count).map(|to| number(from * 7 + to)).collect()).collect();
        let menu = Menu { offers: offers.collect(), moves };
        let late: Vec<f64> = (0..count).map(|n| number(n + 48)).collect();
        let ladder = ladder(&menu, &late, &Hazard::from_ends(|bin| ends[bin]), worth, at, Duration::from_nanos(age));
        prop_assert_eq!(ladder.steps.is_empty(), count == 0);
        prop_assert!(ladder.steps.windows(2).all(|two| two[0].age < two[1].age));
        prop_assert!(ladder.steps.iter().all(|step| step.offer < count));
        prop_assert!((0.0..=1.0).contains(&ladder.late) && ladder.cost >= 0.0, "{:?}", ladder);
    }
}
