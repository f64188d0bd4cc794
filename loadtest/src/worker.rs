//! One thread of the generator: sends its share of the schedule when it is due, and never waits for an answer to do so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::{select, task, time};

use crate::arrivals::Abort;
use crate::connect::Ready;
use crate::exchange::{Http1, Http2, Route};
use crate::histogram::Latencies;
use crate::lane::{Parked, Patience};
use crate::lanes::{Lanes, Offer};
use crate::record::{ErrorKind, Outcome, Recorder, Sent};
use crate::results::Connections;
use crate::scenario::{Length, Load, Stage};
use crate::timer::{Timer, now};

/// What all threads of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) targets: Vec<Ready>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) threads: usize,
    pub(crate) max_waiting: usize,
    pub(crate) timeout: Duration,
    pub(crate) abort: Option<Abort>,
    pub(crate) seed: u64,
    pub(crate) each: bool,
}

/// What threads are told while they run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    /// When the run began; they wait for it.
    pub(crate) start: Option<Instant>,
    /// Ends of stages whose length is not known before, since the start of the run.
    pub(crate) ends: BTreeMap<usize, Duration>,
    /// Nothing more is to be sent.
    pub(crate) stop: bool,
    /// Nor anything waited for.
    pub(crate) cut: bool,
}

/// What a thread tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// It could start now.
    Ready,
    /// How it stands.
    Tick(usize, Tick),
    /// It has ended.
    Done(io::Result<Box<Recorder>>),
}

/// How a thread stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tick {
    pub(crate) due: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) failed: u64,
    pub(crate) aborted: u64,
    pub(crate) never_sent: u64,
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    /// Since the last one.
    pub(crate) recent: Latencies,
}

/// Runs one thread's share to its end, on this thread.
pub(crate) fn work(
    run: Arc<Run>,
    index: usize,
    orders: watch::Receiver<Orders>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let done = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .and_then(|runtime| runtime.block_on(generate(run, index, orders, &reports)));
    // Nobody listens when the caller has gone.
    let _ = reports.send(Report::Done(done.map(Box::new)));
}

async fn generate(
    run: Arc<Run>,
    index: usize,
    mut orders: watch::Receiver<Orders>,
    reports: &mpsc::UnboundedSender<Report>,
) -> io::Result<Recorder> {
    let timer = Timer::new()?;
    let _ = reports.send(Report::Ready);
    let start = match orders.wait_for(|orders| orders.start.is_some() || orders.cut).await {
        Ok(now) => now.start,
        Err(_) => None,
    };
    let Some(start) = start else {
        return Ok(Recorder::new());
    };
    loop {
        let left = start.saturating_duration_since(now());
        if left.is_zero() {
            break;
        }
        timer.sleep(left).await?;
    }
    let worker = Rc::new(Worker::new(run, index, start, timer));
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    {
        let mut paced = std::pin::pin!(worker.pace());
        loop {
            select! {
                paced = &mut paced => break paced?,
                changed = orders.changed() => {
                    let gone = changed.is_err();
                    {
                        let told = &mut *worker.orders.borrow_mut();
                        told.clone_from(&orders.borrow_and_update());
                        // Nobody wants the result.
                        told.stop |= gone;
                        told.cut |= gone;
                    }
                    worker.timer.wake()?;
                    worker.freed.notify_one();
                    if gone {
                        break;
                    }
                }
                _ = ticks.tick() => drop(reports.send(Report::Tick(index, worker.tick()))),
            }
        }
    }
    let _ = reports.send(Report::Tick(index, worker.tick()));
    Ok(worker.into_recorder())
}

const TICK: Duration = Duration::from_millis(100);

/// How many requests a thread that is behind issues before it reads answers again.
const BATCH: u32 = 16;

struct Worker {
    run: Arc<Run>,
    index: usize,
    start: Instant,
    timer: Timer,
    /// Borrows end before every await.
    state: RefCell<State>,
    connections: RefCell<Connections>,
    /// By target.
    routes: Vec<Paths>,
    orders: RefCell<Orders>,
    /// A request is over.
    freed: Notify,
}

struct State {
    recorder: Recorder,
    /// By target.
    lanes: Vec<Lanes<Issued>>,
    /// Lanes without a request, with their connections: the last one used is used next, so that no more are open than
    /// needed.
    parked: Vec<Vec<Rc<Parked<Issued>>>>,
    /// Clients of a closed loop that have a request under way.
    clients: usize,
}

/// Ways to one target.
#[derive(Default)]
struct Paths {
    first: Cell<usize>,
    http2: Http2,
}

/// A request to be sent.
#[derive(Debug)]
struct Issued {
    sent: Sent,
    at: Duration,
    abort_after: Option<Duration>,
    /// Which of all requests to its target.
    nth: u64,
    values: Option<Box<[String]>>,
}

/// A request of the schedule, with its target settled.
struct Scheduled {
    due: Duration,
    target: usize,
    abort_after: Option<Duration>,
    nth: u64,
    values: Option<Box<[String]>>,
}

impl Worker {
    fn new(run: Arc<Run>, index: usize, start: Instant, timer: Timer) -> Self {
        let lanes = run
            .targets
            .iter()
            .map(|ready| {
                let connections = share(ready.connections, index, run.threads);
                let waiting = share(run.max_waiting, index, run.threads);
                Lanes::new(connections.saturating_mul(ready.streams()), waiting)
            })
            .collect();
        Self {
            index,
            start,
            timer,
            connections: RefCell::default(),
            routes: run.targets.iter().map(|_| Paths::default()).collect(),
            state: RefCell::new(State {
                recorder: Recorder::new().with_each(run.each),
                lanes,
                parked: run.targets.iter().map(|_| Vec::new()).collect(),
                clients: 0,
            }),
            orders: RefCell::default(),
            freed: Notify::new(),
            run,
        }
    }

    /// Goes through the stages, then waits for the last answers.
    async fn pace(self: &Rc<Self>) -> io::Result<()> {
        let mut begin = Duration::ZERO;
        let stages = &self.run.stages;
        for number in (0..stages.len()).filter(|number| !stages[*number].beside) {
            let beside = stages[number + 1..].iter().take_while(|stage| stage.beside).count();
            for (number, stage) in stages.iter().enumerate().skip(number).take(beside + 1) {
                if let Load::Closed { concurrency } = stage.load {
                    for client in (self.index..concurrency).step_by(self.run.threads) {
                        self.state.borrow_mut().clients += 1;
                        task::spawn_local(Rc::clone(self).client(number, begin, client, concurrency));
                    }
                }
            }
            if let Load::Open(_) = stages[number].load {
                self.issue_all(number, begin).await?;
            }
            begin = loop {
                if self.orders.borrow().stop {
                    return self.wait_for_answers().await;
                }
                let end = self.end(number, begin);
                let left = end.map_or(LONG, |end| end.saturating_sub(self.now()));
                match end {
                    Some(end) if left.is_zero() => break end,
                    _ => self.timer.sleep(left).await?,
                }
            };
        }
        self.wait_for_answers().await
    }

    /// When a stage that began at `begin` ends; `None` when that is not known yet.
    fn end(&self, number: usize, begin: Duration) -> Option<Duration> {
        let stages = &self.run.stages;
        let number = (0..=number).rfind(|at| !stages[*at].beside).unwrap_or(number);
        match stages[number].length {
            Length::For(duration) => Some(begin + duration),
            Length::Until { .. } => self.orders.borrow().ends.get(&number).copied(),
        }
    }

    /// Issues every request of an open stage when it is due.
    async fn issue_all(self: &Rc<Self>, number: usize, begin: Duration) -> io::Result<()> {
        let open_end = matches!(self.run.stages[number].length, Length::Until { .. });
        let mut behind = 0;
        for request in self.schedule(number) {
            let due = begin + request.due;
            loop {
                if self.orders.borrow().stop || open_end && self.end(number, begin).is_some_and(|end| due >= end) {
                    return Ok(());
                }
                let now = self.now();
                let left = due.saturating_sub(now);
                if !left.is_zero() {
                    behind = 0;
                    self.timer.sleep(left).await?;
                    let woken = self.now();
                    if let Some(error) = woken.checked_sub(due) {
                        self.state.borrow_mut().recorder.timer_late.record(error);
                    }
                    continue;
                }
                behind += 1;
                if behind % BATCH == 0 {
                    // Answers must be read all the same.
                    task::yield_now().await;
                }
                break;
            }
            self.issue(number, due, request);
        }
        Ok(())
    }

    /// This thread's share of a stage's requests. All threads draw the same and each takes its own, so that their number
    /// changes nothing of what is sent when.
    fn schedule(&self, number: usize) -> impl Iterator<Item = Scheduled> + use<> {
        let run = Arc::clone(&self.run);
        let stage = &run.stages[number];
        let seed = run.seed.wrapping_add((number as u64).wrapping_mul(STAGE_STREAM));
        let mut aborts = Xoshiro256PlusPlus::seed_from_u64(seed ^ ABORT_STREAM);
        let mut choice = Choice::new(stage, &run.targets, seed);
        let arrivals = match &stage.load {
            Load::Open(arrivals) => arrivals.arrivals(stage.longest(), seed),
            Load::Closed { .. } => Box::new(std::iter::empty()),
        };
        let mut counts = vec![0; run.targets.len()];
        let (index, threads) = (self.index, self.run.threads);
        let all = arrivals.map(move |arrival| {
            // Drawn for every request, so that switching one thing on moves nothing else.
            let abort_after = run
                .abort
                .filter(|abort| aborts.random::<f64>() < abort.share)
                .map(|abort| abort.after);
            let drawn = choice.draw();
            let target = arrival.target.filter(|target| *target < counts.len()).unwrap_or(drawn);
            let nth = counts[target];
            counts[target] += 1;
            Scheduled {
                due: arrival.due,
                target,
                abort_after,
                nth,
                values: arrival.values,
            }
        });
        all.skip(index).step_by(threads)
    }

    fn issue(self: &Rc<Self>, stage: usize, due: Duration, request: Scheduled) {
        let at = self.now();
        let Scheduled {
            target,
            abort_after,
            nth,
            values,
            ..
        } = request;
        let sent = Sent { stage, target, due };
        let state = &mut *self.state.borrow_mut();
        state.recorder.issued(due, at);
        if at > due + self.run.timeout {
            // It could only time out; and a hopeless rate would go on being sent for long after the run.
            state.recorder.never_sent(sent, at);
            return;
        }
        let issued = Issued {
            sent,
            at,
            abort_after,
            nth,
            values,
        };
        match state.lanes[target].offer(issued) {
            Offer::Go(issued) => match state.parked[target].pop() {
                Some(lane) => lane.give(issued),
                None => drop(task::spawn_local(Rc::clone(self).lane(issued))),
            },
            Offer::Waits => {
                let waiting = state.load().1;
                state.recorder.in_line(waiting);
            }
            Offer::Refused => state.recorder.never_sent(sent, at),
        }
    }

    /// Sends requests to one target one after the other, and parks while there is none.
    async fn lane(self: Rc<Self>, first: Issued) {
        let target = first.sent.target;
        let mut hands = Hands::new(self.start + self.run.timeout);
        let parked = Rc::new(Parked::new());
        let mut request = first;
        loop {
            let now = self.now();
            self.send(&mut hands, &request, now).await;
            let next = {
                let state = &mut *self.state.borrow_mut();
                let next = state.lanes[target].next();
                if next.is_none() {
                    state.parked[target].push(Rc::clone(&parked));
                }
                next
            };
            request = match next {
                Some(next) => next,
                None => {
                    self.freed.notify_one();
                    parked.wait().await
                }
            };
        }
    }

    /// A client of a closed loop: asks again when it has its answer.
    async fn client(self: Rc<Self>, number: usize, begin: Duration, client: usize, clients: usize) {
        let stage = &self.run.stages[number];
        let seed = self.run.seed.wrapping_add((number as u64).wrapping_mul(STAGE_STREAM));
        let mut choice = Choice::new(
            stage,
            &self.run.targets,
            seed ^ (client as u64 + 1).wrapping_mul(CLIENT_STREAM),
        );
        let mut hands: Vec<Hands> = Vec::new();
        hands.resize_with(self.run.targets.len(), || Hands::new(self.start + self.run.timeout));
        let mut nth = client as u64;
        loop {
            let due = self.now();
            let over = self.end(number, begin).is_some_and(|end| due >= end);
            if over || self.orders.borrow().stop {
                break;
            }
            let target = choice.draw();
            let sent = Sent {
                stage: number,
                target,
                due,
            };
            let request = Issued {
                sent,
                at: due,
                abort_after: None,
                nth,
                values: None,
            };
            nth += clients as u64;
            // Due when it is sent: there is no schedule to be late for.
            self.state.borrow_mut().recorder.issued(due, due);
            self.send(&mut hands[target], &request, due).await;
        }
        self.state.borrow_mut().clients -= 1;
        self.freed.notify_one();
    }

    /// Sends one request, now, and records what comes of it.
    async fn send(&self, hands: &mut Hands, request: &Issued, now: Duration) {
        self.state.borrow_mut().recorder.sent(request.at, now);
        let Sent { target, due, .. } = request.sent;
        let ready = &self.run.targets[target];
        let paths = &self.routes[target];
        let route = Route {
            ready,
            first: &paths.first,
            http2: &paths.http2,
            connections: &self.connections,
        };
        let deadline = due + self.run.timeout;
        let abort = request.abort_after.map(|after| now + after);
        let limit = self.start + abort.map_or(deadline, |abort| abort.min(deadline));
        let row = request
            .values
            .as_deref()
            .unwrap_or_else(|| ready.template.row(request.nth));
        let Hands { patience, http1 } = hands;
        let clock = || self.now();
        let answer = if ready.http2 {
            patience.within(limit, route.http2.ask(&route, row, clock)).await
        } else {
            patience.within(limit, http1.ask(&route, row, clock)).await
        };
        let outcome = match answer {
            Some(Ok(answer)) => Outcome::Answered(answer),
            Some(Err((kind, text))) => Outcome::Failed(kind, text),
            None => {
                http1.close();
                if abort.is_some_and(|abort| abort < deadline) {
                    Outcome::Aborted
                } else {
                    Outcome::Failed(ErrorKind::Timeout, "no whole answer in time".to_owned())
                }
            }
        };
        let now = self.now();
        self.state.borrow_mut().recorder.over(request.sent, outcome, now);
    }

    /// Until nothing is under way, or nobody wants to wait.
    async fn wait_for_answers(&self) -> io::Result<()> {
        while self.state.borrow().load().0 > 0 && !self.orders.borrow().cut {
            self.freed.notified().await;
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        now().saturating_duration_since(self.start)
    }

    fn tick(&self) -> Tick {
        let state = &mut *self.state.borrow_mut();
        let (in_flight, waiting) = state.load();
        let recorder = &mut state.recorder;
        Tick {
            due: recorder.due,
            statuses: recorder.statuses.clone(),
            failed: recorder.failures(),
            aborted: recorder.aborted,
            never_sent: recorder.gave_up(),
            in_flight,
            waiting,
            recent: recorder.take_recent(),
        }
    }

    fn into_recorder(self: Rc<Self>) -> Recorder {
        let state = &mut *self.state.borrow_mut();
        let mut recorder = std::mem::replace(&mut state.recorder, Recorder::new());
        recorder.connections = self.connections.take();
        if self.orders.borrow().stop {
            recorder.break_off();
        }
        recorder
    }
}

impl State {
    /// Requests under way and in line.
    fn load(&self) -> (usize, usize) {
        let busy: usize = self.lanes.iter().map(Lanes::busy).sum();
        (busy + self.clients, self.lanes.iter().map(Lanes::waiting).sum())
    }
}

/// What a lane sends with.
struct Hands {
    patience: Patience,
    http1: Http1,
}

impl Hands {
    fn new(deadline: Instant) -> Self {
        Self {
            patience: Patience::new(deadline),
            http1: Http1::new(),
        }
    }
}

/// Draws targets by weight.
struct Choice {
    /// Cumulated, up to 1.
    below: Vec<f64>,
    draws: Xoshiro256PlusPlus,
}

impl Choice {
    fn new(stage: &Stage, targets: &[Ready], seed: u64) -> Self {
        let weights = stage.weights(targets.iter().map(|ready| ready.weight));
        let sum: f64 = weights.iter().sum();
        let mut below = 0.0;
        Self {
            below: weights
                .iter()
                .map(|weight| {
                    below += weight / sum;
                    below
                })
                .collect(),
            draws: Xoshiro256PlusPlus::seed_from_u64(seed ^ TARGET_STREAM),
        }
    }

    fn draw(&mut self) -> usize {
        if self.below.len() == 1 {
            return 0;
        }
        let draw = self.draws.random::<f64>();
        let last = self.below.len() - 1;
        self.below.iter().position(|below| draw < *below).unwrap_or(last)
    }
}

/// One thread's part of a whole number.
fn share(all: usize, index: usize, threads: usize) -> usize {
    all / threads + usize::from(index < all % threads)
}

/// Any constants do: they keep the streams of one seed apart.
const ABORT_STREAM: u64 = 0x6162_6f72_7421_2121;
const TARGET_STREAM: u64 = 0x7461_7267_6574_7321;
const STAGE_STREAM: u64 = 0x9e37_79b9_7f4a_7c15;
const CLIENT_STREAM: u64 = 0xd1b5_4a32_d192_ed03;

/// To sleep until one is woken.
const LONG: Duration = Duration::from_secs(3_600);
