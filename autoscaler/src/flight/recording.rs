//! PURE  The fleet's side of the recorder: what it is told becomes lines, which the shell takes away.

use std::sync::{Arc, Mutex, PoisonError};

use manifests::units::Timestamp;
use sandbox::driver::Capacity;
use serde::Serialize;

use super::columns::{Columns, Known};
use super::digest::Digest;
use super::event::Recorded;
use super::line::{Answer, FORMAT, Segment, StateRef, Step};
use crate::admission::CapacityOf;
use crate::fleet::{Event, Shared};
use crate::scaler::Scaler;

/// Lines of the segment at hand.
pub(crate) struct Recording {
    /// Counts segments, so that a revision knows whether it stands in this one. Never 0.
    segment: u32,
    steps: u64,
    lines: Vec<u8>,
    /// A new segment begins with these lines.
    fresh: bool,
    known: Known,
    answers: Answers,
    answered: Option<Answer>,
}

/// Some lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// A segment begins with them.
    pub begins: bool,
    /// The text.
    pub text: Vec<u8>,
}

/// What the host answered since this was last emptied.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<Vec<Capacity>>>);

impl Answers {
    /// Asks as before, and keeps the answers.
    pub(crate) fn listen(&self, capacity: CapacityOf) -> CapacityOf {
        let kept = self.clone();
        Box::new(move || {
            let answer = capacity();
            kept.0.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            answer
        })
    }

    fn take(&self) -> Vec<Capacity> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Recording {
    pub(crate) fn new(answers: Answers) -> Self {
        Self {
            segment: 0,
            steps: 0,
            lines: Vec::new(),
            fresh: false,
            known: Known::default(),
            answers,
            answered: None,
        }
    }

    /// The number of the segment at hand.
    pub(crate) const fn segment(&self) -> u32 {
        self.segment
    }

    /// Begins another segment.
    pub(crate) fn begin(&mut self, shared: Shared, now: Timestamp) {
        self.segment = self.segment.wrapping_add(1).max(1);
        self.fresh = true;
        self.known = Known::default();
        self.answered = None;
        self.lines.clear();
        let segment = Segment {
            format: FORMAT,
            knarr: env!("CARGO_PKG_VERSION").to_owned(),
            steps: self.steps,
            at: now,
            shared,
        };
        self.line("segment", &segment);
    }

    /// A revision as it is, before anything happens to it.
    pub(crate) fn state(&mut self, due: Option<Timestamp>, scaler: &Scaler) {
        self.line("state", &StateRef { due, scaler });
    }

    /// What is about to happen, for [`Self::step`]. `None` is a time that is up.
    pub(crate) fn event(&mut self, event: Option<&Event>) -> Option<Recorded> {
        // Whatever was asked between steps is no part of one.
        self.answers.take();
        match event? {
            Event::Report(report) => Some(Recorded::Report(Box::new(Columns::of(report, &mut self.known)))),
            event => Recorded::of(event),
        }
    }

    /// What has happened, and what was decided.
    pub(crate) fn step(&mut self, now: Timestamp, event: Option<Recorded>, digest: Digest) {
        let answers = self.answers.take();
        let mut capacity = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = Answer::from(answer);
            capacity.push((self.answered != Some(answer)).then_some(answer));
            self.answered = Some(answer);
        }
        self.steps += 1;
        let step = Step {
            now,
            event,
            capacity,
            digest,
        };
        self.line("step", &step);
    }

    /// What there is so far.
    pub(crate) fn take(&mut self) -> Lines {
        Lines {
            begins: std::mem::take(&mut self.fresh),
            text: std::mem::take(&mut self.lines),
        }
    }

    fn line(&mut self, kind: &str, value: &impl Serialize) {
        // Writing to memory cannot fail, and these types have no key that JSON could not have.
        self.lines.extend_from_slice(b"{\"");
        self.lines.extend_from_slice(kind.as_bytes());
        self.lines.extend_from_slice(b"\":");
        if let Err(error) = serde_json::to_writer(&mut self.lines, value) {
            tracing::error!(%error, "a line of the recording cannot be written");
        }
        self.lines.extend_from_slice(b"}\n");
    }
}
