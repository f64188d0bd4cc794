//! The paths, one function each.

use std::convert::Infallible;
use std::future::ready;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::flags::Flags;
use crate::journal::Journal;
use crate::moods::Moods;
use crate::overlap::Detector;
use crate::{burn, websocket};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// All state of the process.
pub(crate) struct App {
    ready: AtomicBool,
    chatty: bool,
    journal: Option<Journal>,
    hello: Bytes,
    overlap: Arc<Detector>,
    moods: Arc<Moods>,
}

impl App {
    pub(crate) fn new(flags: &Flags, journal: Option<Journal>, env: impl Fn(&str) -> Option<String>) -> Self {
        let hello = match flags.body {
            Some(bytes) => Bytes::from(vec![b'x'; bytes]),
            None => {
                let or = |name, default: &str| env(name).unwrap_or_else(|| default.to_owned());
                let (target, revision) = (or("TARGET", "World"), or("K_REVISION", "none"));
                Bytes::from(format!(
                    "Hello {target}! revision={revision} host={}\n",
                    or("HOSTNAME", "unknown")
                ))
            }
        };
        Self {
            ready: AtomicBool::new(flags.ready_delay.is_zero()),
            chatty: flags.chatty,
            journal,
            hello,
            overlap: Arc::default(),
            moods: Arc::default(),
        }
    }

    /// Ends `--ready-delay`.
    pub(crate) fn become_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Never fails: what cannot be answered is answered with a status and one line of text.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if self.chatty {
            // A reader that has gone away is no reason to die, as `println!` would.
            let _ = writeln!(io::stdout(), "{} {}", request.method(), request.uri());
        }
        self.moods.answers().await;
        if !self.ready.load(Ordering::Relaxed) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "not ready yet\n");
        }
        self.route(request)
            .await
            .unwrap_or_else(|why| text(StatusCode::BAD_REQUEST, format!("{why}\n")))
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, String> {
        let uri = request.uri().clone();
        let query = Query(uri.query().unwrap_or_default());
        match uri.path() {
            "/" => Ok(text(StatusCode::OK, self.hello.clone())),
            "/echo" => Ok(echo(request)),
            "/sleep" => {
                sleep(query.millis("ms")?).await;
                Ok(text(StatusCode::OK, "slept\n"))
            }
            "/cpu" => {
                let wall = burn::cpu(query.millis("ms")?).await;
                Ok(text(
                    StatusCode::OK,
                    format!("took {:.3} ms\n", wall.as_secs_f64() * 1e3),
                ))
            }
            "/mem" => {
                let megabytes: usize = query.number("mb", "0")?;
                let held = burn::memory(megabytes << 20);
                sleep(query.millis("ms")?).await;
                Ok(text(StatusCode::OK, format!("held {} bytes\n", held.len())))
            }
            "/exit" => std::process::exit(query.number("code", "0")?),
            "/stream" => chunks(query.number("n", "10")?, query.millis("ms")?),
            "/trailers" => Ok(trailers()),
            "/ws" => match websocket::upgrade(request) {
                Some(response) => Ok(response.map(|()| empty())),
                None => Err("/ws wants a WebSocket upgrade".to_owned()),
            },
            "/overlap" => self.overlap(query.millis("ms")?).await,
            "/overlap/report" => Ok(self.overlap_report(StatusCode::OK)),
            "/write" => self.write(query.number("id", "0")?),
            "/env" => Ok(env()),
            "/ready" if self.moods.is_ready() => Ok(text(StatusCode::OK, "ready\n")),
            "/ready" => Ok(text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")),
            "/unready" => {
                self.moods.become_unready(query.millis("ms")?);
                Ok(text(StatusCode::OK, format!("{}\n", host())))
            }
            "/hang" => {
                self.moods.hang(query.millis("ms")?);
                Ok(text(StatusCode::OK, format!("{}\n", host())))
            }
            "/grpc.health.v1.Health/Check" => Ok(grpc(self.moods.grpc_health())),
            path => match path.strip_prefix("/status/") {
                Some(code) => status(code),
                None => Ok(text(StatusCode::NOT_FOUND, format!("no such path: {path}\n"))),
            },
        }
    }

    fn write(&self, id: u64) -> Result<Response<Body>, String> {
        let journal = self.journal.as_ref().ok_or("/write wants --journal")?;
        journal.write(&id.to_string()).map_err(|error| error.to_string())?;
        Ok(text(StatusCode::OK, "written\n"))
    }

    /// Works in a task of its own: hyper drops the handler when the client goes away, but most apps work on.
    async fn overlap(&self, time: Duration) -> Result<Response<Body>, String> {
        let detector = self.overlap.clone();
        let work = tokio::spawn(async move {
            let stay = detector.enter();
            sleep(time).await;
            stay.overlapped()
        });
        let overlapped = work.await.map_err(|error| error.to_string())?;
        Ok(self.overlap_report(if overlapped {
            StatusCode::CONFLICT
        } else {
            StatusCode::OK
        }))
    }

    fn overlap_report(&self, status: StatusCode) -> Response<Body> {
        let seen = self.overlap.seen();
        let report = json!({
            "pid": std::process::id(), "requests": seen.requests, "overlaps": seen.overlaps, "most": seen.most,
            "running": seen.running,
        });
        json_response(status, &report)
    }
}

/// The sandbox that answers.
fn host() -> String {
    std::env::var("HOSTNAME").unwrap_or_default()
}

/// An answer of a gRPC server: its message, and status 0 behind it.
fn grpc(message: Bytes) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = full(message).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, kind.clone());
    }
    for (name, value) in &parts.headers {
        if let Ok(name) = HeaderName::try_from(format!("x-echo-{name}")) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in [("x-method", parts.method.as_str()), ("x-uri", &parts.uri.to_string())] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn status(code: &str) -> Result<Response<Body>, String> {
    let status = code
        .parse()
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok());
    let Some(status) = status else {
        return Err(format!("no status to answer with: {code}, but 200 to 599 are"));
    };
    let mut response = text(status, format!("{status}\n"));
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        *response.body_mut() = empty();
    }
    Ok(response)
}

fn chunks(count: u32, pause: Duration) -> Result<Response<Body>, String> {
    if !(1..=1_000_000).contains(&count) {
        return Err(format!("n is {count}, but must be 1 to 1000000"));
    }
    let chunks = stream::unfold(0, move |index| async move {
        if index == count {
            return None;
        }
        if index > 0 {
            sleep(pause).await;
        }
        Some((Ok(Frame::data(Bytes::from(format!("chunk {index}\n")))), index + 1))
    });
    Ok(Response::new(StreamBody::new(chunks).boxed_unsync()))
}

fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc123"));
    let body = full("a body with trailers\n").with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    // Trailers need chunks (RFC 9112 section 7.1.2); without this hyper knows the length and sends none.
    response
        .headers_mut()
        .insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    response
}

fn env() -> Response<Body> {
    let variables = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                Value::from(value.to_string_lossy()),
            )
        })
        .collect();
    json_response(StatusCode::OK, &Value::Object(variables))
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = text(status, format!("{value}\n"));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(never).boxed_unsync()
}

fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

fn never(impossible: Infallible) -> hyper::Error {
    match impossible {}
}

/// The query string; every value is a plain number, so nothing needs decoding.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn millis(&self, name: &str) -> Result<Duration, String> {
        self.number(name, "0").map(Duration::from_millis)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: &str) -> Result<T, String> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next()
            .unwrap_or(default);
        value
            .parse()
            .map_err(|_| format!("{name} is {value:?}, but must be a whole number"))
    }
}
