//! A plain start beside Knarr's: a client that never waits, and looks at the first byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{App, Result, now};

/// From the order to start to the first byte; std spawns by `posix_spawn`, which is vfork and exec.
pub(crate) fn plain(app: &App) -> Result<Duration> {
    let addr = free_addr()?;
    let mut command = Command::new(&app.program);
    command
        .args(&app.args)
        .env("PORT", addr.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = now();
    let mut process = command.spawn()?;
    let answer = connect(addr, start + Duration::from_secs(30)).and_then(|stream| get(stream, "/"));
    process.kill()?;
    process.wait()?;
    Ok(answer?.0 - start)
}

/// As often as it can, until somebody listens: no timer may be part of what is measured.
fn connect(addr: SocketAddr, deadline: Instant) -> Result<TcpStream> {
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => return Ok(stream),
            Err(error) if now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// When the first byte of the answer came, and its body; anything but a 200 is an error.
pub(super) fn get(mut stream: TcpStream, path: &str) -> Result<(Instant, String)> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    reader.fill_buf()?;
    let first_byte = now();
    let mut answer = String::new();
    reader.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("closed without a whole answer")?;
    match head.get(9..12) {
        Some("200") => Ok((first_byte, body.to_owned())),
        _ => Err(format!("not a 200: {answer}").into()),
    }
}

pub(super) fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
