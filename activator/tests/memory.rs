//! What an idle revision costs the data plane: at most 1 KiB, measured on 100,000 of them.

#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::sync::Arc;

use activator::Limits;
use manifests::exchange::{EndpointSet, Rung};
use manifests::ids::{Generation, RevisionId};
use support::World;

const REVISIONS: usize = 100_000;

/// Anonymous memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn an_idle_revision_costs_less_than_a_kibibyte() {
    let mut world = World::new(8, Limits::default());
    let shared = support::revision("shape", 0);
    world.snapshot.generation.counter = 1;
    for number in 0..REVISIONS {
        let mut revision = shared.clone();
        revision.id = RevisionId::new("default", format!("app-{number:05}-00001"));
        world.snapshot.revisions.insert(revision.id.clone(), Arc::new(revision));
    }
    let before = resident();
    world.pools.apply_snapshot(&world.snapshot);
    // Each has been told once that nothing runs, as after scaling to zero.
    for id in world.snapshot.revisions.keys() {
        let (revision, generation) = (id.clone(), Generation::first(1));
        world.pools.apply(&EndpointSet {
            revision,
            generation,
            rung: Rung::Zero,
            endpoints: Vec::new(),
            trouble: None,
            refuses: false,
        });
    }
    assert_eq!(world.pools.len(), REVISIONS);
    let each = (resident() - before) / REVISIONS;
    println!("{each} bytes per idle revision");
    assert!(each <= 1024, "{each} bytes per idle revision");

    // A second snapshot with one change leaves all other pools as they are, and an idle gateway reports nothing.
    let id = RevisionId::new("default", "app-00007-00001");
    let pools: Vec<_> = world
        .snapshot
        .revisions
        .keys()
        .map(|id| world.pools.get(id).unwrap())
        .collect();
    let mut changed = shared.clone();
    (changed.id, changed.server_timing) = (id.clone(), true);
    world.snapshot.generation.counter = 2;
    world.snapshot.revisions.insert(id.clone(), Arc::new(changed));
    world.pools.apply_snapshot(&world.snapshot);
    for (pool, id) in pools.iter().zip(world.snapshot.revisions.keys()) {
        assert!(Arc::ptr_eq(pool, &world.pools.get(id).unwrap()), "{id} was made anew");
        assert!(
            Arc::ptr_eq(&pool.revision(), &world.snapshot.revisions[id]),
            "{id} has old settings"
        );
    }
    assert!(world.pools.report(world.now()).revisions.is_empty());

    // Gone again: nothing is left.
    world.snapshot.generation.counter = 3;
    world.snapshot.revisions.clear();
    world.pools.apply_snapshot(&world.snapshot);
    assert_eq!(world.pools.len(), 0);
}
