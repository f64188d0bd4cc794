//! Who may connect where. PURE.
//!
//! An address is judged after resolution, on every policy: a name that leads to this host is this host. What the host's
//! routing says of an address is asked for each time, so its own addresses are always the current ones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use manifests::units::Timestamp;
use manifests::workload::{Destination, Egress};

use super::pins::Pins;

/// Where an address is, as this host routes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It is one of this host's own, or everybody's on one of its networks.
    Here,
    /// It is another machine's.
    Elsewhere,
    /// It cannot be found out, or there is no way there.
    Unknown,
}

/// Why a connection is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Denial {
    /// The policy is `none`.
    NoEgress,
    /// No rule of the allow-list fits.
    NotListed,
    /// Loopback.
    Loopback,
    /// Link-local; the metadata service of most clouds is there.
    LinkLocal,
    /// The metadata service of a cloud, elsewhere.
    Metadata,
    /// `0.0.0.0/8` or `::`, which is this host, too.
    Unspecified,
    /// Multicast or broadcast.
    Multicast,
    /// Of no use outside: reserved, or what Knarr uses inside sandboxes.
    Reserved,
    /// An address of this host: its services, Knarr's own listeners.
    ThisHost,
    /// There is no way there.
    Unreachable,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEgress => "the sandbox has no egress",
            Self::NotListed => "the destination is not on the allow-list",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the address of a metadata service",
            Self::Unspecified => "the unspecified address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::ThisHost => "an address of this host",
            Self::Unreachable => "no route there",
        })
    }
}

/// Whether a sandbox under `policy` may connect to `to`. `place` says where an address is.
pub(super) fn judge(
    policy: &Egress,
    pins: &Pins,
    to: SocketAddr,
    now: Timestamp,
    place: impl Fn(IpAddr) -> Place,
) -> Result<(), Denial> {
    let address = to.ip().to_canonical();
    for meant in std::iter::once(address).chain(embedded(address)) {
        if let Some(denial) = never(meant) {
            return Err(denial);
        }
    }
    // Before the host is asked: most sandboxes have none.
    listed(policy, pins, address, to.port(), now)?;
    for meant in std::iter::once(address).chain(embedded(address)) {
        match place(meant) {
            Place::Here => return Err(Denial::ThisHost),
            Place::Unknown if meant == address => return Err(Denial::Unreachable),
            Place::Elsewhere | Place::Unknown => {}
        }
    }
    Ok(())
}

/// Whether names are looked up for a sandbox under `policy`: all, none, or this one.
pub(super) fn may_resolve(policy: &Egress, name: &str) -> bool {
    match policy {
        Egress::None => false,
        Egress::Full => true,
        Egress::AllowList(rules) => rules
            .iter()
            .any(|rule| matches!(&rule.to, Destination::Name(pattern) if covers(pattern, name))),
    }
}

fn listed(policy: &Egress, pins: &Pins, address: IpAddr, port: u16, now: Timestamp) -> Result<(), Denial> {
    let rules = match policy {
        Egress::None => return Err(Denial::NoEgress),
        Egress::Full => return Ok(()),
        Egress::AllowList(rules) => rules,
    };
    let fits = rules
        .iter()
        .filter(|rule| rule.port.is_none_or(|only| only == port))
        .any(|rule| match &rule.to {
            Destination::Name(pattern) => pins.names(address, now).any(|name| covers(pattern, name)),
            Destination::Network {
                address: network,
                prefix,
            } => contains(*network, *prefix, address),
        });
    if fits { Ok(()) } else { Err(Denial::NotListed) }
}

/// Whether a rule's name means `name`: itself, or with `*.` every name below.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(parent) => name
            .len()
            .checked_sub(parent.len() + 1)
            .filter(|cut| *cut > 0)
            .is_some_and(|cut| {
                name.is_char_boundary(cut)
                    && name[cut..].starts_with('.')
                    && name[cut + 1..].eq_ignore_ascii_case(parent)
            }),
    }
}

/// Whether `address` is in `network/prefix`; never across families.
fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let rest = width.saturating_sub(u32::from(prefix));
        rest >= 128 || a >> rest == b >> rest
    };
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

/// Why nobody may connect to this address, whatever the policy.
pub(super) fn never(address: IpAddr) -> Option<Denial> {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Some(Denial::Unspecified),
            [127, ..] => Some(Denial::Loopback),
            [169, 254, ..] => Some(Denial::LinkLocal),
            [224..=239, ..] | [255, 255, 255, 255] => Some(Denial::Multicast),
            // 198.18.0.0/15 (RFC 2544): addresses that Knarr gives inside sandboxes.
            [240..=255, ..] | [198, 18 | 19, ..] => Some(Denial::Reserved),
            octets if METADATA_V4.contains(&octets) => Some(Denial::Metadata),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            _ if v6.is_unspecified() => Some(Denial::Unspecified),
            _ if v6.is_loopback() => Some(Denial::Loopback),
            [0xfe80..=0xfebf, ..] => Some(Denial::LinkLocal),
            [0xff00..=0xffff, ..] => Some(Denial::Multicast),
            // Site-local, given up in RFC 3879.
            [0xfec0..=0xfeff, ..] => Some(Denial::Reserved),
            segments if METADATA_V6.contains(&segments) => Some(Denial::Metadata),
            _ => None,
        },
    }
}

/// Metadata services that are not link-local: Azure's and Alibaba's; of AWS and Google over IPv6.
const METADATA_V4: [[u8; 4]; 2] = [[168, 63, 129, 16], [100, 100, 100, 200]];
const METADATA_V6: [[u16; 8]; 2] = [
    [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254],
];

/// The IPv4 address that an IPv6 address means on its way: compatible (RFC 4291), 6to4 (RFC 3056), NAT64 (RFC 6052,
/// RFC 8215), Teredo (RFC 4380). Mapped ones are IPv4 already.
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match v6.segments() {
        _ if v6 == Ipv6Addr::LOCALHOST || v6 == Ipv6Addr::UNSPECIFIED => None,
        [0, 0, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x64, 0xff9b, 0 | 1, .., high, low] => v4(high, low),
        [0x2001, 0, .., high, low] => v4(!high, !low),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
