//! 256 seeds of random life: deploys, loads, kills, changes and removals, with the world's invariants checked throughout.
//!
//! Checked at every step by the world itself: no sandbox is stopped under a request (S2), only ready ones are published
//! and never frozen ones (S3), none is frozen under a request or a connection, nor two of one revision, nor without being
//! asked to (S4), generations grow, no name is used twice. Checked here: max-scale (S1), that frozen ones count as no
//! replica (S5), and the bound on starts in flight. Each seed ends with everything removed, and then nothing may be left.
//! Half of the worlds have little memory, so that starts wait for it and idle sandboxes are evicted.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::ladder::Fixed;
use super::*;
use crate::explain::Cause;

#[test]
fn two_hundred_and_fifty_six_lives() {
    let (mut served, mut thaws, mut evicted) = (0, 0, 0);
    for seed in 0..256 {
        let life = live(seed);
        served += life.served;
        thaws += life.thaws;
        evicted += life.evicted;
    }
    assert!(served > 50_000, "the seeds did something: {served} requests");
    assert!(thaws > 300 && evicted > 50, "{thaws} thaws, {evicted} evictions");
}

struct Life {
    served: u64,
    thaws: usize,
    evicted: usize,
}

fn live(seed: u64) -> Life {
    let mut rng = StdRng::seed_from_u64(seed);
    let cores = rng.random_range(1..=4);
    let short = rng.random_bool(0.5);
    let budget = if short { Bytes(6 * (64 << 20)) } else { GIB };
    let mut sim = Sim::new(rng.random_range(1..=3), cores, budget);
    sim.memory = Bytes(if short { 60 << 20 } else { 1 << 20 });
    sim.fleet.cx.freezes = rng.random_bool(0.8);
    sim.cannot_limit = rng.random_bool(0.1);
    // Half of the worlds follow schedules that nobody would plan, the other half what is shipped. Recordings know the latter.
    let recorded = seed.is_multiple_of(8);
    if rng.random() && !recorded {
        let mut schedules = StdRng::seed_from_u64(seed);
        let fixed: Vec<Fixed> = (0..8).map(|_| random_schedule(&mut schedules)).collect();
        let given = std::cell::Cell::new(0);
        sim.fleet.cx.planners = Box::new(move |_| {
            given.set(given.get() + 1);
            Box::new(fixed[given.get() % fixed.len()].clone())
        });
    }
    sim.price_by(ladder::catalogue(rng.random(), rng.random_range(1.0..4.0)));
    sim.cannot_freeze = rng.random_bool(0.1);
    sim.close_takes = rng.random_range(0..1500) * MS;
    sim.freeze_takes = rng.random_range(0..200) * MS;
    sim.thaw_takes = rng.random_range(0..200) * MS;
    sim.ack_takes = rng.random_range(0..50) * MS;
    sim.stop_takes = rng.random_range(0..500) * MS;
    if recorded {
        sim = sim.record();
    }
    let mut alive: Vec<RevisionId> = Vec::new();
    let mut most = BTreeMap::new();
    let (mut thaws, mut evicted) = (0, 0);
    for step in 0..80 {
        match rng.random_range(0..20) {
            0 | 1 if alive.len() < 4 => {
                let revision = random_revision(&mut rng, &format!("r{step}"));
                let bounds = [revision.scaling.initial_scale, revision.scaling.min_scale];
                let max = revision
                    .scaling
                    .max_scale
                    .map(|max| bounds.into_iter().fold(max, Replicas::max));
                most.insert(revision.id.clone(), max);
                let (fails, mut starts) = (rng.random_bool(0.2), StdRng::seed_from_u64(seed));
                let plan = move |n| {
                    let after = starts.random_range(1..3000) * MS;
                    let fails = fails && n % 3 == 0;
                    (
                        after,
                        if fails {
                            Err(StartError::Refused("no".into()))
                        } else {
                            Ok(())
                        },
                    )
                };
                alive.push(sim.deploy_with(revision, Box::new(plan)));
            }
            2 if rng.random_bool(0.3) && !alive.is_empty() => {
                let gone = alive.swap_remove(rng.random_range(0..alive.len()));
                sim.remove(&gone);
            }
            3 => {
                let running = sim
                    .host
                    .iter()
                    .filter(|(_, hosted)| hosted.ready)
                    .map(|(id, _)| id.clone());
                let running: Vec<SandboxId> = running.collect();
                if !running.is_empty() {
                    let status = if rng.random() {
                        ExitStatus::Signal(9)
                    } else {
                        ExitStatus::Code(1)
                    };
                    sim.kill(&running[rng.random_range(0..running.len())], status);
                }
            }
            // A probe's news: not ready, ready again, dead.
            16 | 17 => {
                let running = sim.host.iter().filter(|(_, hosted)| hosted.ready && !hosted.stopping);
                let running: Vec<(SandboxId, bool)> =
                    running.map(|(id, hosted)| (id.clone(), hosted.unready)).collect();
                if !running.is_empty() {
                    let (id, unready) = &running[rng.random_range(0..running.len())];
                    if rng.random_bool(0.2) {
                        sim.unhealthy(id, "hung");
                    } else {
                        sim.readiness(id, (!unready).then_some("busy"));
                    }
                }
            }
            4..=14 if !alive.is_empty() => {
                let id = alive[rng.random_range(0..alive.len())].clone();
                for _ in 0..rng.random_range(1..25) {
                    let gateway = rng.random_range(0..sim.gateways.len());
                    sim.request(gateway, &id, rng.random_range(1..2000) * MS);
                }
            }
            15 => sim.until(sim.now.plus(rng.random_range(60..200) * 1000 * MS)),
            _ => sim.until(sim.now.plus(rng.random_range(1..5000) * MS)),
        }
        let told = std::mem::take(&mut sim.log);
        thaws += told.iter().filter(|(_, what)| what.starts_with("thaw ")).count();
        for id in most.keys() {
            let hosted = sim.host.values().filter(|hosted| hosted.revision == *id);
            let awake = hosted.filter(|hosted| hosted.ready && !hosted.frozen).count();
            let actual = sim.statuses.get(id).map_or(0, |status| status.actual.0);
            assert!(
                usize::try_from(actual).unwrap() <= awake,
                "seed {seed} step {step}: S5: {actual} of {id} count, {awake} run"
            );
        }
        for (id, max) in &most {
            let live = sim
                .statuses
                .get(id)
                .map_or(0, |status| status.actual.0 + status.starting.0);
            // One on another spec may still serve for each that takes its place.
            let mut cpus: Vec<_> = sim.host.values().filter(|hosted| hosted.revision == *id).collect();
            cpus.retain(|hosted| hosted.limits.memory.is_some());
            let replaced = u32::try_from(cpus.len()).unwrap();
            assert!(
                max.is_none_or(|max| live <= max.0 + replaced),
                "seed {seed} step {step}: {id} has {live} of {max:?}, {replaced} on the small spec"
            );
        }
    }
    for id in &alive {
        let records = sim.explain.for_revision(id, Timestamp::EPOCH);
        evicted += records.iter().filter(|record| record.cause == Cause::Evicted).count();
    }
    assert!(short || evicted == 0, "seed {seed}: S6: evicted with memory to spare");
    for id in alive {
        sim.remove(&id);
    }
    sim.until(sim.now.plus(Duration::from_secs(700)));
    assert!(
        sim.host.is_empty(),
        "seed {seed}: {} sandboxes are left",
        sim.host.len()
    );
    if let Some(segments) = sim.recorded.take() {
        crate::flight::decides_again(&segments, &format!("seed {seed}"));
    }
    assert!(
        sim.fleet.is_empty(),
        "seed {seed}: {} revisions are left",
        sim.fleet.len()
    );
    assert_eq!(sim.fleet.next_timeout(), None, "seed {seed}");
    Life {
        served: sim.served,
        thaws,
        evicted,
    }
}

/// Up to five steps anywhere.
fn random_schedule(rng: &mut StdRng) -> Fixed {
    let mut ages: Vec<Duration> = (0..rng.random_range(0..5))
        .map(|_| rng.random_range(0..60_000) * MS)
        .collect();
    ages.sort_unstable();
    let rungs = [Rung::Zero, Rung::Frozen, Rung::Throttled, Rung::Reserve, Rung::Full];
    let mut place = |age| (age, rungs[rng.random_range(0..rungs.len())]);
    let mut steps = vec![place(Duration::ZERO)];
    steps.extend(ages.into_iter().map(place));
    Fixed {
        steps,
        stay_low: rng.random(),
        ..Fixed::default()
    }
}

fn random_revision(rng: &mut StdRng, name: &str) -> Revision {
    let mut random = match rng.random_range(0..12) {
        0..3 => auto(name),
        10 => {
            let mut named = revision("default", name);
            named.idle = [IdlePolicy::Throttled, IdlePolicy::Reserve, IdlePolicy::Keep][rng.random_range(0..3)].clone();
            named
        }
        3..7 => {
            let mut frozen = revision("default", name);
            let delay = rng.random_bool(0.6).then(|| rng.random_range(0..20_000) * MS);
            frozen.idle = IdlePolicy::Frozen { delay };
            frozen
        }
        _ => revision("default", name),
    };
    let cc = [0, 1, 10][rng.random_range(0..3)];
    random.container_concurrency = ContainerConcurrency(cc);
    let total = if cc == 0 { 100.0 } else { f64::from(cc) };
    random.scaling.metric = Metric::Concurrency {
        target: Concurrency(0.7 * total),
        total: Concurrency(total),
    };
    random.scaling.max_scale = rng.random_bool(0.7).then(|| Replicas(rng.random_range(1..6)));
    random.scaling.initial_scale = Replicas(rng.random_range(0..3));
    random.scaling.target_burst_capacity = [Some(211.0), Some(0.0), None][rng.random_range(0..3)];
    random.scaling.scale_down_delay = Duration::from_secs(rng.random_range(0..2) * 10);
    random.scaling.retention = Duration::from_secs(rng.random_range(0..2) * 40);
    if random.scaling.max_scale.is_none_or(|max| max.0 > 1) && rng.random_bool(0.3) {
        random.scaling.min_scale = Replicas(1);
        let rungs = [Rung::Full, Rung::Full, Rung::Reserve, Rung::Throttled, Rung::Frozen];
        random.planning.min_scale_as = rungs[rng.random_range(0..rungs.len())];
    }
    random
}
