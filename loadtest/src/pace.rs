//! The shell: sends each request when it is due, on a thread of its own, and never waits for an answer to do so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, interval};
use tokio::{select, task};

use crate::arrivals::{Arrival, schedule};
use crate::histogram::Latencies;
use crate::lanes::{Lanes, Offer};
use crate::plan::{Plan, PlanError, Template};
use crate::record::{Recorder, Sent};
use crate::results::Results;
use crate::send::{Connection, Patience, exchange};

/// How a run stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Requests that were due so far.
    pub due: u64,
    /// Answers so far, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer: errors, not aborts.
    pub failed: u64,
    /// Aborted by our own client, as planned.
    pub aborted: u64,
    /// Under way now.
    pub in_flight: usize,
    /// In line for a connection now.
    pub waiting: usize,
    /// Since the last progress, answers and failures.
    pub recent: Latencies,
}

/// Runs the plan to its end: until every request that was due has an answer or an error, at most `plan.timeout` after
/// the last one was due. `progress` is called about ten times a second and once at the end, on the generator's thread:
/// what it takes makes the generator late. Dropping the future ends the run.
pub async fn run(plan: Plan, progress: impl FnMut(&Progress) + Send + 'static) -> Result<Results, PlanError> {
    let template = plan.check()?;
    let (done, results) = oneshot::channel();
    // Goes with this future, and the thread sees it go.
    let (_caller, caller_gone) = oneshot::channel::<()>();
    let work = move || {
        let results = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .and_then(|runtime| {
                runtime.block_on(async {
                    select! {
                        results = generate(plan, template, progress) => results.map(Some),
                        _ = caller_gone => Ok(None),
                    }
                })
            });
        // Nobody listens when the caller has gone.
        let _ = done.send(results);
    };
    thread::Builder::new()
        .name("loadtest".to_owned())
        .spawn(work)
        .map_err(PlanError::Generator)?;
    match results.await {
        Ok(Ok(Some(results))) => Ok(results),
        Ok(Err(error)) => Err(PlanError::Generator(error)),
        Ok(Ok(None)) | Err(_) => Err(PlanError::Generator(io::Error::other(
            "the generator's thread ended early",
        ))),
    }
}

async fn generate(plan: Plan, template: Template, mut progress: impl FnMut(&Progress)) -> io::Result<Results> {
    let timer = Timer::new()?;
    let generator = Rc::new(Generator::new(plan, template));
    let mut ticks = interval(PROGRESS_INTERVAL);
    let mut paced = pin!(generator.pace(&timer));
    loop {
        select! {
            paced = &mut paced => break paced?,
            _ = ticks.tick() => {
                progress(&generator.progress());
                // From its end: a slow callback must not be all that runs.
                ticks.reset();
            }
        }
    }
    progress(&generator.progress());
    Ok(generator.results())
}

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// All of a run. One thread: borrows end before every await.
struct Generator {
    plan: Plan,
    template: Template,
    start: Instant,
    state: RefCell<State>,
    /// A lane became free.
    freed: Notify,
}

struct State {
    lanes: Lanes<Issued>,
    recorder: Recorder,
    /// The last one used is used next, so that no more are open than needed.
    idle: Vec<Connection>,
}

/// A request and when it was issued.
#[derive(Clone, Copy)]
struct Issued {
    arrival: Arrival,
    at: Duration,
}

impl Generator {
    fn new(plan: Plan, template: Template) -> Self {
        let lanes = Lanes::new(plan.max_connections, plan.max_waiting);
        let state = State {
            lanes,
            recorder: Recorder::new(),
            idle: Vec::new(),
        };
        #[expect(clippy::disallowed_methods, reason = "the shell of this crate")]
        let start = Instant::now();
        Self {
            plan,
            template,
            start,
            state: RefCell::new(state),
            freed: Notify::new(),
        }
    }

    /// Issues every request when it is due, then waits for the last ones.
    async fn pace(self: &Rc<Self>, timer: &Timer) -> io::Result<()> {
        let Plan {
            arrivals,
            duration,
            abort,
            seed,
            ..
        } = self.plan;
        for arrival in schedule(arrivals, duration, abort, seed) {
            let left = arrival.due.saturating_sub(self.now());
            if left.is_zero() {
                // Behind: answers must be read all the same.
                task::yield_now().await;
            } else {
                timer.sleep(left).await?;
                let late = self.now().saturating_sub(arrival.due);
                self.state.borrow_mut().recorder.timer_late.record(late);
            }
            self.issue(arrival);
        }
        while self.state.borrow().lanes.busy() > 0 {
            self.freed.notified().await;
        }
        Ok(())
    }

    fn issue(self: &Rc<Self>, arrival: Arrival) {
        let at = self.now();
        let state = &mut *self.state.borrow_mut();
        state.recorder.issued(arrival.due, at);
        if at > arrival.due + self.plan.timeout {
            // It could only time out; and a hopeless rate would go on being sent for long after the run.
            state.recorder.never_sent(at);
            return;
        }
        match state.lanes.offer(Issued { arrival, at }) {
            Offer::Go(request) => drop(task::spawn_local(self.clone().lane(request))),
            Offer::Waits => state.recorder.in_line(state.lanes.waiting()),
            Offer::Refused => state.recorder.never_sent(at),
        }
    }

    /// Sends `request`, then whoever stands in line, until nobody does.
    async fn lane(self: Rc<Self>, mut request: Issued) {
        let mut connection = self.state.borrow_mut().idle.pop();
        loop {
            let Issued { arrival, at } = request;
            let sent = self.now();
            self.state.borrow_mut().recorder.sent(at, sent);
            let patience = Patience {
                deadline: self.start + arrival.due + self.plan.timeout,
                abort: arrival.abort_after.map(|after| self.start + sent + after),
            };
            let clock = || self.now();
            let (outcome, reusable) =
                exchange(self.plan.target.addr, &self.template, connection, patience, clock).await;
            connection = reusable.filter(|_| self.plan.keep_alive);

            let state = &mut *self.state.borrow_mut();
            let over = Sent {
                stage: 0,
                target: 0,
                due: arrival.due,
            };
            state.recorder.over(over, outcome, self.now());
            match state.lanes.next() {
                Some(next) => request = next,
                None => {
                    state.idle.extend(connection);
                    break;
                }
            }
        }
        self.freed.notify_one();
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn progress(&self) -> Progress {
        let state = &mut *self.state.borrow_mut();
        Progress {
            elapsed: self.now(),
            due: state.recorder.due,
            statuses: state.recorder.statuses.clone(),
            failed: state.recorder.failures(),
            aborted: state.recorder.aborted,
            in_flight: state.lanes.busy(),
            waiting: state.lanes.waiting(),
            recent: state.recorder.take_recent(),
        }
    }

    fn results(&self) -> Results {
        let mut results = self.plan.results();
        self.state.borrow().recorder.clone().fill(&mut results);
        results
    }
}

/// The kernel's high-resolution timer: the runtime's own rounds up to the next millisecond, which would make every
/// request late and bunch those of one millisecond together.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new() -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an `OwnedFd` is one open descriptor for all its life"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// `time` must not be zero, which would switch the timer off. Cancel-safe: the next call sets it anew.
    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let value = Timespec {
            tv_sec,
            tv_nsec: time.subsec_nanos().into(),
        };
        timerfd_settime(
            self.0.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval: once,
                it_value: value,
            },
        )?;
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut [0; 8]) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
