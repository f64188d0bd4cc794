//! Connections into sandboxes: sockets made in their network namespace, connected here.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::state::{Inner, Sandbox};
use super::watched::watch;
use crate::spawner::{Sockets, Wanted, What, socket as plain_socket, socket_in};
use crate::wire;

/// How a socket comes into being.
pub(super) enum Dialer {
    /// Root: this thread goes in and back.
    InPlace {
        /// The host's network.
        home: OwnedFd,
    },
    /// An ordinary user: the spawner's dialer.
    Remote(Remote),
    /// No isolation: the host's network is the app's.
    Host,
}

/// The dialer process's clients.
#[derive(Default)]
pub(super) struct Remote {
    socket: Mutex<Option<Arc<OwnedFd>>>,
    number: AtomicU64,
    asked: Mutex<HashMap<u64, oneshot::Sender<io::Result<Vec<OwnedFd>>>>>,
}

/// Sockets made ahead for a sandbox; refilled when half are gone.
const SPARE: u32 = 4;

/// The dialer answers within microseconds, or has died.
const ANSWER: Duration = Duration::from_secs(1);

impl Dialer {
    pub(super) fn in_place() -> io::Result<Self> {
        let home = open(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self::InPlace { home })
    }
}

/// Connects to the app's port.
pub(super) async fn dial(inner: &Arc<Inner>, sandbox: Arc<Sandbox>) -> io::Result<TcpStream> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, format!("no sandbox {}", sandbox.id));
    if sandbox.progress().ended {
        return Err(gone());
    }
    tokio::select! {
        biased;
        connected = connect(inner, &sandbox, sandbox.port) => connected,
        // Its backlog was full, and now nobody will ever accept.
        _ = sandbox.gone() => Err(gone()),
    }
}

/// Connects to any port inside.
pub(super) async fn connect(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(socket(inner, sandbox).await?.into());
    let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket in the sandbox's network.
pub(super) async fn socket(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> io::Result<OwnedFd> {
    match &inner.dialer {
        Dialer::Host => plain_socket(),
        Dialer::InPlace { home } => {
            let netns = sandbox
                .shell
                .held()
                .and_then(|h| h.netns.as_ref())
                .ok_or(io::ErrorKind::NotConnected)?;
            socket_in(netns.as_fd(), home.as_fd())
        }
        Dialer::Remote(remote) => {
            let (spare, left) = {
                let mut spare = sandbox.spare.lock().unwrap_or_else(PoisonError::into_inner);
                (spare.pop(), spare.len())
            };
            if left < SPARE as usize / 2 {
                refill(inner, sandbox);
            }
            match spare {
                Some(socket) => Ok(socket),
                None => remote
                    .ask(sandbox, 1)
                    .await?
                    .pop()
                    .ok_or_else(|| io::ErrorKind::NotConnected.into()),
            }
        }
    }
}

/// Has spare sockets made in the background; once at a time for a sandbox.
pub(super) fn refill(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) {
    if !matches!(inner.dialer, Dialer::Remote(_)) || sandbox.refilling.swap(true, Ordering::Acquire) {
        return;
    }
    let (inner, sandbox) = (Arc::clone(inner), Arc::clone(sandbox));
    inner.clone().runtime.spawn(async move {
        if let Dialer::Remote(remote) = &inner.dialer
            && let Ok(made) = remote.ask(&sandbox, SPARE).await
            && !sandbox.progress().ended
        {
            sandbox
                .spare
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(made);
        }
        sandbox.refilling.store(false, Ordering::Release);
    });
}

impl Remote {
    async fn ask(&self, sandbox: &Sandbox, count: u32) -> io::Result<Vec<OwnedFd>> {
        let netns = sandbox
            .shell
            .held()
            .and_then(|h| h.netns.as_ref())
            .ok_or(io::ErrorKind::NotConnected)?;
        self.make(netns, What::Sockets(count)).await
    }

    /// Has something made in a network namespace.
    pub(super) async fn make(&self, netns: &OwnedFd, what: What) -> io::Result<Vec<OwnedFd>> {
        let link = self.socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let link = link.ok_or(io::ErrorKind::NotConnected)?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.asked().insert(number, answer);
        let sent = wire::send(link.as_fd(), &Wanted { number, what }, &[netns.as_fd()]);
        let answer = match sent {
            Ok(()) => timeout(ANSWER, answered).await,
            Err(error) => Ok(Ok(Err(error))),
        };
        self.asked().remove(&number);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(io::ErrorKind::NotConnected.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<io::Result<Vec<OwnedFd>>>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the answers that come over `socket` until it is closed.
    pub(super) async fn serve(&self, socket: Arc<OwnedFd>) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&socket));
        let Ok(socket) = watch(socket) else { return };
        while let Ok(mut ready) = socket.readable().await {
            match ready.try_io(|s| wire::receive::<Sockets>(s.get_ref().as_fd())) {
                Ok(Ok((answer, sockets))) => {
                    if let Some(asker) = self.asked().remove(&answer.number) {
                        let _ = asker.send(match (answer.errno, answer.problem) {
                            (None, _) => Ok(sockets),
                            (Some(errno), None) => Err(io::Error::from_raw_os_error(errno)),
                            (Some(_), Some(problem)) => Err(io::Error::other(problem)),
                        });
                    }
                }
                Ok(Err(_)) => break,
                Err(_would_block) => {}
            }
        }
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.asked().clear();
    }
}
