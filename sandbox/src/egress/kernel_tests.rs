//! What the kernel makes of the rules, in a network namespace that only a thread of the test is in.

#![allow(unsafe_code, clippy::disallowed_methods)]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::inside::{self, Doors};
use super::rules::Ask;
use super::syn::{self, Decision, Syn};

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "these tests must run as root in CI"
        );
        eprintln!("skipped: needs root");
        return;
    }
    let run = move || {
        // SAFETY: network namespaces belong to a thread, and no memory or descriptor is unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET).unwrap() };
        test();
    };
    thread::spawn(run).join().unwrap();
}

/// The next first packets; waits for them.
fn first_packets(queue: &OwnedFd) -> Vec<Syn> {
    let mut ready = [PollFd::new(queue, PollFlags::IN)];
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut ready, Some(&patience)).unwrap(), 1, "no first packet comes");
    let mut found = Vec::new();
    syn::receive(queue, &mut [0; 8192], |syn| found.push(syn)).unwrap();
    found
}

fn connect(to: SocketAddr) -> thread::JoinHandle<io::Result<TcpStream>> {
    // Threads stay in the namespace of the one that starts them.
    thread::spawn(move || TcpStream::connect_timeout(&to, Duration::from_secs(10)))
}

fn addresses() -> [SocketAddr; 3] {
    ["93.184.216.34:80", "10.1.2.3:5432", "[2001:db8::7]:443"].map(|it| it.parse().unwrap())
}

#[test]
fn a_connection_is_accepted_when_knarr_has_decided_and_not_before() {
    in_namespace(|| {
        let Doors {
            tcp,
            first_packets: queue,
            ..
        } = inside::open().unwrap();
        let Some(queue) = queue else {
            eprintln!("skipped: this kernel has no packet queues");
            return;
        };
        let listener = TcpListener::from(tcp);
        listener.set_nonblocking(false).unwrap();
        for to in addresses() {
            let app = connect(to);
            let [syn] = first_packets(&queue)[..] else {
                panic!("one")
            };
            assert_eq!(syn.flow.to, to);
            assert!(!app.is_finished(), "nobody has decided");
            syn::decide(&queue, syn.packet, Decision::Accept).unwrap();
            let mut app = app.join().unwrap().unwrap();
            let (mut inside, from) = listener.accept().unwrap();
            assert_eq!(
                inside.local_addr().unwrap().ip().to_canonical(),
                to.ip(),
                "the destination is known"
            );
            assert_eq!(inside.local_addr().unwrap().port(), to.port());
            assert_eq!(from.port(), syn.flow.from.port());
            app.write_all(b"question").unwrap();
            app.shutdown(std::net::Shutdown::Write).unwrap();
            let mut asked = String::new();
            inside.read_to_string(&mut asked).unwrap();
            inside.write_all(b"answer").unwrap();
            drop(inside);
            let mut answer = String::new();
            app.read_to_string(&mut answer).unwrap();
            assert_eq!((&*asked, &*answer), ("question", "answer"));
        }
    });
}

#[test]
fn a_refused_connection_looks_refused() {
    in_namespace(|| {
        let Some(queue) = inside::open().unwrap().first_packets else {
            eprintln!("skipped: this kernel has no packet queues");
            return;
        };
        for to in addresses() {
            let app = connect(to);
            let [syn] = first_packets(&queue)[..] else {
                panic!("one")
            };
            syn::decide(queue.as_fd(), syn.packet, Decision::Refuse).unwrap();
            assert_eq!(
                app.join().unwrap().unwrap_err().kind(),
                ErrorKind::ConnectionRefused,
                "{to}"
            );
        }
    });
}

#[test]
fn without_queues_every_connection_comes_to_the_listener() {
    in_namespace(|| {
        let doors = inside::open_with(|| inside::add(Ask::Never).map(|()| None)).unwrap();
        let listener = TcpListener::from(doors.tcp);
        listener.set_nonblocking(false).unwrap();
        for to in addresses() {
            connect(to).join().unwrap().unwrap();
            let (inside, _) = listener.accept().unwrap();
            assert_eq!(inside.local_addr().unwrap().ip().to_canonical(), to.ip());
        }
    });
}

#[test]
fn what_is_not_tcp_stays_inside() {
    in_namespace(|| {
        let doors = inside::open().unwrap();
        for to in ["8.8.8.8:53", "198.19.0.1:9", "224.0.0.251:5353", "[2001:db8::7]:53"] {
            let to: SocketAddr = to.parse().unwrap();
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            assert_eq!(
                socket.send_to(b"x", to).unwrap_err().kind(),
                ErrorKind::PermissionDenied,
                "{to}"
            );
            // One that is connected hears it from the network, too.
            socket.connect(to).unwrap();
            let _ = socket.send(b"x");
            if !to.ip().is_multicast() {
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                assert_eq!(
                    socket.recv(&mut [0; 4]).unwrap_err().kind(),
                    ErrorKind::ConnectionRefused,
                    "{to}"
                );
            }
        }
        // Echo requests: every address is local, and the kernel would answer for all of them.
        let ping = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::ICMPV4),
        );
        let to: SocketAddr = "8.8.8.8:0".parse().unwrap();
        let sent = ping.unwrap().send_to(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &to.into());
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::PermissionDenied);

        // Inside, everything is as it is on any host.
        let names = UdpSocket::from(doors.udp);
        names.set_nonblocking(false).unwrap();
        let asker = UdpSocket::bind("0.0.0.0:0").unwrap();
        asker.send_to(b"x", "198.18.0.53:53").unwrap();
        let (length, from) = names.recv_from(&mut [0; 4]).unwrap();
        assert_eq!((length, from.ip().to_string().as_str()), (1, "198.18.0.1"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for closed in ["127.0.0.1:9", "198.18.0.1:9", "[::1]:9"] {
            let refused = TcpStream::connect(closed).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{closed}");
        }
    });
}
