//! 256 seeds of random life: deploys, loads, kills, changes and removals, with the world's invariants checked throughout.
//!
//! Checked at every step by the world itself: no sandbox is stopped under a request (S2), only ready ones are published
//! (S3), generations grow, no name is used twice. Checked here: max-scale (S1) and the bound on starts in flight. Each
//! seed ends with everything removed, and then nothing may be left.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::*;

#[test]
fn two_hundred_and_fifty_six_lives() {
    let mut served = 0;
    for seed in 0..256 {
        served += live(seed);
    }
    assert!(served > 50_000, "the seeds did something: {served} requests");
}

fn live(seed: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let cores = rng.random_range(1..=4);
    let mut sim = Sim::new(rng.random_range(1..=3), cores, GIB, Catalogue::default());
    sim.ack_takes = rng.random_range(0..50) * MS;
    sim.stop_takes = rng.random_range(0..500) * MS;
    let mut alive: Vec<RevisionId> = Vec::new();
    let mut most = BTreeMap::new();
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
        for (id, max) in &most {
            let live = sim
                .statuses
                .get(id)
                .map_or(0, |status| status.actual.0 + status.starting.0);
            assert!(
                max.is_none_or(|max| live <= max.0),
                "seed {seed} step {step}: {id} has {live} of {max:?}"
            );
        }
    }
    for id in alive {
        sim.remove(&id);
    }
    sim.until(sim.now.plus(Duration::from_secs(700)));
    assert!(
        sim.host.is_empty(),
        "seed {seed}: {} sandboxes are left",
        sim.host.len()
    );
    assert!(
        sim.fleet.is_empty(),
        "seed {seed}: {} revisions are left",
        sim.fleet.len()
    );
    assert_eq!(sim.fleet.next_timeout(), None, "seed {seed}");
    sim.served
}

fn random_revision(rng: &mut StdRng, name: &str) -> Revision {
    let mut random = if rng.random_bool(0.3) {
        auto(name)
    } else {
        revision("default", name)
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
    }
    random
}
