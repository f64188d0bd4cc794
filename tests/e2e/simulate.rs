//! `knarr simulate` from the command line: what it prints, and what it says of wrong words.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::support::{KNARR, Output, Place};

/// Three functions for an hour: one often, one each ten minutes, one once.
fn place() -> Arc<Place> {
    let place = Place::new();
    let mut calls = String::from("timestamp,service\n");
    for second in (0..3600).step_by(7) {
        calls += &format!("{second},often\n");
    }
    for second in (5..3600).step_by(600) {
        calls += &format!("{second},sometimes\n");
    }
    calls += "1234.5,once\n3599,often\n";
    fs::write(place.path("calls.csv"), calls).unwrap();
    place
}

fn simulate(place: &Place, words: &[&str]) -> Output {
    let path = place.path("calls.csv");
    told(&[&[path.to_str().unwrap()], words].concat())
}

/// What it says to these words.
fn told(words: &[&str]) -> Output {
    let mut command = Command::new(KNARR);
    command.arg("simulate").args(words).stdin(Stdio::null());
    Output::of(command)
}

fn rows(output: Output) -> Vec<Value> {
    serde_json::from_str(&output.well().out).unwrap()
}

#[test]
fn policies_are_compared_and_the_same_seed_says_the_same() {
    let place = place();
    let words = [
        "--policy",
        "knative",
        "--policy",
        "always-one",
        "--market",
        "equal",
        "--engine",
        "fleet",
    ];
    let json = || rows(simulate(&place, &[&words[..], &["--output", "json"]].concat()));
    let (first, again) = (json(), json());
    assert_eq!(first, again);
    let number = |row: usize, key: &str| first[row][key].as_f64().unwrap();
    assert_eq!((first.len(), first[0]["policy"].as_str()), (2, Some("knative")));
    assert!(number(0, "idle_cost") < number(1, "idle_cost"), "{first:?}");
    assert!(number(0, "cold") > number(1, "cold"), "{first:?}");
    let table = simulate(&place, &words).well().out;
    assert!(
        table.contains("engine fleet") && table.contains("OF KNATIVE") && table.contains("always-one"),
        "{table}"
    );
    let svg = simulate(&place, &["--output", "svg", "--market", "equal", "--engine", "gaps"])
        .well()
        .out;
    assert!(
        svg.starts_with("<svg ") && svg.contains("reserve at equal speed"),
        "{svg}"
    );
}

#[test]
fn the_verdict_sets_the_exit_code() {
    let place = place();
    let verdict = simulate(&place, &["--evaluate", "--seeds", "2", "--engine", "gaps"]);
    assert_eq!(verdict.code, Some(0), "{}", verdict.out);
    assert!(verdict.out.contains("DEMANDED"), "{}", verdict.out);
    // Knative is never late here when starts take no time: what is demanded of it does not hold.
    let quick = [
        "--evaluate",
        "--seeds",
        "2",
        "--engine",
        "gaps",
        "--start-median",
        "1ms",
        "--check",
    ];
    let checked = simulate(&place, &quick);
    assert_eq!(checked.code, Some(1), "{}", checked.out);
    assert!(checked.out.contains("DOES NOT HOLD"), "{}", checked.out);
}

#[test]
fn wrong_words_are_told() {
    let place = place();
    for (words, said) in [
        (&["--policy", "best"][..], "\"best\" is no policy; there are auto"),
        (&["--memory-budget", "much"], "--memory-budget: \"much\" is not a size"),
        (&["--quantile", "99"], "must be a number between 0 and 1"),
        (&["--seeds", "0"], "0 is not in 1..=10000"),
        (&["--check"], "--evaluate"),
        (&["--start-sigma", "9"], "must be a number from 0 to 5"),
    ] {
        let output = simulate(&place, words);
        assert_ne!(output.code, Some(0), "{words:?}");
        assert!(output.err.contains(said), "{words:?}: {}", output.err);
    }
    let missing = told(&["no-such-trace"]);
    assert!(missing.err.contains("cannot read no-such-trace"), "{}", missing.err);
    fs::write(place.path("calls.csv"), "timestamp,service\nsoon,a\n").unwrap();
    let broken = simulate(&place, &[]);
    assert!(broken.err.contains("line 2, timestamp: \"soon\""), "{}", broken.err);
}
