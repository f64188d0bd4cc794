//! Bytes both ways between an app's connection and the one outside, counted as they go.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::Counter;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;

use super::meters::Meters;

/// Carries until both sides have ended. The end of one direction is passed on as such; an error of either side resets
/// both.
pub(super) async fn carry(inside: TcpStream, mut outside: TcpStream, meters: Arc<Meters>) {
    for stream in [&inside, &outside] {
        let _ = stream.set_nodelay(true);
    }
    let handles = meters.get();
    let mut inside = Counted {
        stream: inside,
        read: handles.bytes_out.clone(),
        written: handles.bytes_in.clone(),
    };
    if copy_bidirectional(&mut inside, &mut outside).await.is_err() {
        reset(&inside.stream);
        reset(&outside);
    }
}

/// Makes the coming drop of a connection a reset, not an orderly end.
pub(super) fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A stream that counts.
struct Counted {
    stream: TcpStream,
    read: Counter,
    written: Counter,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.read.increment((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data))?;
        self.written.increment(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use manifests::ids::RevisionId;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn carried() -> (TcpStream, TcpStream, tokio::task::JoinHandle<()>) {
        let ((app, inside), (outside, server)) = (pair().await, pair().await);
        let meters = Arc::new(Meters::new(RevisionId::new("default", "x-00001")));
        (app, server, tokio::spawn(carry(inside, outside, meters)))
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let (mut app, mut server, carrying) = carried().await;
        app.write_all(b"question").await.unwrap();
        app.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        for _ in 0..3 {
            server.write_all(b"answer ").await.unwrap();
            tokio::task::yield_now().await;
        }
        server.shutdown().await.unwrap();
        let mut answer = String::new();
        app.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer answer answer ");
        carrying.await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_one_in_both_directions() {
        for from_app in [true, false] {
            let (app, server, carrying) = carried().await;
            let (one, mut other) = if from_app { (app, server) } else { (server, app) };
            reset(&one);
            drop(one);
            let error = other.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "from the app: {from_app}");
            carrying.await.unwrap();
        }
    }
}
