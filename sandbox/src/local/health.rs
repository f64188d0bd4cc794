//! Probes the containers of one sandbox: within its start until it is ready, then in a task of its own until it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use manifests::workload::Workload;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::command;
use super::dial;
use super::end;
use super::state::{Inner, Sandbox};
use crate::driver::{BoxFuture, Event};
use crate::exec::ExecSpec;
use crate::probe::{Ask, Change, Crowd, Health, Outcome, Target, Verdict, ask};

/// How many sandboxes are probed at this moment.
#[derive(Default)]
pub(super) struct Probing {
    starting: AtomicUsize,
    running: AtomicUsize,
}

/// Reasons to ask nothing for a while.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Quiet {
    /// Nobody inside could answer.
    pub frozen: bool,
    /// It has less CPU than it was started with, and would be slow to answer.
    pub throttled: bool,
    /// It was asked to stop: Kubernetes probes no Pod that is being deleted.
    pub ending: bool,
}

/// The probes of one sandbox.
pub(super) struct Monitor {
    inner: Arc<Inner>,
    sandbox: Arc<Sandbox>,
    workload: Arc<Workload>,
    health: Health,
    asks: FuturesUnordered<BoxFuture<'static, (Ask, Outcome)>>,
    quiet: watch::Receiver<Quiet>,
    counted: Counted,
}

impl Monitor {
    /// Of a sandbox whose containers run as of now.
    pub(super) fn new(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, workload: &Arc<Workload>) -> Self {
        Self {
            health: Health::new(workload, (inner.config.clock)()),
            inner: Arc::clone(inner),
            sandbox: Arc::clone(sandbox),
            workload: Arc::clone(workload),
            asks: FuturesUnordered::new(),
            quiet: sandbox.quiet.subscribe(),
            counted: Counted::starting(inner),
        }
    }

    /// What the last failure said.
    pub(super) fn last(&self) -> &str {
        self.health.last()
    }

    /// Waits until every container is ready; fails with the reason when one must be given up.
    pub(super) async fn until_ready(&mut self) -> Result<(), Verdict> {
        while !self.health.is_ready() {
            if let Change::Dead(verdict) = self.step().await {
                return Err(verdict);
            }
        }
        Ok(())
    }

    /// Goes on in the driver's own runtime, until the sandbox ends.
    pub(super) fn go_on(mut self) {
        if self.health.is_over() {
            return;
        }
        if !self.asks.is_empty() {
            // Their sockets and timers belong to the runtime of whoever started the sandbox, which may end before it.
            self.asks.clear();
            self.health.pause();
            self.health.resume((self.inner.config.clock)());
        }
        self.counted.runs();
        let runtime = self.inner.runtime.clone();
        runtime.spawn(async move { self.watch().await });
    }

    async fn watch(&mut self) {
        let sandbox = Arc::clone(&self.sandbox);
        loop {
            let change = tokio::select! {
                biased;
                _ = sandbox.gone() => return,
                change = self.step() => change,
            };
            if let Change::Dead(verdict) = self.tell(change) {
                let grace = verdict.grace.unwrap_or(self.workload.stop_grace);
                end::ask(&self.inner, &self.sandbox, grace);
                return;
            }
        }
    }

    /// Under the lock, so that nothing is told after the sandbox's end.
    fn tell(&self, change: Change) -> Change {
        let mut progress = self.sandbox.progress();
        if progress.ended || self.sandbox.was_requested() {
            return change;
        }
        let (id, revision) = (self.sandbox.id.clone(), self.sandbox.revision.clone());
        let event = match &change {
            Change::Dead(verdict) => {
                let why = Arc::clone(&verdict.why);
                progress.unhealthy = Some(Arc::clone(&why));
                Event::Unhealthy { id, revision, why }
            }
            Change::Ready | Change::NotReady(_) => {
                progress.unready = match &change {
                    Change::NotReady(why) => Some(Arc::clone(why)),
                    _ => None,
                };
                Event::Readiness {
                    id,
                    revision,
                    ready: progress.unready.is_none(),
                    why: progress.unready.clone().unwrap_or_default(),
                }
            }
        };
        // Nobody listening is fine.
        let _ = self.inner.events.send(event);
        change
    }

    /// Asks what is due and takes answers, until something has changed. Cancel-safe.
    async fn step(&mut self) -> Change {
        loop {
            let now = (self.inner.config.clock)();
            while let Some(ask) = self.health.poll(now) {
                self.begin(ask);
            }
            let wait = self.health.next_timeout().map(|at| at.since(now));
            tokio::select! {
                biased;
                Some((ask, outcome)) = self.asks.next() => {
                    let (now, crowd) = ((self.inner.config.clock)(), self.inner.probing.crowd());
                    if let Some(change) = self.health.answered(&ask, &outcome, now, crowd) {
                        return change;
                    }
                }
                Ok(()) = self.quiet.changed() => self.rest(),
                () = pause(wait) => {}
            }
        }
    }

    fn begin(&mut self, asked: Ask) {
        let Some(check) = self.health.check(&asked).cloned() else {
            return;
        };
        let container = Inside {
            inner: Arc::clone(&self.inner),
            sandbox: Arc::clone(&self.sandbox),
            port: self.workload.port,
            container: self.container(&asked),
        };
        let asking = async move {
            let outcome = ask(&container, &check, asked.patience).await;
            (asked, outcome)
        };
        self.asks.push(Box::pin(asking));
    }

    fn container(&self, ask: &Ask) -> Arc<str> {
        let container = self.workload.running().nth(ask.container);
        Arc::clone(&container.unwrap_or(&self.workload.serving).name)
    }

    fn rest(&mut self) {
        if *self.quiet.borrow_and_update() == Quiet::default() {
            self.health.resume((self.inner.config.clock)());
        } else {
            self.health.pause();
            self.asks.clear();
        }
    }
}

/// A container as its probes see it.
struct Inside {
    inner: Arc<Inner>,
    sandbox: Arc<Sandbox>,
    /// Where the serving container says it listens.
    port: u16,
    /// Its name.
    container: Arc<str>,
}

impl Inside {
    /// Without isolation the app listens elsewhere than its manifest says.
    fn on(&self, port: u16) -> u16 {
        if port == self.port { self.sandbox.port } else { port }
    }
}

impl Target for Inside {
    async fn opened(&self, port: u16) -> io::Result<()> {
        let socket = dial::socket(&self.inner, &self.sandbox).await?;
        let opened = self.inner.prober.watch(socket, self.on(port)).await;
        opened.map_err(|_| io::Error::other("the prober has ended"))
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        dial::connect(&self.inner, &self.sandbox, self.on(port)).await
    }

    async fn exec(&self, command: &[String], most: usize) -> io::Result<(i32, Vec<u8>)> {
        let spec = ExecSpec {
            container: Some(Arc::clone(&self.container)),
            ..ExecSpec::new(command)
        };
        let running = command::run(&self.inner, &self.sandbox, spec).await;
        let ran = running.map_err(io::Error::other)?.ran(most).await;
        Ok((ran.status.code(), ran.output))
    }
}

impl Probing {
    fn crowd(&self) -> Crowd {
        Crowd {
            starting: self.starting.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
        }
    }
}

/// Counts a monitor as long as it is there.
struct Counted {
    inner: Arc<Inner>,
    running: bool,
}

impl Counted {
    fn starting(inner: &Arc<Inner>) -> Self {
        inner.probing.starting.fetch_add(1, Ordering::Relaxed);
        Self {
            inner: Arc::clone(inner),
            running: false,
        }
    }

    fn runs(&mut self) {
        self.inner.probing.running.fetch_add(1, Ordering::Relaxed);
        self.inner.probing.starting.fetch_sub(1, Ordering::Relaxed);
        self.running = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let probing = &self.inner.probing;
        let count = if self.running {
            &probing.running
        } else {
            &probing.starting
        };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}
