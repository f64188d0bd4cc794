//! The shell: the only clock and the only tasks of this crate.
//!
//! One task owns the [`Fleet`]. It takes events from channels, executes outputs through the driver, each call in a task of
//! its own whose result comes back as an event, and sleeps until the fleet wants to look again.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use manifests::exchange::{EndpointSet, LoadReport, RevisionStatus, Snapshot};
use manifests::ids::{RevisionId, SandboxId};
use manifests::units::Clock;
use sandbox::driver::{self, BoxFuture, Driver, SandboxSpec};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cost::Costs;
use crate::evict::Evictions;
use crate::explain::Explain;
use crate::fleet::{Event, Fleet};
use crate::flight::writer::Recorder;
use crate::learned::Learned;
use crate::scaler::Output;

/// What the scaling loop is made from and listens to.
pub struct Inputs {
    /// Desired state. The loop ends when its sender is dropped.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What gateways see, in the order in which each sent them. Handled faster than a gateway can send: not bounded, so that no gateway ever waits for scaling.
    pub reports: UnboundedReceiver<LoadReport>,
    /// Starts and stops sandboxes. Its exits are listened to from the call of [`run`] on.
    pub driver: Arc<dyn Driver>,
    /// Reads the time.
    pub clock: Clock,
    /// The accounts; keep a clone to read them.
    pub costs: Costs,
    /// What was learned before this start of Knarr.
    pub learned: HashMap<RevisionId, Learned>,
    /// The log of decisions; keep a clone to read it.
    pub explain: Explain,
    /// What could be evicted; keep a clone to read it.
    pub evictions: Evictions,
    /// The number of Knarr's start (or the leader's term): generations of endpoint sets and statuses carry it.
    pub epoch: u64,
    /// Writes everything that happens; `None` is off.
    pub recorder: Option<Recorder>,
}

/// Where the scaling loop speaks to. A receiver that is gone is ignored.
pub struct Outputs {
    /// For every gateway, in order.
    pub endpoints: UnboundedSender<EndpointSet>,
    /// For control, in order.
    pub statuses: UnboundedSender<RevisionStatus>,
    /// What is learned, to be kept.
    pub learned: UnboundedSender<Vec<(RevisionId, Learned)>>,
}

/// Runs the scaling loop until `stop` is cancelled. Sandboxes are left as they are: whoever cancels shuts the driver down
/// (starts in flight are dropped, which leaves nothing behind).
pub async fn run(mut inputs: Inputs, outputs: Outputs, stop: CancellationToken) {
    let mut exits = inputs.driver.events();
    let host = Arc::clone(&inputs.driver);
    let capacity = Box::new(move || host.capacity());
    let mut fleet = Fleet::new(inputs.explain, inputs.epoch, capacity)
        .with_freezer(inputs.driver.freezer().is_some())
        .with_evictions(inputs.evictions)
        .with_costs(inputs.costs)
        .with_learned(inputs.learned);
    if inputs.recorder.is_some() {
        fleet = fleet.recorded();
    }
    let mut hands = Hands::new(Arc::clone(&inputs.driver));
    let first = inputs.snapshots.borrow_and_update().clone();
    let mut learned = (inputs.clock)();
    fleet.handle(Event::Snapshot(first), learned);
    loop {
        while let Some(output) = fleet.poll_output() {
            match output {
                Output::Endpoints(set) => drop(outputs.endpoints.send(set)),
                Output::Status(status) => drop(outputs.statuses.send(status)),
                order => hands.execute(order),
            }
        }
        if let Some(recorder) = &mut inputs.recorder {
            recorder.write(fleet.take_recorded());
            if recorder.wants_segment() {
                fleet.begin_segment();
            }
        }
        let wait = fleet.next_timeout().map(|at| at.since((inputs.clock)()));
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return drop(outputs.learned.send(fleet.take_learned(usize::MAX))),
            // Exits before results, so that a stop that ended is not counted as an exit that nobody asked for.
            exit = exits.recv() => match exit {
                Ok(driver::Event::Exited { id, revision, exit }) => Some(Event::Exited { revision, id, exit }),
                Ok(driver::Event::Readiness { id, revision, ready, why }) => {
                    Some(Event::Readiness { revision, id, unready: (!ready).then_some(why) })
                }
                Ok(driver::Event::Reclaimed { id, revision, reclaimed }) => {
                    Some(Event::Reclaimed { revision, id, reclaimed })
                }
                Ok(driver::Event::Unhealthy { id, revision, why }) => Some(Event::Unhealthy { revision, id, why }),
                Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::Running {
                    running: inputs.driver.list(),
                    unready: inputs.driver.unready(),
                }),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            Some(done) = hands.done.recv() => Some(done),
            report = inputs.reports.recv(), if !inputs.reports.is_closed() || !inputs.reports.is_empty() => {
                report.map(Event::Report)
            }
            changed = inputs.snapshots.changed() => match changed {
                Ok(()) => Some(Event::Snapshot(inputs.snapshots.borrow_and_update().clone())),
                Err(_) => return,
            },
            () = sleep(wait) => None,
        };
        let now = (inputs.clock)();
        if now.since(learned) >= LEARNED_EVERY {
            learned = now;
            let some = fleet.take_learned(LEARNED_AT_ONCE);
            drop((!some.is_empty()).then(|| outputs.learned.send(some)));
        }
        if let Some(event) = event {
            hands.note(&event);
            fleet.handle(event, now);
        }
        if fleet.next_timeout().is_some_and(|at| at <= now) {
            fleet.handle_timeout(now);
        }
    }
}

/// Driver calls in flight. Dropping it drops their futures.
struct Hands {
    driver: Arc<dyn Driver>,
    tasks: JoinSet<()>,
    starts: HashMap<SandboxId, AbortHandle>,
    results: UnboundedSender<Event>,
    done: UnboundedReceiver<Event>,
}

impl Hands {
    fn new(driver: Arc<dyn Driver>) -> Self {
        let (results, done) = unbounded_channel();
        Self {
            driver,
            tasks: JoinSet::new(),
            starts: HashMap::new(),
            results,
            done,
        }
    }

    fn execute(&mut self, order: Output) {
        while self.tasks.try_join_next().is_some() {}
        match order {
            Output::Start(spec) => {
                let id = spec.id.clone();
                let start = self.spawn(|driver| start(driver, spec));
                self.starts.insert(id, start);
            }
            Output::Cancel(id) => {
                if let Some(start) = self.starts.remove(&id) {
                    start.abort();
                }
            }
            Output::Stop { revision, id, grace } => {
                self.spawn(move |driver| {
                    Box::pin(async move {
                        let result = driver.stop(&id, grace).await.map(drop);
                        Event::Stopped { revision, id, result }
                    })
                });
            }
            Output::SetLimits { revision, id, limits } => {
                self.spawn(move |driver| {
                    Box::pin(async move {
                        let result = driver.set_limits(&id, limits).await;
                        Event::LimitsSet { revision, id, result }
                    })
                });
            }
            Output::Freeze { revision, id } => {
                self.spawn(move |driver| {
                    Box::pin(async move {
                        let result = driver.freeze(&id).await;
                        Event::Frozen { revision, id, result }
                    })
                });
            }
            Output::Thaw { revision, id } => {
                // A request waits for it. Most drivers are done when they are asked; another that is not is asked again, which
                // changes nothing, by a task that waits.
                let mut asked = self.driver.thaw(&id);
                if let Poll::Ready(result) = asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    drop(asked);
                    let _ = self.results.send(Event::Thawed { revision, id, result });
                    return;
                }
                drop(asked);
                self.spawn(move |driver| {
                    Box::pin(async move {
                        let result = driver.thaw(&id).await;
                        Event::Thawed { revision, id, result }
                    })
                });
            }
            Output::Endpoints(_) | Output::Status(_) => {}
        }
    }

    /// A start that has ended cannot be cancelled any more.
    fn note(&mut self, event: &Event) {
        if let Event::Started { id, .. } = event {
            self.starts.remove(id);
        }
    }

    fn spawn(&mut self, call: impl FnOnce(Arc<dyn Driver>) -> BoxFuture<'static, Event>) -> AbortHandle {
        let (call, results) = (call(Arc::clone(&self.driver)), self.results.clone());
        self.tasks.spawn(async move {
            // The loop has ended.
            let _ = results.send(call.await);
        })
    }
}

fn start(driver: Arc<dyn Driver>, spec: SandboxSpec) -> BoxFuture<'static, Event> {
    let (revision, id): (RevisionId, SandboxId) = (spec.revision.clone(), spec.id.clone());
    Box::pin(async move {
        let result = driver.start(spec).await;
        Event::Started { revision, id, result }
    })
}

async fn sleep(wait: Option<std::time::Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// How often what was learned is given away, and of how many revisions: it must not take long.
const LEARNED_EVERY: Duration = Duration::from_secs(5);
const LEARNED_AT_ONCE: usize = 1000;

#[cfg(test)]
mod tests;
