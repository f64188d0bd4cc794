//! Makes a sandbox's way out, in the network namespace that this thread is in.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::net::netlink as protocols;
use socket2::{Domain, Protocol, Socket, Type};

use super::netlink;
use super::rules::{self, Ask, Batch};
use super::syn;
use super::{DNS_ADDRESS, LISTEN_PORT};

/// Connections that wait to be accepted by Knarr.
const BACKLOG: i32 = 1024;

/// What Knarr holds of a sandbox's network.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Accepts every outbound connection, and DNS over TCP.
    pub tcp: OwnedFd,
    /// DNS.
    pub udp: OwnedFd,
    /// First packets wait here; `None` where the kernel has no queues, and then a connection is there before it is decided.
    pub first_packets: Option<OwnedFd>,
}

impl Doors {
    /// For a message to Knarr.
    pub(crate) fn into_fds(self) -> Vec<OwnedFd> {
        [self.tcp, self.udp].into_iter().chain(self.first_packets).collect()
    }

    /// From such a message.
    pub(crate) fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        Some(Self {
            tcp: fds.next()?,
            udp: fds.next()?,
            first_packets: fds.next(),
        })
    }
}

/// Opens the doors. Nothing that an app of the sandbox does before this gets anywhere.
pub(crate) fn open() -> io::Result<Doors> {
    open_with(ask)
}

/// `ask` adds the rules, and makes the queue if there is one.
pub(super) fn open_with(ask: impl FnOnce() -> io::Result<Option<OwnedFd>>) -> io::Result<Doors> {
    // NETLINK_ROUTE is protocol 0.
    let route = netlink::open(None).map_err(when("open a netlink socket"))?;
    let run = |socket: &OwnedFd, batch: Batch| netlink::request(socket, &batch.messages, batch.last);
    run(&route, rules::loopback()).map_err(when("bring loopback up"))?;
    run(&route, rules::address()).map_err(when("add an address"))?;
    let first_packets = ask().map_err(when("add nf_tables rules"))?;
    let tcp = listener().map_err(when("listen"))?;
    run(&route, rules::route(IpAddr::V4(Ipv4Addr::UNSPECIFIED))).map_err(when("add a route"))?;
    // A host without IPv6 has none inside, either.
    let _ = run(&route, rules::route(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
    let udp = names().map_err(when("bind the address of DNS"))?;
    Ok(Doors {
        tcp,
        udp,
        first_packets,
    })
}

/// The way to ask that works on this kernel. Found once: what fails makes the kernel look for modules.
static ASK: OnceLock<Ask> = OnceLock::new();

/// Adds the rules, and makes the queue that they lead to.
fn ask() -> io::Result<Option<OwnedFd>> {
    let Some(&way) = ASK.get() else {
        let queue = syn::open();
        for way in [Ask::Queue, Ask::Target] {
            if queue.is_ok() && add(way).is_ok() {
                let _ = ASK.set(way);
                return queue.map(Some);
            }
        }
        add(Ask::Never)?;
        let _ = ASK.set(Ask::Never);
        return Ok(None);
    };
    let queue = match way {
        Ask::Never => None,
        Ask::Queue | Ask::Target => Some(syn::open()?),
    };
    add(way)?;
    Ok(queue)
}

/// Adds the rules.
pub(super) fn add(ask: Ask) -> io::Result<()> {
    let batch = rules::table(ask);
    // A new socket each time: after an error, answers to the rest of a batch are still to come.
    let filter = netlink::open(Some(protocols::NETFILTER))?;
    netlink::request(filter, &batch.messages, batch.last)
}

fn when(what: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

fn names() -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((DNS_ADDRESS, LISTEN_PORT)).into())?;
    Ok(socket.into())
}

/// For both families at once, where there are both.
fn listener() -> io::Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let bind = |socket: &Socket, any: IpAddr| {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((any, LISTEN_PORT)).into())?;
        socket.listen(BACKLOG)
    };
    let both = Socket::new(Domain::IPV6, kind, Some(Protocol::TCP)).and_then(|socket| {
        socket.set_only_v6(false)?;
        transparent(&socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT)?;
        bind(&socket, Ipv6Addr::UNSPECIFIED.into())?;
        Ok(socket)
    });
    if let Ok(socket) = both {
        return Ok(socket.into());
    }
    let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::TCP))?;
    transparent(&socket, libc::SOL_IP, libc::IP_TRANSPARENT)?;
    bind(&socket, Ipv4Addr::UNSPECIFIED.into())?;
    Ok(socket.into())
}

/// Lets a listener accept connections to any address.
fn transparent(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4);
    // SAFETY: the descriptor is open, and the value is an int on this stack, of the length given.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
