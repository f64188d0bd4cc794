//! Tries the network, as a test asks.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// `connect/MS/HOST:PORT`, `hold/HOST:PORT`, `echo/BYTES/HOST:PORT`, `many/COUNT/HOST:PORT`, `get/HOST:PORT/PATH`,
/// `resolve/NAME`, `udp/HOST:PORT`.
pub(crate) fn answer(asked: &str) -> String {
    let (what, rest) = asked.split_once('/').unwrap();
    let answered = match what {
        "connect" => connect(rest),
        "hold" => hold(rest),
        "echo" => echo(rest),
        "many" => many(rest),
        "get" => get(rest),
        "resolve" => resolve(rest),
        "udp" => udp(rest),
        _ => Ok("?".to_owned()),
    };
    answered.unwrap_or_else(|error| format!("error {:?}: {error}", error.kind()))
}

fn find(target: &str) -> std::io::Result<SocketAddr> {
    let mut found = target.to_socket_addrs()?;
    found.next().ok_or(std::io::ErrorKind::NotFound.into())
}

#[expect(clippy::disallowed_methods, reason = "an app has a clock")]
fn connect(rest: &str) -> std::io::Result<String> {
    let (millis, target) = rest.split_once('/').unwrap();
    let patience = Duration::from_millis(millis.parse().unwrap());
    let begun = Instant::now();
    let connected = TcpStream::connect_timeout(&find(target)?, patience);
    // No test of speed: what hangs takes the whole patience, or a second at least.
    let slow = begun.elapsed() > Duration::from_millis(900);
    if slow && patience > Duration::from_secs(1) {
        return Ok("slowly".to_owned());
    }
    Ok(format!("connected to {}", connected?.peer_addr()?))
}

fn hold(target: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect(find(target)?)?;
    // As long as this process lives.
    std::mem::forget(stream);
    Ok("held".to_owned())
}

/// Sends while it reads what comes back, ends its own direction, and reads to the end of the other.
fn echo(rest: &str) -> std::io::Result<String> {
    let (bytes, target) = rest.split_once('/').unwrap();
    let bytes: usize = bytes.parse().unwrap();
    let mut stream = TcpStream::connect(find(target)?)?;
    let mut sending = stream.try_clone()?;
    let sender = thread::spawn(move || {
        sending.write_all(&vec![b'x'; bytes]).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    sender.join().unwrap();
    Ok(format!("{} back", back.len()))
}

fn many(rest: &str) -> std::io::Result<String> {
    let (count, target) = rest.split_once('/').unwrap();
    let target = find(target)?;
    let tries = (0..count.parse().unwrap()).map(|_| TcpStream::connect(target));
    let (open, refused): (Vec<_>, Vec<_>) = tries.partition(Result::is_ok);
    Ok(format!("{} open, {} refused", open.len(), refused.len()))
}

fn get(rest: &str) -> std::io::Result<String> {
    let (target, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(find(target)?)?;
    let host = target.strip_suffix(":80").unwrap_or(target);
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn resolve(name: &str) -> std::io::Result<String> {
    let found = (name, 0).to_socket_addrs()?;
    let mut found: Vec<_> = found.map(|address| address.ip().to_string()).collect();
    found.sort();
    found.dedup();
    Ok(found.join(" "))
}

fn udp(target: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send(b"x")?;
    Ok(format!("{} back", socket.recv(&mut [0; 8])?))
}
