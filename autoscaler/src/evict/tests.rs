//! What a sandbox is worth, the order, and how many go.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::EPOCH.plus(Duration::from_secs(1_000_000 + seconds))
}

/// (name, rung, MiB, start ms, wake ms, used at, then again at)
fn standing(name: &str, rung: Rung, mib: u64, start: u64, used: &[u64]) -> Standing {
    let mut rhythm = Rhythm::default();
    used.iter().for_each(|seconds| rhythm.asked(at(*seconds)));
    Standing {
        revision: RevisionId::new("default", name),
        sandbox: SandboxId::new(name),
        rung,
        memory: Bytes(mib << 20),
        start: Duration::from_millis(start),
        wake: Duration::from_millis(1),
        rhythm,
    }
}

fn names(order: &[Standing]) -> Vec<&str> {
    order.iter().map(|standing| standing.revision.name()).collect()
}

#[test]
fn the_least_valuable_goes_first() {
    let all = vec![
        standing("full", Rung::Full, 100, 101, &[0, 60]),
        standing("throttled", Rung::Throttled, 100, 101, &[0, 60]),
        // Frozen: by what the loss costs per MiB.
        standing("slow-start", Rung::Frozen, 100, 2001, &[0, 60]),
        standing("often", Rung::Frozen, 100, 101, &[0, 10, 20, 60]),
        standing("small", Rung::Frozen, 10, 101, &[0, 60]),
        standing("plain", Rung::Frozen, 100, 101, &[0, 60]),
        standing("starts-as-fast", Rung::Frozen, 1, 1, &[0, 60]),
    ];
    let sorted = order(all, at(60));
    assert_eq!(
        names(&sorted),
        [
            "starts-as-fast",
            "plain",
            "often",
            "small",
            "slow-start",
            "throttled",
            "full"
        ]
    );
}

#[test]
fn a_rhythm_is_the_usual_gap_and_fades() {
    let mut rhythm = Rhythm::default();
    assert_eq!(rhythm.per_hour(at(0)), 6.0, "nothing known");
    for second in [0, 1, 2] {
        rhythm.asked(at(second));
    }
    assert_eq!(rhythm.per_hour(at(2)), 6.0, "one use, however long");
    rhythm.asked(at(62));
    assert_eq!(rhythm.per_hour(at(62)), 60.0);
    assert_eq!(rhythm.per_hour(at(122)), 60.0, "the gap is not over yet");
    assert_eq!(rhythm.per_hour(at(422)), 10.0, "it has been longer than usual");
    rhythm.asked(at(422));
    assert_eq!(rhythm.per_hour(at(422)), 3600.0 / 210.0, "half of each");
}

#[test]
fn as_many_as_needed_and_none_in_vain() {
    let all = || -> Vec<_> {
        (1..=3)
            .map(|n| standing(&format!("s{n}"), Rung::Frozen, 10, 100, &[]))
            .collect()
    };
    let chosen = |mib: u64, enough| choose(all(), Bytes(mib << 20), enough).len();
    let table = [(0, 0, 0), (1, 1, 1), (10, 1, 1), (11, 2, 2), (30, 3, 3), (31, 0, 3)];
    for (mib, whole, some) in table {
        assert_eq!(
            (chosen(mib, Enough::All), chosen(mib, Enough::Some)),
            (whole, some),
            "{mib}"
        );
    }
    assert_eq!(choose(Vec::new(), Bytes(1), Enough::Some), []);
}

#[test]
fn chosen_ones_are_a_front_and_no_longer_than_needed() {
    for seed in 0..256 {
        let mut rng = StdRng::seed_from_u64(seed);
        let all: Vec<Standing> = (0..rng.random_range(0..30))
            .map(|n| {
                let rung = [Rung::Frozen, Rung::Throttled, Rung::Full][rng.random_range(0..3)];
                let used: Vec<u64> = (0..rng.random_range(0..5)).map(|_| rng.random_range(0..900)).collect();
                let mut used = used;
                used.sort_unstable();
                standing(
                    &format!("s{n}"),
                    rung,
                    rng.random_range(0..64),
                    rng.random_range(0..3000),
                    &used,
                )
            })
            .collect();
        let sorted = order(all.clone(), at(1000));
        assert!(sorted.is_sorted_by_key(|s| s.rung), "seed {seed}");
        let mut backwards = all;
        backwards.reverse();
        assert_eq!(
            order(backwards, at(1000)),
            sorted,
            "seed {seed}: same input, same order"
        );
        let shortage = Bytes(rng.random_range(0..1000 << 20));
        let sum = |some: &[Standing]| some.iter().map(|s| s.memory.0).sum::<u64>();
        for enough in [Enough::All, Enough::Some] {
            let chosen = choose(sorted.clone(), shortage, enough);
            assert!(sorted.starts_with(&chosen), "seed {seed}");
            if let Some((_, but_one)) = chosen.split_last() {
                assert!(sum(but_one) < shortage.0, "seed {seed}: one too many");
            }
            match enough {
                Enough::All => assert!(chosen.is_empty() || sum(&chosen) >= shortage.0, "seed {seed}"),
                Enough::Some => assert!(
                    sum(&chosen) >= shortage.0 || chosen.len() == sorted.len(),
                    "seed {seed}"
                ),
            }
        }
    }
}
