//! What the kernel is told about a sandbox's network, as netlink messages. PURE.
//!
//! ```text
//! address  198.18.0.1 on lo                      what an app sees as its own
//! routes   every other address is local, too     so every packet comes back in through lo
//! output   to this sandbox          accept
//!          first packet of TCP      ask Knarr (queue 0), which accepts or marks it
//!          rest of TCP              accept
//!          all else                 reject
//! verdict  marked                   reset
//! divert   first packet of TCP, elsewhere: to the listener on port 53, which sees the destination as its own address
//! ```
//! Neither address translation nor connection tracking: a connection that was let in is two sockets that talk over `lo`.

use std::net::{IpAddr, Ipv6Addr};

use netlink_bindings::nftables::{
    self, CmpOps, MetaKeys, Nfgenmsg, PayloadBase, PushExprListAttrs, PushRuleAttrs, RejectInetCode, RejectTypes,
    VerdictCode,
};
use netlink_bindings::utils::{Pusher, align, finalize_nested_header, push_header, push_nested_header};
use netlink_bindings::{rt_addr, rt_route};

use super::{LISTEN_PORT, OWN_ADDRESS, netlink};

/// The mark of a first packet that Knarr has refused.
pub(super) const REFUSED: u32 = 0x6b6e_7272;

/// The table, and its chains.
const TABLE: &[u8] = b"knarr";
const OUTPUT: &[u8] = b"output";
const VERDICT: &[u8] = b"verdict";
const DIVERT: &[u8] = b"divert";

/// `NFPROTO_INET`, `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`.
const INET: u8 = 1;
const PRE_ROUTING: u32 = 0;
const LOCAL_OUT: u32 = 3;

/// `NFT_REG_VERDICT`, `NFT_REG_1`.
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// Netlink messages, and the number of the last one that is acknowledged.
pub(super) struct Batch {
    pub messages: Vec<u8>,
    pub last: u32,
}

/// `ip link set lo up`: the sandbox does that, too, perhaps later.
pub(super) fn loopback() -> Batch {
    /// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, `IFF_UP`.
    const NEW_LINK: u16 = 16;
    const FLAGS: u16 = 1 | 4;
    const UP: u32 = 1;
    // `struct ifinfomsg`: family, type, index, flags, which of them to change.
    let mut body = vec![0; 4];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    Batch {
        messages: netlink::message(NEW_LINK, FLAGS, 1, &body),
        last: 1,
    }
}

/// `ip address add OWN_ADDRESS/32 dev lo`.
pub(super) fn address() -> Batch {
    let header = rt_addr::Ifaddrmsg {
        ifa_family: family(libc::AF_INET),
        ifa_prefixlen: 32,
        ifa_index: LOOPBACK,
        ..rt_addr::Ifaddrmsg::default()
    };
    let mut chain = rt_addr::Chained::new(1);
    let own = IpAddr::V4(OWN_ADDRESS);
    chain
        .request()
        .set_create()
        .op_newaddr_do(&header)
        .encode()
        .push_local(own)
        .push_address(own);
    Batch {
        messages: chain.finalize().buf().clone(),
        last: 1,
    }
}

/// `ip route add local default dev lo`.
pub(super) fn route(any: IpAddr) -> Batch {
    let (family, source) = match any {
        IpAddr::V4(_) => (family(libc::AF_INET), Some(IpAddr::V4(OWN_ADDRESS))),
        IpAddr::V6(_) => (family(libc::AF_INET6), None),
    };
    let header = rt_route::Rtmsg {
        rtm_family: family,
        rtm_table: libc::RT_TABLE_LOCAL,
        rtm_protocol: libc::RTPROT_BOOT,
        rtm_scope: libc::RT_SCOPE_HOST,
        rtm_type: libc::RTN_LOCAL,
        ..rt_route::Rtmsg::default()
    };
    let mut chain = rt_route::Chained::new(1);
    {
        let mut add = chain.request().set_create().op_newroute_do(&header);
        let attributes = add.encode().push_oif(LOOPBACK);
        if let Some(source) = source {
            attributes.push_prefsrc(source);
        }
    }
    Batch {
        messages: chain.finalize().buf().clone(),
        last: 1,
    }
}

/// How first packets come to wait for Knarr's decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// By nf_tables' own `queue`.
    Queue,
    /// By the older `NFQUEUE`, on kernels that have only that.
    Target,
    /// Not at all: every first packet is let through, and Knarr decides when the connection is there.
    Never,
}

/// The table.
pub(super) fn table(ask: Ask) -> Batch {
    let inet = Nfgenmsg {
        nfgen_family: INET,
        ..Nfgenmsg::new()
    };
    let mut batch = nftables::Chained::new(1);
    let subsystem = Nfgenmsg {
        _res_id_be: 10_u16.to_be(),
        ..Nfgenmsg::new()
    };
    batch.request().op_batch_begin_do(&subsystem);
    batch
        .request()
        .set_create()
        .op_newtable_do(&inet)
        .encode()
        .push_name_bytes(TABLE);
    for (name, hook, priority) in [
        (OUTPUT, LOCAL_OUT, -150),
        (VERDICT, LOCAL_OUT, -140),
        (DIVERT, PRE_ROUTING, -150),
    ] {
        let mut chain = batch.request().set_create().op_newchain_do(&inet);
        chain
            .encode()
            .push_table_bytes(TABLE)
            .push_name_bytes(name)
            .nested_hook()
            .push_num(hook)
            .push_priority(priority)
            .end_nested()
            .push_type_bytes(b"filter");
    }
    let mut rule = |chain: &[u8], add: &dyn Fn(List<'_>) -> List<'_>| {
        let mut rule = batch.request().set_create().set_append().op_newrule_do(&inet);
        let rule = rule.encode().push_table_bytes(TABLE).push_chain_bytes(chain);
        drop(add(rule.nested_expressions()));
    };
    for chain in [OUTPUT, DIVERT] {
        rule(chain, &|list| accept(to_v4(list, &[127])));
        rule(chain, &|list| accept(to_v4(list, &OWN_ADDRESS.octets()[..3])));
        rule(chain, &|list| accept(to_v6(list, Ipv6Addr::LOCALHOST)));
    }
    match ask {
        Ask::Queue => rule(OUTPUT, &|list| queue(first_packet(list))),
        Ask::Target => rule(OUTPUT, &|list| queue_by_target(first_packet(list))),
        Ask::Never => {}
    }
    rule(OUTPUT, &|list| accept(tcp(list)));
    rule(OUTPUT, &|list| {
        reject(list, RejectTypes::IcmpxUnreach, RejectInetCode::IcmpxPortUnreach as u8)
    });
    rule(VERDICT, &|list| reject(marked(tcp(list)), RejectTypes::TcpRst, 0));
    rule(DIVERT, &|list| {
        let list = set(first_packet(list), &LISTEN_PORT.to_be_bytes());
        let proxy = list.nested_elem().nested_data_tproxy();
        // Family 0: either.
        proxy.push_family(0).push_reg_port(REGISTER).end_nested().end_nested()
    });
    batch.request().op_batch_end_do(&subsystem);
    let batch = batch.finalize();
    let buffer = batch.buf().clone();
    // Kernels before 6.10 do not acknowledge the end of a batch.
    let last = u32::try_from(netlink_bindings::traits::NetlinkChained::chain_len(&batch)).unwrap_or(u32::MAX) - 1;
    Batch { messages: buffer, last }
}

/// The expressions of a rule.
type List<'a> = PushExprListAttrs<PushRuleAttrs<&'a mut Vec<u8>>>;

fn meta(list: List<'_>, key: MetaKeys) -> List<'_> {
    let load = list.nested_elem().nested_data_meta();
    load.push_key(key as u32).push_dreg(REGISTER).end_nested().end_nested()
}

fn payload(list: List<'_>, base: PayloadBase, offset: u32, length: u32) -> List<'_> {
    let load = list.nested_elem().nested_data_payload();
    load.push_dreg(REGISTER)
        .push_base(base as u32)
        .push_offset(offset)
        .push_len(length)
        .end_nested()
        .end_nested()
}

/// Goes on with the rule only when the register holds `wanted`.
fn equal<'a>(list: List<'a>, wanted: &[u8]) -> List<'a> {
    let compare = list.nested_elem().nested_data_cmp();
    compare
        .push_sreg(REGISTER)
        .push_op(CmpOps::Eq as u32)
        .nested_data()
        .push_value(wanted)
        .end_nested()
        .end_nested()
        .end_nested()
}

/// Puts `value` into the register.
fn set<'a>(list: List<'a>, value: &[u8]) -> List<'a> {
    let immediate = list.nested_elem().nested_data_immediate();
    immediate
        .push_dreg(REGISTER)
        .nested_data()
        .push_value(value)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn verdict(list: List<'_>, code: VerdictCode) -> List<'_> {
    let immediate = list.nested_elem().nested_data_immediate();
    immediate
        .push_dreg(VERDICT_REGISTER)
        .nested_data()
        .nested_verdict()
        .push_code(code as u32)
        .end_nested()
        .end_nested()
        .end_nested()
        .end_nested()
}

/// Hands the packet to queue 0. Nobody listening drops it.
fn queue(list: List<'_>) -> List<'_> {
    // `NFTA_EXPR_DATA` and `NFTA_QUEUE_NUM`, which the crate does not know.
    let mut element = list.nested_elem().push_name_bytes(b"queue");
    let data = push_nested_header(element.as_vec_mut(), 2);
    push_header(element.as_vec_mut(), 1, 2);
    element.as_vec_mut().extend(0_u16.to_be_bytes());
    align(element.as_vec_mut());
    finalize_nested_header(element.as_vec_mut(), data);
    element.end_nested()
}

/// The same.
fn queue_by_target(list: List<'_>) -> List<'_> {
    // `struct xt_NFQ_info`, padded.
    let target = list.nested_elem().nested_data_target();
    target
        .push_name_bytes(b"NFQUEUE")
        .push_rev(0)
        .push_info(&[0; 8])
        .end_nested()
        .end_nested()
}

fn accept(list: List<'_>) -> List<'_> {
    verdict(list, VerdictCode::Accept)
}

fn reject(list: List<'_>, how: RejectTypes, code: u8) -> List<'_> {
    let reject = list.nested_elem().nested_data_reject();
    reject
        .push_type(how as u32)
        .push_icmp_code(code)
        .end_nested()
        .end_nested()
}

/// To an IPv4 address that begins with these bytes.
fn to_v4<'a>(list: List<'a>, prefix: &[u8]) -> List<'a> {
    let list = equal(meta(list, MetaKeys::Nfproto), &[family(libc::AF_INET)]);
    let length = u32::try_from(prefix.len()).unwrap_or(4);
    equal(payload(list, PayloadBase::NetworkHeader, 16, length), prefix)
}

/// To this IPv6 address.
fn to_v6(list: List<'_>, address: Ipv6Addr) -> List<'_> {
    let list = equal(meta(list, MetaKeys::Nfproto), &[family(libc::AF_INET6)]);
    equal(payload(list, PayloadBase::NetworkHeader, 24, 16), &address.octets())
}

fn tcp(list: List<'_>) -> List<'_> {
    equal(meta(list, MetaKeys::L4Proto), &[family(libc::IPPROTO_TCP)])
}

/// SYN without ACK.
fn first_packet(list: List<'_>) -> List<'_> {
    let list = payload(tcp(list), PayloadBase::TransportHeader, 13, 1);
    let mask = list.nested_elem().nested_data_bitwise();
    let list = mask
        .push_sreg(REGISTER)
        .push_dreg(REGISTER)
        .push_len(1)
        .nested_mask()
        .push_value(&[SYN | ACK])
        .end_nested()
        .nested_xor()
        .push_value(&[0])
        .end_nested()
        .end_nested()
        .end_nested();
    equal(list, &[SYN])
}

fn marked(list: List<'_>) -> List<'_> {
    equal(meta(list, MetaKeys::Mark), &REFUSED.to_ne_bytes())
}

/// Families and protocols are small numbers that go into one byte.
const fn family(number: libc::c_int) -> u8 {
    number.to_le_bytes()[0]
}
