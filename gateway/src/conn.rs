//! One client connection: HTTP/1.1 or HTTP/2 with prior knowledge on the same port, served to its end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use manifests::units::Clock;
use tokio::net::TcpStream;

use crate::headers::Peer;
use crate::request::{self, BODY_WINDOW, Worker};
use crate::watch::{Watch, Watched};

/// How HTTP is spoken with clients; one for each thread.
pub(crate) struct Http(auto::Builder<Streams>);

impl Http {
    /// Limits that bound what a connection can hold: of HTTP/1.1 one head; of HTTP/2 so many streams, and for each what
    /// flow control lets in before anybody reads it.
    pub(crate) fn new(clock: &Clock) -> Self {
        let mut builder = auto::Builder::new(Streams(Clock::clone(clock)));
        builder.http1().max_buf_size(MOST_HEAD_BYTES);
        let window = u32::try_from(BODY_WINDOW).unwrap_or(u32::MAX);
        builder
            .http2()
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(MOST_H2_HEADER_BYTES)
            .initial_stream_window_size(window)
            .initial_connection_window_size(window * 16);
        Self(builder)
    }

    /// Serves a connection until either side ends it, it stays silent for too long, or the thread drains; then drops
    /// `open`. Not an async function: what it returns is a few words, with the connection in a box behind it.
    pub(crate) fn serve(
        self: Rc<Self>,
        worker: Rc<Worker>,
        watch: Rc<Watch>,
        stream: TcpStream,
        peer: Peer,
        open: impl Drop + 'static,
    ) -> impl Future<Output = ()> + 'static {
        let _ = stream.set_nodelay(true);
        let peer = Rc::new(peer);
        let from = peer.address;
        let clock = Clock::clone(&worker.clock);
        let connection = Rc::clone(&watch);
        let service = service_fn(move |request| {
            request::serve(Rc::clone(&worker), Rc::clone(&peer), Rc::clone(&connection), request)
        });
        let watched = Rc::clone(&watch);
        let http = async move {
            let mut http = pin!(self.0.serve_connection_with_upgrades(TokioIo::new(stream), service));
            let mut told = false;
            let ended = poll_fn(|cx| {
                if watch.draining() && !told {
                    told = true;
                    // HTTP/1.1: closes when idle, else after this response. HTTP/2: GOAWAY, then the same.
                    http.as_mut().graceful_shutdown();
                }
                http.as_mut().poll(cx)
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, client = %from, "client connection ended");
            }
            drop(open);
        };
        Watched::new(http, watched, clock)
    }
}

/// Runs the streams of HTTP/2 connections, each with its own watch.
#[derive(Clone)]
struct Streams(Clock);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(Watched::new(stream, Watch::stream(), Clock::clone(&self.0)));
    }
}

/// The longest request line with headers in HTTP/1.1, and so the largest read buffer.
const MOST_HEAD_BYTES: usize = 64 << 10;
/// The longest header list in HTTP/2.
const MOST_H2_HEADER_BYTES: u32 = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const MOST_STREAMS: u32 = 256;
