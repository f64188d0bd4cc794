use std::f64::consts::{PI, SQRT_2};

use super::*;

fn seconds(arrivals: &Arrivals, seconds: u64, seed: u64) -> Vec<f64> {
    arrivals
        .due_times(Duration::from_secs(seconds), seed)
        .map(|due| due.as_secs_f64())
        .collect()
}

#[test]
fn constant_keeps_its_distance_without_drift_and_ends_before_the_duration() {
    let due: Vec<_> = Arrivals::Constant(Rps(4.0))
        .due_times(Duration::from_secs(1), 0)
        .collect();
    assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
    let thirds = seconds(&Arrivals::Constant(Rps(3.0)), 1_000_000, 0);
    assert_eq!(thirds.len(), 3_000_000);
    assert!((thirds[2_999_997] - 999_999.0).abs() < 1e-6);
}

#[test]
fn bursts_come_at_once_whatever_the_duration_and_again_within_it() {
    assert_eq!(seconds(&Arrivals::Burst(3), 0, 0), [0.0, 0.0, 0.0]);
    let every = Duration::from_secs(4);
    assert_eq!(
        seconds(&Arrivals::Bursts { count: 2, every }, 10, 0),
        [0.0, 0.0, 4.0, 4.0, 8.0, 8.0]
    );
    assert!(seconds(&Arrivals::Silence, 10, 0).is_empty());
}

#[test]
fn given_ones_come_as_given_up_to_the_end() {
    let given = Given::new(|| {
        (0..5).map(|nth| Arrival {
            due: Duration::from_secs(nth),
            target: Some(1),
            values: Some([nth.to_string()].into()),
        })
    });
    let all: Vec<_> = Arrivals::Given(given).arrivals(Duration::from_secs(3), 0).collect();
    assert_eq!(all.len(), 3);
    assert_eq!(
        (all[2].target, all[2].values.as_deref()),
        (Some(1), Some(["2".to_owned()].as_slice()))
    );
}

#[test]
fn the_same_seed_gives_the_same_times() {
    let poisson = Arrivals::Poisson(Rps(50.0));
    let minute = Duration::from_secs(60);
    let times = |seed| poisson.due_times(minute, seed).collect::<Vec<_>>();
    assert_eq!(times(7), times(7));
    assert_ne!(times(7), times(8));
    // Written down once: a change of generator would silently change every published run.
    assert_eq!(times(7)[0], Duration::from_nanos(1_139_037));
}

type OfTime = fn(f64) -> f64;

/// Rates as plain functions of the time, to be cumulated by adding up small steps: nothing is taken from the code.
fn rates() -> Vec<(Rate, f64, OfTime)> {
    let sine = Rate::Sine {
        mean: Rps(30.0),
        swing: Rps(30.0),
        period: Duration::from_secs(20),
    };
    let (from, to) = (Rps(5.0), Rps(55.0));
    vec![
        (Rate::Constant(Rps(30.0)), 200.0, |_| 30.0),
        (Rate::Ramp { from, to }, 200.0, |time| 5.0 + 50.0 * time / 200.0),
        (Rate::Ramp { from: to, to: from }, 200.0, |time| {
            55.0 - 50.0 * time / 200.0
        }),
        (
            Rate::Steps([20.0, 0.0, 60.0, 40.0].map(Rps).to_vec()),
            200.0,
            |time| match time {
                ..50.0 => 20.0,
                ..100.0 => 0.0,
                ..150.0 => 60.0,
                _ => 40.0,
            },
        ),
        (sine, 200.0, |time| 30.0 + 30.0 * (2.0 * PI * time / 20.0).sin()),
    ]
}

/// Requests due before each of `times`, in steps of a millisecond.
fn cumulated(rate: OfTime, times: &[f64]) -> Vec<f64> {
    const STEP: f64 = 1e-3;
    let (mut clock, mut due) = (0.0, 0.0);
    let mut all = Vec::with_capacity(times.len());
    for &time in times {
        while clock + STEP <= time {
            due += rate(clock + STEP / 2.0) * STEP;
            clock += STEP;
        }
        all.push(due + rate(clock) * (time - clock));
    }
    all
}

#[test]
fn even_gaps_follow_a_rate_that_changes() {
    for (rate, length, function) in rates() {
        let name = format!("{rate:?}");
        let gaps = Gaps::Even;
        let times: Vec<f64> = shaped(rate, gaps, Duration::from_secs_f64(length), 1)
            .map(|due| due.as_secs_f64())
            .collect();
        assert!(times.is_sorted(), "{name}");
        assert!((times.len() as f64 - 6_000.0).abs() <= 1.0, "{name}: {}", times.len());
        for (nth, due) in cumulated(function, &times).into_iter().enumerate() {
            // The n-th request comes when n are due.
            assert!((due - nth as f64).abs() < 0.1, "{name}: {nth} came at {due}");
        }
    }
}

/// The distance of Kolmogorov and Smirnov between `values` and a distribution.
fn distance(values: &[f64], below: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    sorted.iter().enumerate().fold(0.0_f64, |worst, (rank, value)| {
        let ideal = below(*value);
        worst
            .max((ideal - rank as f64 / n).abs())
            .max((ideal - (rank + 1) as f64 / n).abs())
    })
}

/// The error function, by Abramowitz and Stegun 7.1.26: to 1.5e-7.
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let sum = ((((1.061_405_429 * t - 1.453_152_027) * t + 1.421_413_741) * t - 0.284_496_736) * t + 0.254_829_592) * t;
    (1.0 - sum * (-x * x).exp()).copysign(x)
}

/// The marks of a renewal process of a rate that changes, each refuted by a different mistake: in the time in which the
/// rate is always 1, the gaps have their distribution (Kolmogorov and Smirnov), and each says nothing about the next.
#[test]
fn gaps_have_their_distribution_at_every_rate() {
    type Below = fn(f64) -> f64;
    let kinds: [(Gaps, Below); 4] = [
        (Gaps::Exponential, |gap| 1.0 - (-gap).exp()),
        (Gaps::Pareto { shape: 1.5 }, |gap| {
            1.0 - (0.5 / 1.5 / gap).powf(1.5).min(1.0)
        }),
        (Gaps::Pareto { shape: 2.5 }, |gap| {
            1.0 - (1.5 / 2.5 / gap).powf(2.5).min(1.0)
        }),
        (Gaps::Lognormal { sigma: 1.2 }, |gap| {
            0.5 * (1.0 + erf((gap.ln() + 1.2 * 1.2 / 2.0) / (1.2 * SQRT_2)))
        }),
    ];
    for (gaps, below) in kinds {
        for (rate, length, function) in rates() {
            for seed in 0..5 {
                let name = format!("{gaps:?}, {rate:?}, seed {seed}");
                let times: Vec<f64> = shaped(rate.clone(), gaps, Duration::from_secs_f64(length), seed)
                    .map(|due| due.as_secs_f64())
                    .collect();
                let due = cumulated(function, &times);
                let steps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
                let n = steps.len() as f64;
                // 1.95 / sqrt(n) is the critical distance at 0.1 %.
                let far = distance(&steps, below);
                assert!(far < 1.95 / n.sqrt(), "{name}: distance {far}");
                // Neighbours by rank: whether both are long as often as chance would have it (four sigma).
                let median = {
                    let mut sorted = steps.clone();
                    sorted.sort_by(f64::total_cmp);
                    sorted[sorted.len() / 2]
                };
                let both = steps.windows(2).filter(|pair| pair[0] > median && pair[1] > median);
                let share = both.count() as f64 / n;
                assert!(
                    (share - 0.25).abs() < 4.0 * (3.0_f64 / 16.0 / n).sqrt(),
                    "{name}: {share}"
                );
            }
        }
    }
}

/// Of a Poisson process also: as many as asked for, and counts of equal parts have their mean as variance.
#[test]
fn poisson_counts_scatter_as_they_must() {
    const RATE: f64 = 40.0;
    const SECONDS: usize = 500;
    for seed in 0..20 {
        let poisson = Arrivals::Poisson(Rps(RATE));
        let due = seconds(&poisson, SECONDS as u64, seed);
        let (n, expected) = (due.len() as f64, RATE * SECONDS as f64);
        assert!(
            (n - expected).abs() < 4.0 * expected.sqrt(),
            "seed {seed}: {n} arrivals"
        );
        let mut counts = [0.0_f64; SECONDS];
        for at in poisson.due_times(Duration::from_secs(SECONDS as u64), seed) {
            counts[usize::try_from(at.as_secs()).expect("small")] += 1.0;
        }
        let variance = counts.iter().map(|count| (count - RATE).powi(2)).sum::<f64>() / SECONDS as f64;
        // The variance of 500 counts scatters by sqrt(2 / 500) = 6 %; four of them.
        assert!(
            (variance / RATE - 1.0).abs() < 0.26,
            "seed {seed}: dispersion {}",
            variance / RATE
        );
    }
}

#[test]
fn mean_rates_are_what_is_asked_for() {
    let hour = Duration::from_secs(3_600);
    let mean = |rate| {
        let gaps = Gaps::Even;
        Arrivals::Shaped { rate, gaps }.mean_rate(hour).expect("has one").0
    };
    let (from, to) = (Rps(10.0), Rps(30.0));
    assert!((mean(Rate::Ramp { from, to }) - 20.0).abs() < 1e-9);
    assert!((mean(Rate::Steps(vec![from, to, to])) - 70.0 / 3.0).abs() < 1e-9);
    assert_eq!(Arrivals::Burst(3).mean_rate(hour), None);
}

#[test]
fn what_cannot_be_is_said() {
    let gaps = |gaps| Arrivals::Shaped {
        rate: Rate::Constant(Rps(1.0)),
        gaps,
    };
    let rate = |rate| Arrivals::Shaped { rate, gaps: Gaps::Even };
    let second = Duration::from_secs(1);
    for (wrong, words) in [
        (Arrivals::Poisson(Rps(0.0)), "more than 0 and finite"),
        (Arrivals::Constant(Rps(f64::NAN)), "more than 0 and finite"),
        (Arrivals::Constant(Rps(f64::INFINITY)), "more than 0 and finite"),
        (
            rate(Rate::Ramp {
                from: Rps(-1.0),
                to: Rps(1.0),
            }),
            "at least 0",
        ),
        (
            rate(Rate::Ramp {
                from: Rps(0.0),
                to: Rps(0.0),
            }),
            "more than 0",
        ),
        (rate(Rate::Steps(vec![])), "more than 0"),
        (
            rate(Rate::Sine {
                mean: Rps(10.0),
                swing: Rps(11.0),
                period: second,
            }),
            "from 0 to the mean rate, 10",
        ),
        (
            rate(Rate::Sine {
                mean: Rps(10.0),
                swing: Rps(1.0),
                period: Duration::ZERO,
            }),
            "the period must be more than 0s",
        ),
        (gaps(Gaps::Pareto { shape: 1.0 }), "more than 1"),
        (gaps(Gaps::Lognormal { sigma: 0.0 }), "more than 0 and at most 5"),
        (
            Arrivals::Bursts {
                count: 1,
                every: Duration::ZERO,
            },
            "more than 0s apart",
        ),
    ] {
        let error = wrong.check().expect_err("is wrong");
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(
        rate(Rate::Ramp {
            from: Rps(0.0),
            to: Rps(5.0)
        })
        .check(),
        Ok(())
    );
}
