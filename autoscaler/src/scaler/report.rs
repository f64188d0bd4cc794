//! What others hear of a revision: endpoint sets, status, metrics, and the log of decisions.

use std::sync::Arc;
use std::time::Duration;

use manifests::exchange::{Endpoint, EndpointSet, RevisionStatus, Rung};
use manifests::ids::Generation;
use manifests::revision::Metric;
use manifests::units::{Bytes, Concurrency, PricePerHour, Replicas, Rps};

use super::Scaler;
use super::decide::Decided;
use super::types::{Context, Output, Sandbox, State};
use crate::decider::Observed;
use crate::explain::{Cause, Inputs, Record};
use crate::metrics::{Gauges, Handles};
use crate::planner::short;
use crate::specs::{Spec, per_hour};

impl Scaler {
    pub(super) fn report(&mut self, from: Replicas, decided: Decided, cause: Cause, cx: &mut Context) {
        let initialized = self.initialized;
        // Knative looks for the reason at replicas that are wanted; an idle revision is in no trouble.
        let trouble = self.trouble.as_deref().filter(|_| !initialized || self.wanted().0 > 0);
        self.health.update(self.ready(), initialized, trouble, cx.now);
        self.publish(cx);
        self.send_status(cx);
        // A revision that never ran has no gauges; one that is removed leaves them at zero.
        let lively = self.hot.is_some() && (!self.sandboxes.is_empty() || self.decision().is_some());
        self.gauged |= lively;
        if lively || self.removed && self.gauged {
            self.set_gauges(decided.keep, cx);
        }
        self.explain(from, decided, cause, cx);
    }

    /// A new endpoint set when it would differ from the last, or when a sandbox waits for one without it.
    fn publish(&mut self, cx: &mut Context) {
        let mixed = self.is_mixed();
        let mut endpoints: Vec<Endpoint> = self
            .sandboxes
            .iter()
            .filter_map(|sandbox| match sandbox.state {
                State::Ready { start, .. } => Some(Endpoint {
                    sandbox: sandbox.id.clone(),
                    start,
                    weight: if mixed { self.weight(&sandbox.spec) } else { 0 },
                }),
                _ => None,
            })
            .collect();
        endpoints.shrink_to_fit();
        let (rung, trouble) = (self.rung(), self.trouble_text(endpoints.is_empty(), cx));
        let refuses = trouble.is_some() && self.refuses(cx);
        let waits = |state: State| matches!(state, State::Draining { set: None, .. });
        let forced = self.sandboxes.iter().any(|sandbox| waits(sandbox.state));
        let last = &self.published;
        let same = (&last.endpoints, last.rung, &last.trouble, last.refuses) == (&endpoints, rung, &trouble, refuses);
        if same && !forced {
            return;
        }
        let generation = cx.next_generation();
        for sandbox in &mut self.sandboxes {
            if let State::Draining { set: set @ None, .. } = &mut sandbox.state {
                *set = Some(generation);
            }
        }
        let revision = self.revision.id.clone();
        self.published = EndpointSet {
            revision,
            generation,
            rung,
            endpoints,
            trouble,
            refuses,
        };
        cx.outputs.push_back(Output::Endpoints(self.published.clone()));
    }

    /// Whether ready ones serve on several specs.
    fn is_mixed(&self) -> bool {
        let mut specs = self
            .sandboxes
            .iter()
            .filter(|sandbox| sandbox.is_ready())
            .map(|it| &it.spec.name);
        let first = specs.next();
        self.mix.is_some() && specs.any(|name| Some(name) != first)
    }

    /// What an instance on this spec takes beside the others, in steps, so that not every measurement makes another set.
    fn weight(&self, spec: &Spec) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of one, times twenty"
        )]
        let steps = (self.part_of_full(spec) * 20.0).round() as u32;
        50 * steps.max(1)
    }

    /// Below full also while an upgrade is on its way, so that the gateway says the truth about the first requests.
    fn rung(&self) -> Rung {
        let mut ready = self.sandboxes.iter().filter(|sandbox| sandbox.is_ready()).peekable();
        if ready.peek().is_none() {
            let cold = self.sandboxes.iter().any(|sandbox| sandbox.state.is_cold());
            if cold { Rung::Frozen } else { Rung::Zero }
        } else if let Some(low) = self.low.as_ref().filter(|low| low.in_place) {
            low.rung
        } else {
            ready.map(|sandbox| sandbox.spec.rung).max().unwrap_or_default()
        }
    }

    /// Why nothing serves, for clients that wait.
    fn trouble_text(&self, nothing_ready: bool, cx: &Context) -> Option<Arc<str>> {
        if !nothing_ready || self.wanted().0 == 0 {
            return None;
        }
        let unready = || self.unready_why().map(|why| format!("NotReady: {why}").into());
        let waits = || self.waits_for(cx).map(|text| format!("Pending: {text}").into());
        let Some(trouble) = &self.trouble else {
            return unready().or_else(waits);
        };
        let retry = match self.backoff.delay() {
            Duration::ZERO => String::new(),
            delay => format!(
                "; {} starts failed, the next is {} after the last",
                self.backoff.failures(),
                short(delay)
            ),
        };
        Some(format!("{}: {}{retry}", trouble.reason, trouble.message).into())
    }

    fn send_status(&mut self, cx: &mut Context) {
        let generation = self
            .status
            .as_ref()
            .map_or_else(Generation::default, |status| status.generation);
        let mut status = RevisionStatus {
            revision: self.revision.id.clone(),
            generation,
            desired: self.desired.map(|_| self.wanted()),
            actual: self.ready(),
            starting: self.starting(),
            active: self.active.clone(),
            initialized: self.initialized,
            resources: self.health.resources.clone(),
            container: self.health.container.clone(),
            rung: self.published.rung,
            price: self.price(),
        };
        if self.status.as_ref() != Some(&status) {
            status.generation = cx.next_generation();
            self.status = Some(status.clone());
            cx.outputs.push_back(Output::Status(status));
        }
    }

    /// Of everything that runs, draining ones included.
    pub(super) fn price(&self) -> PricePerHour {
        // Not `sum`: that of nothing is -0.0, which users would see.
        per_hour(
            self.sandboxes
                .iter()
                .fold(0.0, |sum, sandbox| sum + self.price_of(sandbox)),
        )
    }

    /// Of one of them, per second.
    pub(super) fn price_of(&self, sandbox: &Sandbox) -> f64 {
        match sandbox.state {
            State::Freezing { .. } | State::Frozen => {
                self.specs.frozen_price(sandbox.memory.unwrap_or_else(|| self.holds()))
            }
            _ => sandbox.spec.price,
        }
    }

    /// What the frozen ones hold; `None` when there is none.
    fn frozen_memory(&self) -> Option<Bytes> {
        let frozen = self.sandboxes.iter().filter(|sandbox| sandbox.state == State::Frozen);
        frozen
            .filter_map(|sandbox| sandbox.memory)
            .reduce(|a, b| Bytes(a.0 + b.0))
    }

    pub(super) fn target(&self) -> (&'static str, f64) {
        match self.revision.scaling.metric {
            Metric::Concurrency {
                target: Concurrency(target),
                ..
            } => ("concurrency", target),
            Metric::Rps {
                target: Rps(target), ..
            } => ("rps", target),
        }
    }

    fn averages(&self, cx: &Context) -> (Observed, Observed) {
        let nothing = Observed {
            stable: 0.0,
            panic: 0.0,
        };
        self.hot
            .as_ref()
            .map_or((nothing, nothing), |hot| hot.collector.averages(cx.now))
    }

    fn set_gauges(&mut self, wanted: Replicas, cx: &Context) {
        let (concurrency, rps) = self.averages(cx);
        let gauges = Gauges {
            desired: self.desired,
            wanted,
            actual: self.ready(),
            starting: self.starting(),
            panicking: self.decision().is_some_and(|decision| decision.panicking),
            concurrency,
            rps,
            target: self.target().1,
            excess_burst_capacity: self.excess_burst_capacity,
            rung: self.published.rung,
            price: self.price(),
            frozen: self.frozen_memory(),
        };
        let handles = self
            .gauges
            .get_or_insert_with(|| Box::new(Handles::of(&self.revision.id)));
        handles.set(&gauges);
    }

    fn explain(&self, from: Replicas, decided: Decided, cause: Cause, cx: &mut Context) {
        let (metric, target) = self.target();
        let (concurrency, rps) = self.averages(cx);
        let observed = if metric == "rps" { rps } else { concurrency };
        let (in_flight, waiting) = self.loads.requests(&cx.gateways, cx.now);
        let record = Record {
            at: cx.now,
            until: cx.now,
            times: 1,
            inputs: Inputs {
                metric,
                stable: observed.stable,
                panic: observed.panic,
                target,
                ready: self.ready(),
                starting: self.starting(),
                in_flight,
                waiting,
            },
            decided: self.desired,
            panicking: self.decision().is_some_and(|decision| decision.panicking),
            clamps: decided.clamps,
            from: if cause == Cause::Created { Replicas(0) } else { from },
            to: decided.keep,
            rung: self
                .idle
                .unwrap_or(if decided.keep.0 > 0 { Rung::Full } else { Rung::Zero }),
            reason: decided.reason,
            plan: decided.plan,
            busy: decided.busy,
            cause,
        };
        if let Some(tally) = &mut cx.tally {
            tally.decision(&self.revision.id, &record);
        }
        cx.explain.add(&self.revision.id, record);
    }
}
