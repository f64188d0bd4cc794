//! One request over one connection, HTTP/1.1 or HTTP/2, with all its timestamps.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::sync::OnceCell;
use tokio::task;

use crate::connect::{Failure, Ready, Stream};
use crate::http1::{Reader, Step};
use crate::record::{Answer, ErrorKind};
use crate::results::Connections;
use crate::server_timing::Timing;

/// What one thread's requests to one target share.
pub(crate) struct Route<'a> {
    pub(crate) ready: &'a Ready,
    /// Which of its addresses answered last.
    pub(crate) first: &'a Cell<usize>,
    pub(crate) http2: &'a Http2,
    pub(crate) connections: &'a RefCell<Connections>,
}

impl Route<'_> {
    async fn open(&self) -> Result<Stream, Failure> {
        let opened = self.ready.open(self.first).await?;
        let connections = &mut *self.connections.borrow_mut();
        connections.opened += 1;
        connections.connect.record(opened.connect);
        if let Some(tls) = opened.tls {
            connections.tls.record(tls);
        }
        Ok(opened.stream)
    }

    fn reused(&self) {
        self.connections.borrow_mut().reused += 1;
    }
}

// --- HTTP/1.1 ---------------------------------------------------------------------------------------------------------

/// A connection of HTTP/1.1 for one request at a time, opened when it is needed. Dropping it closes the socket at once.
pub(crate) struct Http1 {
    stream: Option<Stream>,
    reader: Reader,
    /// A request that is not the same every time.
    written: Vec<u8>,
}

impl Http1 {
    pub(crate) fn new() -> Self {
        Self {
            stream: None,
            reader: Reader::new(),
            written: Vec::new(),
        }
    }

    /// Sends one request over the connection, or a new one when there is none or it has ended, and reads the answer to its
    /// end. `clock` reads the time since the start of the run. Not to be used again when cancelled midway: see
    /// [`Http1::close`].
    pub(crate) async fn ask(
        &mut self,
        route: &Route<'_>,
        row: &[String],
        clock: impl Fn() -> Duration,
    ) -> Result<Answer, Failure> {
        let ready = route.ready;
        let idle = self.stream.take();
        let mut stream = match idle.and_then(|mut stream| is_open(&mut stream).then_some(stream)) {
            Some(stream) => {
                route.reused();
                stream
            }
            None => route.open().await?,
        };
        let sent = match ready.template.fixed() {
            Some(bytes) => write(&mut stream, bytes).await,
            None => {
                self.written.clear();
                ready.template.write(row, &mut self.written);
                write(&mut stream, &self.written).await
            }
        };
        // A server may answer and close without reading a whole request: then the answer counts.
        let unsent = sent.err();
        let reader = &mut self.reader;
        reader.expect_answer();
        let to_head = ready.template.is_head();
        let mut first_byte = None;
        loop {
            let step = match stream.read(reader.space()).await {
                Ok(0) if reader.closed() => Step::Done,
                Ok(0) if first_byte.is_some() => {
                    return Err((ErrorKind::Cut, "the connection ended before the answer did".to_owned()));
                }
                Ok(0) => {
                    let text = if reader.untouched() {
                        "the connection ended without an answer"
                    } else {
                        "the connection ended in the head of the answer"
                    };
                    return Err((
                        ErrorKind::Closed,
                        unsent.map_or(text.to_owned(), |error| error.to_string()),
                    ));
                }
                Ok(count) => reader
                    .read(count, to_head)
                    .map_err(|text| (ErrorKind::Protocol, text))?,
                Err(error) if first_byte.is_some() => return Err((ErrorKind::Cut, error.to_string())),
                Err(error) => return Err((ErrorKind::Closed, unsent.unwrap_or(error).to_string())),
            };
            if step != Step::Head && first_byte.is_none() {
                first_byte = Some(clock());
            }
            if step == Step::Done {
                break;
            }
        }
        let head = reader.take();
        if head.reusable && ready.keep_alive && unsent.is_none() {
            self.stream = Some(stream);
        }
        Ok(Answer {
            status: head.status,
            first_byte: first_byte.unwrap_or_else(clock),
            body_bytes: head.body_bytes,
            timing: head.timing,
        })
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Whether nothing has come on an idle connection, neither its end nor bytes that nobody asked for. Costs no system call
/// when nothing has.
fn is_open(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(stream)
        .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
        .is_pending()
}

// --- HTTP/2 -----------------------------------------------------------------------------------------------------------

/// One thread's connections of HTTP/2 to one target, each with many requests.
#[derive(Default)]
pub(crate) struct Http2(RefCell<Vec<Rc<Shared>>>);

/// One of them.
#[derive(Default)]
struct Shared {
    /// Requests under way.
    streams: Cell<usize>,
    /// Opened by whoever comes first; others wait for that.
    sender: OnceCell<Result<SendRequest<Full<Bytes>>, Failure>>,
}

/// A request under way on a connection.
struct Seat(Rc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl Http2 {
    /// Sends one request over a connection that has room, or a new one, and reads the answer to its end.
    pub(crate) async fn ask(
        &self,
        route: &Route<'_>,
        row: &[String],
        clock: impl Fn() -> Duration,
    ) -> Result<Answer, Failure> {
        let protocol = |error: hyper::Error| (ErrorKind::Closed, in_full(&error));
        let unsendable = |_| (ErrorKind::Protocol, "the request cannot be sent".to_owned());
        let response = loop {
            let seat = self.seat(route.ready.streams());
            let fresh = !seat.0.sender.initialized();
            let opened = Cell::new(false);
            let open = || {
                opened.set(true);
                shake(route)
            };
            let mut sender = match seat.0.sender.get_or_init(open).await {
                Ok(sender) => sender.clone(),
                Err(failure) => {
                    self.remove(&seat);
                    return Err(failure.clone());
                }
            };
            if !route.ready.keep_alive {
                self.remove(&seat);
            }
            let request = route.ready.template.http2(row).map_err(unsendable)?;
            let sent = match sender.ready().await {
                Ok(()) => sender.try_send_request(request).await,
                // An idle connection may have ended; nothing was sent on it.
                Err(_) if !fresh => {
                    self.remove(&seat);
                    continue;
                }
                Err(error) => return Err(protocol(error)),
            };
            match sent {
                Ok(response) => {
                    if !opened.get() {
                        route.reused();
                    }
                    break (response, seat);
                }
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    if unsent || sender.is_closed() {
                        self.remove(&seat);
                    }
                    if fresh || !unsent {
                        return Err(protocol(error.into_error()));
                    }
                }
            }
        };
        let first_byte = clock();
        let ((head, mut body), _seat) = (response.0.into_parts(), response.1);
        let mut body_bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (ErrorKind::Cut, in_full(&error)))?;
            body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(Answer {
            status: head.status.as_u16(),
            first_byte,
            body_bytes,
            timing: Timing::from_headers(&head.headers),
        })
    }

    /// A place on a connection that has fewer than `most`, or on one that is yet to be opened.
    fn seat(&self, most: usize) -> Seat {
        let all = &mut *self.0.borrow_mut();
        let shared = match all.iter().find(|shared| shared.streams.get() < most) {
            Some(shared) => Rc::clone(shared),
            None => {
                all.push(Rc::default());
                Rc::clone(&all[all.len() - 1])
            }
        };
        shared.streams.set(shared.streams.get() + 1);
        Seat(shared)
    }

    fn remove(&self, seat: &Seat) {
        self.0.borrow_mut().retain(|shared| !Rc::ptr_eq(shared, &seat.0));
    }
}

async fn shake(route: &Route<'_>) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = route.open().await?;
    let (sender, connection) = http2::Builder::new(OnThisThread)
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| (ErrorKind::Protocol, in_full(&error)))?;
    // How the connection ended is told to the requests on it.
    task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

/// With its causes: hyper's own words say little.
fn in_full(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[derive(Clone, Copy)]
struct OnThisThread;

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        task::spawn_local(async move {
            task.await;
        });
    }
}
