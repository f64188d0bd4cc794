//! A run as a whole: the targets made ready, the threads started at the same moment, told what they cannot know
//! themselves, and their counts added up. On a thread of its own, which never disturbs those that generate.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio::{select, task};

use crate::connect::Ready;
use crate::course::{Course, Span};
use crate::histogram::Latencies;
use crate::knarr::{KnarrState, Looked, Watch};
use crate::plan::PlanError;
use crate::report::short;
use crate::results::{self, Endpoint, Observed, Results, Verdict};
use crate::scenario::{Length, Load, Scenario, Stage};
use crate::timer::{NAME, now};
use crate::worker::{Orders, Report, Run, Tick, work};

/// How a run stands.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Index of the stage that runs; the number of stages when all are over.
    pub stage: usize,
    /// Requests that were due so far.
    pub due: u64,
    /// Answers so far, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer: errors, not aborts.
    pub failed: u64,
    /// Aborted by our own client, as planned.
    pub aborted: u64,
    /// Requests that will never be sent.
    pub never_sent: u64,
    /// Under way now.
    pub in_flight: usize,
    /// In line for a connection now.
    pub waiting: usize,
    /// Since the last progress, answers and failures.
    pub recent: Latencies,
    /// What the Knarr server behind said last.
    pub knarr: Option<KnarrState>,
}

/// Runs a scenario to its end, or to `stop`, after which answers are waited for for a second. `progress` is called about
/// ten times a second and once at the end, never on a thread that generates. Dropping the future ends the run.
///
/// # Errors
/// When the scenario cannot run, a name cannot be found, or with [`Scenario::connect_first`] a target cannot be reached.
pub async fn run_scenario(
    scenario: Scenario,
    progress: impl FnMut(&Progress) + Send + 'static,
    stop: impl Future<Output = ()>,
) -> Result<Results, PlanError> {
    scenario.check()?;
    let (done, measured) = oneshot::channel();
    // Goes with this future, and the thread sees it go.
    let (stopper, stopped) = watch::channel(false);
    let coordinator = move || {
        let result = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(PlanError::Generator)
            .and_then(|runtime| runtime.block_on(coordinate(scenario, progress, stopped)));
        // Nobody listens when the caller has gone.
        let _ = done.send(result);
    };
    spawn("load", coordinator)?;
    let mut measured = std::pin::pin!(measured);
    let result = select! {
        result = &mut measured => result,
        () = stop => {
            let _ = stopper.send(true);
            measured.await
        }
    };
    result.unwrap_or_else(|_| Err(ended_early()))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), PlanError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(PlanError::Generator)
}

fn ended_early() -> PlanError {
    PlanError::Generator(io::Error::other("a thread of the generator ended early"))
}

async fn coordinate(
    scenario: Scenario,
    mut progress: impl FnMut(&Progress),
    mut stopped: watch::Receiver<bool>,
) -> Result<Results, PlanError> {
    let run = Arc::new(prepare(&scenario).await?);
    let (orders, heard) = watch::channel(Orders::default());
    let (reports, mut inbox) = mpsc::unbounded_channel();
    for index in 0..run.threads {
        let (run, heard, reports) = (Arc::clone(&run), heard.clone(), reports.clone());
        spawn(&format!("load-{index}"), move || work(run, index, heard, reports))?;
    }
    drop((heard, reports));
    let mut ready = 0;
    while ready < run.threads {
        match inbox.recv().await {
            Some(Report::Ready) => ready += 1,
            Some(Report::Done(Err(error))) => return Err(PlanError::Generator(error)),
            _ => return Err(ended_early()),
        }
    }
    let mut samples = watch_knarr(&scenario);
    let start = now() + HEAD_START;
    let mut total = shell(&scenario);
    for (endpoint, ready) in total.targets.iter_mut().zip(&run.targets) {
        ready.protocol().clone_into(&mut endpoint.protocol);
        if let Some(time) = ready.dns {
            total.connections.dns.record(time);
        }
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the shell of this crate: when a run began, for people"
    )]
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    total.started_ms = u64::try_from(started.as_millis()).unwrap_or(u64::MAX);
    orders.send_modify(|orders| orders.start = Some(start));

    let mut at = Standing::new(run.threads);
    let mut course = Course::default();
    let mut served = results::Timeline::default();
    let mut cut_at: Option<Instant> = None;
    let mut running = run.threads;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while running > 0 {
        let elapsed = now().saturating_duration_since(start);
        select! {
            report = inbox.recv() => match report {
                Some(Report::Tick(index, tick)) => at.take(index, tick),
                Some(Report::Done(Ok(recorder))) => {
                    let mut own = shell(&scenario);
                    recorder.fill(&mut own);
                    total.merge(own);
                    running -= 1;
                }
                Some(Report::Done(Err(error))) => return Err(PlanError::Generator(error)),
                Some(Report::Ready) => {}
                None => return Err(ended_early()),
            },
            _ = ticks.tick() => {
                announce(&orders, course.advance(&run.stages, elapsed, None));
                progress(&at.progress(elapsed, course.stage()));
            }
            Some((when, looked)) = samples.recv() => {
                let sampled = when.saturating_duration_since(start);
                announce(&orders, course.advance(&run.stages, elapsed, Some((sampled, &looked.all))));
                observe(served.at(sampled), &looked);
                at.knarr = Some(looked.all);
            }
            changed = stopped.changed(), if cut_at.is_none() => {
                if changed.is_err() {
                    // The caller has gone; so will the threads, when `orders` does.
                    return Err(ended_early());
                }
                total.interrupted = true;
                cut_at = Some(now() + GRACE);
                orders.send_modify(|orders| orders.stop = true);
            }
            () = sleep_until(cut_at.unwrap_or(start).into()), if cut_at.is_some() => {
                orders.send_modify(|orders| orders.cut = true);
                cut_at = Some(now() + GRACE);
            }
        }
    }
    let elapsed = now().saturating_duration_since(start);
    let spans = course.finish(&run.stages, elapsed);
    finish_stages(&mut total, &run.stages, spans);
    total.timeline.merge(served);
    progress(&at.progress(elapsed, run.stages.len()));
    Ok(total)
}

/// A document that says what was asked, and nothing of what was found.
pub(crate) fn shell(scenario: &Scenario) -> Results {
    let stages = scenario.stages.iter().map(|stage| results::Stage {
        name: stage.name.clone(),
        start: Duration::ZERO,
        end: stage.longest(),
        arrivals: stage.to_string(),
        asked_rate: match &stage.load {
            Load::Open(arrivals) => arrivals.mean_rate(stage.longest()),
            Load::Closed { .. } => None,
        },
        closed_loop: matches!(stage.load, Load::Closed { .. }),
        beside: stage.beside,
    });
    let targets = scenario.targets.iter().map(|target| Endpoint {
        name: target.name.clone(),
        url: target.url(),
        protocol: String::new(),
    });
    let mut results = Results::new(scenario.asked(), scenario.seed, stages.collect(), targets.collect());
    results.closed_loop = scenario.has_closed_loop();
    NAME.clone_into(&mut results.clock.timer);
    results
}

/// When stages really ran; one that never began is left out. What was waited for in vain is a verdict.
fn finish_stages(results: &mut Results, stages: &[Stage], spans: Vec<Span>) {
    results.stages.truncate(spans.len().max(1));
    for ((found, stage), span) in results.stages.iter_mut().zip(stages).zip(spans) {
        (found.start, found.end) = (span.start, span.end);
        if let (Length::Until { condition, at_most }, true) = (&stage.length, span.gave_up) {
            results.verdicts.push(Verdict {
                stage: Some(stage.name.clone()),
                target: None,
                threshold: format!("until {condition}"),
                seen: format!("not within {}", short(*at_most)),
                held: false,
            });
        }
    }
}

fn observe(row: &mut results::Row, looked: &Looked) {
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    for (target, state) in &looked.by_target {
        row.observe(Observed {
            target: *target,
            replicas: small(state.replicas),
            starting: small(state.starting),
            rung: state.rung.clone(),
            queue: state.queue,
        });
    }
}

async fn prepare(scenario: &Scenario) -> Result<Run, PlanError> {
    let mut targets = Vec::new();
    for target in &scenario.targets {
        let ready = Ready::new(target, scenario.connect_first).await;
        targets.push(ready.map_err(|text| PlanError::Target {
            name: target.name.clone(),
            text,
        })?);
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Ok(Run {
        targets,
        stages: scenario.stages.clone(),
        threads: scenario.thread_count(cores),
        max_waiting: scenario.max_waiting,
        timeout: scenario.timeout,
        abort: scenario.abort,
        seed: scenario.seed,
        each: scenario.each,
    })
}

/// Asks the Knarr server behind, again and again; asks nothing when none is named. Where it does not answer, the timeline
/// has a gap.
fn watch_knarr(scenario: &Scenario) -> mpsc::Receiver<(Instant, Looked)> {
    let (send, looked) = mpsc::channel(1);
    if let Some(knarr) = &scenario.knarr {
        let mut watch = Watch::new(knarr, &scenario.targets);
        task::spawn_local(async move {
            loop {
                let asked = now();
                if let Ok(looked) = watch.look().await
                    && send.send((asked, looked)).await.is_err()
                {
                    return;
                }
                sleep(LOOK).await;
            }
        });
    }
    looked
}

fn announce(orders: &watch::Sender<Orders>, ends: Vec<(usize, Duration)>) {
    if !ends.is_empty() {
        orders.send_modify(|orders| orders.ends.extend(ends));
    }
}

/// How all threads stand together.
struct Standing {
    ticks: Vec<Tick>,
    recent: Latencies,
    knarr: Option<KnarrState>,
}

impl Standing {
    fn new(threads: usize) -> Self {
        Self {
            ticks: vec![Tick::default(); threads],
            recent: Latencies::new(),
            knarr: None,
        }
    }

    fn take(&mut self, index: usize, mut tick: Tick) {
        self.recent.merge(&std::mem::take(&mut tick.recent));
        self.ticks[index] = tick;
    }

    fn progress(&mut self, elapsed: Duration, stage: usize) -> Progress {
        let mut progress = Progress {
            elapsed,
            stage,
            recent: std::mem::take(&mut self.recent),
            knarr: self.knarr.clone(),
            ..Progress::default()
        };
        for tick in &self.ticks {
            progress.due += tick.due;
            for (status, count) in &tick.statuses {
                *progress.statuses.entry(*status).or_default() += count;
            }
            progress.failed += tick.failed;
            progress.aborted += tick.aborted;
            progress.never_sent += tick.never_sent;
            progress.in_flight += tick.in_flight;
            progress.waiting += tick.waiting;
        }
        progress
    }
}

const TICK: Duration = Duration::from_millis(100);
/// From one look at a Knarr server to the next.
const LOOK: Duration = Duration::from_millis(200);
/// Between the order to start and the start, so that no thread begins late.
const HEAD_START: Duration = Duration::from_millis(2);
/// After somebody ended a run: for the answers that are still to come.
const GRACE: Duration = Duration::from_secs(1);
