//! Accounts by hand, in tables of instants.

use super::*;

const START: u64 = 20_000 * 86_400;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis((START + seconds) * 1000)
}

fn id(name: &str) -> RevisionId {
    RevisionId::new("default", name)
}

/// A full instance costs 1, a frozen one a tenth.
fn rates(price: f64, busy: bool) -> Rates {
    Rates {
        price,
        full: 1.0,
        cheaper: Some((Rung::Frozen, 0.1)),
        busy,
        replicas: u32::from(busy),
        min_scale: 0,
        reachable: true,
        hold: Duration::from_secs(60),
        start: Duration::from_secs(2),
    }
}

fn near(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-6, "{got} is not {want}");
}

#[test]
fn frozen_beside_knatives_window_and_always_on() {
    let mut account = Account::new(rates(1.0, true), at(0));
    account.change(rates(0.1, false), at(100));
    let spent = account.at(at(130)).today;
    near(spent.actual, 103.0);
    near(spent.knative, 130.0);
    let spent = account.at(at(1100)).today;
    near(spent.actual, 200.0);
    near(spent.knative, 160.0);
    near(spent.always_on, 1100.0);
    near(spent.idle, 100.0);
    assert_eq!(spent, account.at(at(500)).at(at(1100)).today, "however often one looks");
    // The next request meets nothing there: Knative starts one.
    account.change(rates(1.0, true), at(1100));
    near(account.today.knative, 162.0);
    account.change(rates(0.1, false), at(1101));
    account.change(rates(1.0, true), at(1150));
    near(account.today.knative, 162.0 + 1.0 + 49.0);
}

#[test]
fn what_min_scale_costs_and_a_cheaper_rung_would_save() {
    let two = |price, busy| Rates {
        min_scale: 2,
        ..rates(price, busy)
    };
    let mut account = Account::new(two(2.0, true), at(0));
    account.change(two(2.0, false), at(10));
    let spent = account.at(at(110)).today;
    near(spent.actual, 220.0);
    near(spent.knative, 220.0);
    near(spent.always_on, 220.0);
    // One of the two would stand for the window anyway.
    near(spent.min_scale, 60.0 + 80.0);
    near(spent.min_scale_cheaper, 6.0 + 8.0);
    account.change(rates(0.0, true), at(110));
    near(account.today.knative, 220.0);
}

#[test]
fn nobody_keeps_what_nobody_can_reach() {
    let old = Rates {
        reachable: false,
        min_scale: 3,
        ..rates(1.0, false)
    };
    let spent = Account::new(old, at(0)).at(at(100)).today;
    near(spent.actual, 100.0);
    near(spent.knative + spent.always_on + spent.min_scale, 0.0);
}

#[test]
fn what_a_bill_is_rounded_up_by_is_paid_at_once_and_for_good() {
    let costs = Costs::default();
    costs.change(&id("a"), rates(1.0, false), at(0));
    costs.charge(&id("a"), 50.0, at(10));
    costs.change(&id("a"), rates(1.0, true), at(20));
    costs.charge(&id("a"), 5.0, at(30));
    let spent = costs.of(&id("a"), at(40)).unwrap().today;
    near(spent.actual, 95.0);
    near(spent.idle, 70.0);
    near(spent.always_on, 40.0);
    // Its last sandbox goes after it.
    costs.forget(&id("a"), at(40));
    costs.charge(&id("a"), 3.0, at(41));
    near(costs.at(at(41)).total().actual, 98.0);
}

#[test]
fn a_day_ends_at_midnight() {
    let account = Account::new(rates(1.0, true), at(86_390));
    let next = account.at(at(86_500));
    near(next.yesterday.actual, 10.0);
    near(next.today.actual, 100.0);
    let later = account.at(at(10 * 86_400 + 7));
    near(later.today.actual, 7.0);
    near(later.yesterday.actual, 86_400.0);
}

#[test]
fn a_ledger_survives_a_restart_without_paying_for_the_time_between() {
    let costs = Costs::default();
    costs.change(&id("a"), rates(1.0, true), at(0));
    costs.change(&id("b"), rates(2.0, true), at(0));
    costs.change(&id("c"), rates(4.0, true), at(0));
    costs.forget(&id("c"), at(10));
    let text = serde_json::to_string(&costs.at(at(20))).unwrap();
    near(costs.at(at(20)).total().actual, 20.0 + 40.0 + 40.0);

    let again = Costs::resume(serde_json::from_str(&text).unwrap());
    near(again.at(at(100)).total().actual, 100.0);
    again.change(&id("a"), rates(1.0, true), at(100));
    near(again.of(&id("a"), at(105)).unwrap().today.actual, 25.0);
    near(again.at(at(105)).total().actual, 105.0);
    assert_eq!(again.of(&id("b"), at(105)), None);
    // What was written down in the middle is whole too.
    let text = serde_json::to_string(&again.at(at(105))).unwrap();
    near(
        Costs::resume(serde_json::from_str(&text).unwrap())
            .at(at(106))
            .total()
            .actual,
        105.0,
    );
    near(again.at(at(86_410)).total().actual, 10.0);
}
