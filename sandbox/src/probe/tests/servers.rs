//! Asks against real servers on loopback: HTTP, TCP, gRPC by hyper's own server, and some that misbehave.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::ask::{Target, ask};
use super::*;

/// This host as a container.
struct Here {
    exits: io::Result<i32>,
}

const HERE: Here = Here { exits: Ok(0) };

impl Target for Here {
    async fn opened(&self, port: u16) -> io::Result<()> {
        while self.connect(port).await.is_err() {
            tokio::time::sleep(MS).await;
        }
        Ok(())
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", port)).await
    }

    async fn exec(&self, command: &[String], _: usize) -> io::Result<(i32, Vec<u8>)> {
        if command[0] == "sleep" {
            std::future::pending::<()>().await;
        }
        match &self.exits {
            Ok(code) => Ok((*code, b"one\n no luck \n\n".to_vec())),
            Err(error) => Err(error.kind().into()),
        }
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

const PATIENT: Patience = Patience::Once(Duration::from_secs(20));
const HASTY: Patience = Patience::Once(Duration::from_millis(200));

async fn why(check: &Check, patience: Patience) -> String {
    match ask(&HERE, check, patience).await {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed(why) => why,
        Outcome::Unknown(why) => panic!("{why}"),
    }
}

/// Answers every connection with what `answer` makes of the request, as raw text, and keeps what was asked.
async fn raw(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (u16, Arc<Mutex<Vec<String>>>) {
    let (listener, port) = listen().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let request = String::from_utf8(request).unwrap();
            let _ = stream.write_all(&answer(&request)).await;
            log.lock().unwrap().push(request);
        }
    });
    (port, asked)
}

fn get(port: u16, path: &str) -> Check {
    Check::Http {
        tls: false,
        port,
        path: path.into(),
        headers: vec![("X-A".into(), "b".into())],
    }
}

#[tokio::test]
async fn http_passes_from_200_to_399_and_says_what_else_came() {
    let (port, asked) = raw(|request| {
        let path = request.split(' ').nth(1).unwrap();
        let long = "x".repeat(3_000_000);
        match path {
            "/hang-up" => Vec::new(),
            "/noise" => b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(),
            "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec(),
            "/long" => format!("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n{long}").into_bytes(),
            "/long-head" => format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n").into_bytes(),
            "/here" => b"HTTP/1.1 302 X\r\nLocation: /503\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/there" => b"HTTP/1.1 302 X\r\nLocation: http://example.com/503\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/round" => b"HTTP/1.1 302 X\r\nLocation: /round\r\nContent-Length: 0\r\n\r\n".to_vec(),
            status => format!("HTTP/1.1 {} X\r\n\r\n", &status[1..]).into_bytes(),
        }
    })
    .await;
    for (path, wanted) in [
        ("/200", "passed"),
        ("/204", "passed"),
        ("/304", "passed"),
        ("/399", "passed"),
        ("/400", "GET /400 answered 400"),
        ("/503", "GET /503 answered 503"),
        ("/199", "GET /199: "),
        ("/hang-up", "GET /hang-up: connection closed"),
        ("/noise", "GET /noise: "),
        ("/cut", "GET /cut: "),
        ("/long", "passed"),
        ("/long-head", "GET /long-head: "),
        ("/here", "GET /503 answered 503"),
        ("/there", "passed"),
        ("/round", "stopped after 10 redirects, at /round"),
    ] {
        let got = why(&get(port, path), PATIENT).await;
        assert!(got.starts_with(wanted), "{path}: {got:?}, but wanted {wanted:?}");
    }
    let first = asked.lock().unwrap()[0].to_ascii_lowercase();
    for line in [
        "get /200 http/1.1\r\n",
        &format!("\r\nhost: 127.0.0.1:{port}\r\n"),
        "\r\nuser-agent: kube-probe/",
        "\r\naccept: */*\r\n",
        "\r\nconnection: close\r\n",
        "\r\nx-a: b\r\n",
    ] {
        assert!(first.contains(line), "{line:?} is not in {first:?}");
    }
}

/// The certificate is of somebody else, signed by nobody, and soon out of date; its key is no secret.
const SERVER: &[u8] = include_bytes!("server.pem");

#[tokio::test]
async fn https_is_asked_without_a_look_at_the_certificate() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = (
        CertificateDer::from_pem_slice(SERVER),
        PrivateKeyDer::from_pem_slice(SERVER),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let status = if request.starts_with(b"GET /up ") { 200 } else { 503 };
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    let (plain, _) = raw(move |request| {
        let to = if request.starts_with("GET /up ") { "up" } else { "down" };
        format!("HTTP/1.1 301 X\r\nLocation: https://127.0.0.1:{port}/{to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    })
    .await;
    let over = |tls, port, path: &str| Check::Http {
        tls,
        port,
        path: path.into(),
        headers: Vec::new(),
    };
    for (check, wanted) in [
        (over(true, port, "/up"), "passed"),
        (over(true, port, "/down"), "GET /down answered 503"),
        // Redirects lead from one to the other.
        (over(false, plain, "/up"), "passed"),
        (over(false, plain, "/x"), "GET /down answered 503"),
        (over(false, port, "/up"), "GET /up: "),
    ] {
        let got = why(&check, PATIENT).await;
        assert!(got.starts_with(wanted), "{check:?}: {got:?}, but wanted {wanted:?}");
    }
}

#[tokio::test]
async fn tries_end_in_time() {
    // Accepts, by its backlog, and never answers.
    let (_silent, silent) = listen().await;
    let (closed, port) = listen().await;
    drop(closed);
    let grpc = |port| Check::Grpc {
        port,
        service: String::new(),
    };
    let sleep = Check::Exec {
        command: vec!["sleep".into(), "secret".into()],
    };
    for (check, wanted) in [
        (
            get(silent, "/h"),
            format!("GET /h on port {silent}: no answer within 200ms"),
        ),
        (grpc(silent), format!("no answer on port {silent} within 200ms")),
        (Check::Tcp { port: silent }, "passed".to_owned()),
        (sleep, "sleep did not end within 200ms".to_owned()),
        (get(port, "/h"), format!("nothing listens on port {port}")),
        (grpc(port), format!("nothing listens on port {port}")),
        (Check::Tcp { port }, format!("nothing listens on port {port}")),
    ] {
        assert_eq!(why(&check, HASTY).await, wanted);
    }
}

#[tokio::test]
async fn exec_passes_with_code_0_and_what_cannot_be_run_says_nothing() {
    let command = Check::Exec {
        command: vec!["cat".into(), "secret".into()],
    };
    for (exits, wanted) in [
        (Ok(0), Outcome::Passed),
        (Ok(3), Outcome::Failed("cat exited with code 3: no luck".into())),
        (
            Err(io::ErrorKind::NotConnected.into()),
            Outcome::Unknown("cat: not connected".into()),
        ),
    ] {
        assert_eq!(ask(&Here { exits }, &command, PATIENT).await, wanted);
    }
}

#[tokio::test]
async fn a_round_passes_with_its_first_success_and_ends_in_time() {
    let (closed, port) = listen().await;
    drop(closed);
    let rounds = |all| Patience::Rounds {
        each: 100 * MS,
        gap: 5 * MS,
        all,
    };
    let never = ask(&HERE, &Check::Tcp { port }, rounds(60 * MS)).await;
    assert_eq!(never, Outcome::Failed(format!("nothing listens on port {port}")));
    let check = Check::Tcp { port };
    let (late, _opened) = tokio::join!(ask(&HERE, &check, rounds(20 * S)), async {
        tokio::time::sleep(50 * MS).await;
        TcpListener::bind(("127.0.0.1", port)).await.unwrap()
    });
    assert_eq!(late, Outcome::Passed);
}

/// A health server of `grpc.health.v1`: `service` to its status; other methods and services as gRPC servers answer them.
async fn health_server(status: &'static [(&'static str, u8)]) -> u16 {
    let (listener, port) = listen().await;
    let answer = move |request: Request<Incoming>| async move {
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        assert!(
            request.headers()["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("kube-probe/")
        );
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let service = body
            .get(7..)
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .unwrap_or_default();
        let known = status.iter().find(|(name, _)| *name == service);
        let (code, frame) = match known {
            _ if path != "/grpc.health.v1.Health/Check" || status.is_empty() => ("12", Vec::new()),
            None => ("5", Vec::new()),
            Some((_, 0)) => ("0", vec![0, 0, 0, 0, 0]),
            Some((_, status)) => ("0", vec![0, 0, 0, 0, 2, 8, *status]),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.parse().unwrap());
        let mut response = Response::new(
            Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers)))),
        );
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        Ok::<_, Infallible>(response)
    };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(serving);
        }
    });
    port
}

#[tokio::test]
async fn grpc_passes_when_the_service_serves() {
    let port = health_server(&[("", 1), ("up", 1), ("down", 2), ("dunno", 0), ("gone", 3)]).await;
    let bare = health_server(&[]).await;
    let (http1, _) = raw(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    for (port, service, wanted) in [
        (port, "", "passed"),
        (port, "up", "passed"),
        (port, "down", "gRPC health of \"down\": NOT_SERVING"),
        (port, "dunno", "gRPC health of \"dunno\": UNKNOWN"),
        (port, "gone", "gRPC health of \"gone\": SERVICE_UNKNOWN"),
        (
            port,
            "other",
            "gRPC health of \"other\": the server does not know this service",
        ),
        (
            bare,
            "",
            "gRPC health: the server does not implement grpc.health.v1.Health",
        ),
        (http1, "", "gRPC health on port"),
    ] {
        let check = Check::Grpc {
            port,
            service: service.to_owned(),
        };
        let got = why(&check, PATIENT).await;
        assert!(got.starts_with(wanted), "{service:?}: {got:?}, but wanted {wanted:?}");
    }
}
