//! What a running Knarr answers: status and metrics on the admin port, logs and explanations on the owner's socket too.
//!
//! | path | admin port | socket |
//! |---|---|---|
//! | `GET /healthz` | yes | yes |
//! | `GET /metrics` (Prometheus text) | yes | yes |
//! | `GET /v1/status` (JSON, `docs/status.md`) | yes | yes |
//! | `GET /v1/explain?revision=NAME&since_ms=N&format=text` | no | yes |
//! | `GET /v1/logs?target=NAME&tail=N&follow=true&since_ms=N&timestamps=true` (text, streamed) | no | yes |
//! | `GET /v1/top` (JSON, `docs/status.md`) | no | yes |
//! | `GET /v1/plan?revision=NAME&format=text` | no | yes |
//! | `GET /v1/cost` (JSON, `docs/status.md`) | no | yes |
//! | `GET /v1/inspect?target=NAME` (JSON) | no | yes |
//! | `POST /v1/exec?target=NAME&command=A&command=B...` (upgrades to [`crate::frames`]) | no | yes |
//!
//! The admin port is read-only and loopback; logs may hold secrets, and a command may do anything in a sandbox, so only
//! the owner's socket (mode 0600, peer credentials checked) gives them.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use manifests::units::Timestamp;
use sandbox::driver::BoxFuture;
use sandbox::exec::{Exec, ExecSpec};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cost::CostReport;
use crate::exec;
use crate::frames::PROTOCOL;
use crate::logs::LogQuery;
use crate::status::Status;
use crate::top::Top;

/// What the API answers from. One implementation is the running server, so that this file knows no plane.
pub trait Answers: Send + Sync + 'static {
    /// Everything Knarr says of itself.
    fn status(&self) -> Status;
    /// Resolves when the gateway routes to what a status of before says is ready; within a second in any case.
    fn routed(&self) -> BoxFuture<'_, ()>;
    /// Metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    /// Why a revision runs as it does, for the last `since`; as text, or as JSON lines.
    ///
    /// # Errors
    /// When `target` names nothing, in words for the user.
    fn explain(&self, target: &str, since: Duration, json: bool) -> Result<String, String>;
    /// What time it is.
    fn now(&self) -> Timestamp;
    /// What sandboxes wrote.
    ///
    /// # Errors
    /// When `target` names nothing, in words for the user.
    fn logs(&self, target: &str, query: LogQuery) -> Result<BoxStream<'static, Bytes>, String>;
    /// Where a revision stands while nobody asks, and why; as text or as JSON.
    ///
    /// # Errors
    /// When `target` names nothing, in words for the user.
    fn plan(&self, target: &str, json: bool) -> Result<String, String>;
    /// What every revision costs.
    fn cost(&self) -> CostReport;
    /// What every ready sandbox uses now.
    fn top(&self) -> BoxFuture<'_, Top>;
    /// All that is known of what `target` names; no value of a Secret.
    ///
    /// # Errors
    /// When `target` names nothing, in words for the user.
    fn inspect(&self, target: String) -> BoxFuture<'_, Result<Value, String>>;
    /// Runs a command in the sandbox that `target` names: itself, or any ready one of a revision or service.
    ///
    /// # Errors
    /// When `target` names nothing that runs, or the command cannot be started.
    fn exec(&self, target: String, command: ExecSpec) -> BoxFuture<'_, Result<Exec, exec::Refused>>;
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    /// Anybody on this machine.
    Anybody,
    /// The user who runs Knarr, or root.
    Owner,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves the admin port until `stop`.
pub async fn serve_admin(listener: TcpListener, answers: Arc<dyn Answers>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(stop.clone().run_until_cancelled_owned(serve(
                    stream,
                    Asker::Anybody,
                    Arc::clone(&answers),
                )));
            }
            Err(error) => back_off(&error).await,
        }
    }
    connections.close();
    connections.wait().await;
}

/// Serves the owner's socket until `stop`.
pub async fn serve_socket(listener: UnixListener, answers: Arc<dyn Answers>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) if is_owner(&stream) => {
                connections.spawn(stop.clone().run_until_cancelled_owned(serve(
                    stream,
                    Asker::Owner,
                    Arc::clone(&answers),
                )));
            }
            Ok((stream, _)) => {
                tracing::warn!(peer = ?stream.peer_cred().ok(), "refused a stranger on the control socket")
            }
            Err(error) => back_off(&error).await,
        }
    }
    connections.close();
    connections.wait().await;
}

/// Binds the owner's socket with mode 0600, in place of one that a crash left behind. The caller holds the data
/// directory's lock, so nobody can be listening on the old one.
///
/// # Errors
/// When the socket cannot be made; most often because the path is longer than the 107 bytes that Linux allows.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory is 0700, so nobody can connect before the mode is set.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn is_owner(stream: &UnixStream) -> bool {
    let me = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == me || peer.uid() == 0)
}

/// Out of file descriptors, most likely: waiting is all one can do.
async fn back_off(error: &io::Error) {
    tracing::warn!(%error, "cannot accept");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, asker: Asker, answers: Arc<dyn Answers>) {
    let begun: Mutex<Option<(OnUpgrade, Exec)>> = Mutex::default();
    let service = service_fn(|request| async {
        if asker == Asker::Owner && request.uri().path() == "/v1/exec" {
            return Ok::<_, Infallible>(begin_command(request, answers.as_ref(), &begun).await);
        }
        Ok(answer(&request, asker, answers.as_ref()).await)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin connection");
    }
    let begun = begun.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((upgrade, command)) = begun {
        exec::serve(upgrade, command).await;
    }
}

/// Starts a command, and promises to talk about it from now on.
async fn begin_command(
    mut request: Request<Incoming>,
    answers: &dyn Answers,
    begun: &Mutex<Option<(OnUpgrade, Exec)>>,
) -> Response<Body> {
    if request.method() != Method::POST || !exec::upgrades(&request) {
        let wrong = format!("POST with \"Upgrade: {PROTOCOL}\"\n");
        return text(StatusCode::UPGRADE_REQUIRED, wrong);
    }
    let (target, command) = exec::asked(request.uri().query().unwrap_or(""));
    match answers.exec(target, command).await {
        Ok(command) => {
            let upgrade = hyper::upgrade::on(&mut request);
            *begun.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, command));
            let mut response = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
            response
        }
        Err(refused) => {
            let mut response = text(refused.status, refused.message + "\n");
            response
                .headers_mut()
                .insert(exec::EXIT_CODE, u16::from(refused.code).into());
            response
        }
    }
}

async fn answer(request: &Request<Incoming>, asker: Asker, answers: &dyn Answers) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "read-only: GET and HEAD\n".to_owned());
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let query = request.uri().query().unwrap_or("");
    match (request.uri().path(), asker) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n".to_owned()),
        ("/metrics", _) => with_type(StatusCode::OK, "text/plain; version=0.0.4", answers.metrics()),
        ("/v1/status", _) => {
            let status = answers.status();
            answers.routed().await;
            json(&status)
        }
        ("/v1/top", Asker::Owner) => json(&answers.top().await),
        ("/v1/plan", Asker::Owner) => {
            let json = parameter(query, "format").as_deref() == Some("json");
            match answers.plan(&parameter(query, "revision").unwrap_or_default(), json) {
                Ok(plan) => text(StatusCode::OK, plan),
                Err(why) => text(StatusCode::NOT_FOUND, why),
            }
        }
        ("/v1/cost", Asker::Owner) => json(&answers.cost()),
        ("/v1/inspect", Asker::Owner) => match answers.inspect(parameter(query, "target").unwrap_or_default()).await {
            Ok(found) => json(&found),
            Err(why) => text(StatusCode::NOT_FOUND, why),
        },
        ("/v1/explain", Asker::Owner) => {
            let since = parameter(query, "since_ms")
                .and_then(|ms| ms.parse().ok())
                .unwrap_or(600_000);
            let json = parameter(query, "format").as_deref() == Some("json");
            match answers.explain(
                &parameter(query, "revision").unwrap_or_default(),
                Duration::from_millis(since),
                json,
            ) {
                Ok(explanation) => text(StatusCode::OK, explanation),
                Err(why) => text(StatusCode::NOT_FOUND, why),
            }
        }
        ("/v1/logs", Asker::Owner) => {
            let number = |name| parameter(query, name).and_then(|text| text.parse::<u64>().ok());
            let yes = |name| parameter(query, name).as_deref() == Some("true");
            let wanted = LogQuery {
                tail: number("tail").and_then(|lines| lines.try_into().ok()),
                follow: yes("follow"),
                since: number("since_ms").map(|ms| answers.now().minus(Duration::from_millis(ms))),
                timestamps: yes("timestamps"),
            };
            match answers.logs(&parameter(query, "target").unwrap_or_default(), wanted) {
                Ok(lines) => {
                    let body = StreamBody::new(lines.map(|line| Ok::<_, Infallible>(Frame::data(line))));
                    respond(StatusCode::OK, TEXT, body.boxed_unsync())
                }
                Err(why) => text(StatusCode::NOT_FOUND, why),
            }
        }
        (
            "/v1/explain" | "/v1/logs" | "/v1/exec" | "/v1/top" | "/v1/plan" | "/v1/cost" | "/v1/inspect",
            Asker::Anybody,
        ) => text(
            StatusCode::FORBIDDEN,
            "only on the control socket: use `knarr explain`, `logs`, `exec`, `top`, `plan`, `cost` or `inspect`\n"
                .to_owned(),
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /healthz, /metrics and /v1/status\n".to_owned(),
        ),
    }
}

fn json(answer: &impl Serialize) -> Response<Body> {
    match serde_json::to_string_pretty(answer) {
        Ok(json) => with_type(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    with_type(status, TEXT, body)
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    respond(status, content_type, Full::new(Bytes::from(body)).boxed_unsync())
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use manifests::ids::SandboxId;
    use sandbox::driver::Driver as _;
    use sandbox::fake::FakeDriver;

    use super::*;
    use crate::{client, datadir};

    struct Fixed(FakeDriver);

    impl Answers for Fixed {
        fn status(&self) -> Status {
            Status {
                version: "1.2.3".into(),
                ..Status::default()
            }
        }
        fn routed(&self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }
        fn metrics(&self) -> String {
            "knarr_up 1\n".into()
        }
        fn explain(&self, target: &str, since: Duration, json: bool) -> Result<String, String> {
            Ok(format!("{target} {since:?} {json}"))
        }
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }
        fn logs(&self, target: &str, _: LogQuery) -> Result<BoxStream<'static, Bytes>, String> {
            match target {
                "hello" => Ok(futures_util::stream::iter(["a\n", "b\n"].map(Bytes::from)).boxed()),
                other => Err(format!("no service, revision or sandbox \"{other}\"")),
            }
        }
        fn plan(&self, _: &str, _: bool) -> Result<String, String> {
            Ok(String::new())
        }
        fn cost(&self) -> CostReport {
            CostReport::default()
        }
        fn top(&self) -> BoxFuture<'_, Top> {
            Box::pin(async { Top::default() })
        }
        fn inspect(&self, target: String) -> BoxFuture<'_, Result<Value, String>> {
            Box::pin(async move { Err(format!("nothing named {target}\n")) })
        }
        fn exec(&self, target: String, command: ExecSpec) -> BoxFuture<'_, Result<Exec, exec::Refused>> {
            Box::pin(async move {
                match target.as_str() {
                    "hello" => self
                        .0
                        .exec(&SandboxId::new("hello-1"), command)
                        .await
                        .map_err(|error| exec::Refused {
                            status: StatusCode::CONFLICT,
                            code: error.exit_code(),
                            message: error.to_string(),
                        }),
                    other => Err(exec::Refused::not_found(format!("nothing named {other}"))),
                }
            })
        }
    }

    async fn ask(dir: &Path, path: &str) -> Result<String, String> {
        let mut text = Vec::new();
        let result = client::get(dir, path, |piece| {
            text.extend_from_slice(piece);
            Ok(())
        });
        result.await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[tokio::test]
    async fn the_socket_is_private_and_answers_everything() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = datadir::socket_in(dir.path());
        std::fs::write(&path, "left by a crash").unwrap();
        let listener = bind_socket(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve_socket(listener, Arc::new(Fixed(FakeDriver::new())), stop.clone()));

        assert!(ask(dir.path(), "/v1/status").await.unwrap().contains("1.2.3"));
        assert_eq!(ask(dir.path(), "/v1/logs?target=hello").await.unwrap(), "a\nb\n");
        assert_eq!(
            ask(dir.path(), "/v1/explain?revision=a%2Fb&since_ms=5").await.unwrap(),
            "a/b 5ms false"
        );
        assert_eq!(
            ask(dir.path(), "/v1/logs?target=x").await.unwrap_err(),
            "no service, revision or sandbox \"x\""
        );

        stop.cancel();
        server.await.unwrap();
        assert!(
            ask(&dir.path().join("other"), "/v1/status")
                .await
                .unwrap_err()
                .contains("no Knarr runs on")
        );
    }

    #[tokio::test]
    async fn the_admin_port_is_read_only_and_keeps_logs_to_itself() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve_admin(listener, Arc::new(Fixed(FakeDriver::new())), stop.clone()));
        for (head, wanted) in [
            ("GET /metrics", "200"),
            ("GET /v1/status?x=y", "200"),
            ("GET /healthz", "200"),
            ("GET /v1/logs?target=hello", "403"),
            ("GET /v1/explain?revision=a", "403"),
            ("GET /v1/top", "403"),
            ("GET /v1/inspect?target=hello", "403"),
            ("GET /v1/exec?target=hello&command=sh", "403"),
            ("POST /v1/exec?target=hello&command=sh", "405"),
            ("POST /v1/status", "405"),
            ("GET /nothing", "404"),
        ] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream
                .write_all(format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}")), "{head}: {answer}");
        }
        stop.cancel();
    }
}
