//! What the flight recorder costs: bytes and time, with busy revisions that report once a second among idle ones.
//!
//! `cargo run --release -p knarr-autoscaler --example flight -- [IDLE] [BUSY] [SECONDS]`

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use autoscaler::Output;
use autoscaler::explain::Explain;
use autoscaler::fleet::{Event, Fleet};
use autoscaler::flight::file::Blocks;
use manifests::exchange::{LoadKind, LoadReport, RevisionLoad, Snapshot, Work};
use manifests::ids::{GatewayId, Generation, RevisionId};
use manifests::revision::Revision;
use manifests::units::{Bytes, Concurrency, Replicas, Rps, Timestamp};
use manifests::workload::Workload;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use sandbox::driver::{Capacity, Phases, Started};

struct Cost {
    /// In the fleet.
    time: Duration,
    lines: usize,
    compressed: usize,
    /// In the compressor.
    compressing: Duration,
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().unwrap());
    let (idle, busy, seconds) = (
        args.next().unwrap_or(100_000),
        args.next().unwrap_or(1000),
        args.next().unwrap_or(300),
    );
    println!("{idle} idle revisions, {busy} that report once a second, {seconds} s");
    let without = run(idle, busy, seconds, false);
    let with = run(idle, busy, seconds, true);
    let per = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(seconds);
    println!("fleet without     {:8.3} ms per second", per(without.time));
    println!("fleet with        {:8.3} ms per second", per(with.time));
    println!(
        "compressing       {:8.3} ms per second, on another thread",
        per(with.compressing)
    );
    let bytes = |bytes: usize| bytes as f64 / f64::from(seconds);
    println!("lines             {:8.0} bytes per second", bytes(with.lines));
    println!("on disk           {:8.0} bytes per second", bytes(with.compressed));
    let hours = f64::from(64 << 20) / bytes(with.compressed) / 3600.0;
    println!("64 MiB            {hours:8.1} hours");
}

fn run(idle: u32, busy: u32, seconds: u32, record: bool) -> Cost {
    let capacity = || Capacity {
        cores: 64,
        free_memory: Bytes(1 << 40),
        budget: Bytes(1 << 40),
        used: Bytes(1 << 30),
    };
    let mut fleet = Fleet::new(Explain::default(), 1, Box::new(capacity));
    if record {
        fleet = fleet.recorded();
    }
    let mut now = Timestamp::from_millis(1_000_000_000_000);
    let name = |n: u32| RevisionId::new("default", format!("function-{n:06}-00001"));
    let mut snapshot = Snapshot {
        generation: Generation::first(1),
        ..Snapshot::default()
    };
    for n in 0..idle + busy {
        let mut revision = Revision::new(name(n), Workload::host("/bin/true"));
        revision.scaling.initial_scale = Replicas(0);
        snapshot.revisions.insert(name(n), Arc::new(revision));
    }
    fleet.handle(Event::Snapshot(Arc::new(snapshot)), now);
    settle(&mut fleet, now);
    if record {
        let first = fleet.take_recorded().text.len();
        println!("the first snapshot: {} bytes of lines", first);
        fleet.begin_segment();
    }
    let (mut rng, mut blocks) = (StdRng::seed_from_u64(1), Blocks::default());
    let mut cost = Cost {
        time: Duration::ZERO,
        lines: 0,
        compressed: 0,
        compressing: Duration::ZERO,
    };
    for second in 1..=seconds {
        let load = |n: u32, rng: &mut StdRng| {
            let concurrency = rng.random_range(0.1..20.0);
            RevisionLoad {
                revision: name(idle + n),
                kind: LoadKind::Periodic,
                concurrency: Concurrency(concurrency),
                rps: Rps(f64::from(rng.random_range(1..200))),
                work: Work {
                    arrivals: rng.random_range(1..200),
                    time: Duration::from_nanos(rng.random_range(1_000_000..20_000_000_000)),
                    first: None,
                },
                in_flight: rng.random_range(0..20),
                waiting: 0,
                acked: Generation::default(),
                draining: Vec::new(),
                ejected: Vec::new(),
            }
        };
        let report = LoadReport {
            gateway: GatewayId("local".into()),
            generation: Generation {
                epoch: 1,
                counter: u64::from(second),
            },
            revisions: (0..busy).map(|n| load(n, &mut rng)).collect(),
        };
        now = now.plus(Duration::from_secs(1));
        let began = Instant::now();
        fleet.handle(Event::Report(report), now);
        settle(&mut fleet, now);
        let lines = fleet.take_recorded().text;
        cost.time += began.elapsed();
        if !lines.is_empty() {
            cost.lines += lines.len();
            let began = Instant::now();
            cost.compressed += blocks.block(&lines).unwrap().len();
            cost.compressing += began.elapsed();
        }
    }
    cost
}

/// Does what is due, and what is ordered, at once.
fn settle(fleet: &mut Fleet, now: Timestamp) {
    loop {
        let mut events = Vec::new();
        while let Some(order) = fleet.poll_output() {
            match order {
                Output::Start(spec) => events.push(Event::Started {
                    revision: spec.revision,
                    id: spec.id,
                    result: Ok(Started {
                        phases: Phases::default(),
                        warnings: Vec::new(),
                    }),
                }),
                Output::Stop { revision, id, .. } => events.push(Event::Stopped {
                    revision,
                    id,
                    result: Ok(()),
                }),
                _ => {}
            }
        }
        let is_due = fleet.next_timeout().is_some_and(|at| at <= now);
        if events.is_empty() && !is_due {
            return;
        }
        events.into_iter().for_each(|event| fleet.handle(event, now));
        if is_due {
            fleet.handle_timeout(now);
        }
    }
}
