use std::time::Duration;

use manifests::workload::EgressRule;
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::EPOCH;

fn rule(to: &str, port: Option<u16>) -> EgressRule {
    let to = match to.split_once('/') {
        Some((address, prefix)) => Destination::Network {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        },
        None => Destination::Name(to.to_owned()),
    };
    EgressRule { to, port }
}

fn list(rules: &[(&str, Option<u16>)]) -> Egress {
    Egress::AllowList(rules.iter().map(|&(to, port)| rule(to, port)).collect())
}

fn elsewhere(_: IpAddr) -> Place {
    Place::Elsewhere
}

/// What lets everything through that may ever go through.
fn everything() -> [Egress; 2] {
    [Egress::Full, list(&[("0.0.0.0/0", None), ("::/0", None)])]
}

#[test]
fn what_is_never_allowed_is_denied_on_every_policy() {
    let cases = [
        ("0.0.0.0:80", Denial::Unspecified),
        ("0.1.2.3:80", Denial::Unspecified),
        ("127.0.0.1:80", Denial::Loopback),
        ("127.255.255.254:8080", Denial::Loopback),
        ("169.254.169.254:80", Denial::LinkLocal),
        ("169.254.0.1:80", Denial::LinkLocal),
        ("168.63.129.16:80", Denial::Metadata),
        ("100.100.100.200:80", Denial::Metadata),
        ("224.0.0.1:80", Denial::Multicast),
        ("239.255.255.255:80", Denial::Multicast),
        ("255.255.255.255:80", Denial::Multicast),
        ("240.0.0.1:80", Denial::Reserved),
        ("198.18.0.1:80", Denial::Reserved),
        ("198.19.255.255:80", Denial::Reserved),
        ("[::]:80", Denial::Unspecified),
        ("[::1]:80", Denial::Loopback),
        ("[fe80::1]:80", Denial::LinkLocal),
        ("[febf:ffff::1]:80", Denial::LinkLocal),
        ("[fec0::1]:80", Denial::Reserved),
        ("[ff02::1]:80", Denial::Multicast),
        ("[fd00:ec2::254]:80", Denial::Metadata),
        ("[fd20:ce::254]:80", Denial::Metadata),
        // The same in disguise.
        ("[::ffff:127.0.0.1]:80", Denial::Loopback),
        ("[::ffff:169.254.169.254]:80", Denial::LinkLocal),
        ("[::ffff:0.0.0.0]:80", Denial::Unspecified),
        ("[::127.0.0.1]:80", Denial::Loopback),
        ("[2002:7f00:1::]:80", Denial::Loopback),
        ("[2002:a9fe:a9fe::1]:80", Denial::LinkLocal),
        ("[64:ff9b::169.254.169.254]:80", Denial::LinkLocal),
        ("[64:ff9b:1::127.0.0.1]:80", Denial::Loopback),
        ("[2001:0:53aa:64c:0:0:80ff:fffe]:80", Denial::Loopback),
    ];
    for (to, wanted) in cases {
        for policy in everything() {
            let judged = judge(&policy, &Pins::default(), to.parse().unwrap(), NOW, elsewhere);
            assert_eq!(judged, Err(wanted), "{to} under {policy:?}");
        }
        let none = judge(&Egress::None, &Pins::default(), to.parse().unwrap(), NOW, elsewhere);
        assert!(none.is_err(), "{to}");
    }
}

#[test]
fn neighbours_of_what_is_denied_are_not() {
    for to in [
        "1.0.0.0:80",
        "126.255.255.255:80",
        "128.0.0.0:80",
        "169.253.255.255:80",
        "169.255.0.0:80",
        "198.17.255.255:80",
        "198.20.0.0:80",
        "223.255.255.255:80",
        "10.0.0.1:80",
        "192.168.1.1:80",
        "[2001:db8::1]:80",
        "[fe7f::1]:80",
        "[fd00::1]:80",
        "[2002:808:808::1]:80",
        "[64:ff9b::8.8.8.8]:80",
    ] {
        for policy in everything() {
            let judged = judge(&policy, &Pins::default(), to.parse().unwrap(), NOW, elsewhere);
            assert_eq!(judged, Ok(()), "{to} under {policy:?}");
        }
        let none = judge(&Egress::None, &Pins::default(), to.parse().unwrap(), NOW, elsewhere);
        assert_eq!(none, Err(Denial::NoEgress), "{to}");
    }
}

#[test]
fn the_hosts_own_addresses_are_denied_in_any_disguise() {
    let here: IpAddr = "192.0.2.7".parse().unwrap();
    let place = |address: IpAddr| if address == here { Place::Here } else { Place::Elsewhere };
    for to in [
        "192.0.2.7:80",
        "[::ffff:192.0.2.7]:80",
        "[64:ff9b::192.0.2.7]:80",
        "[2002:c000:207::1]:80",
    ] {
        for policy in everything() {
            let judged = judge(&policy, &Pins::default(), to.parse().unwrap(), NOW, place);
            assert_eq!(judged, Err(Denial::ThisHost), "{to}");
        }
    }
    let judged = judge(
        &Egress::Full,
        &Pins::default(),
        "192.0.2.8:80".parse().unwrap(),
        NOW,
        |_| Place::Unknown,
    );
    assert_eq!(
        judged,
        Err(Denial::Unreachable),
        "what cannot be found out is not let through"
    );
}

#[test]
fn an_allow_list_is_names_networks_and_ports() {
    let policy = list(&[
        ("api.example.com", Some(443)),
        ("*.cdn.example.net", None),
        ("10.1.0.0/16", Some(5432)),
        ("203.0.113.9/32", None),
        ("2001:db8::/32", None),
    ]);
    let mut pins = Pins::default();
    let minute = Duration::from_secs(60);
    for (name, address) in [
        ("api.example.com", "198.51.100.1"),
        ("a.cdn.example.net", "198.51.100.2"),
        ("cdn.example.net", "198.51.100.3"),
        ("other.example.com", "198.51.100.4"),
    ] {
        pins.pin(&name.into(), address.parse().unwrap(), minute, NOW);
    }
    let cases = [
        ("198.51.100.1:443", true),
        ("198.51.100.1:80", false),
        ("198.51.100.2:80", true),
        ("198.51.100.3:80", false),
        ("198.51.100.4:443", false),
        ("10.1.255.255:5432", true),
        ("10.1.0.0:80", false),
        ("10.2.0.0:5432", false),
        ("203.0.113.9:1", true),
        ("203.0.113.8:1", false),
        ("[2001:db8:ffff::]:22", true),
        ("[2001:db9::]:22", false),
        ("[::ffff:10.1.2.3]:5432", true),
    ];
    for (to, wanted) in cases {
        let judged = judge(&policy, &pins, to.parse().unwrap(), NOW, elsewhere);
        let wanted = if wanted { Ok(()) } else { Err(Denial::NotListed) };
        assert_eq!(judged, wanted, "{to}");
    }
    let later = NOW.plus(minute);
    let expired = judge(&policy, &pins, "198.51.100.1:443".parse().unwrap(), later, elsewhere);
    assert_eq!(expired, Err(Denial::NotListed), "answers do not last");
}

#[test]
fn names_are_looked_up_when_the_policy_has_a_use_for_them() {
    let listed = list(&[
        ("api.example.com", Some(443)),
        ("*.b.example", None),
        ("10.0.0.0/8", None),
    ]);
    for (name, wanted) in [
        ("api.example.com", true),
        ("API.Example.com", true),
        ("x.api.example.com", false),
        ("example.com", false),
        ("b.example", false),
        ("a.b.example", true),
        ("z.a.b.example", true),
        ("ab.example", false),
        ("ümlaut.b.example", true),
        ("ü", false),
    ] {
        assert_eq!(may_resolve(&listed, name), wanted, "{name}");
        assert!(may_resolve(&Egress::Full, name));
        assert!(!may_resolve(&Egress::None, name));
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        // Disguises of all of IPv4.
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())),
        any::<u32>().prop_map(|bits| IpAddr::V6((u128::from(bits)).into())),
        any::<u32>().prop_map(|bits| IpAddr::V6((0x64_ff9b << 96 | u128::from(bits)).into())),
        any::<(u32, u64)>()
            .prop_map(|(v4, rest)| { IpAddr::V6((0x2002 << 112 | u128::from(v4) << 80 | u128::from(rest)).into()) }),
    ]
}

fn any_rule() -> impl Strategy<Value = EgressRule> {
    let network = (any_address(), 0_u8..=128).prop_map(|(address, prefix)| Destination::Network {
        address,
        prefix: if address.is_ipv4() { prefix.min(32) } else { prefix },
    });
    let to = prop_oneof![network, Just(Destination::Name("*.example".into()))];
    (to, proptest::option::of(any::<u16>())).prop_map(|(to, port)| EgressRule { to, port })
}

proptest! {
    /// Whatever a list allows, `full` allows; and neither what is never allowed, nor this host.
    #[test]
    fn a_list_only_takes_away(
        rules in proptest::collection::vec(any_rule(), 0..6),
        address in any_address(),
        pinned in any::<bool>(),
        port in any::<u16>(),
        here in any::<bool>(),
    ) {
        let place = |_| if here { Place::Here } else { Place::Elsewhere };
        let mut pins = Pins::default();
        if pinned {
            pins.pin(&"a.example".into(), address, Duration::from_secs(1), NOW);
        }
        let to = SocketAddr::new(address, port);
        let by_list = judge(&Egress::AllowList(rules), &pins, to, NOW, place);
        let full = judge(&Egress::Full, &pins, to, NOW, place);
        prop_assert!(by_list.is_err() || full.is_ok());
        prop_assert!(!here || full.is_err());
        let canonical = address.to_canonical();
        let forbidden = never(canonical).or_else(|| never(embedded(canonical)?));
        prop_assert!(forbidden.is_none() || full.is_err());
        prop_assert!(judge(&Egress::None, &pins, to, NOW, place).is_err());
    }

    /// A network holds exactly the addresses whose first bits are its own.
    #[test]
    fn networks_hold_what_shares_their_first_bits(a in any::<u32>(), b in any::<u32>(), prefix in 0_u8..=32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let held = contains(IpAddr::V4(a.into()), prefix, IpAddr::V4(b.into()));
        prop_assert_eq!(held, a & mask == b & mask);
        let wide = contains(IpAddr::V6(u128::from(a).into()), 96 + prefix, IpAddr::V6(u128::from(b).into()));
        prop_assert_eq!(wide, a & mask == b & mask);
    }
}
