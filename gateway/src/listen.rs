//! Listening sockets, and the loop that accepts from one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// An address, with one listening socket for each thread; the kernel spreads connections over them.
pub(crate) struct Listening {
    /// Where it really listens.
    pub(crate) address: SocketAddr,
    /// One for each thread.
    pub(crate) sockets: Vec<TcpListener>,
}

/// Binds `threads` sockets to `address`.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] also when another process shares its port (`SO_REUSEPORT`): a plain bind comes first,
/// which does not share. Otherwise two gateways would silently take each other's connections.
pub(crate) fn bind(address: SocketAddr, threads: usize) -> io::Result<Listening> {
    let plain = socket(address, false)?;
    let address = local_address(&plain)?;
    drop(plain);
    let sockets = (0..threads)
        .map(|_| socket(address, true).map(TcpListener::from))
        .collect::<io::Result<_>>()?;
    Ok(Listening { address, sockets })
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Only past what TIME_WAIT keeps of connections that are gone.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an internet address"))
}

/// The next connection; backs off while the process has no file descriptors or memory left.
pub(crate) async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client was gone before it was accepted.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept connections");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::ConnectionRefused | E::ConnectionAborted | E::ConnectionReset | E::Interrupted
    )
}

const BACKLOG: i32 = 4096;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn any_port() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn threads_share_one_port() {
        let listening = bind(any_port(), 4).expect("binds");
        assert_ne!(listening.address.port(), 0);
        assert_eq!(listening.sockets.len(), 4);
        for socket in &listening.sockets {
            assert_eq!(socket.local_addr().expect("bound"), listening.address);
        }
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let first = bind(any_port(), 2).expect("binds");
        let second = bind(first.address, 2).err().expect("is in use");
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(first.sockets);
        bind(first.address, 2).expect("is free again");
    }

    #[test]
    fn both_families_share_a_port_number() {
        let Ok(six) = bind((Ipv6Addr::UNSPECIFIED, 0).into(), 1) else {
            assert!(std::env::var_os("CI").is_none(), "no IPv6 here");
            return eprintln!("skipped: no IPv6 here");
        };
        bind((Ipv4Addr::UNSPECIFIED, six.address.port()).into(), 1).expect("IPv4 has its own");
    }
}
