//! Startup, readiness and liveness probes, with Kubernetes' timing: what is asked when, and what the answers come to.
//!
//! ```text
//! health: which container, which probe, when ─▶ Ask ─▶ ask: http, tcp, grpc, exec ─▶ Outcome ─▶ health ─▶ Change
//!    (worker: one probe)                                                              ready, not ready, dead
//! ```
//!
//! [`health`] and [`worker`] are pure and take `now`; the others are the shell's hands. A driver owns the loop between
//! them. Semantics are those of Kubernetes' kubelet (`prober/worker.go`), and Knative's where a Revision differs:
//!
//! - No probe is asked before its `initialDelaySeconds`; then every `periodSeconds`, from tick to tick: an answer that
//!   takes longer than a period skips ticks, as Go's tickers do, and never are two in flight.
//! - Readiness and liveness wait until the startup probe has passed; readiness is then asked at once.
//! - `failureThreshold` failures in a row, and `successThreshold` successes in a row, change the state; what cannot be
//!   asked counts as neither. A container without a readiness probe is ready when it has started.
//! - A startup or liveness probe that fails for good ends the container: Kubernetes restarts it in its Pod, Knarr
//!   replaces the sandbox, under the same back-off.
//! - `periodSeconds: 0` (Knative: aggressive): as often as is cheap until ready; then a round of tries every second, as
//!   Kubernetes asks Knative's queue-proxy. Commands are asked less often, each being a process: up to a second apart
//!   until ready, then every 10 s, as kubelet asks them.
//! - Until a sandbox is ready for the first time, a readiness probe that fails is asked again sooner than its period,
//!   unless it is exec or there is a startup probe: Knative's activator probes such Pods itself, every 200 ms.

mod ask;
mod grpc;
mod health;
mod http;
#[cfg(test)]
mod tests;
mod tls;
mod worker;

pub(crate) use ask::{Target, ask};
pub(crate) use health::{Ask, Change, Crowd, Health, Verdict};
pub(crate) use worker::Outcome;
