//! A pool by hand.

use super::*;
use crate::simulate::by_hand::{function, prices, settings, trace};
use crate::trace::Function;

/// Each call takes a second.
fn of_size(name: &str, times: &[u64], mib: u64) -> Function {
    let times: Vec<f64> = times.iter().map(|at| *at as f64).collect();
    Function {
        memory: Some(Bytes(mib << 20)),
        ..function(name, &times, 1.0)
    }
}

fn run(trace: &Trace, mib: u64) -> Vec<(u64, u64, u64, u64, f64)> {
    let tallies = live(
        trace,
        &settings(),
        &Market::new("by hand", &prices()),
        Bytes(mib << 20),
        1,
    );
    let of = |it: Tally| (it.idle, it.cold, it.starts, it.refused, it.costs.idle);
    tallies.into_iter().map(of).collect()
}

/// Room for two of three. At 130 s, b (once, 0.02) goes for c and not a (twice, 0.04), though a is older: the clock stands at
/// 0.02. At 140 s, a (0.04) goes for b and not c (0.02 + 2 x 0.02); the clock stands at 0.04, and b at 0.06. At 150 s, b goes
/// for a: c has come to 0.02 + 3 x 0.02 at 145 s, since what the clock had become counts with the next use: 0.04 + 0.06.
#[test]
fn what_is_used_often_stays_and_old_fame_fades() {
    let functions = vec![
        of_size("a", &[100, 110, 150], 100),
        of_size("b", &[120, 140], 100),
        of_size("c", &[130, 135, 145], 100),
    ];
    assert_eq!(
        run(&trace(60, functions), 200),
        [
            (3, 2, 2, 0, 9.0 + 29.0 + 3449.0),
            (2, 2, 2, 0, 9.0 + 9.0),
            (3, 1, 1, 0, 4.0 + 9.0 + 3454.0),
        ]
    );
}

/// Per MiB a small one is worth more: the large one goes, although it was called more often.
#[test]
fn the_large_go_before_the_small() {
    let functions = vec![
        of_size("small", &[100], 50),
        of_size("large", &[110, 120], 150),
        of_size("new", &[130], 50),
    ];
    assert_eq!(
        run(&trace(60, functions), 200),
        [
            (1, 1, 1, 0, 3600.0 - 101.0),
            (2, 1, 1, 0, 9.0 + 9.0),
            (1, 1, 1, 0, 3600.0 - 131.0),
        ]
    );
}

#[test]
fn what_runs_is_not_evicted_and_what_finds_no_room_is_refused() {
    let functions = vec![of_size("a", &[100], 100), of_size("b", &[100], 100)];
    let got = run(&trace(60, functions), 150);
    assert_eq!(got, [(1, 1, 1, 0, 3499.0), (1, 1, 0, 1, 0.0)]);
    // One that is larger than the pool never runs.
    assert_eq!(
        run(&trace(60, vec![of_size("a", &[100], 151)]), 150),
        [(1, 1, 0, 1, 0.0)]
    );
}

#[test]
fn an_endless_pool_never_evicts_and_one_is_as_large_as_what_another_policy_holds() {
    let trace = trace(
        60,
        vec![of_size("a", &[100, 200, 2000], 100), of_size("b", &[1800], 300)],
    );
    let all = run(&trace, 400);
    assert_eq!(all, [(3, 1, 1, 0, 3600.0 - 100.0 - 3.0), (1, 1, 1, 0, 3600.0 - 1801.0)]);
    let hour = |a: u64, b: u64| (a * 100 + b * 300).div_ceil(3600);
    // Ten minutes after each call, a tick's half longer: 100 to 101, 101 to 200, 200 to 201 and 601 more, 2000 to 2001 and 601.
    let ten = held(
        &trace,
        &settings(),
        &Market::new("by hand", &prices()),
        Policy::KeepAlive(Duration::from_secs(600)),
        1,
    );
    assert_eq!(ten.0 >> 20, hour(3 + 99 + 601 + 601, 1 + 601));
    let always = held(
        &trace,
        &settings(),
        &Market::new("by hand", &prices()),
        Policy::AlwaysOne,
        1,
    );
    assert_eq!(always.0 >> 20, hour(3500, 1800));
}
