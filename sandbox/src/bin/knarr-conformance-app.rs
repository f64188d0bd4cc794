//! The app of the conformance suite: one small server with the manners that the checks ask for. Its first argument says
//! which, as `conformance::App` names them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::exit;
use std::thread;
use std::time::Duration;

fn main() {
    let manners = std::env::args().nth(1).unwrap_or_default();
    match manners.as_str() {
        "crasher" => {
            println!("no luck");
            exit(3);
        }
        "never" => loop {
            thread::park();
        },
        "stubborn" => on_sigterm(libc::SIG_IGN),
        _ => on_sigterm(end as *const () as libc::sighandler_t),
    }
    match manners.as_str() {
        "slow" => thread::sleep(Duration::from_secs(2)),
        "chatty" => (0..100).for_each(|n| println!("chatty {n}")),
        "mayfly" => {
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(300));
                exit(7);
            });
        }
        _ => {}
    }
    serve();
}

/// Answers every request, on every connection, with the sandbox's name.
fn serve() {
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(8080);
    let name = std::env::var("HOSTNAME").unwrap_or_default();
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("port {port}: {error}");
            exit(1);
        }
    };
    for stream in listener.incoming().flatten() {
        let name = name.clone();
        thread::spawn(move || answer(stream, &name));
    }
}

fn answer(mut stream: TcpStream, name: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    let mut read = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        read.extend_from_slice(&chunk[..n]);
        while let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            read.drain(..end + 4);
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[expect(unsafe_code, reason = "std has no signal handlers")]
fn on_sigterm(handler: libc::sighandler_t) {
    // SAFETY: the handler is SIG_IGN or `end`, which makes one async-signal-safe call.
    unsafe { libc::signal(libc::SIGTERM, handler) };
}

#[expect(unsafe_code, reason = "the only exit that a signal handler may use")]
extern "C" fn end(_signal: libc::c_int) {
    // SAFETY: async-signal-safe, and never returns.
    unsafe { libc::_exit(0) }
}
