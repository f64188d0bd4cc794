//! Connections: names looked up, sockets connected, TLS shaken hands, each with the time it took.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::record::ErrorKind;
use crate::target::{Address, Protocol, Target};
use crate::template::Template;
use crate::timer::now;
use crate::tls::Handshake;

/// A target, ready to be connected to and asked.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) template: Template,
    /// At least one.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) handshake: Option<Handshake>,
    pub(crate) http2: bool,
    pub(crate) keep_alive: bool,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    pub(crate) weight: f64,
    /// How long the look-up took; `None` for an address.
    pub(crate) dns: Option<Duration>,
}

/// What went wrong, and in words.
pub(crate) type Failure = (ErrorKind, String);

/// An open connection, and what it cost.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) connect: Duration,
    pub(crate) tls: Option<Duration>,
}

/// Bytes to and from a server.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Ready {
    /// Looks up the name, prepares TLS, and for [`Protocol::Auto`] with TLS asks the server what it speaks. With `try_it`
    /// one connection is made in any case, and none that cannot be made is ready. No request is sent.
    pub(crate) async fn new(target: &Target, try_it: bool) -> Result<Self, String> {
        let template = Template::new(target)?;
        let began = now();
        let (addresses, dns) = match &target.address {
            Address::Socket(addr) => (vec![*addr], None),
            Address::Name { host, port } => {
                let found = lookup_host((host.as_str(), *port))
                    .await
                    .map_err(|error| format!("cannot find the address of {host}: {error}"))?;
                (found.collect(), Some(began.elapsed()))
            }
        };
        if addresses.is_empty() {
            return Err(format!("{} has no address", target.address));
        }
        let handshake = match &target.tls {
            Some(tls) => Some(Handshake::new(tls, &target.address, target.protocol)?),
            None => None,
        };
        let mut ready = Self {
            template,
            addresses,
            handshake,
            http2: target.protocol == Protocol::Http2,
            keep_alive: target.keep_alive,
            connections: target.connections,
            streams: target.streams,
            weight: target.weight,
            dns,
        };
        let asks = target.protocol == Protocol::Auto && target.tls.is_some();
        if try_it || asks {
            let first = Cell::new(0);
            let opened = tokio::time::timeout(PATIENCE, ready.open(&first)).await;
            let opened = opened.unwrap_or_else(|_| Err((ErrorKind::Timeout, format!("no answer within {PATIENCE:?}"))));
            let opened = opened.map_err(|(_, text)| format!("cannot connect to {}: {text}", target.address))?;
            if asks {
                ready.http2 = opened.stream.speaks_http2();
            }
            ready.addresses.rotate_left(first.get());
        }
        Ok(ready)
    }

    /// `h1`, `h2c` or `h2`, with or without TLS.
    pub(crate) fn protocol(&self) -> &'static str {
        match (self.http2, self.handshake.is_some()) {
            (false, false) => "h1",
            (false, true) => "h1 over TLS",
            (true, false) => "h2c",
            (true, true) => "h2",
        }
    }

    /// Requests that may be under way on one connection.
    pub(crate) fn streams(&self) -> usize {
        if self.http2 { self.streams } else { 1 }
    }

    /// A new connection to the address that answered last (`first`), or else to the next that does.
    pub(crate) async fn open(&self, first: &Cell<usize>) -> Result<Opened, Failure> {
        let began = now();
        let mut refused = None;
        for step in 0..self.addresses.len() {
            let index = (first.get() + step) % self.addresses.len();
            match TcpStream::connect(self.addresses[index]).await {
                Ok(stream) => {
                    first.set(index);
                    return self.shake(stream, began.elapsed()).await;
                }
                Err(error) => refused = Some(error.to_string()),
            }
        }
        Err((ErrorKind::Connect, refused.unwrap_or_default()))
    }

    async fn shake(&self, stream: TcpStream, connect: Duration) -> Result<Opened, Failure> {
        stream
            .set_nodelay(true)
            .map_err(|error| (ErrorKind::Connect, error.to_string()))?;
        let Some(Handshake { config, name }) = &self.handshake else {
            return Ok(Opened {
                stream: Stream::Plain(stream),
                connect,
                tls: None,
            });
        };
        let began = now();
        let shaken = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
        let stream = Stream::Tls(Box::new(shaken.map_err(|error| (ErrorKind::Tls, error.to_string()))?));
        if self.http2 && !stream.speaks_http2() {
            return Err((
                ErrorKind::Protocol,
                "the server does not speak HTTP/2 (ALPN)".to_owned(),
            ));
        }
        Ok(Opened {
            stream,
            connect,
            tls: Some(began.elapsed()),
        })
    }
}

/// How long the one connection before the start may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Stream {
    fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
