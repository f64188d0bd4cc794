//! One sandbox's proxy: the task that owns its doors, decides about its connections and answers its questions.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use manifests::units::Timestamp;
use rustix::fd::AsFd as _;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::addresses::is_of_services;
use super::answer::Answers;
use super::carry::{carry, reset};
use super::inside::Doors;
use super::meters::Meters;
use super::policy::{self, Denial};
use super::syn::{self, Decision, Flow, Syn};
use super::{LISTEN_PORT, Owner, Shared};
use crate::local::watched::watch;

/// How long the outside may take to answer; an app that has less patience ends its own side sooner.
const CONNECT: Duration = Duration::from_secs(60);

/// How long a connection outside waits for the one inside, whose app may have given up.
const CLAIM: Duration = Duration::from_secs(5);

/// Where services are served.
const SERVICE_PORT: u16 = 80;

/// Serves until it is aborted; dropping it ends every connection of the sandbox.
pub(super) async fn serve(shared: Arc<Shared>, doors: Doors, owner: Owner) {
    let revision = owner.revision.clone();
    match Proxy::new(shared, doors, owner) {
        Ok((mut proxy, doors)) => proxy.run(doors).await,
        Err(error) => tracing::error!(%revision, %error, "a sandbox has no way out"),
    }
}

/// The doors, as this thread's runtime watches them.
struct Watched {
    first_packets: Option<AsyncFd<Arc<OwnedFd>>>,
    tcp: TcpListener,
    udp: Arc<UdpSocket>,
}

struct Proxy {
    shared: Arc<Shared>,
    owner: Owner,
    meters: Arc<Meters>,
    answers: Answers,
    /// Connections whose first packet waits here, or was let go and has not arrived yet.
    waiting: HashMap<Flow, Waiting>,
    /// When which of those is given up, in order.
    unclaimed: VecDeque<(Timestamp, Flow)>,
    tasks: JoinSet<Done>,
    /// Connections open or being opened.
    open: usize,
}

enum Waiting {
    /// The outside is being tried.
    Connecting,
    /// It has answered.
    Connected(TcpStream),
}

/// What a task has come to.
enum Done {
    /// The outside has answered about a first packet that waits.
    Tried { syn: Syn, result: io::Result<TcpStream> },
    /// A connection is over.
    Closed,
    /// Something else is.
    Nothing,
}

impl Proxy {
    fn new(shared: Arc<Shared>, doors: Doors, owner: Owner) -> io::Result<(Self, Watched)> {
        let watched = Watched {
            first_packets: doors.first_packets.map(|queue| watch(Arc::new(queue))).transpose()?,
            tcp: TcpListener::from_std(doors.tcp.into())?,
            udp: Arc::new(UdpSocket::from_std(doors.udp.into())?),
        };
        let meters = Arc::new(Meters::new(owner.revision.clone()));
        let answers = Answers::new(Arc::clone(&shared), owner.policy.clone(), Arc::clone(&meters));
        let proxy = Self {
            shared,
            owner,
            meters,
            answers,
            waiting: HashMap::new(),
            unclaimed: VecDeque::new(),
            tasks: JoinSet::new(),
            open: 0,
        };
        Ok((proxy, watched))
    }

    async fn run(&mut self, doors: Watched) {
        let mut packet = vec![0; BUFFER];
        loop {
            let give_up = self.unclaimed.front().map(|(at, _)| at.since((self.shared.clock)()));
            tokio::select! {
                ready = readable(doors.first_packets.as_ref()) => {
                    let (Ok(mut ready), Some(queue)) = (ready, &doors.first_packets) else { return };
                    let mut syns = Vec::new();
                    match syn::receive(queue.get_ref(), &mut packet, |syn| syns.push(syn)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                        // `ENOBUFS`: some were lost, and come again.
                        Err(error) => tracing::debug!(%error, "first packets"),
                        Ok(()) => {}
                    }
                    // A connection that has ended leaves its place to this one.
                    while let Some(done) = self.tasks.try_join_next() {
                        self.settle(done, Some(queue));
                    }
                    for syn in syns {
                        if let Some(decision) = self.first_packet(syn) {
                            decide(queue, syn, decision);
                        }
                    }
                }
                accepted = doors.tcp.accept() => match accepted {
                    Ok((stream, from)) => self.accepted(stream, from),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a sandbox's connection");
                        sleep(PAUSE).await;
                    }
                },
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.settle(done, doors.first_packets.as_ref());
                }
                received = doors.udp.recv_from(&mut packet) => {
                    if let Ok((length, from)) = received {
                        self.question(&doors.udp, &packet[..length], from);
                    }
                }
                () = sleep(give_up.unwrap_or_default()), if give_up.is_some() => self.sweep(),
            }
        }
    }

    /// A task is over: its place is free again, or what it has tried is decided.
    fn settle(&mut self, done: Result<Done, JoinError>, queue: Option<&AsyncFd<Arc<OwnedFd>>>) {
        if let Ok(Done::Tried { syn, result }) = self.done(done.unwrap_or(Done::Closed))
            && let Some(queue) = queue
        {
            decide(queue, syn, self.tried(syn.flow, result));
        }
    }

    /// What becomes of a first packet; `None` while the outside is being tried.
    fn first_packet(&mut self, syn: Syn) -> Option<Decision> {
        match self.waiting.get(&syn.flow) {
            Some(Waiting::Connecting) => return Some(Decision::Forget),
            Some(Waiting::Connected(_)) => return Some(Decision::Accept),
            None => {}
        }
        let to = syn.flow.to;
        if is_of_services(to.ip()) {
            return Some(match self.service(to) {
                Some(_) => Decision::Accept,
                None => Decision::Refuse,
            });
        }
        if !self.may_connect(to) {
            return Some(Decision::Refuse);
        }
        self.waiting.insert(syn.flow, Waiting::Connecting);
        self.tasks.spawn(async move {
            let result = connect(to).await;
            Done::Tried { syn, result }
        });
        None
    }

    /// The outside has answered, or has not.
    fn tried(&mut self, flow: Flow, result: io::Result<TcpStream>) -> Decision {
        match result {
            Ok(outside) => {
                // Before the sandbox hears of it: whoever saw it connected finds it counted.
                self.meters.get().connected.increment(1);
                self.waiting.insert(flow, Waiting::Connected(outside));
                self.unclaimed.push_back(((self.shared.clock)().plus(CLAIM), flow));
                Decision::Accept
            }
            Err(error) => {
                self.waiting.remove(&flow);
                self.closed();
                self.meters.get().failed.increment(1);
                tracing::debug!(revision = %self.owner.revision, to = %flow.to, %error, "not connected");
                Decision::Refuse
            }
        }
    }

    /// A connection is there: the outside has answered, or there was no way to ask first.
    fn accepted(&mut self, inside: TcpStream, from: SocketAddr) {
        let Ok(to) = inside.local_addr() else { return };
        let [from, to] = [from, to].map(|it| SocketAddr::new(it.ip().to_canonical(), it.port()));
        if is_inside(to.ip()) {
            if to.port() == LISTEN_PORT
                && let Some(asking) = self.answers.by_tcp(inside)
            {
                self.tasks.spawn(async move {
                    asking.await;
                    Done::Nothing
                });
            }
            return;
        }
        if is_of_services(to.ip()) {
            match (self.service(to), inside.into_std()) {
                (Some((cluster, host)), Ok(stream)) => {
                    self.meters.get().to_service.increment(1);
                    cluster.serve(&host, stream, from);
                }
                (None, Ok(stream)) => drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
                (_, Err(_)) => {}
            }
            return;
        }
        let flow = Flow { from, to };
        let meters = Arc::clone(&self.meters);
        if let Some(Waiting::Connected(outside)) = self.waiting.remove(&flow) {
            self.tasks.spawn(async move {
                carry(inside, outside, meters).await;
                Done::Closed
            });
        } else if self.may_connect(to) {
            self.tasks.spawn(async move {
                match connect(to).await {
                    Ok(outside) => {
                        meters.get().connected.increment(1);
                        carry(inside, outside, meters).await;
                    }
                    Err(_) => {
                        meters.get().failed.increment(1);
                        reset(&inside);
                    }
                }
                Done::Closed
            });
        } else {
            reset(&inside);
        }
    }

    /// The service at an address of this sandbox, while there is one.
    fn service(&self, to: SocketAddr) -> Option<(Arc<dyn super::Cluster>, Arc<str>)> {
        let cluster = self.shared.config.cluster.as_ref()?;
        let host = self.answers.service(to.ip()).filter(|_| to.port() == SERVICE_PORT)?;
        cluster.exists(&host).then(|| (Arc::clone(cluster), host))
    }

    /// Judges a destination, and counts the connection when it may be tried.
    fn may_connect(&mut self, to: SocketAddr) -> bool {
        let now = (self.shared.clock)();
        let judged = self.answers.with_pins(|pins| {
            policy::judge(&self.owner.policy, pins, to, now, |address| {
                self.shared.host.place(address)
            })
        });
        let meters = self.meters.get();
        if let Err(denial) = judged {
            match denial {
                Denial::Unreachable => meters.failed.increment(1),
                _ => meters.denied.increment(1),
            }
            tracing::debug!(revision = %self.owner.revision, %to, %denial, "denied");
            return false;
        }
        if self.open >= self.shared.config.connections {
            meters.limited.increment(1);
            return false;
        }
        self.open += 1;
        meters.open.increment(1.0);
        true
    }

    /// Counts what has ended; gives back what is to be decided.
    fn done(&mut self, done: Done) -> Result<Done, ()> {
        match done {
            Done::Tried { .. } => Ok(done),
            Done::Closed => {
                self.closed();
                Err(())
            }
            Done::Nothing => Err(()),
        }
    }

    fn closed(&mut self) {
        self.open -= 1;
        self.meters.get().open.decrement(1.0);
    }

    fn question(&mut self, socket: &Arc<UdpSocket>, message: &[u8], from: SocketAddr) {
        match self.answers.by_udp(message) {
            super::answer::Answer::Now(answer) => {
                if let Some(answer) = answer {
                    // A full buffer loses it, as a network would.
                    let _ = socket.try_send_to(&answer, from);
                }
            }
            super::answer::Answer::Later(asking) => {
                let socket = Arc::clone(socket);
                self.tasks.spawn(async move {
                    if let Some(answer) = asking.await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                    Done::Nothing
                });
            }
        }
    }

    /// Gives up connections that nobody has come for.
    fn sweep(&mut self) {
        let now = (self.shared.clock)();
        while let Some((_, flow)) = self.unclaimed.pop_front_if(|(at, _)| *at <= now) {
            if matches!(self.waiting.get(&flow), Some(Waiting::Connected(_))) {
                self.waiting.remove(&flow);
                self.closed();
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Tasks die unheard, with the set.
        if self.open > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
            self.meters.get().open.decrement(self.open as f64);
        }
    }
}

fn decide(queue: &AsyncFd<Arc<OwnedFd>>, syn: Syn, decision: Decision) {
    if let Err(error) = syn::decide(queue.get_ref().as_fd(), syn.packet, decision) {
        tracing::debug!(%error, "a first packet is gone");
    }
}

async fn readable(
    queue: Option<&AsyncFd<Arc<OwnedFd>>>,
) -> io::Result<tokio::io::unix::AsyncFdReadyGuard<'_, Arc<OwnedFd>>> {
    match queue {
        Some(queue) => queue.readable().await,
        None => std::future::pending().await,
    }
}

/// Connects, from the host. A last look: who has the same address at both ends is this host.
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(to))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    if stream.local_addr()?.ip() == stream.peer_addr()?.ip() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(stream)
}

/// Whether an address is the sandbox's own, which the rules lead nowhere else.
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[..3] == super::OWN_ADDRESS.octets()[..3],
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

/// Room for some dozens of first packets, or one question.
const BUFFER: usize = 8192;

/// How long nothing is accepted after an error: no descriptors are left, most likely.
const PAUSE: Duration = Duration::from_millis(100);
