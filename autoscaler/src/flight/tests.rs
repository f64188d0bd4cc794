//! A recording decides again as it did, from wherever it begins; and a difference is found.

use std::time::Duration;

use manifests::ids::{Generation, RevisionId};
use manifests::units::{Bytes, Timestamp};
use sandbox::driver::Capacity;

use super::replay::{Nobody, Problem, Replay, Summary};
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
    let newer = text.replacen("\"format\":1", "\"format\":99", 1);
    let Err(Problem::Unreadable(why)) = replayed(&[newer.into_bytes()]) else {
        panic!("another format cannot be read");
    };
    assert!(why.contains("in format 99"), "{why}");
}
