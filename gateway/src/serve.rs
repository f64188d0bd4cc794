//! The gateway as a whole: binds, starts a thread per core, keeps the routes, drains. The only place that makes threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use activator::{Dial, Pools};
use manifests::exchange::Snapshot;
use manifests::ids::Generation;
use manifests::units::Clock;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::conn::Http;
use crate::headers::Peer;
use crate::inlet::{Guest, Inlet};
use crate::listen::{self, Listening};
use crate::metrics;
use crate::request::Worker;
use crate::routes::{Routes, Table};
use crate::tasks::Tasks;
use crate::upstream::{Settings, Upstreams};
use crate::watch::Watch;

/// A running gateway. Dropping it cuts everything off; see [`Self::drain`] for the other way.
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    placed: watch::Receiver<Generation>,
    drain: watch::Sender<Option<Duration>>,
    threads: Vec<Thread>,
    inlet: Inlet,
    publisher: JoinHandle<()>,
}

struct Thread {
    ended: oneshot::Receiver<()>,
    handle: std::thread::JoinHandle<()>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on; in use, most often.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is nowhere to listen, or nobody to.
    #[error("a gateway needs at least one address, one thread and one connection")]
    Nothing,
    /// A thread or its runtime cannot be made.
    #[error("cannot start a gateway thread: {0}")]
    Thread(io::Error),
}

impl Gateway {
    /// Listens and serves. Returns when every address is bound and the first snapshot's routes are in place.
    ///
    /// `snapshots` is the desired state; the gateway gives each to `pools` before it routes to it, and nobody else need.
    /// Endpoint sets go to `pools` directly. `pools` must have been made for `config.threads` threads. `dial` is called on
    /// gateway threads, and its streams belong to the runtime of the caller. `seed` makes the traffic split repeatable.
    ///
    /// Must be called on a runtime: routes are built and freed there, away from the gateway's threads.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running then.
    pub fn start(
        config: &Config,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        pools: Arc<Pools>,
        dial: Arc<dyn Dial>,
        clock: Clock,
        seed: u64,
    ) -> Result<Self, StartError> {
        if config.listen.is_empty() || config.threads == 0 || config.connections == 0 {
            return Err(StartError::Nothing);
        }
        let listening = config
            .listen
            .iter()
            .map(|&address| {
                listen::bind(address, config.threads).map_err(|source| StartError::Listen { address, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let addresses = listening.iter().map(|listening| listening.address).collect();
        let settings = Settings {
            idle: config.upstream_idle,
            most_idle: config.upstream_idle_most,
            dial: config.dial,
            drain_bound: pools.limits().drain_bound,
        };
        let mut routes = Routes::new(pools);
        routes.publish(&snapshots.borrow_and_update().clone());
        let (drain, draining) = watch::channel(None);
        let mut threads = Vec::with_capacity(config.threads);
        let (inlet, guests) = Inlet::new(config.threads);
        let by_thread = by_thread(listening, config.threads).into_iter().zip(guests);
        for (thread, (listeners, guests)) in by_thread.enumerate() {
            let setup = Setup {
                thread,
                listeners,
                guests,
                table: routes.table(),
                dial: Arc::clone(&dial),
                clock: Clock::clone(&clock),
                seed: seed.wrapping_add(thread as u64),
                settings,
                config: config.clone(),
                draining: draining.clone(),
            };
            threads.push(spawn(setup).map_err(StartError::Thread)?);
        }
        let (placed_to, placed) = watch::channel(routes.generation());
        let publisher = tokio::spawn(publish(routes, snapshots, placed_to));
        Ok(Self {
            addresses,
            placed,
            drain,
            threads,
            inlet,
            publisher,
        })
    }

    /// Where it listens, in the order of [`Config::listen`], with the ports that were taken for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The newest snapshot whose routes are in place.
    pub fn placed(&self) -> watch::Receiver<Generation> {
        self.placed.clone()
    }

    /// The way in for connections that somebody else accepts.
    pub fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// Accepts no more connections, tells clients to open others (`Connection: close`, GOAWAY), lets requests finish, and
    /// returns when all have, or cuts those that have not within `most`.
    pub async fn drain(self, most: Duration) {
        self.drain.send_replace(Some(most));
        for thread in self.threads {
            let _ = thread.ended.await;
            let _ = thread.handle.join();
        }
        self.publisher.abort();
    }
}

/// Sockets by address to sockets by thread.
fn by_thread(listening: Vec<Listening>, threads: usize) -> Vec<Vec<std::net::TcpListener>> {
    let mut by_thread: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for listening in listening {
        for (thread, socket) in by_thread.iter_mut().zip(listening.sockets) {
            thread.push(socket);
        }
    }
    by_thread
}

/// Puts every snapshot in place. Control coalesces changes; what comes while one is being built is skipped for the last.
async fn publish(mut routes: Routes, mut snapshots: watch::Receiver<Arc<Snapshot>>, placed: watch::Sender<Generation>) {
    loop {
        let changed = async {
            if routes.tidy() {
                return snapshots.changed().await.map(|()| true);
            }
            // A data thread still reads an old table; look again soon.
            tokio::select! {
                changed = snapshots.changed() => changed.map(|()| true),
                () = tokio::time::sleep(TIDY) => Ok(false),
            }
        };
        match changed.await {
            Ok(true) => {
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                routes.publish(&snapshot);
                placed.send_replace(routes.generation());
            }
            Ok(false) => {}
            // Control is gone: what is in place goes on serving.
            Err(_) => return,
        }
    }
}

/// What a thread is made of.
struct Setup {
    thread: usize,
    listeners: Vec<std::net::TcpListener>,
    guests: UnboundedReceiver<Guest>,
    table: Table,
    dial: Arc<dyn Dial>,
    clock: Clock,
    seed: u64,
    settings: Settings,
    config: Config,
    draining: watch::Receiver<Option<Duration>>,
}

fn spawn(setup: Setup) -> io::Result<Thread> {
    let (ending, ended) = oneshot::channel();
    let name = format!("gateway-{}", setup.thread);
    let handle = std::thread::Builder::new().name(name).spawn(move || {
        if let Err(error) = run(setup) {
            tracing::error!(%error, "a gateway thread cannot run");
        }
        let _ = ending.send(());
    })?;
    Ok(Thread { ended, handle })
}

/// A thread's life: one runtime, its own listeners, its own connections to sandboxes.
fn run(setup: Setup) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let tasks = Rc::new(Tasks::default());
    runtime.block_on(work(setup, Rc::clone(&tasks)))?;
    tasks.close();
    drop(runtime);
    Ok(())
}

async fn work(setup: Setup, tasks: Rc<Tasks>) -> io::Result<()> {
    let Setup {
        thread,
        listeners,
        guests,
        table,
        dial,
        clock,
        seed,
        settings,
        config,
        mut draining,
    } = setup;
    let clients = Rc::new(Clients {
        http: Rc::new(Http::new(&clock)),
        watches: RefCell::default(),
        most: config.connections,
        closed: Notify::new(),
        first_head: config.first_head,
        gauge: metrics::client_connections(thread),
        worker: Rc::new(Worker {
            thread,
            table,
            upstreams: Upstreams::new(dial, Clock::clone(&clock), Rc::clone(&tasks), settings),
            tasks: Rc::clone(&tasks),
            rng: RefCell::new(rand::SeedableRng::seed_from_u64(seed)),
            keep_alive: config.keep_alive,
            queue: config.queue,
            clock,
        }),
    });
    let mut accepting = Vec::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(tokio::task::spawn_local(accept(
            Rc::clone(&clients),
            listener,
            draining.clone(),
        )));
    }
    accepting.push(tokio::task::spawn_local(take_in(
        Rc::clone(&clients),
        guests,
        draining.clone(),
    )));
    let most = until_draining(&mut draining).await;
    for accepting in accepting {
        let _ = accepting.await;
    }
    for watch in clients.watches.borrow().values() {
        watch.drain();
    }
    if tokio::time::timeout(most, tasks.finished()).await.is_err() {
        tracing::warn!(thread, connections = tasks.clients(), "cutting what has not finished");
    }
    Ok(())
}

/// How long the drain may take, when it begins. Nothing at all when the gateway is dropped.
async fn until_draining(draining: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match draining.wait_for(Option::is_some).await {
        Ok(most) => most.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}

/// The client connections of a thread.
struct Clients {
    http: Rc<Http>,
    worker: Rc<Worker>,
    watches: RefCell<HashMap<usize, Rc<Watch>>>,
    most: usize,
    closed: Notify,
    first_head: Duration,
    gauge: ::metrics::Gauge,
}

async fn accept(
    clients: Rc<Clients>,
    listener: tokio::net::TcpListener,
    mut draining: watch::Receiver<Option<Duration>>,
) {
    let mut draining = std::pin::pin!(until_draining(&mut draining));
    loop {
        let accepted = async {
            clients.room().await;
            listen::accept(&listener).await
        };
        tokio::select! {
            biased;
            (stream, from) = accepted => clients.open(stream, from, None),
            _ = &mut draining => break,
        }
    }
    // Closing the socket resets what waits in its queue: take those who have come that far.
    while let Some(Ok((stream, from))) = now_or_never(listener.accept()) {
        clients.open(stream, from, None);
    }
}

/// Takes connections that were accepted elsewhere.
async fn take_in(
    clients: Rc<Clients>,
    mut guests: UnboundedReceiver<Guest>,
    mut draining: watch::Receiver<Option<Duration>>,
) {
    let mut draining = std::pin::pin!(until_draining(&mut draining));
    loop {
        let next = async {
            clients.room().await;
            guests.recv().await
        };
        let guest = tokio::select! {
            biased;
            guest = next => guest,
            _ = &mut draining => return,
        };
        // Nobody can send any more.
        let Some(Guest { stream, from, host }) = guest else {
            return;
        };
        match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => clients.open(stream, from, Some(host)),
            Err(error) => tracing::warn!(%error, "cannot take a sandbox's connection"),
        }
    }
}

fn now_or_never<F: Future>(work: F) -> Option<F::Output> {
    futures_util::FutureExt::now_or_never(work)
}

impl Clients {
    /// Waits while there are as many connections as may be.
    async fn room(&self) {
        while self.watches.borrow().len() >= self.most {
            self.closed.notified().await;
        }
    }

    fn open(self: &Rc<Self>, stream: tokio::net::TcpStream, from: SocketAddr, host: Option<Arc<str>>) {
        let watch = Watch::connection((self.worker.clock)().plus(self.first_head));
        let key = Rc::as_ptr(&watch) as usize;
        self.watches.borrow_mut().insert(key, Rc::clone(&watch));
        self.gauge.increment(1.0);
        let open = Open {
            clients: Rc::clone(self),
            key,
        };
        let (http, worker) = (Rc::clone(&self.http), Rc::clone(&self.worker));
        self.worker
            .tasks
            .spawn(http.serve(worker, watch, stream, Peer::new(from, host), open));
    }
}

/// An open connection of a thread.
struct Open {
    clients: Rc<Clients>,
    key: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.clients.watches.borrow_mut().remove(&self.key);
        self.clients.gauge.decrement(1.0);
        self.clients.closed.notify_waiters();
    }
}

/// How soon to look again for readers of an old table.
const TIDY: Duration = Duration::from_secs(1);
