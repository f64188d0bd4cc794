//! Talks to a running Knarr over its control socket: one request, one answer, streamed.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::datadir;
use crate::exec::EXIT_CODE;
use crate::frames::{PROTOCOL, framed};

/// Why a running Knarr could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no Knarr runs on {path}: {source}; start one with `knarr serve`, or name its directory with --data-dir", path = data_dir.display())]
    NotRunning {
        /// The data directory that was tried.
        data_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said no; the text is for people.
    #[error("{0}")]
    Refused(String),
    /// It could not start a command; the text is for people.
    #[error("{message}")]
    NotStarted {
        /// Why.
        message: String,
        /// What `knarr exec` shall exit with.
        code: u8,
    },
    /// The conversation broke off.
    #[error("the connection to Knarr broke: {0}")]
    Broken(String),
}

/// Asks the Knarr of `data_dir` for `path_and_query` and hands each piece of the answer to `sink` until it ends or
/// `sink` returns an error (a closed pipe, say).
///
/// # Errors
/// When nobody listens, when Knarr refuses, when the connection breaks.
pub async fn get(
    data_dir: &Path,
    path_and_query: &str,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ClientError> {
    let stream = connect(data_dir).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchange = async {
        let request = http::Request::get(path_and_query)
            .header(http::header::HOST, "knarr")
            .body(Empty::new())
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if !response.status().is_success() {
            let text = response.into_body().collect().await.map_err(broken)?.to_bytes();
            return Err(ClientError::Refused(String::from_utf8_lossy(&text).trim().to_owned()));
        }
        stream_body(response.into_body(), &mut sink).await
    };
    // The connection may end first, with the answer still to be read: then the exchange says how it went.
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}

/// A command's connection: what it says comes out, what it shall read goes in.
pub type Session = Framed<TokioIo<Upgraded>, LengthDelimitedCodec>;

/// Asks the Knarr of `data_dir` to run a command; `path_and_query` says where and what.
///
/// # Errors
/// When nobody listens, when the command cannot be started, when the connection breaks.
pub async fn exec(data_dir: &Path, path_and_query: &str) -> Result<Session, ClientError> {
    let stream = connect(data_dir).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends when the connection is handed over, or with the last of its users.
    tokio::spawn(connection.with_upgrades());
    let request = http::Request::post(path_and_query)
        .header(http::header::HOST, "knarr")
        .header(http::header::CONNECTION, "upgrade")
        .header(http::header::UPGRADE, PROTOCOL)
        .body(Empty::new())
        .map_err(|error| ClientError::Broken(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
        return Ok(framed(TokioIo::new(upgraded)));
    }
    let code = response
        .headers()
        .get(EXIT_CODE)
        .and_then(|code| code.to_str().ok()?.parse().ok());
    let text = response.into_body().collect().await.map_err(broken)?.to_bytes();
    Err(ClientError::NotStarted {
        message: String::from_utf8_lossy(&text).trim().to_owned(),
        code: code.unwrap_or(125),
    })
}

async fn connect(data_dir: &Path) -> Result<UnixStream, ClientError> {
    let connected = UnixStream::connect(&datadir::socket_in(data_dir)).await;
    connected.map_err(|source| ClientError::NotRunning {
        data_dir: data_dir.to_owned(),
        source,
    })
}

async fn stream_body(mut body: Incoming, sink: &mut impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ClientError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            match sink(&data) {
                Ok(()) => {}
                // `knarr logs | head` ends here.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(ClientError::Broken(error.to_string())),
            }
        }
    }
    Ok(())
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}
