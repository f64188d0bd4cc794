//! PURE  Lines of a recording in, the same decisions out: or the first that differs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use manifests::revision::Revision;
use manifests::units::Timestamp;
use sandbox::driver::Capacity;

use super::columns::Known;
use super::digest::Digest;
use super::event::words;
use super::line::{Answer, FORMAT, Line, Segment, State, StateRef, Step};
use crate::explain::Explain;
use crate::fleet::{Event, Fleet};
use crate::scaler::Output;

/// Looks on while a recording is replayed.
pub trait Watch {
    /// Something is about to happen; without it, time is up.
    fn event(&mut self, now: Timestamp, event: Option<&Event>);
    /// What came of it.
    fn orders(&mut self, now: Timestamp, orders: &[Output]);
    /// Another life of a Knarr begins: nothing of the one before runs any more.
    fn begin(&mut self);
    /// What the host can take, as far as it was asked.
    fn room(&mut self, capacity: Capacity);
    /// A revision that was there before the recording begins.
    fn was_there(&mut self, now: Timestamp, revision: &Arc<Revision>);
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Watch for Nobody {
    fn event(&mut self, _: Timestamp, _: Option<&Event>) {}
    fn orders(&mut self, _: Timestamp, _: &[Output]) {}
    fn begin(&mut self) {}
    fn room(&mut self, _: Capacity) {}
    fn was_there(&mut self, _: Timestamp, _: &Arc<Revision>) {}
}

/// What was replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Lives of a Knarr.
    pub takes: u64,
    /// Events, and times that were up.
    pub events: u64,
    /// Decisions: looks at a revision.
    pub decisions: u64,
    /// Orders that came of them.
    pub orders: u64,
    /// Events that are not there, because the disk did not keep up.
    pub missing: u64,
    /// The first event.
    pub from: Option<Timestamp>,
    /// The last one.
    pub to: Option<Timestamp>,
}

/// Why a replay ends before its recording does.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Problem {
    /// This Knarr cannot read it.
    #[error("{0}")]
    Unreadable(String),
    /// Something came out otherwise.
    #[error("{0}")]
    Differs(Box<Difference>),
}

/// The first decision that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The event's number in its take, the first is 1.
    pub event: u64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub what: String,
    /// What was recorded.
    pub recorded: String,
    /// What came out now.
    pub replayed: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(self.at.as_nanos()));
        writeln!(f, "event {} at {at} differs: {}", self.event, self.what)?;
        writeln!(f, "  recorded: {}", self.recorded)?;
        write!(f, "  replayed: {}", self.replayed)
    }
}

/// The answers that the host gave, to be given again.
#[derive(Clone, Default)]
struct Feed(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    left: VecDeque<Capacity>,
    last: Capacity,
    /// Asked once more than was recorded.
    short: bool,
}

impl Feed {
    fn fill(&self, answers: Vec<Capacity>) {
        let mut feed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (feed.left, feed.short) = (answers.into(), false);
    }

    fn ask(&self) -> Capacity {
        let mut feed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match feed.left.pop_front() {
            Some(answer) => feed.last = answer,
            None => feed.short = true,
        }
        feed.last
    }

    /// Whether it was asked as often as was recorded.
    fn fits(&self) -> bool {
        let feed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        feed.left.is_empty() && !feed.short
    }
}

/// A fleet that decides again what another one decided.
pub struct Replay<'a> {
    watch: &'a mut dyn Watch,
    fleet: Option<Fleet>,
    feed: Feed,
    known: Known,
    answered: Option<Answer>,
    /// Of the take at hand.
    steps: u64,
    summary: Summary,
}

impl<'a> Replay<'a> {
    /// Begins; `watch` looks on.
    pub fn new(watch: &'a mut dyn Watch) -> Self {
        Self {
            watch,
            fleet: None,
            feed: Feed::default(),
            known: Known::default(),
            answered: None,
            steps: 0,
            summary: Summary::default(),
        }
    }

    /// What comes next is of another life of a Knarr.
    pub fn begin_take(&mut self) {
        self.watch.begin();
        self.fleet = None;
        self.steps = 0;
        self.summary.takes += 1;
    }

    /// What was replayed so far.
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Replays whole lines.
    ///
    /// # Errors
    /// At the first that cannot be read, or comes out otherwise.
    pub fn lines(&mut self, lines: &[u8]) -> Result<(), Problem> {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line = serde_json::from_slice(line).map_err(|error| self.unreadable(&error.to_string()))?;
            match line {
                Line::Segment(segment) => self.segment(*segment)?,
                Line::State(state) => self.state(*state)?,
                Line::Step(step) => self.step(*step)?,
            }
        }
        Ok(())
    }

    fn unreadable(&self, why: &str) -> Problem {
        Problem::Unreadable(format!("what follows event {} cannot be read: {why}", self.steps))
    }

    fn segment(&mut self, segment: Segment) -> Result<(), Problem> {
        if segment.format != FORMAT {
            return Err(Problem::Unreadable(format!(
                "written by Knarr {} in format {}; this Knarr reads format {FORMAT}",
                segment.knarr, segment.format
            )));
        }
        (self.known, self.answered) = (Known::default(), None);
        if let Some(fleet) = self.fleet.as_ref().filter(|_| segment.steps == self.steps) {
            let (recorded, replayed) = (text(&segment.shared), text(&fleet.shared()));
            return self.same(segment.at, "what all revisions share", recorded, replayed);
        }
        if self.fleet.is_some() {
            self.summary.missing += segment.steps.saturating_sub(self.steps);
        }
        self.steps = segment.steps;
        let feed = self.feed.clone();
        let capacity = Box::new(move || feed.ask());
        self.fleet = Some(Fleet::from_recording(segment.shared, capacity, Explain::default()));
        Ok(())
    }

    fn state(&mut self, state: State) -> Result<(), Problem> {
        let Some(fleet) = &mut self.fleet else {
            return Err(self.unreadable("its beginning is not there"));
        };
        let Some((due, scaler)) = fleet.state(state.revision()) else {
            let now = self.summary.to.unwrap_or_default();
            self.watch.was_there(now, state.scaler.revision());
            fleet.put_back(state.due, state.scaler);
            return Ok(());
        };
        let replayed = text(&StateRef { due, scaler });
        let recorded = text(&StateRef {
            due: state.due,
            scaler: &state.scaler,
        });
        let what = format!("revision {} as it stands before it", state.revision());
        self.same(self.summary.to.unwrap_or_default(), &what, recorded, replayed)
    }

    fn step(&mut self, step: Step) -> Result<(), Problem> {
        if self.fleet.is_none() {
            return Err(self.unreadable("its beginning is not there"));
        }
        let mut answers = Vec::with_capacity(step.capacity.len());
        for answer in step.capacity {
            self.answered = answer.or(self.answered);
            let answer = self
                .answered
                .ok_or_else(|| self.unreadable("an answer refers to none"))?;
            answers.push(answer.into());
            self.watch.room(answer.into());
        }
        let event = match step.event {
            Some(event) => Some(event.event(&mut self.known).map_err(|why| self.unreadable(&why))?),
            None => None,
        };
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        let now = step.now;
        let what = event.as_ref().map_or_else(|| "time was up".into(), words);
        self.watch.event(now, event.as_ref());
        self.feed.fill(answers);
        match event {
            Some(event) => fleet.handle(event, now),
            None => fleet.handle_timeout(now),
        }
        let (digest, orders) = fleet.take_decided();
        self.watch.orders(now, &orders);
        self.steps += 1;
        self.summary.events += 1;
        self.summary.decisions += u64::from(digest.decisions);
        self.summary.orders += orders.len() as u64;
        self.summary.from.get_or_insert(now);
        self.summary.to = Some(now);
        let fits = self.feed.fits();
        if digest == step.digest && fits {
            return Ok(());
        }
        let mut replayed = said(digest);
        if !fits {
            replayed.push_str(", and the host was asked more or less often");
        }
        for order in orders {
            replayed.push_str("\n            ");
            replayed.push_str(&order.in_words());
        }
        Err(Problem::Differs(Box::new(Difference {
            event: self.steps,
            at: now,
            what,
            recorded: said(step.digest),
            replayed,
        })))
    }

    fn same(&self, at: Timestamp, what: &str, recorded: String, replayed: String) -> Result<(), Problem> {
        if recorded == replayed {
            return Ok(());
        }
        let (recorded, replayed) = around(&recorded, &replayed);
        Err(Problem::Differs(Box::new(Difference {
            event: self.steps + 1,
            at,
            what: what.to_owned(),
            recorded,
            replayed,
        })))
    }
}

fn said(digest: Digest) -> String {
    let Digest {
        decisions,
        orders,
        hash,
    } = digest;
    format!("{decisions} decisions, {orders} ({hash:016x})")
}

/// Both texts where they begin to differ.
fn around(a: &str, b: &str) -> (String, String) {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let cut = |text: &str| text.chars().skip(same.saturating_sub(60)).take(160).collect();
    (cut(a), cut(b))
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}
