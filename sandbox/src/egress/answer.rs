//! Answers to a sandbox's questions: services from here, other names from the host's name servers.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manifests::workload::Egress;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use super::addresses::Addresses;
use super::dns::{Failure, Found, Query};
use super::meters::Meters;
use super::names::{self, Name};
use super::pins::Pins;
use super::policy;
use super::resolvers::{read_message, write_message};

/// Questions of one sandbox that wait for a name server, and connections that ask; more get no answer.
const MOST: usize = 256;

/// How long a connection may stay silent (RFC 7766 6.2.3: a few seconds).
const SILENCE: Duration = Duration::from_secs(10);

/// The shortest life of a pinned address: apps connect a little later than they ask, and again after a failure.
const SHORTEST_PIN: Duration = Duration::from_secs(60);

/// One sandbox's answers. Clones are the same.
#[derive(Clone)]
pub(super) struct Answers(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    policy: Egress,
    meters: Arc<Meters>,
    known: Mutex<Known>,
    waiting: AtomicUsize,
}

/// What was answered.
#[derive(Default)]
struct Known {
    pins: Pins,
    addresses: Addresses,
}

type Future_<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An answer, or the way to it; `None` is silence.
pub(super) enum Answer {
    Now(Option<Vec<u8>>),
    Later(Future_<Option<Vec<u8>>>),
}

impl Answers {
    pub(super) fn new(shared: Arc<Shared>, policy: Egress, meters: Arc<Meters>) -> Self {
        Self(Arc::new(Inner {
            shared,
            policy,
            meters,
            known: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// The service that an address was given for.
    pub(super) fn service(&self, address: IpAddr) -> Option<Arc<str>> {
        self.0.known().addresses.service(address).cloned()
    }

    /// Shows which names lead where.
    pub(super) fn with_pins<T>(&self, look: impl FnOnce(&Pins) -> T) -> T {
        look(&self.0.known().pins)
    }

    /// Answers one question.
    pub(super) fn by_udp(&self, message: &[u8]) -> Answer {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(complaint) => return Answer::Now(complaint),
        };
        if let Some(answer) = self.0.at_once(&query) {
            return Answer::Now(answer);
        }
        let Some(place) = Place::take(&self.0) else {
            return Answer::Now(query.fail(Failure::Server));
        };
        let inner = Arc::clone(&self.0);
        Answer::Later(Box::pin(async move {
            let answer = inner.forward(&query, false).await;
            drop(place);
            answer
        }))
    }

    /// Answers the questions of a connection, one after the other; `None` when there are too many connections.
    pub(super) fn by_tcp(&self, mut stream: TcpStream) -> Option<Future_<()>> {
        let place = Place::take(&self.0)?;
        let inner = Arc::clone(&self.0);
        Some(Box::pin(async move {
            while let Ok(Ok(Some(message))) = timeout(SILENCE, read_message(&mut stream)).await {
                let answer = match Query::read(&message) {
                    Ok(query) => match inner.at_once(&query) {
                        Some(answer) => answer,
                        None => inner.forward(&query, true).await,
                    },
                    Err(complaint) => complaint,
                };
                let Some(answer) = answer else { break };
                if write_message(&mut stream, &answer).await.is_err() {
                    break;
                }
            }
            drop(place);
        }))
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that needs nobody else; `None` when a name server must be asked.
    fn at_once(&self, query: &Query) -> Option<Option<Vec<u8>>> {
        let cluster = self.shared.config.cluster.as_ref();
        let exists = |host: &str| cluster.is_some_and(|cluster| cluster.exists(host));
        let meters = self.meters.get();
        match names::look_up(&query.name, exists) {
            Name::Service(host) => {
                meters.asked_service.increment(1);
                let address = self.known().addresses.of(&host);
                Some(query.service(address))
            }
            Name::Missing => {
                meters.asked_missing.increment(1);
                Some(query.fail(Failure::Missing))
            }
            Name::Foreign if policy::may_resolve(&self.policy, &query.name) => None,
            Name::Foreign => {
                meters.asked_refused.increment(1);
                Some(query.fail(Failure::Refused))
            }
        }
    }

    async fn forward(&self, query: &Query, over_tcp: bool) -> Option<Vec<u8>> {
        let meters = self.meters.get();
        let Some((answer, found)) = self.shared.resolvers.ask(query, over_tcp).await else {
            meters.asked_failed.increment(1);
            return query.fail(Failure::Server);
        };
        // A name of elsewhere that leads here is an attack (DNS rebinding) or a mistake.
        let forbidden = |address: &IpAddr| policy::never(address.to_canonical()).is_some();
        if let Some(address) = Query::addresses(&answer).iter().find(|address| forbidden(address)) {
            meters.asked_refused.increment(1);
            tracing::debug!(name = &*query.name, %address, "an answer was refused");
            return query.fail(Failure::Refused);
        }
        meters.asked_forwarded.increment(1);
        // Before the app hears of it.
        self.pin(query, &found);
        Some(answer)
    }

    fn pin(&self, query: &Query, found: &Found) {
        if !matches!(self.policy, Egress::AllowList(_)) {
            return;
        }
        let now = (self.shared.clock)();
        let mut known = self.known();
        for (address, ttl) in &found.addresses {
            known.pins.pin(&query.name, *address, (*ttl).max(SHORTEST_PIN), now);
        }
    }
}

/// One of the [`MOST`] that may wait.
struct Place(Arc<Inner>);

impl Place {
    fn take(inner: &Arc<Inner>) -> Option<Self> {
        let before = inner.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(inner));
        (before < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
