use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::record::{Answer, ErrorKind, Outcome, Recorder, Sent};
use crate::results::{Endpoint, Stage};
use crate::server_timing::Timing;

/// A run of 20 s at 100/s. Latencies wander: each 200 ms have a level of their own that remembers the last one, as on a real
/// machine. `slower` multiplies them; `errors` is the share of requests without an answer.
fn run(seed: u64, slower: f64, errors: f64) -> Results {
    let mut draws = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut recorder = Recorder::new();
    let mut level = 0.0;
    for nth in 0..2_000_u32 {
        let due = Duration::from_millis(10) * nth;
        if nth % 20 == 0 {
            level = 0.7 * level + 0.2 * (draws.random::<f64>() - 0.5);
        }
        // About exponential, 5 ms on average, over a floor of 1 ms.
        let own: f64 = -(1.0 - draws.random::<f64>()).ln() * 5.0;
        let cold = nth % 100 == 50;
        let millis = (1.0 + own * (1.0 + level) + if cold { 200.0 } else { 0.0 }) * slower;
        let end = due + Duration::from_secs_f64(millis / 1e3);
        let outcome = if draws.random::<f64>() < errors {
            Outcome::Failed(ErrorKind::Closed, String::new())
        } else {
            Outcome::Answered(Answer {
                status: 200,
                first_byte: end,
                body_bytes: 0,
                timing: Timing {
                    temperature: if cold { Temperature::Cold } else { Temperature::Warm },
                    ..Timing::default()
                },
            })
        };
        recorder.issued(due, due);
        recorder.over(
            Sent {
                stage: 0,
                target: 0,
                due,
            },
            outcome,
            end,
        );
    }
    let mut results = empty(&["app"]);
    recorder.fill(&mut results);
    results
}

fn empty(targets: &[&str]) -> Results {
    let stage = Stage {
        name: "all".to_owned(),
        start: Duration::ZERO,
        end: Duration::from_secs(20),
        arrivals: String::new(),
        asked_rate: None,
        closed_loop: false,
        beside: false,
    };
    let target = |name: &&str| Endpoint {
        name: (*name).to_owned(),
        url: String::new(),
        protocol: "h1".to_owned(),
    };
    let targets = targets.iter().map(target).collect();
    Results::new("100/s".to_owned(), 1, vec![stage], targets)
}

fn options() -> Options {
    Options {
        resamples: 500,
        ..Options::default()
    }
}

fn of(comparison: &Comparison, temperature: Option<Temperature>, figure: &str) -> Difference {
    let found = comparison.differences.iter();
    let mut found = found.filter(|it| it.temperature == temperature && it.figure == figure);
    found.next().expect("compared").clone()
}

#[test]
fn equal_runs_differ_by_noise() {
    let mut worse_or_better = 0;
    for seed in 0..30 {
        let comparison = compare(&run(seed, 1.0, 0.02), &run(seed + 100, 1.0, 0.02), options()).expect("compares");
        worse_or_better += comparison
            .differences
            .iter()
            .filter(|it| it.verdict != Judgement::Noise)
            .count();
    }
    // 30 runs of 9 figures at 99 %: a few may be wrong by chance, and tails are hard.
    assert!(worse_or_better <= 9, "{worse_or_better} of 270");
    let one = run(1, 1.0, 0.02);
    let same = compare(&one, &one, options()).expect("compares");
    assert!(
        same.differences
            .iter()
            .all(|it| it.verdict == Judgement::Noise && it.low <= 0.0 && it.high >= 0.0)
    );
}

#[test]
fn a_real_difference_is_found_with_its_size_and_direction() {
    // The median of the latencies as they are made, in milliseconds, 30 % slower.
    let truth = (1.0 + 5.0 * 2_f64.ln()) * 0.3;
    let mut covered = 0;
    for seed in 0..10 {
        let (a, b) = (run(seed, 1.0, 0.0), run(seed + 100, 1.3, 0.1));
        let comparison = compare(&a, &b, options()).expect("compares");
        let p50 = of(&comparison, None, "p50");
        assert_eq!(p50.verdict, Judgement::Worse, "seed {seed}\n{comparison}");
        covered += u32::from((p50.low..p50.high).contains(&truth));
        assert_eq!(of(&comparison, None, "errors").verdict, Judgement::Worse);
        assert_eq!(
            of(&comparison, Some(Temperature::Warm), "p50").verdict,
            Judgement::Worse
        );
        assert!(comparison.regressed());
        let back = compare(&b, &a, options()).expect("compares");
        assert_eq!(of(&back, None, "p50").verdict, Judgement::Better);
        assert!(!back.regressed());
    }
    assert!(covered >= 8, "{covered} of 10 intervals hold {truth}");
}

#[test]
fn small_differences_are_noise_however_sure_and_few_requests_have_no_p99() {
    let comparison = compare(&run(1, 1.0, 0.0), &run(1, 1.03, 0.0), options()).expect("compares");
    let p50 = of(&comparison, Some(Temperature::Warm), "p50");
    assert!(p50.b > p50.a && p50.verdict == Judgement::Noise, "{p50:?}");
    let cold: Vec<_> = comparison
        .differences
        .iter()
        .filter(|it| it.temperature == Some(Temperature::Cold))
        .map(|it| it.figure)
        .collect();
    assert_eq!(cold, ["p50"], "of 20 cold starts two lie beyond p90");
    let table = comparison.to_string();
    assert!(table.contains("99% interval") && table.contains("noise"), "{table}");
}

#[test]
fn the_same_seed_draws_the_same_intervals() {
    let (a, b) = (run(1, 1.0, 0.0), run(2, 1.1, 0.0));
    let first = compare(&a, &b, options()).expect("compares");
    assert_eq!(first, compare(&a, &b, options()).expect("compares"));
    let other = Options { seed: 2, ..options() };
    assert_ne!(first.differences, compare(&a, &b, other).expect("compares").differences);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let error = |a: &Results, b: &Results| compare(a, b, options()).expect_err("refused").to_string();
    let closed = Results {
        closed_loop: true,
        ..empty(&["app"])
    };
    assert!(error(&empty(&["app"]), &closed).contains("open loop"));
    assert_eq!(
        error(&empty(&["a", "b"]), &empty(&["c"])),
        "the runs have no target in common: a, b in one, c in the other"
    );
    let unsure = Options {
        confidence: 1.0,
        ..options()
    };
    assert!(compare(&empty(&["a"]), &empty(&["a"]), unsure).is_err());
}

#[test]
fn a_burst_is_said_to_be_one_observation() {
    let burst = |slower: u64| {
        let mut recorder = Recorder::new();
        for nth in 0..200 {
            let end = Duration::from_millis(slower * nth);
            let request = Sent {
                stage: 0,
                target: 0,
                due: Duration::ZERO,
            };
            let answer = Answer {
                status: 200,
                first_byte: end,
                body_bytes: 0,
                timing: Timing::default(),
            };
            recorder.issued(Duration::ZERO, Duration::ZERO);
            recorder.over(request, Outcome::Answered(answer), end);
        }
        let mut results = empty(&["app"]);
        recorder.fill(&mut results);
        results
    };
    let comparison = compare(&burst(1), &burst(2), options()).expect("compares");
    assert_eq!(of(&comparison, None, "p50").verdict, Judgement::Worse);
    assert!(
        comparison.notes.iter().any(|note| note.contains("one by one")),
        "{comparison}"
    );
}
