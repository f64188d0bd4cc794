//! A revision with a claim that one sandbox may have at a time: it starts when it is its turn, and gives way when it is not.

use std::sync::Arc;

use manifests::ids::ObjectId;
use manifests::revision::{Reachability, Revision};
use manifests::units::Timestamp;

use super::Scaler;
use super::decide::Decided;
use super::types::{Context, State};
use crate::claims::{Has, Standing, Wants, turn_of};
use crate::explain::Cause;

/// The claims of a revision that it shares with nobody at a time; `None` without any.
pub(super) fn of(revision: &Revision) -> Option<Arc<[ObjectId]>> {
    let mut claims = revision.workload.exclusive_claims().peekable();
    claims.peek()?;
    Some(claims.cloned().collect())
}

impl Scaler {
    /// How it stands, when it has such claims.
    pub(crate) fn claiming(&self, cx: &Context) -> Option<Standing> {
        let claims = Arc::clone(self.exclusive.as_ref()?);
        let (in_flight, waiting) = self.loads.requests(&cx.gateways, cx.now);
        let queued = waiting > self.absorbed;
        Some(Standing {
            claims,
            configuration: self.revision.configuration.clone(),
            created: self.revision.created,
            reachable: self.revision.reachability != Reachability::Unreachable,
            busy: in_flight > 0,
            queued,
            has: self.has(),
            wants: self.wants(queued, cx.now),
        })
    }

    /// It is its turn now, or not any more, or what was in its way is gone.
    pub(crate) fn turn_changed(&mut self, cx: &mut Context) {
        self.look(cx, Cause::Due);
    }

    /// What shall run while it is not its turn: nothing. Says so, and what it waits for.
    pub(super) fn give_way(&mut self, decided: &mut Decided, cx: &Context) {
        if self.exclusive.is_none() {
            return;
        }
        if !cx.claims.owns(&self.revision.id) {
            (decided.up, decided.keep) = Default::default();
            (self.idle, self.low, self.mix) = (None, None, None);
        }
        decided.clamps.extend(self.waits_for(cx));
    }

    /// A start has to wait for the end of another sandbox.
    pub(super) fn must_wait(&self, cx: &Context) -> bool {
        // Its own too: one that drains has the claim as well.
        self.exclusive.is_some() && !(self.sandboxes.is_empty() && cx.claims.may_start(&self.revision.id))
    }

    /// What it waits for, in words.
    pub(super) fn waits_for(&self, cx: &Context) -> Option<String> {
        if self.exclusive.is_none() || self.wanted().0 <= self.live() {
            return None;
        }
        let (claim, other) = cx.claims.in_the_way(&self.revision.id)?;
        Some(format!(
            "waits for PersistentVolumeClaim {claim}, which one sandbox may have: revision {other} has it"
        ))
    }

    fn has(&self) -> Has {
        let states = || self.sandboxes.iter().map(|sandbox| sandbox.state);
        let running = states().filter_map(|state| match state {
            State::Ready { since, start } | State::Unready { since, start } => Some(since.plus(turn_of(start))),
            State::Freezing { woken: None } | State::Frozen => Some(Timestamp::EPOCH),
            _ => None,
        });
        if let Some(until) = running.max() {
            Has::Running(until)
        } else if self.starting().0 > 0 {
            Has::Starting
        } else if self.sandboxes.is_empty() {
            Has::Nothing
        } else {
            Has::Ending
        }
    }

    fn wants(&self, queued: bool, now: Timestamp) -> Wants {
        // One that does not fit into memory keeps nobody from running.
        let short = self.short_since.is_some();
        let fails = self.start_fails || self.backoff.failures() > 0 || self.trouble.is_some();
        if self.removed || self.wanted().0 == 0 || self.backoff.until(now).is_some() {
            Wants::Nothing
        } else if queued && !short && self.revision.reachability == Reachability::Unreachable {
            Wants::Leftover
        } else if !self.initialized {
            if fails { Wants::Retry } else { Wants::Rollout }
        } else if queued && !short {
            Wants::Requests
        } else {
            Wants::Standby
        }
    }
}
