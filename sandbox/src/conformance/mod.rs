//! One suite for every driver: each promise of [`Driver`] as a check that a broken driver fails.
//!
//! A driver's test makes a [`Fixture`] and calls [`run`], which panics with the check's name and what was wrong. All
//! waiting is tokio's time: the suite runs under a paused clock too. Its only clock bounds are generous ends of waiting.

mod checks;
mod churn;
mod commands;
mod failures;
mod frozen;
mod health;
mod lives;
mod pods;
mod random;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::workload::Workload;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::driver::{Driver, Event, Exit, ExitStatus, Limits, SandboxSpec, Started};

/// A driver, ready to be tested.
pub struct Fixture {
    /// The driver. Checks share it unless `make` gives each its own; the last check shuts it down.
    pub driver: Arc<dyn Driver>,
    /// What to run for each app; `None` for those that this way of running has not, of [`App::NoImage`], [`App::Hollow`],
    /// [`App::Stranger`], [`App::Hungry`] and [`App::Pod`]. The id of the sandbox is added as the last argument, so that
    /// [`Self::kill`] can find it.
    pub workload: Box<dyn Fn(App) -> Option<Workload> + Send + Sync>,
    /// What to run for each command.
    pub command: Box<dyn Fn(Command) -> Vec<String> + Send + Sync>,
    /// Kills the app of a sandbox with SIGKILL, behind the driver's back.
    pub kill: Box<dyn Fn(&SandboxId) + Send + Sync>,
    /// What is left on the host of sandboxes that are gone, in words; empty when nothing is.
    pub leftovers: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// How many events a receiver may lag behind, where that is few enough to be tried.
    pub event_capacity: Option<usize>,
    /// False where this host enforces no limits and counts no usage (an ordinary user without cgroups).
    pub limits: bool,
    /// False where an OCI runtime is between the app and the driver: it tells a signal as exit code 128 and its number, and
    /// stands still when its sandbox is frozen, so that an end is told after the thaw.
    pub signals: bool,
}

/// The apps the checks run; each is also the name of its revision, in the namespace `conformance`.
///
/// Apps that serve answer every request on their port with 200 and their `HOSTNAME`, keep connections open, and end with
/// code 0 on SIGTERM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum App {
    /// Serves as soon as it can.
    Quick,
    /// Serves after 2 s at the earliest.
    Slow,
    /// Never listens.
    Never,
    /// Says `no luck` and exits with code 3 before it listens.
    Crasher,
    /// Serves, and ignores SIGTERM.
    Stubborn,
    /// Says `chatty 0` to `chatty 99`, a line each, then serves.
    Chatty,
    /// Serves for about 300 ms, then exits with code 7.
    Mayfly,
    /// Serves; from about 300 ms on its readiness probe fails for about 700 ms, then passes again.
    Moody,
    /// Serves; from about 300 ms on its liveness probe fails.
    Hung,
    /// Serves, with a liveness probe that passes, but would fail for good within 2 s if nobody answered it.
    Watched,
    /// Serves, but its startup probe never passes, and fails for good within a few seconds.
    Sleeper,
    /// A program that does not exist.
    Missing,
    /// Exits with code 0 before it listens.
    Quits,
    /// Ends by signal 11 before it listens.
    Broken,
    /// Serves; its readiness probe is a command that fails for about the first 300 ms.
    Asked,
    /// Serves for about 300 ms, then takes memory without end.
    Hungry,
    /// An image that does not exist.
    NoImage,
    /// An image without the program that is to run.
    Hollow,
    /// A user that the image does not have.
    Stranger,
    /// Serves, with a volume that an init container has written `first` to, and a container `beside` that adds `beside` and
    /// runs for ever; a line each.
    Pod,
}

/// The commands the checks run in sandboxes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Copies its input to its output, then says `done` on standard error and exits with code 3.
    Copy,
    /// Says `here` and its `HOSTNAME` in one line, then runs for ever.
    Forever,
    /// Says what is in the volume of [`App::Pod`].
    Read,
    /// Says lines and columns of its terminal, as `ROWS COLUMNS`.
    Size,
    /// A program that does not exist.
    Missing,
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Slow => "slow",
            Self::Never => "never",
            Self::Crasher => "crasher",
            Self::Stubborn => "stubborn",
            Self::Chatty => "chatty",
            Self::Mayfly => "mayfly",
            Self::Moody => "moody",
            Self::Hung => "hung",
            Self::Watched => "watched",
            Self::Sleeper => "sleeper",
            Self::Missing => "missing",
            Self::Quits => "quits",
            Self::Broken => "broken",
            Self::Asked => "asked",
            Self::Hungry => "hungry",
            Self::NoImage => "no-image",
            Self::Hollow => "hollow",
            Self::Stranger => "stranger",
            Self::Pod => "pod",
        })
    }
}

impl App {
    /// The revision under which the checks run it.
    pub fn revision(self) -> RevisionId {
        RevisionId::new("conformance", self.to_string())
    }
}

/// Runs every check, one after the other, each on a fixture of its own making. Must be called within a tokio runtime.
///
/// # Panics
/// When the driver breaks its contract.
pub async fn run(make: impl Fn() -> Fixture) {
    for (name, check) in checks::ALL {
        // Seen with --nocapture, and when a check fails.
        println!("conformance: {name}");
        let bench = Bench::new(make(), name);
        let checked = async {
            check(&bench).await;
            bench.clean("after the check").await;
        };
        assert!(timeout(CHECK_BOUND, checked).await.is_ok(), "{name}: hangs");
    }
}

/// A fixture, with what the checks have in common.
struct Bench {
    fixture: Fixture,
    check: &'static str,
    events: Arc<Mutex<Vec<Event>>>,
    recorder: AbortHandle,
}

/// The end of all waiting for something that must happen: long enough for the most loaded machine.
const BOUND: Duration = Duration::from_secs(30);

/// The end of a whole check.
const CHECK_BOUND: Duration = Duration::from_secs(600);

/// Ids are unique over all checks, since fixtures may share a driver.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

impl Bench {
    fn new(fixture: Fixture, check: &'static str) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let (mut receiver, log) = (fixture.driver.events(), Arc::clone(&events));
        let recorder = tokio::spawn(async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => log.lock().unwrap_or_else(PoisonError::into_inner).push(event),
                    Err(RecvError::Lagged(n)) => eprintln!("the recorder has missed {n} events"),
                    Err(RecvError::Closed) => break,
                }
            }
        });
        Self {
            fixture,
            check,
            events,
            recorder: recorder.abort_handle(),
        }
    }

    fn driver(&self) -> &dyn Driver {
        &*self.fixture.driver
    }

    /// Of an app that every fixture has.
    fn spec(&self, app: App) -> SandboxSpec {
        match self.spec_of(app) {
            Some(spec) => spec,
            None => panic!("{}: the fixture has no {app}", self.check),
        }
    }

    /// `None` for an app that this fixture has not.
    fn spec_of(&self, app: App) -> Option<SandboxSpec> {
        let id = SandboxId::new(format!("{app}-{}", NEXT_ID.fetch_add(1, Ordering::Relaxed)));
        let mut workload = (self.fixture.workload)(app)?;
        workload.serving.args.push(id.to_string().into());
        Some(SandboxSpec {
            id,
            revision: app.revision(),
            configuration: ObjectId::new("conformance", app.to_string()),
            service: Some(ObjectId::new("conformance", app.to_string())),
            workload: Arc::new(workload),
            limits: Limits::default(),
            deadline: BOUND,
        })
    }

    /// How it ended, whoever told.
    fn status(&self, told: ExitStatus) -> ExitStatus {
        match told {
            ExitStatus::Code(code @ 129..) if !self.fixture.signals => ExitStatus::Signal(code - 128),
            as_it_is => as_it_is,
        }
    }

    /// Starts an app that must become ready.
    async fn start(&self, app: App) -> SandboxId {
        let spec = self.spec(app);
        self.start_spec(spec.clone()).await;
        spec.id
    }

    async fn start_spec(&self, spec: SandboxSpec) -> Started {
        let id = spec.id.clone();
        match self.driver().start(spec).await {
            Ok(started) => started,
            Err(error) => panic!("{}: {id} did not start: {error}", self.check),
        }
    }

    async fn stop(&self, id: &SandboxId, grace: Duration) -> Option<Exit> {
        match timeout(BOUND, self.driver().stop(id, grace)).await {
            Ok(Ok(exit)) => exit,
            Ok(Err(error)) => panic!("{}: stop of {id}: {error}", self.check),
            Err(_) => panic!("{}: stop of {id} does not return", self.check),
        }
    }

    async fn dial(&self, id: &SandboxId) -> TcpStream {
        match timeout(BOUND, self.driver().dial(id)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => panic!("{}: dial of {id}: {error}", self.check),
            Err(_) => panic!("{}: dial of {id} does not return", self.check),
        }
    }

    /// One request and its answer, which must be this sandbox's name.
    async fn get(&self, id: &SandboxId, stream: &mut TcpStream) {
        let answer = match timeout(BOUND, exchange(stream)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => panic!("{}: request to {id}: {error}", self.check),
            Err(_) => panic!("{}: {id} does not answer", self.check),
        };
        assert_eq!(answer, id.as_str(), "{}: another sandbox answers", self.check);
    }

    /// Waits until it holds.
    async fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        while !holds() {
            assert!(waited < BOUND, "{}: {what}: not within {BOUND:?}", self.check);
            sleep(step).await;
            waited += step;
        }
    }

    /// The exits told of a sandbox so far.
    fn exits(&self, id: &SandboxId) -> Vec<Exit> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |event: &Event| match event {
            Event::Exited { id: of, exit, .. } if of == id => Some(exit.clone()),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }

    /// Everything told of a sandbox so far.
    fn told(&self, id: &SandboxId) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| event.sandbox() == id).cloned().collect()
    }

    /// Waits for the exit of a sandbox, and for a second one that must not come.
    async fn one_exit(&self, id: &SandboxId) -> Exit {
        self.eventually("its exit is told", || !self.exits(id).is_empty()).await;
        self.settle().await;
        let exits = self.exits(id);
        assert_eq!(exits.len(), 1, "{}: {id} exited more than once: {exits:?}", self.check);
        let dialled = timeout(BOUND, self.driver().dial(id)).await;
        assert!(
            matches!(dialled, Ok(Err(_))),
            "{}: {id} can be dialled after its exit: {dialled:?}",
            self.check
        );
        exits[0].clone()
    }

    /// Time for something to go wrong in.
    async fn settle(&self) {
        sleep(Duration::from_millis(50)).await;
    }

    /// Waits until no sandbox and nothing of one is left.
    async fn clean(&self, when: &str) {
        self.eventually(&format!("no sandbox is listed {when}"), || {
            self.driver().list().is_empty()
        })
        .await;
        let mut waited = Duration::ZERO;
        loop {
            let left = (self.fixture.leftovers)();
            if left.is_empty() {
                return;
            }
            assert!(waited < BOUND, "{}: left {when}: {left:#?}", self.check);
            sleep(Duration::from_millis(20)).await;
            waited += Duration::from_millis(20);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.recorder.abort();
    }
}

/// Sends a request on an open connection, and reads the body of its answer.
async fn exchange(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: conformance\r\n\r\n").await?;
    let mut read = Vec::new();
    let bad = |what: &str, read: &[u8]| std::io::Error::other(format!("{what}: {:?}", String::from_utf8_lossy(read)));
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            if !head.starts_with("HTTP/1.1 200 ") {
                return Err(bad("not a 200", &read));
            }
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let length = length.ok_or_else(|| bad("no length", &read))?;
            if body.len() >= length {
                return Ok(body.to_owned());
            }
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(bad("closed within the answer", &read));
        }
    }
}
