//! The first packets of connections, as the kernel hands them over for a decision (`nfnetlink_queue`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use netlink_bindings::utils::{find_attr, push_header};
use rustix::net::{RecvFlags, netlink as protocols, recv};

use super::netlink::{self, Messages};
use super::rules::REFUSED;

/// `NFNL_SUBSYS_QUEUE << 8` and the messages of it.
const PACKET: u16 = 3 << 8;
const VERDICT: u16 = (3 << 8) | 1;
const CONFIG: u16 = (3 << 8) | 2;

/// Attributes of `CONFIG`.
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_MAXLEN: u16 = 3;
/// Attributes of `PACKET` and `VERDICT`.
const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;
const MARK: u16 = 3;
const PAYLOAD: u16 = 10;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

/// The headers of a packet are all that is wanted: 40 bytes of IPv6 and the ports.
const COPY: u32 = 64;

/// First packets that wait for a decision; more are dropped, and sent again by the app's kernel a second later.
const MOST_WAITING: u32 = 1024;

/// Length of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

/// A connection that waits for a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Syn {
    /// The kernel's name for the packet.
    pub packet: u32,
    pub flow: Flow,
}

/// A connection, from inside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flow {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// What becomes of a first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// It goes its way: the connection is accepted.
    Accept,
    /// It is answered by a reset.
    Refuse,
    /// It is forgotten: the same connection waits already.
    Forget,
}

/// Makes queue 0 of the namespace this thread is in.
pub(super) fn open() -> io::Result<OwnedFd> {
    let socket = netlink::open(Some(protocols::NETFILTER))?;
    netlink::request(&socket, &configuration(), 1)?;
    rustix::fs::fcntl_setfl(&socket, rustix::fs::OFlags::NONBLOCK)?;
    Ok(socket)
}

fn configuration() -> Vec<u8> {
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    // Family, version 0, queue 0.
    let mut body = vec![0; FAMILY_HEADER];
    push_header(&mut body, CFG_CMD, 4);
    body.extend([BIND, 0, 0, 0]);
    push_header(&mut body, CFG_PARAMS, 5);
    body.extend(COPY.to_be_bytes());
    body.push(COPY_PACKET);
    push_header(&mut body, CFG_MAXLEN, 4);
    body.extend(MOST_WAITING.to_be_bytes());
    netlink::message(CONFIG, NLM_F_REQUEST | NLM_F_ACK, 1, &body)
}

/// Takes what has come; `WouldBlock` when nothing has.
pub(super) fn receive(queue: impl AsFd, buffer: &mut [u8], mut each: impl FnMut(Syn)) -> io::Result<()> {
    let (length, _) = recv(queue, &mut *buffer, RecvFlags::DONTWAIT)?;
    for message in Messages(&buffer[..length]).filter(|message| message.kind == PACKET) {
        if let Some(syn) = parse(message.body) {
            each(syn);
        }
    }
    Ok(())
}

/// Says what becomes of one.
pub(super) fn decide(queue: impl AsFd, packet: u32, decision: Decision) -> io::Result<()> {
    netlink::send(queue, &answer(packet, decision))
}

fn answer(packet: u32, decision: Decision) -> Vec<u8> {
    const DROP: u32 = 0;
    const ACCEPT: u32 = 1;
    let verdict = match decision {
        // A later chain resets what is marked.
        Decision::Accept | Decision::Refuse => ACCEPT,
        Decision::Forget => DROP,
    };
    let mut body = vec![0; FAMILY_HEADER];
    push_header(&mut body, VERDICT_HDR, 8);
    body.extend(verdict.to_be_bytes());
    body.extend(packet.to_be_bytes());
    if decision == Decision::Refuse {
        push_header(&mut body, MARK, 4);
        body.extend(REFUSED.to_be_bytes());
    }
    netlink::message(VERDICT, NLM_F_REQUEST, 0, &body)
}

fn parse(body: &[u8]) -> Option<Syn> {
    let attributes = body.get(FAMILY_HEADER..)?;
    let packet = u32::from_be_bytes(*find_attr(attributes, PACKET_HDR)?.first_chunk()?);
    let flow = flow(find_attr(attributes, PAYLOAD)?)?;
    Some(Syn { packet, flow })
}

/// Reads addresses and ports. IPv6 with extension headers before TCP is not understood, and so never let through.
fn flow(ip: &[u8]) -> Option<Flow> {
    const TCP: u8 = 6;
    let (from, to, tcp): (IpAddr, IpAddr, _) = match ip.first()? >> 4 {
        4 => {
            let header = usize::from(ip[0] & 0xf) * 4;
            let (from, to): (&[u8; 4], &[u8; 4]) = (ip.get(12..)?.first_chunk()?, ip.get(16..)?.first_chunk()?);
            if *ip.get(9)? != TCP {
                return None;
            }
            (
                Ipv4Addr::from(*from).into(),
                Ipv4Addr::from(*to).into(),
                ip.get(header..)?,
            )
        }
        6 => {
            let (from, to): (&[u8; 16], &[u8; 16]) = (ip.get(8..)?.first_chunk()?, ip.get(24..)?.first_chunk()?);
            if *ip.get(6)? != TCP {
                return None;
            }
            (Ipv6Addr::from(*from).into(), Ipv6Addr::from(*to).into(), ip.get(40..)?)
        }
        _ => return None,
    };
    let [a, b, c, d] = *tcp.first_chunk()?;
    Some(Flow {
        from: (from, u16::from_be_bytes([a, b])).into(),
        to: (to, u16::from_be_bytes([c, d])).into(),
    })
}
