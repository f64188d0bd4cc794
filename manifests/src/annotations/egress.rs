//! `knarr.dev/egress-allow`: where a sandbox may connect to, as a list in text.
//!
//! ```text
//! api.example.com:443, *.example.org, 10.0.0.0/8:5432, 192.0.2.7, [2001:db8::/32]:443
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::workload::{Destination, EgressRule};

/// Reads a list of rules, separated by commas, spaces or line ends.
///
/// # Errors
/// Every wrong entry, with what is wrong with it.
pub fn parse_egress_rules(text: &str) -> Result<Vec<EgressRule>, String> {
    let entries = text.split(|c: char| c == ',' || c.is_whitespace());
    let (mut rules, mut wrong) = (Vec::new(), Vec::new());
    for entry in entries.filter(|entry| !entry.is_empty()) {
        match entry.parse() {
            Ok(rule) => rules.push(rule),
            Err(NotARule(why)) => wrong.push(format!("{entry}: {why}")),
        }
    }
    match wrong.as_slice() {
        [] if rules.is_empty() => Err("invalid value: names no destination".to_owned()),
        [] => Ok(rules),
        wrong => Err(format!("invalid value: {}", wrong.join("; "))),
    }
}

/// The text is not a rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotARule(String);

impl FromStr for EgressRule {
    type Err = NotARule;

    fn from_str(text: &str) -> Result<Self, NotARule> {
        let (to, port) = split(text).map_err(|why| NotARule(why.to_owned()))?;
        let port = port.map(parse_port).transpose()?;
        let to = if to.contains([':', '/']) || to.parse::<IpAddr>().is_ok() {
            network(to)?
        } else {
            Destination::Name(name(to)?)
        };
        Ok(Self { to, port })
    }
}

/// The host part and the port: `[HOST]:PORT`, `HOST:PORT`, or an IPv6 address or network alone.
fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner.split_once(']').ok_or("the [ is not closed")?;
        if !host.contains(':') {
            return Err("only IPv6 stands in [ ]");
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("after ] comes nothing, or : and a port"),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, NotARule> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(NotARule(format!("{text:?} is not a port, 1 to 65535"))),
    }
}

fn network(text: &str) -> Result<Destination, NotARule> {
    let (address, prefix) = text
        .split_once('/')
        .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address
        .parse()
        .map_err(|_| NotARule(format!("{address:?} is not an IP address")))?;
    let (bits, value) = match address {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    };
    let prefix = match prefix {
        None => bits,
        Some(text) => match text.parse() {
            Ok(prefix) if prefix <= bits && !text.starts_with('+') => prefix,
            _ => return Err(NotARule(format!("{text:?} is not a prefix length, 0 to {bits}"))),
        },
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or_default();
    if value & !mask != 0 {
        let first = match address {
            IpAddr::V4(_) => IpAddr::from(std::net::Ipv4Addr::from_bits(((value & mask) >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::from_bits(value & mask)),
        };
        return Err(NotARule(format!(
            "has bits behind its prefix; the network is {first}/{prefix}"
        )));
    }
    Ok(Destination::Network { address, prefix })
}

/// A domain name, or `*.` and one; in lower case, without a dot at the end.
fn name(text: &str) -> Result<String, NotARule> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    let plain = lower.strip_prefix("*.").unwrap_or(lower);
    let is_label = |label: &str| {
        let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(right) && !label.starts_with('-') && !label.ends_with('-')
    };
    // Of digits only, it is a misspelt address.
    let is_number = plain
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if plain.len() > 253 || !plain.split('.').all(is_label) || is_number {
        let why = if plain.contains('*') {
            "a * stands alone and first, as in *.example.com"
        } else {
            "is neither a name nor an address"
        };
        return Err(NotARule(why.to_owned()));
    }
    Ok(lower.to_owned())
}

/// As it is written in the annotation.
impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.to, self.port) {
            (
                to @ Destination::Network {
                    address: IpAddr::V6(_), ..
                },
                Some(port),
            ) => write!(f, "[{to}]:{port}"),
            (to, Some(port)) => write!(f, "{to}:{port}"),
            (to, None) => to.fmt(f),
        }
    }
}

/// A single address is printed without its prefix.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Network { address, prefix } if *prefix == if address.is_ipv4() { 32 } else { 128 } => address.fmt(f),
            Self::Network { address, prefix } => write!(f, "{address}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_as_they_are_written() {
        let table = [
            ("api.example.com:443", "api.example.com:443"),
            ("API.Example.com.", "api.example.com"),
            ("*.example.org", "*.example.org"),
            ("localhost:80", "localhost:80"),
            ("_srv.example.org", "_srv.example.org"),
            ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("[::1]", "::1"),
            ("::/0", "::/0"),
        ];
        for (text, want) in table {
            let rule: EgressRule = text.parse().unwrap();
            assert_eq!(rule.to_string(), want, "{text}");
            assert_eq!(want.parse(), Ok(rule), "{text}");
        }
    }

    #[test]
    fn every_wrong_entry_is_named() {
        let table = [
            ("a b:0", "invalid value: b:0: \"0\" is not a port, 1 to 65535"),
            ("a:+1", "invalid value: a:+1: \"+1\" is not a port, 1 to 65535"),
            ("a:65536", "invalid value: a:65536: \"65536\" is not a port, 1 to 65535"),
            ("a:", "invalid value: a:: \"\" is not a port, 1 to 65535"),
            (
                "10.0.0.1/8",
                "invalid value: 10.0.0.1/8: has bits behind its prefix; the network is 10.0.0.0/8",
            ),
            (
                "2001:db8::1/32",
                "invalid value: 2001:db8::1/32: has bits behind its prefix; the network is 2001:db8::/32",
            ),
            (
                "10.0.0.0/33",
                "invalid value: 10.0.0.0/33: \"33\" is not a prefix length, 0 to 32",
            ),
            (
                "10.0.0.0/",
                "invalid value: 10.0.0.0/: \"\" is not a prefix length, 0 to 32",
            ),
            ("10.0.0", "invalid value: 10.0.0: is neither a name nor an address"),
            (
                "300.1.1.1",
                "invalid value: 300.1.1.1: is neither a name nor an address",
            ),
            ("a..b", "invalid value: a..b: is neither a name nor an address"),
            ("-a", "invalid value: -a: is neither a name nor an address"),
            (
                "a.*.b",
                "invalid value: a.*.b: a * stands alone and first, as in *.example.com",
            ),
            ("*", "invalid value: *: a * stands alone and first, as in *.example.com"),
            (
                "https://a",
                "invalid value: https://a: \"//a\" is not a port, 1 to 65535",
            ),
            ("a/24", "invalid value: a/24: \"a\" is not an IP address"),
            ("[::1", "invalid value: [::1: the [ is not closed"),
            (
                "[::1]443",
                "invalid value: [::1]443: after ] comes nothing, or : and a port",
            ),
            ("[a]:1", "invalid value: [a]:1: only IPv6 stands in [ ]"),
            (" ,\n", "invalid value: names no destination"),
            (
                "a-,ok,b-",
                "invalid value: a-: is neither a name nor an address; b-: is neither a name nor an address",
            ),
        ];
        for (text, want) in table {
            assert_eq!(parse_egress_rules(text).unwrap_err(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_rule_reads_as_itself(
            address in any::<(bool, u128)>(), prefix in 0_u8..=128, port in proptest::option::of(1_u16..),
            name in proptest::option::of("(\\*\\.)?[a-z0-9_]{1,5}(\\.[a-z]{1,3}){0,2}"),
        ) {
            let to = match (name, address) {
                (Some(name), _) if !name.ends_with(|c: char| c.is_ascii_digit()) => Destination::Name(name),
                (_, (true, bits)) => {
                    let prefix = prefix.min(32);
                    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default();
                    let address = std::net::Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap() & mask);
                    Destination::Network { address: address.into(), prefix }
                }
                (_, (false, bits)) => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or_default();
                    let address = std::net::Ipv6Addr::from_bits(bits & mask);
                    Destination::Network { address: address.into(), prefix }
                }
            };
            let rule = EgressRule { to, port };
            prop_assert_eq!(parse_egress_rules(&rule.to_string()), Ok(vec![rule]));
        }

        #[test]
        fn no_text_panics(text in "[a-z0-9.:/*\\[\\], -]{0,24}") {
            if let Ok(rules) = parse_egress_rules(&text) {
                for rule in rules {
                    prop_assert_eq!(rule.to_string().parse(), Ok(rule));
                }
            }
        }
    }
}
