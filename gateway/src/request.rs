//! THE PATH of a request, in one function that reads top to bottom: route, pick, slot or wait, connect, forward, hold.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use activator::Slot;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use manifests::units::{Clock, Timestamp};
use manifests::workload::Protocol;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::body::{AppBody, Content, RequestBody, ResponseBody};
use crate::headers::{self, Onward, Peer, SERVER_TIMING, SERVING_TAG, Seen};
use crate::ignored;
use crate::lease::Failed;
use crate::metrics::{Record, Retried};
use crate::probe;
use crate::respond::Refusal;
use crate::routes::{Table, Target};
use crate::split::DRAWS;
use crate::tasks::Tasks;
use crate::timer::Timer;
use crate::timing::Phases;
use crate::tunnel;
use crate::upstream::{Checkout, Upstreams};
use crate::watch::{self, Watch};

/// What one thread needs to serve requests.
pub(crate) struct Worker {
    pub(crate) thread: usize,
    pub(crate) clock: Clock,
    pub(crate) table: Table,
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) tasks: Rc<Tasks>,
    pub(crate) rng: RefCell<SmallRng>,
    pub(crate) keep_alive: Duration,
    pub(crate) queue: Option<Duration>,
}

/// Serves one request: an app's response, or the gateway's own word on why there is none.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    connection: Rc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let open = watch::Request::begin(&connection, &worker.clock, worker.keep_alive);
    let mut record = Record::new((worker.clock)(), &worker.clock);
    let response = forward(&worker, &peer, request, &mut record)
        .await
        .unwrap_or_else(|refusal| {
            record.refused(refusal.facts().label);
            refusal.response()
        });
    record.answered(response.status());
    Ok(ResponseBody::new(response, record, open))
}

async fn forward(
    worker: &Rc<Worker>,
    peer: &Peer,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<Content>, Refusal> {
    let now = record.began();
    let (mut head, body) = request.into_parts();
    let body = RequestBody::new(body, head.version);
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let seen = Seen::of(&head.headers);
    let host = seen.host(&head)?; // 400
    let host = peer.host.as_deref().unwrap_or(host);

    // Route and pick.
    let (target, via, tag) = {
        let table = worker.table.load();
        let entry = table.find(host).ok_or(Refusal::NoRoute)?; // 404
        let asked = if seen.tag {
            head.headers.get(SERVING_TAG).map(HeaderValue::as_bytes)
        } else {
            None
        };
        let (target, via) = entry.pick(asked, || worker.draw()).ok_or(Refusal::NotReady)?; // 503
        (Arc::clone(target), via, entry.route.tag.clone())
    };
    if seen.probe {
        return Ok(probe::answer(&head.headers, || !target.pool.sandboxes().is_empty()));
    }
    if let Some(rules) = &target.revision.idle_ignore
        && let Some(answer) = ignored::answer(rules, &head, || target.pool.trouble())
    {
        return Ok(answer);
    }
    let revision = &target.revision;
    let protocol = revision.workload.protocol;

    // From here on it is load, and its limits run.
    let mut timer = Timer::start(now, &revision.timeouts, &worker.clock);
    record.entered(&target, target.pool.enter(worker.thread, now));
    let mut clocked = Clocked::new(worker, now, seen.timing || revision.server_timing);
    clocked.routed();

    // What the app gets.
    let upgrade = protocol == Protocol::Http1 && seen.upgrades(&head);
    let client = if upgrade {
        head.extensions.remove::<OnUpgrade>()
    } else {
        None
    };
    let upgrade = client.is_some();
    let id = if seen.request_id {
        0
    } else {
        worker.rng.borrow_mut().random()
    };
    let held = held_bytes(&head, &seen, &body);
    headers::to_app(
        &mut head,
        seen,
        peer,
        Onward {
            protocol,
            upgrade,
            via,
            tag: tag.as_deref(),
            id,
        },
    );
    if !revision.upstream_keepalive && protocol == Protocol::Http1 && !upgrade {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // Sent again, should it get no answer: nothing it does is done twice by that, and there is no body that is gone.
    let repeatable = body.is_empty() && (headers::is_idempotent(&head.method) || seen.idempotency_key);
    let mut request = Request::from_parts(head, body);
    let mut how = Checkout {
        protocol,
        keep_alive: revision.upstream_keepalive,
        limited: revision.container_concurrency.limit().is_some(),
        fresh: false,
        until: timer.deadlines().request(),
    };
    let mut pause = Pause::default();
    // Of the sandbox that a request is at which is sent once more: it goes to no other, for it may be what ends them.
    let mut again_at: Option<Slot> = None;

    let (response, lease, switched) = loop {
        // A slot, or a place in line.
        let again = again_at.is_some();
        let slot = match again_at.take().or_else(|| target.pool.try_slot()) {
            Some(slot) => slot,
            None => Box::pin(wait(worker, &target, &timer, held)).await?, // 503, 504
        };
        clocked.slot(&slot);

        // A connection. Nothing is sent yet: when there is none, another sandbox may do.
        let checkout = timer
            .limit(worker.upstreams.checkout(slot, how))
            .await
            .map_err(Refusal::Expired)?; // 504
        let lease = match checkout {
            Ok(lease) => lease,
            Err(error) => {
                tracing::debug!(revision = %revision.id, %error, "no connection to a sandbox");
                target.connected(false);
                if again {
                    return Err(Refusal::BrokenOff); // 502
                }
                target.retried(Retried::Connect);
                Box::pin(timer.limit(pause.next())).await.map_err(Refusal::Expired)?; // 504
                continue;
            }
        };
        if !lease.reused {
            target.connected(true);
        }
        clocked.connected();

        // Forward.
        let copy = (lease.reused && repeatable).then(|| copy_of(&request));
        let (flight, switched) = lease.send(request, upgrade);
        match timer.limit(flight).await.map_err(Refusal::Expired)? {
            Ok((response, lease)) => break (response, lease, switched),
            Err(Failed { unsent: Some(back), .. }) if !again => {
                target.retried(Retried::Unsent);
                request = back;
                if how.fresh {
                    // A new connection failed at once, too: the app may be going down or coming up.
                    Box::pin(timer.limit(pause.next())).await.map_err(Refusal::Expired)?; // 504
                }
            }
            Err(Failed {
                lease: Some(lease),
                error,
                ..
            }) if let Some(copy) = copy => {
                tracing::debug!(revision = %revision.id, %error, "a connection failed when it was used again");
                let switched = || switched.and_then(|mut end| end.try_recv().ok()?.slot);
                again_at = lease.again().or_else(switched);
                if again_at.is_none() {
                    return Err(Refusal::BrokenOff); // 502
                }
                target.retried(Retried::Reused);
                request = copy;
            }
            Err(Failed { lease, error, .. }) => {
                tracing::debug!(revision = %revision.id, %error, "the app broke off a request");
                if let Some(lease) = lease {
                    lease.broke();
                }
                return Err(Refusal::BrokenOff); // 502
            }
        }
        how.fresh = true;
    };

    // Hold: the slot comes back at the end of the body, or of the connection that is HTTP's no more.
    timer.begun((worker.clock)());
    let phases = clocked.answered(&target);
    let (mut head, body) = response.into_parts();
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    headers::to_client(&mut head.headers, switching);
    head.version = Version::HTTP_11;
    if let Some(timing) = phases.and_then(|phases| phases.header()) {
        head.headers.append(SERVER_TIMING, timing);
    }
    let content = match (switching, client, switched) {
        (false, ..) => AppBody::content(body, lease, timer),
        (true, Some(client), Some(app)) => {
            let (deadlines, clock) = (*timer.deadlines(), Clock::clone(&worker.clock));
            let record = record.hand_over(head.status);
            worker.tasks.spawn(tunnel::run(client, app, deadlines, clock, record));
            Content::empty()
        }
        (true, ..) => return Err(Refusal::Unasked), // 502
    };
    Ok(Response::from_parts(head, content))
}

/// Waits for a slot, within the revision's limits and the gateway's own.
async fn wait(worker: &Worker, target: &Target, timer: &Timer, held: usize) -> Result<Slot, Refusal> {
    let since = (worker.clock)();
    let own = timer.deadlines().next();
    let deadline = worker.queue.map_or(own, |most| own.min(since.plus(most)));
    let waited = timer.limit(target.pool.wait(deadline, held)).await;
    let now = (worker.clock)();
    target.waited(now.since(since));
    match waited {
        Ok(Ok(slot)) => Ok(slot),
        // The line's deadline was one of the revision's limits: Knative answers those with 504.
        Ok(Err(reject)) => match timer.deadlines().expired(now) {
            Some(expiry) if is_deadline(&reject) => Err(Refusal::ExpiredQueued(expiry)),
            _ => Err(Refusal::Rejected(reject)),
        },
        Err(expiry) => Err(Refusal::ExpiredQueued(expiry)),
    }
}

fn is_deadline(reject: &activator::Reject) -> bool {
    matches!(
        reject,
        activator::Reject::Deadline | activator::Reject::Unavailable { .. }
    )
}

/// About what a waiting request keeps in memory: its head, what stands for it here, and of its body what flow control
/// lets in before anybody reads it.
fn held_bytes(head: &http::request::Parts, seen: &Seen, body: &RequestBody) -> usize {
    let said = body
        .size_hint()
        .exact()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(usize::MAX);
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    REQUEST_BYTES + path + seen.bytes + said.min(BODY_WINDOW)
}

/// The same request once more; only for one without a body.
fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    *copy.version_mut() = request.version();
    copy
}

impl Worker {
    fn draw(&self) -> u8 {
        self.rng.borrow_mut().random_range(0..DRAWS)
    }
}

/// Between two attempts to connect: longer each time, so that a request that waits for a dead sandbox to be replaced
/// costs little.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    async fn next(&mut self) {
        let pause = FIRST_PAUSE * 2_u32.pow(self.0.min(6));
        self.0 += 1;
        tokio::time::sleep(pause).await;
    }
}

/// Reads the clock between the phases, where anybody wants to know.
struct Clocked<'a> {
    worker: &'a Worker,
    wanted: bool,
    shown: bool,
    began: Timestamp,
    routed: Timestamp,
    connected: Timestamp,
    slotted: Timestamp,
    waited: activator::Waited,
    temperature: activator::Temperature,
}

impl<'a> Clocked<'a> {
    fn new(worker: &'a Worker, began: Timestamp, shown: bool) -> Self {
        Self {
            worker,
            wanted: shown,
            shown,
            began,
            routed: began,
            connected: began,
            slotted: began,
            waited: activator::Waited::default(),
            temperature: activator::Temperature::Warm,
        }
    }

    fn now(&self) -> Timestamp {
        if self.wanted { (self.worker.clock)() } else { self.began }
    }

    fn routed(&mut self) {
        self.routed = self.now();
    }

    fn slot(&mut self, slot: &Slot) {
        self.waited = slot.waited();
        self.temperature = slot.temperature();
        self.wanted |= self.waited.cold.is_some();
        self.slotted = self.now();
    }

    fn connected(&mut self) {
        self.connected = self.now();
    }

    /// The phases, when they are to be shown; those of a cold start are counted.
    fn answered(&self, target: &Target) -> Option<Phases> {
        if !self.wanted {
            return None;
        }
        let phases = Phases {
            route: self.routed.since(self.began),
            waited: self.waited,
            temperature: self.temperature,
            connect: self.connected.since(self.slotted),
            app: self.now().since(self.connected),
        };
        if self.waited.cold.is_some() {
            target.started(&phases);
        }
        self.shown.then_some(phases)
    }
}

/// What a request takes besides its text: its task, its parts, its place in line.
const REQUEST_BYTES: usize = 4 << 10;
/// What is read of a body that nobody asks for: one read of HTTP/1.1, one stream's window of HTTP/2.
pub(crate) const BODY_WINDOW: usize = 64 << 10;
/// The shortest pause before another attempt to connect; the longest is 64 times this.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
