//! Servers on loopback that say what they saw.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest::Target;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    /// Without TLS.
    Http2,
    /// What ALPN says.
    Tls,
}

#[derive(Debug)]
pub struct Server {
    pub addr: SocketAddr,
    pub connections: AtomicU64,
    /// The most requests at once.
    pub most: AtomicUsize,
    now: AtomicUsize,
    paths: Mutex<Vec<String>>,
}

impl Server {
    pub fn target(&self) -> Target {
        Target::new(self.addr, "app")
    }

    /// Of all requests, in the order in which they came.
    pub fn paths(&self) -> Vec<String> {
        self.paths.lock().expect("whole").clone()
    }
}

/// Answers each request with 200 after the time that `service` says for its number.
pub async fn serve(speaks: Speaks, service: fn(u64) -> Duration) -> Arc<Server> {
    serve_at("127.0.0.1:0", speaks, service).await
}

pub async fn serve_at(at: &str, speaks: Speaks, service: fn(u64) -> Duration) -> Arc<Server> {
    let listener = TcpListener::bind(at).await.expect("a port");
    let server = Arc::new(Server {
        addr: listener.local_addr().expect("an address"),
        connections: 0.into(),
        most: 0.into(),
        now: 0.into(),
        paths: Mutex::default(),
    });
    let shared = Arc::clone(&server);
    tokio::spawn(async move {
        let acceptor = acceptor();
        while let Ok((stream, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            let (server, acceptor) = (Arc::clone(&shared), acceptor.clone());
            tokio::spawn(async move {
                match speaks {
                    Speaks::Http1 => converse(stream, false, server, service).await,
                    Speaks::Http2 => converse(stream, true, server, service).await,
                    Speaks::Tls => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            converse(stream, h2, server, service).await;
                        }
                    }
                }
            });
        }
    });
    server
}

/// Answers the n-th request with the n-th body.
pub async fn serve_bodies(body: impl Fn(u64) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (count, body) = (Arc::new(AtomicU64::new(0)), Arc::new(body));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (count, body) = (Arc::clone(&count), Arc::clone(&body));
            tokio::spawn(async move {
                let service = service_fn(|_: Request<Incoming>| {
                    let nth = count.fetch_add(1, Ordering::Relaxed);
                    let answer = Response::new(Full::new(Bytes::from(body(nth))));
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(connection.await);
            });
        }
    });
    addr
}

async fn converse<S>(stream: S, h2: bool, server: Arc<Server>, service: fn(u64) -> Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        async move {
            let now = server.now.fetch_add(1, Ordering::Relaxed) + 1;
            server.most.fetch_max(now, Ordering::Relaxed);
            let nth = {
                let paths = &mut *server.paths.lock().expect("whole");
                paths.push(request.uri().path().to_owned());
                paths.len() as u64 - 1
            };
            let time = service(nth);
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            server.now.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
        }
    });
    let io = TokioIo::new(stream);
    if h2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer);
        drop(connection.await);
    } else {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, answer);
        drop(connection.await);
    }
}

fn acceptor() -> TlsAcceptor {
    const SERVER: &[u8] = include_bytes!("../certificates/server.pem");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("known")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(SERVER).expect("a certificate")],
            PrivateKeyDer::from_pem_slice(SERVER).expect("a key"),
        )
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
