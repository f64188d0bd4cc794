//! Waits for ports to open, by asking often: a thread of its own, because a runtime's timer ticks in milliseconds and a
//! cold start is over in less.

use std::net::SocketAddrV4;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::sync::oneshot;

/// The thread that asks.
pub(super) struct Prober(Sender<Watch>);

struct Watch {
    /// In the sandbox's network namespace; one serves for all tries.
    socket: OwnedFd,
    port: u16,
    since: Instant,
    next: Instant,
    open: oneshot::Sender<()>,
}

/// Asking one port once costs about this much: a refused connect, and a share of the wake-up.
const TRY: Duration = Duration::from_micros(10);

/// All starts together may use 1/10 of a core for asking.
const BUDGET: u32 = 10;

/// How long after its start a port is asked how often.
const PACE: [(Duration, Duration); 2] = [
    (Duration::from_millis(20), Duration::from_micros(100)),
    (Duration::from_millis(200), Duration::from_millis(1)),
];
const SLOWEST: Duration = Duration::from_millis(5);

impl Prober {
    pub(super) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        thread::Builder::new()
            .name("knarr-prober".to_owned())
            .spawn(move || run(&receiver))?;
        Ok(Self(sender))
    }

    /// Resolves when a connection to `port` was accepted; the connection is closed at once. Dropping the receiver ends it.
    pub(super) fn watch(&self, socket: OwnedFd, port: u16) -> oneshot::Receiver<()> {
        let (open, opened) = oneshot::channel();
        let now = now();
        // The thread lives as long as `self`.
        let _ = self.0.send(Watch {
            socket,
            port,
            since: now,
            next: now,
            open,
        });
        opened
    }
}

/// How long until a port is asked again that has been asked for `age`, while `watched` ports are.
fn pace(age: Duration, watched: usize) -> Duration {
    let own = PACE
        .iter()
        .find(|(until, _)| age < *until)
        .map_or(SLOWEST, |(_, interval)| *interval);
    let fair = TRY * BUDGET * u32::try_from(watched).unwrap_or(u32::MAX);
    own.max(fair)
}

fn run(incoming: &Receiver<Watch>) {
    // Or the kernel would wake us 50 us late to save power.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
    let mut watched: Vec<Watch> = Vec::new();
    loop {
        let due = watched.iter().map(|w| w.next).min();
        let next = match due {
            None => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => incoming.recv_timeout(due.saturating_duration_since(now())),
        };
        match next {
            Ok(watch) => watched.push(watch),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let count = watched.len();
        let mut i = 0;
        while i < watched.len() {
            let watch = &mut watched[i];
            let now = now();
            if watch.next > now {
                i += 1;
            } else if watch.open.is_closed() {
                watched.swap_remove(i);
            } else if accepts(&watch.socket, watch.port) {
                let Watch { socket, open, .. } = watched.swap_remove(i);
                // First: an app that takes one connection after the other is busy with this one until it is closed.
                drop(socket);
                let _ = open.send(());
            } else {
                watch.next = now + pace(now.duration_since(watch.since), count);
                i += 1;
            }
        }
    }
}

/// One try. A refused connect leaves the socket as it was; a full backlog leaves it connecting, and a later call tells.
fn accepts(socket: &OwnedFd, port: u16) -> bool {
    let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
    let connect = || rustix::net::connect(socket, &address);
    // Loopback has the answer by the time the call returns, but only another call tells it.
    let answer = match connect() {
        Err(Errno::INPROGRESS) => connect(),
        answer => answer,
    };
    matches!(answer, Ok(()) | Err(Errno::ISCONN))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is a shell; nothing it decides outlives a start"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;

    #[test]
    fn asking_slows_down_with_age_and_with_company() {
        let (us, ms) = (Duration::from_micros, Duration::from_millis);
        let cases = [
            (us(0), 1, us(100)),
            (us(19_999), 1, us(100)),
            (ms(20), 1, ms(1)),
            (ms(199), 1, ms(1)),
            (ms(200), 1, ms(5)),
            (ms(10_000), 1, ms(5)),
            (us(0), 2, us(200)),
            (us(0), 100, ms(10)),
            (ms(300), 20, ms(5)),
        ];
        for (age, watched, interval) in cases {
            assert_eq!(pace(age, watched), interval, "{age:?} {watched}");
        }
    }

    #[test]
    fn one_try_tells_whether_a_port_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = || crate::spawner::socket().unwrap();
        assert!(accepts(&socket(), port));
        drop(listener);
        let waiting = socket();
        assert!(!accepts(&waiting, port));
        assert!(!accepts(&waiting, port));
        let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(accepts(&waiting, port));
    }

    #[tokio::test]
    async fn a_port_is_seen_when_it_opens_and_a_dropped_watch_ends() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let prober = Prober::start().unwrap();
        let socket = || crate::spawner::socket().unwrap();
        drop(prober.watch(socket(), port));
        let mut opened = prober.watch(socket(), port);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(opened.try_recv().is_err(), "nobody listens yet");
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        opened.await.unwrap();
        // What asked is over by then: an app that serves one connection at a time is free.
        let (mut asked, _) = listener.accept().unwrap();
        asked.set_nonblocking(true).unwrap();
        assert_eq!(asked.read(&mut [0]).unwrap(), 0);
    }
}
