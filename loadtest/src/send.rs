//! One request over one connection, with all its timestamps.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{self, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::plan::Template;
use crate::record::{Answer, ErrorKind, Outcome};
use crate::server_timing::Timing;

/// A connection to the target. Dropping it closes the socket at once, whatever is under way.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// When a client stops waiting.
pub(crate) struct Patience {
    /// Then it is a timeout.
    pub(crate) deadline: Instant,
    /// Then it is an abort, as planned.
    pub(crate) abort: Option<Instant>,
}

/// Sends one request over `connection`, or a new one when there is none or it has ended, and reads the answer to its end.
/// Gives the connection back when it may be used again. `clock` reads the time since the start of the run.
pub(crate) async fn exchange(
    addr: SocketAddr,
    template: &Template,
    connection: Option<Connection>,
    patience: Patience,
    clock: impl Fn() -> Duration,
) -> (Outcome, Option<Connection>) {
    let answer = async {
        match answer(addr, template, connection, clock).await {
            Ok((answer, connection)) => (Outcome::Answered(answer), Some(connection)),
            Err((kind, text)) => (Outcome::Failed(kind, text), None),
        }
    };
    tokio::select! {
        biased;
        result = answer => result,
        () = sleep_until(patience.abort.unwrap_or(patience.deadline)), if patience.abort.is_some() => (Outcome::Aborted, None),
        () = sleep_until(patience.deadline) => (Outcome::Failed(ErrorKind::Timeout, "no whole answer in time".to_owned()), None),
    }
}

type Failure = (ErrorKind, String);

async fn answer(
    addr: SocketAddr,
    template: &Template,
    mut idle: Option<Connection>,
    clock: impl Fn() -> Duration,
) -> Result<(Answer, Connection), Failure> {
    let (response, connection) = loop {
        let reused = idle.is_some();
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => Connection::open(addr).await?,
        };
        let request = Request::from_parts(template.head.clone(), Full::new(template.body.clone()));
        // An idle connection may have ended meanwhile; as long as nothing was sent on it, that is no failure.
        let sent = match connection.sender.ready().await {
            Ok(()) => connection.sender.try_send_request(request).await,
            Err(_) if reused => continue,
            Err(error) => return Err(failure(&error)),
        };
        match sent {
            Ok(response) => break (response, connection),
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                if !(reused && unsent) {
                    return Err(failure(error.error()));
                }
            }
        }
    };
    let first_byte = clock();
    let (head, mut body) = response.into_parts();
    let mut body_bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (ErrorKind::Cut, error.to_string()))?;
        body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    let timing = Timing::from_headers(&head.headers);
    Ok((
        Answer {
            status: head.status.as_u16(),
            first_byte,
            body_bytes,
            timing,
        },
        connection,
    ))
}

impl Connection {
    async fn open(addr: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(addr)
            .await
            .map_err(|error| (ErrorKind::Connect, error.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| (ErrorKind::Connect, error.to_string()))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(&error))?;
        // How the connection ended is told to the request on it.
        let driver = task::spawn_local(async move { drop(driver.await) });
        Ok(Self { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn failure(error: &hyper::Error) -> Failure {
    let kind = if error.is_parse() {
        ErrorKind::Protocol
    } else {
        ErrorKind::Closed
    };
    (kind, error.to_string())
}
