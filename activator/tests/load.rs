//! The accounting word and the samples made of it: the sum of what is reported equals what really happened.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use activator::Limits;
use activator::load::{Area, LoadWord};
use manifests::units::{Clock, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{START, World};

fn at(micros: u64) -> Timestamp {
    Timestamp::from_nanos(micros * 1_000)
}

#[test]
fn word_holds_the_integral() {
    let word = LoadWord::default();
    assert_eq!(word.see().area(at(5)), Area::default());
    word.start(at(10));
    word.start(at(20));
    assert_eq!(word.see().in_flight(), 2);
    assert_eq!(word.see().area(at(30)).since(Area::default()), 20 + 10);
    word.end(at(30));
    assert_eq!(word.see().area(at(100)).since(Area::default()), 90 + 10);
    word.end(at(100));
    assert_eq!(word.see().in_flight(), 0);
    assert_eq!(
        word.see().area(at(1_000)).since(Area::default()),
        90 + 10,
        "nothing runs any more"
    );
}

#[test]
fn word_survives_the_wrap_of_its_clock_and_of_its_sum() {
    let wrap = 1 << 44;
    for begin in [wrap - 5, 3 * wrap - 1, wrap, START.as_micros()] {
        let word = LoadWord::default();
        let before = word.see().area(at(begin));
        for _ in 0..1_000 {
            word.start(at(begin));
        }
        assert_eq!(word.see().in_flight(), 1_000, "the sum has not run into the count");
        assert_eq!(word.see().area(at(begin + 10)).since(before), 10_000);
        for _ in 0..1_000 {
            word.end(at(begin + 10));
        }
        assert_eq!(word.see().area(at(begin + wrap)).since(before), 10_000);
        assert_eq!(word.see().in_flight(), 0);
    }
}

#[test]
fn samples_of_random_lives_sum_to_the_truth() {
    for seed in 0..256 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (word, mut now, mut truth, mut sampled) = (LoadWord::default(), START.as_micros(), 0_u64, 0_i64);
        let (mut running, mut last) = (0_u64, word.see().area(at(now)));
        for _ in 0..500 {
            let by = rng.random_range(0..100_000);
            now += by;
            truth += running * by;
            match rng.random_range(0..5) {
                0 | 1 => {
                    word.start(at(now));
                    running += 1;
                }
                2 | 3 if running > 0 => {
                    word.end(at(now));
                    running -= 1;
                }
                _ => {
                    let area = word.see().area(at(now));
                    sampled += area.since(last);
                    last = area;
                }
            }
        }
        sampled += word.see().area(at(now)).since(last);
        assert_eq!(sampled, truth.cast_signed(), "seed {seed}");
    }
}

/// One thread writes while another reads: no sample may be torn. The clock is a counter that both drive, so the truth is
/// known exactly and nothing depends on speed.
#[test]
fn a_reader_beside_the_writer_loses_nothing() {
    let (word, time) = (
        Arc::new(LoadWord::default()),
        Arc::new(AtomicU64::new(START.as_micros())),
    );
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (word, time, done) = (Arc::clone(&word), Arc::clone(&time), Arc::clone(&done));
        move || {
            let (mut sum, mut last) = (0_i64, Area::default());
            while !done.load(Ordering::SeqCst) {
                let seen = word.see();
                let area = seen.area(at(time.load(Ordering::SeqCst)));
                let step = area.since(last);
                assert!(step.abs() < 1 << 40, "a torn sample: {step} us");
                sum += step;
                last = area;
            }
            (sum, last)
        }
    });
    let mut truth = 0_u64;
    for round in 0..200_000_u64 {
        let begin = time.fetch_add(3, Ordering::SeqCst) + 3;
        word.start(at(begin));
        let end = time.fetch_add(round % 7, Ordering::SeqCst) + round % 7;
        word.end(at(end));
        truth += end - begin;
    }
    done.store(true, Ordering::SeqCst);
    let (sum, last) = reader.join().unwrap();
    let rest = word.see().area(at(time.load(Ordering::SeqCst))).since(last);
    assert_eq!(sum + rest, truth.cast_signed());
}

/// Whole pools: four threads with real requests and a reporter beside them. Each look at the clock lasts a microsecond
/// and nothing else does, so the truth is known to the microsecond.
#[test]
fn reports_sum_to_what_the_requests_lasted() {
    const THREADS: usize = 4;
    thread_local!(static LOOKED: Cell<Timestamp> = const { Cell::new(Timestamp::EPOCH) });
    let time = Arc::new(AtomicU64::new(START.as_micros()));
    let clock: Clock = Arc::new(move || {
        let now = at(time.fetch_add(1, Ordering::SeqCst));
        LOOKED.set(now);
        now
    });
    let mut world = World::with_clock(THREADS + 1, Limits::default(), Arc::clone(&clock), Arc::default());
    let pool = world.deploy("a", 0);
    world.serve("a", &["s"]);
    // One request that lasts all the while, so that no sample is the first of an idle revision.
    let whole = pool.enter(THREADS, clock());
    let begin = clock();
    world.pools.report(begin);

    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (pool, clock) = (Arc::clone(&pool), Arc::clone(&clock));
            std::thread::spawn(move || {
                let mut lasted = Duration::ZERO;
                for _ in 0..5_000 {
                    let start = clock();
                    let entered = pool.enter(thread, start);
                    drop(pool.try_slot().unwrap());
                    drop(entered);
                    lasted += LOOKED.get().since(start);
                }
                lasted
            })
        })
        .collect();
    let (mut sampled, mut arrivals, mut last) = (0.0, 0.0, begin);
    let mut report = || {
        let now = clock();
        let period = now.since(std::mem::replace(&mut last, now)).as_secs_f64();
        for load in world.pools.report(now).revisions {
            sampled += load.concurrency.0 * period;
            arrivals += load.rps.0 * period;
        }
        now
    };
    while threads.iter().any(|thread| !thread.is_finished()) {
        report();
    }
    let truth: Duration = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let end = report();
    let truth = truth + end.since(begin);
    assert_eq!(pool.in_flight(), 1);
    drop(whole);
    assert!((arrivals - 20_000.0).abs() < 1e-3, "{arrivals} arrivals");
    // Samples read the clock once per word, a few microseconds after the `now` they are given.
    let off = sampled - truth.as_secs_f64();
    assert!(off.abs() < 50e-6, "{sampled} s sampled, {truth:?} true");
}

#[test]
fn an_idle_revision_counts_its_first_request_as_knative_does() {
    let mut world = World::new(1, Limits::default());
    let pool = world.deploy("a", 0);
    world.serve("a", &["s"]);
    let second = Duration::from_secs(1);
    let report = |world: &World| {
        world.pass(second);
        world
            .pools
            .report(world.now())
            .revisions
            .pop()
            .map(|load| (load.concurrency.0, load.rps.0))
    };
    assert_eq!(report(&world), None, "nothing has happened");
    // 10 ms of work: Knative says 1 at once and max(average - 1, 0) at the end of the second.
    let entered = pool.enter(0, world.now());
    world.pass(Duration::from_millis(10));
    drop(entered);
    assert_eq!(report(&world), Some((1.0, 1.0 / 1.01)));
    // The revision is in the table now: plain averages.
    let entered = pool.enter(0, world.now());
    world.pass(Duration::from_millis(250));
    drop(entered);
    world.time.fetch_sub(250_000_000, Ordering::SeqCst);
    world.pass(Duration::from_millis(250));
    assert_eq!(report(&world), Some((0.2, 0.8)));
    // An empty second is said once, then it leaves the table.
    assert_eq!(report(&world), Some((0.0, 0.0)));
    assert_eq!(report(&world), None);
}
