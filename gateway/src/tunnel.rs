//! A connection that has changed protocols (WebSocket): bytes both ways, within the request's limits, holding its slot.
//!
//! Knative: a hijacked connection keeps the timers of its request (C3). There the bytes written after the switch do not
//! count as writes, so that `idleTimeoutSeconds` and `responseStartTimeoutSeconds` end every such connection; here the
//! switch begins the response, and what the app sends keeps it from being idle.

use std::cell::Cell;
use std::io;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use manifests::units::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::link::Switched;
use crate::metrics::Record;
use crate::timeouts::Deadlines;

/// Copies until both sides have ended, one breaks, or a limit passes.
pub(crate) async fn run(
    client: OnUpgrade,
    app: oneshot::Receiver<Switched>,
    deadlines: Deadlines,
    clock: Clock,
    record: Record,
) {
    let deadlines = Cell::new(deadlines);
    tokio::select! {
        copied = copy(client, app, || wrote(&deadlines, &clock)) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "a connection that had changed protocols ended");
            }
        }
        () = expired(&deadlines, &clock) => {}
    }
    drop(record);
}

async fn copy(client: OnUpgrade, app: oneshot::Receiver<Switched>, wrote: impl Fn()) -> io::Result<()> {
    let client = client.await.map_err(io::Error::other)?;
    let client = downcast::<TokioIo<TcpStream>>(client).map_err(|_| io::Error::other("not one of our connections"))?;
    let Switched {
        stream: mut app,
        read,
        open,
        slot,
    } = app.await.map_err(io::Error::other)?;
    let mut said = client.read_buf;
    let mut client = client.io.into_inner();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_app, mut to_app) = app.split();
    let up = async {
        to_app.write_all_buf(&mut said).await?;
        tokio::io::copy(&mut from_client, &mut to_app).await?;
        to_app.shutdown().await
    };
    let down = async {
        let mut read = read;
        to_client.write_all_buf(&mut read).await?;
        let mut buffer = vec![0; 8 << 10];
        loop {
            let count = from_app.read(&mut buffer).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            wrote();
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    let ended = tokio::try_join!(up, down);
    drop(app);
    drop((open, slot));
    ended.map(|_| ())
}

fn wrote(deadlines: &Cell<Deadlines>, clock: &Clock) {
    let mut now = deadlines.get();
    now.wrote(clock());
    deadlines.set(now);
}

/// Resolves when a limit has passed.
async fn expired(deadlines: &Cell<Deadlines>, clock: &Clock) {
    while deadlines.get().expired(clock()).is_none() {
        tokio::time::sleep(deadlines.get().next().since(clock())).await;
    }
}
