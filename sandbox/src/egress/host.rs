//! What this host's routing says of an address: whether it is its own, as of now.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use netlink_bindings::rt_route;
use rustix::net::{RecvFlags, recv};

use super::netlink::{self, Messages};
use super::policy::Place;

/// Asks the kernel, which answers from its own tables within microseconds.
#[derive(Debug)]
pub(super) struct Host(Mutex<Option<OwnedFd>>);

impl Host {
    /// Of the network namespace of the thread that asks first.
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Where an address is.
    pub(super) fn place(&self, address: IpAddr) -> Place {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = socket.take().map_or_else(|| netlink::open(None), Ok).and_then(|open| {
            let kind = route_kind(&open, address)?;
            // Kept only after an orderly answer: another may still be on its way to a socket that has failed.
            *socket = Some(open);
            Ok(kind)
        });
        match asked {
            Ok(Some(libc::RTN_UNICAST)) => Place::Elsewhere,
            Ok(Some(libc::RTN_LOCAL | libc::RTN_BROADCAST | libc::RTN_ANYCAST | libc::RTN_MULTICAST)) => Place::Here,
            Ok(_) => Place::Unknown,
            Err(error) => {
                tracing::warn!(%error, "cannot look up a route");
                Place::Unknown
            }
        }
    }
}

/// `ip route get ADDRESS`: the type of its route; `None` when there is none.
fn route_kind(socket: &OwnedFd, address: IpAddr) -> io::Result<Option<u8>> {
    /// `RTM_NEWROUTE` and `NLMSG_ERROR`.
    const NEW_ROUTE: u16 = 24;
    const ERROR: u16 = 2;
    /// Where `rtm_type` is in `struct rtmsg`.
    const TYPE: usize = 7;
    let (family, bits) = match address {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    let header = rt_route::Rtmsg {
        rtm_family: family.to_le_bytes()[0],
        rtm_dst_len: bits,
        ..rt_route::Rtmsg::default()
    };
    let mut chain = rt_route::Chained::new(1);
    chain.request().op_getroute_do(&header).encode().push_dst(address);
    netlink::send(socket, chain.finalize().buf())?;
    let mut buffer = [0; 4096];
    // The acknowledgement comes last, after the route.
    let mut kind = None;
    loop {
        let (length, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        for message in Messages(&buffer[..length]) {
            match message.kind {
                NEW_ROUTE => kind = message.body.get(TYPE).copied(),
                ERROR => return Ok(kind),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_addresses_are_found() {
        let host = Host::new();
        for _ in 0..3 {
            assert_eq!(host.place("127.0.0.1".parse().unwrap()), Place::Here);
            assert_eq!(host.place("127.9.9.9".parse().unwrap()), Place::Here);
            assert_eq!(host.place("::1".parse().unwrap()), Place::Here);
            assert_ne!(host.place("192.0.2.1".parse().unwrap()), Place::Here);
            assert_ne!(host.place("2001:db8::1".parse().unwrap()), Place::Here);
        }
    }
}
