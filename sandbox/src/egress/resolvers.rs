//! The host's name servers, and questions sent on to them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::{Found, Query};

/// How long one name server may take (glibc waits for 5 s; an app's own resolver would ask again then).
const PATIENCE: Duration = Duration::from_secs(2);

/// How often all of them are tried.
const ROUNDS: usize = 2;

/// The longest message over UDP that is taken (EDNS clients ask for at most this, RFC 6891).
const LONGEST: usize = 4096;

/// As glibc: at most this many.
const MOST: usize = 3;

/// Reads which name servers this host uses, again when the file has changed.
#[derive(Debug)]
pub(super) struct Resolvers {
    path: PathBuf,
    read: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
}

impl Resolvers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: Mutex::default(),
        }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let changed = std::fs::metadata(&self.path).and_then(|meta| meta.modified()).ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.is_none() || changed != read.0 {
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            *read = (changed, parse(&text));
        }
        read.1.clone()
    }

    /// Asks the host's name servers, one after the other; `None` when none has answered.
    pub(super) async fn ask(&self, query: &Query, over_tcp: bool) -> Option<(Vec<u8>, Found)> {
        let servers = self.servers();
        for server in std::iter::repeat_n(&servers, ROUNDS).flatten() {
            let asked = async {
                if over_tcp {
                    by_tcp(*server, query).await
                } else {
                    by_udp(*server, query).await
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok((answer, found))) => return Some((query.give_back(answer), found)),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
                Err(_) => tracing::debug!(%server, "a name server does not answer"),
            }
        }
        None
    }
}

/// The `nameserver` lines of a `resolv.conf`; without any, the one on this host.
fn parse(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        Some(SocketAddr::new(address.parse().ok()?, 53))
    });
    let servers: Vec<_> = lines.take(MOST).collect();
    if servers.is_empty() {
        vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))]
    } else {
        servers
    }
}

/// A socket and a number for each question: an answer must know both.
async fn by_udp(server: SocketAddr, query: &Query) -> io::Result<(Vec<u8>, Found)> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = id()?;
    socket.send(&query.with_id(id)).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(found) = query.answered(id, &buffer[..length]) {
            buffer.truncate(length);
            return Ok((buffer, found));
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &Query) -> io::Result<(Vec<u8>, Found)> {
    let mut stream = TcpStream::connect(server).await?;
    let id = id()?;
    write_message(&mut stream, &query.with_id(id)).await?;
    let answer = read_message(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let found = query.answered(id, &answer).ok_or(io::ErrorKind::InvalidData)?;
    Ok((answer, found))
}

/// A message over TCP has its length before it (RFC 1035 4.2.2). `None` at the end of the stream.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// The other way.
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // In one piece: some name servers take no other.
    let mut whole = length.to_be_bytes().to_vec();
    whole.extend(message);
    stream.write_all(&whole).await
}

fn id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_c_library_does() {
        let list = |text: &str| {
            parse(text)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(list(""), "127.0.0.1:53");
        assert_eq!(list("search a b\n# nameserver 1.1.1.1\n"), "127.0.0.1:53");
        assert_eq!(list("nameserver 9.9.9.9\n"), "9.9.9.9:53");
        assert_eq!(
            list("  nameserver\t2620:fe::fe  \nnameserver bad\n"),
            "[2620:fe::fe]:53"
        );
        let four = "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4\n";
        assert_eq!(list(four), "1.0.0.1:53 1.0.0.2:53 1.0.0.3:53");
    }
}
