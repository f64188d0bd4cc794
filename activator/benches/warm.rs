//! What the warm path costs here: enter, take a slot, give it back, leave. Run with
//!
//! ```text
//! cargo bench -p knarr-activator
//! ```
//!
//! Prints milliseconds per snapshot of 100,000 revisions, and nanoseconds per request for one and two threads, on one
//! revision and on one revision per thread. Each is repeated and the median is shown with its spread; nothing is
//! asserted.

#![cfg(not(loom))]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::{Arc, Barrier};

use activator::{Limits, Pool};
use manifests::ids::RevisionId;
use manifests::revision::Revision;
use manifests::units::Clock;
use support::World;

const REQUESTS: u32 = 500_000;
const ROUNDS: usize = 9;

fn main() {
    // `cargo test --benches` runs this too: once is enough there.
    let rounds = if std::env::args().any(|argument| argument == "--bench") {
        ROUNDS
    } else {
        1
    };
    let clock = process_clock();
    println!(
        "{:<44} {:>10} {:>17}",
        "enter + try_slot + drop, ns per request", "median", "min..max"
    );
    let looks = |_| {
        let start = clock();
        for _ in 0..REQUESTS {
            std::hint::black_box((clock(), clock()));
        }
        clock().since(start).as_secs_f64() * 1e9 / f64::from(REQUESTS)
    };
    show("of which two looks at the clock", (0..rounds).map(looks).collect());
    snapshots(&clock, rounds);
    for (limit, sandboxes) in [(0, 1), (0, 8), (1, 8), (100, 8)] {
        for threads in [1, 2] {
            for shared in [true, false] {
                if threads == 1 && !shared {
                    continue;
                }
                let times = (0..rounds)
                    .map(|_| round(&clock, limit, sandboxes, threads, shared))
                    .collect();
                let revisions = if shared { "one revision" } else { "one each" };
                show(
                    &format!("limit {limit}, {sandboxes} sandboxes, {threads} threads, {revisions}"),
                    times,
                );
            }
        }
    }
}

/// Milliseconds for a snapshot of 100,000 revisions of which one has changed.
fn snapshots(clock: &Clock, rounds: usize) {
    let mut world = World::with_clock(1, Limits::default(), Arc::clone(clock), Arc::default());
    let shape = support::revision("shape", 0);
    let mut change = |number: usize, generation: u64| {
        let id = RevisionId::new("default", format!("app-{number:05}"));
        let revision = Arc::new(Revision {
            id: id.clone(),
            ..shape.clone()
        });
        world.snapshot.revisions.insert(id, revision);
        world.snapshot.generation.counter = generation;
        let start = clock();
        if generation > 0 {
            world.pools.apply_snapshot(&world.snapshot);
        }
        clock().since(start).as_secs_f64() * 1e3
    };
    for number in 0..100_000 {
        change(number, 0);
    }
    println!("{:<44} {:>10.0}", "snapshot, 100,000 new revisions, ms", change(0, 1));
    let times = (0..rounds).map(|round| change(round, 2)).collect();
    show("snapshot, 100,000 revisions, 1 changed, ms", times);
}

fn show(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let spread = format!("{:.0}..{:.0}", times[0], times[times.len() - 1]);
    println!("{name:<44} {:>10.0} {spread:>17}", times[times.len() / 2]);
}

/// Nanoseconds per request of one thread while `threads` do the same.
fn round(clock: &Clock, limit: u32, sandboxes: usize, threads: usize, shared: bool) -> f64 {
    let mut world = World::with_clock(threads, Limits::default(), Arc::clone(clock), Arc::default());
    let names: Vec<String> = (0..sandboxes).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut pools = Vec::new();
    for thread in 0..threads {
        let revision = if shared { "a".to_owned() } else { format!("a{thread}") };
        pools.push(world.deploy(&revision, limit));
        world.serve(&revision, &names);
    }
    let begin = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = pools
        .into_iter()
        .enumerate()
        .map(|(thread, pool)| {
            let (clock, begin) = (Arc::clone(clock), Arc::clone(&begin));
            std::thread::spawn(move || {
                begin.wait();
                let start = clock();
                for _ in 0..REQUESTS {
                    request(&pool, thread, &clock);
                }
                clock().since(start).as_secs_f64() * 1e9 / f64::from(REQUESTS)
            })
        })
        .collect();
    let times: Vec<f64> = workers.into_iter().filter_map(|worker| worker.join().ok()).collect();
    times.iter().sum::<f64>() / f64::from(u32::try_from(threads).unwrap_or(1))
}

fn request(pool: &Arc<Pool>, thread: usize, clock: &Clock) {
    let entered = pool.enter(thread, clock());
    drop(std::hint::black_box(pool.try_slot()));
    drop(entered);
}

fn process_clock() -> Clock {
    #[expect(clippy::disallowed_methods, reason = "the benchmark is its own shell")]
    let start = std::time::Instant::now();
    Arc::new(move || support::START.plus(start.elapsed()))
}
