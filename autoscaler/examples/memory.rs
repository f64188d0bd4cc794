//! What an idle revision costs scaling: memory of revisions with `knarr.dev/idle: auto` once they have taught the planner their
//! rhythm. At most 2 KiB each; the data plane's part of the 3 KiB is tested in the crate `activator`. What is read from a
//! manifest, and shared with control and data plane, is told apart.
//!
//! `cargo run --release -p knarr-autoscaler --example memory [REVISIONS]` exits with 1 when it is more.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, for people")]

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use autoscaler::Output;
use autoscaler::explain::Explain;
use autoscaler::fleet::{Event, Fleet};
use manifests::exchange::{LoadKind, LoadReport, RevisionLoad, Snapshot, Work};
use manifests::ids::{GatewayId, Generation, RevisionId};
use manifests::revision::{IdlePolicy, Revision};
use manifests::units::{Bytes, Concurrency, Rps, Timestamp};
use manifests::workload::Workload;
use sandbox::driver::{Capacity, Phases, Started};

fn main() -> ExitCode {
    let count = std::env::args().nth(1).map_or(20_000, |count| count.parse().unwrap());
    let mut world = World::new();
    world.make(FILL + count);
    let made = resident();
    let manifest = made / (FILL + count);
    // The log of decisions is bounded for all revisions together: it is filled first.
    world.lives(FILL);
    let before = resident();
    world.lives(count);
    let each = (resident() - before) / count;
    let active = world.fleet.active();
    println!("{each} bytes for each of {count} idle revisions, {active} of which wait for an instant");
    println!("{manifest} bytes for what is read from each manifest");
    if each > MOST {
        println!("more than {MOST}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

const MOST: usize = 2048;

/// Revisions before those that are measured.
const FILL: usize = 5_000;

/// So many are made and live at a time: of many revisions few are busy at once.
const BATCH: usize = 250;

/// Idle times of each.
const ROUNDS: u64 = 4;

/// A fleet whose host does at once what it is told to.
struct World {
    fleet: Fleet,
    /// Made, and not there yet.
    made: VecDeque<Arc<Revision>>,
    snapshot: Arc<Snapshot>,
    now: Timestamp,
    counter: u64,
}

impl World {
    fn new() -> Self {
        let capacity = Box::new(|| Capacity {
            cores: 1_000_000,
            free_memory: Bytes(1 << 50),
            ..Capacity::default()
        });
        Self {
            fleet: Fleet::new(Explain::default(), 1, capacity),
            made: VecDeque::new(),
            snapshot: Arc::default(),
            now: Timestamp::EPOCH.plus(Duration::from_secs(1_000_000)),
            counter: 0,
        }
    }

    fn make(&mut self, count: usize) {
        let workload = Arc::new(Workload::host("/bin/true"));
        self.made.extend((0..count).map(|n| {
            let id = RevisionId::new("default", format!("app-{n:06}-00001"));
            let mut revision = Revision::new(id, Workload::host("/bin/true"));
            revision.workload = Arc::clone(&workload);
            revision.idle = IdlePolicy::Auto;
            Arc::new(revision)
        }));
    }

    /// New revisions and their first idle times.
    fn lives(&mut self, count: usize) {
        for begin in (0..count).step_by(BATCH) {
            let new: Vec<Arc<Revision>> = self.made.drain(..BATCH.min(count - begin)).collect();
            let ids: Vec<RevisionId> = new.iter().map(|revision| revision.id.clone()).collect();
            let snapshot = Arc::make_mut(&mut self.snapshot);
            snapshot.revisions.extend(ids.iter().cloned().zip(new));
            snapshot.generation = snapshot.generation.next();
            self.fleet.handle(Event::Snapshot(Arc::clone(&self.snapshot)), self.now);
            self.obey();
            for n in 0..ROUNDS {
                self.round(&ids, n);
            }
            // As the server does, to write it down.
            self.fleet.take_learned(usize::MAX);
        }
    }

    fn obey(&mut self) {
        while let Some(output) = self.fleet.poll_output() {
            let event = match output {
                Output::Start(spec) => {
                    let (phases, warnings) = (Phases::default(), Vec::new());
                    let result = Ok(Started { phases, warnings });
                    let (revision, id) = (spec.revision, spec.id);
                    self.now = self.now.plus(Duration::from_micros(10));
                    Event::Started { revision, id, result }
                }
                Output::Stop { revision, id, .. } => Event::Stopped {
                    revision,
                    id,
                    result: Ok(()),
                },
                Output::SetLimits { revision, id, .. } => Event::LimitsSet {
                    revision,
                    id,
                    result: Ok(()),
                },
                _ => continue,
            };
            self.fleet.handle(event, self.now);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(next) = self.fleet.next_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.fleet.handle_timeout(self.now);
            self.obey();
        }
        self.now = self.now.max(end);
    }

    /// One report about these revisions, or about none.
    fn report(&mut self, ids: &[RevisionId], kind: Option<LoadKind>) {
        self.counter += 1;
        let wakes = kind == Some(LoadKind::Wake);
        let entry = |revision: &RevisionId| RevisionLoad {
            revision: revision.clone(),
            kind: kind.unwrap_or(LoadKind::Periodic),
            concurrency: Concurrency(1.0),
            rps: Rps(1.0),
            work: if wakes {
                Work::default()
            } else {
                Work {
                    arrivals: 1,
                    time: Duration::from_millis(5),
                    first: Some(Duration::from_millis(5)),
                }
            },
            in_flight: u32::from(wakes),
            waiting: u32::from(wakes),
            acked: Generation::default(),
            draining: Vec::new(),
            ejected: Vec::new(),
        };
        let report = LoadReport {
            gateway: GatewayId("g".into()),
            generation: Generation {
                epoch: 1,
                counter: self.counter,
            },
            revisions: kind.iter().flat_map(|_| ids).map(entry).collect(),
        };
        self.fleet.handle(Event::Report(report), self.now);
        self.obey();
    }

    /// Requests, and then a longer and longer silence.
    fn round(&mut self, ids: &[RevisionId], n: u64) {
        self.report(ids, Some(LoadKind::Wake));
        self.pass(Duration::from_millis(900));
        self.report(ids, Some(LoadKind::Periodic));
        for _ in 0..4 {
            self.pass(Duration::from_secs(1));
            self.report(ids, None);
        }
        self.pass(Duration::from_secs(100 + 37 * n));
    }
}

/// Anonymous memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}
