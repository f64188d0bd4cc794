//! A recording decides again as it did, from wherever it begins; and a difference is found.

use std::time::Duration;

use manifests::exchange::{LoadKind, LoadReport, RevisionLoad};
use manifests::ids::{GatewayId, Generation, RevisionId};
use manifests::units::{Bytes, Concurrency, Rps, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use sandbox::driver::Capacity;

use super::file::Next;
use super::line::FORMAT;
use super::replay::{Nobody, Problem, Replay, Summary};
use super::ring;
use super::writer::{Recorder, Settings};
use crate::explain::Explain;
use crate::fleet::{Event, Fleet};
use crate::testing::revision;

fn replayed(segments: &[Vec<u8>]) -> Result<Summary, Problem> {
    let mut nobody = Nobody;
    let mut replay = Replay::new(&mut nobody);
    replay.begin_take();
    segments.iter().try_for_each(|segment| replay.lines(segment))?;
    Ok(*replay.summary())
}

/// Replays all of it, and what is left when the oldest segments are gone.
pub(crate) fn decides_again(segments: &[Vec<u8>], which: &str) {
    for from in [0, segments.len() / 3, segments.len() - 1] {
        match replayed(&segments[from..]) {
            Ok(summary) => assert!(
                summary.events > 0 || segments.len() == from + 1,
                "{which}: nothing happened"
            ),
            Err(problem) => panic!("{which}, from segment {from} of {}: {problem}", segments.len()),
        }
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000 + seconds * 1000)
}

/// Two revisions whose first start never ends.
fn recording() -> Vec<u8> {
    let capacity = || Capacity {
        cores: 2,
        free_memory: Bytes(1 << 30),
        ..Capacity::default()
    };
    let mut fleet = Fleet::new(Explain::default(), 3, Box::new(capacity)).recorded();
    let mut snapshot = manifests::exchange::Snapshot {
        generation: Generation::first(3),
        ..Default::default()
    };
    for name in ["a-00001", "b-00001"] {
        let revision = revision("default", name);
        snapshot
            .revisions
            .insert(RevisionId::new("default", name), revision.into());
    }
    fleet.handle(Event::Snapshot(snapshot.into()), at(0));
    for _ in 0..50 {
        let Some(next) = fleet.next_timeout() else { break };
        fleet.handle_timeout(next.max(at(0)).plus(Duration::from_millis(1)));
    }
    fleet.take_recorded().text
}

#[test]
fn whatever_was_changed_in_a_recording_is_found() {
    let whole = recording();
    let summary = replayed(std::slice::from_ref(&whole)).unwrap();
    assert!(summary.events > 1 && summary.decisions > 2, "{summary:?}");
    let text = String::from_utf8(whole).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |n: usize| {
        let left = lines.iter().enumerate().filter(|(at, _)| *at != n);
        left.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let gone = replayed(&[without(1).into_bytes()]);
    assert!(gone.is_err(), "{gone:?}");
    let headless = replayed(&[without(0).into_bytes()]);
    assert!(matches!(headless, Err(Problem::Unreadable(_))), "{headless:?}");
    let other = text.replace("\"initial_scale\":1", "\"initial_scale\":2");
    assert_ne!(other, text);
    let Err(Problem::Differs(difference)) = replayed(&[other.into_bytes()]) else {
        panic!("another scale decides otherwise");
    };
    assert_eq!(difference.event, 1);
    assert!(
        difference.to_string().contains("a snapshot that changes 2 revisions"),
        "{difference}"
    );
    let newer = text.replacen(&format!("\"format\":{FORMAT}"), "\"format\":99", 1);
    let Err(Problem::Unreadable(why)) = replayed(&[newer.into_bytes()]) else {
        panic!("another format cannot be read");
    };
    assert!(why.contains("in format 99"), "{why}");
}

#[test]
fn a_ring_on_disk_keeps_its_size_and_what_is_left_decides_again() {
    let directory = tempfile::tempdir().unwrap();
    let limit = 512 << 10;
    let settings = Settings {
        directory: directory.path().join("flight"),
        limit,
        take: 7,
    };
    let mut recorder = Recorder::start(settings.clone()).unwrap();
    let mut fleet = Fleet::new(Explain::default(), 7, Box::new(Default::default)).recorded();
    let mut rng = StdRng::seed_from_u64(3);
    let mut snapshot = manifests::exchange::Snapshot {
        generation: Generation::first(7),
        ..Default::default()
    };
    for n in 0..40 {
        let mut revision = revision("default", &format!("r{n:02}-00001"));
        revision.scaling.initial_scale = manifests::units::Replicas(0);
        snapshot.revisions.insert(revision.id.clone(), revision.into());
    }
    let ids: Vec<RevisionId> = snapshot.revisions.keys().cloned().collect();
    fleet.handle(Event::Snapshot(snapshot.into()), at(0));
    let mut segments = 0;
    for second in 1..1200 {
        let load = |id: &RevisionId| RevisionLoad {
            revision: id.clone(),
            kind: LoadKind::Periodic,
            concurrency: Concurrency(rng.random_range(0.0..9.0)),
            rps: Rps(rng.random_range(0.0..9.0)),
            work: Default::default(),
            in_flight: 1,
            waiting: 0,
            acked: Generation::default(),
            draining: Vec::new(),
            ejected: Vec::new(),
        };
        let report = LoadReport {
            gateway: GatewayId("g".into()),
            generation: Generation {
                epoch: 7,
                counter: second,
            },
            revisions: ids.iter().map(load).collect(),
        };
        fleet.handle(Event::Report(report), at(second));
        if fleet.next_timeout().is_some_and(|due| due <= at(second)) {
            fleet.handle_timeout(at(second));
        }
        while fleet.poll_output().is_some() {}
        recorder.write(fleet.take_recorded());
        recorder.drained();
        if recorder.wants_segment() {
            fleet.begin_segment();
            segments += 1;
        }
    }
    drop(recorder);
    let found = ring::list(&settings.directory).unwrap();
    let size: u64 = found.iter().map(|segment| segment.size).sum();
    // One block more than a segment's share may be on its way.
    assert!(size < limit + limit / 2, "{size} bytes");
    assert!(segments > 0, "{size} bytes in {} segments", found.len());
    let mut nobody = Nobody;
    let mut replay = Replay::new(&mut nobody);
    replay.begin_take();
    for segment in found {
        let mut blocks = ring::open(&segment.path).unwrap().unwrap();
        while let Next::Lines(lines) = blocks.next_block().unwrap() {
            replay.lines(&lines).unwrap();
        }
    }
    assert!(replay.summary().decisions > 1000, "{:?}", replay.summary());
}
