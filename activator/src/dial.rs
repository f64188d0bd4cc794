//! The one named exception to "four types cross": how the data plane gets a connection to a sandbox.

use std::future::Future;
use std::io;
use std::pin::Pin;

use manifests::ids::SandboxId;
use tokio::net::TcpStream;

/// A boxed future, so that [`Dial`] can be used as `Arc<dyn Dial>`; a dial costs a system call and more anyway.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens connections to sandboxes. Whoever runs sandboxes implements it, whoever wires the planes hands it to the gateway.
///
/// Contract:
/// - The stream is connected to the app's own port inside the sandbox and registered with the runtime of the caller.
/// - It never stands behind the start, stop or limit change of any sandbox: it takes microseconds, or fails.
/// - An unknown or exited sandbox fails at once with [`io::ErrorKind::NotFound`]; an app that does not listen fails with
///   [`io::ErrorKind::ConnectionRefused`]. Both mean that nothing was sent, so another sandbox may be tried.
/// - Dropping the future midway leaves no socket behind.
pub trait Dial: Send + Sync + 'static {
    /// Opens one connection to `sandbox`.
    fn dial(&self, sandbox: &SandboxId) -> BoxFuture<'_, io::Result<TcpStream>>;
}
