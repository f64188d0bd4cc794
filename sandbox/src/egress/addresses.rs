//! Addresses that stand for services inside one sandbox. PURE.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The second half of RFC 2544's range.
const NETWORK: [u8; 2] = [198, 19];

/// Which address stands for which service. Given when a name is first asked for; a sandbox that asks for more than 65,535
/// has the oldest given anew.
#[derive(Default, Debug)]
pub(super) struct Addresses {
    by_host: HashMap<Arc<str>, u16>,
    by_number: HashMap<u16, Arc<str>>,
    last: u16,
}

impl Addresses {
    /// The address of a service.
    pub(super) fn of(&mut self, host: &str) -> Ipv4Addr {
        if let Some(&number) = self.by_host.get(host) {
            return address(number);
        }
        // 198.19.0.0 is nobody's.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let host: Arc<str> = host.into();
        if let Some(old) = self.by_number.insert(self.last, Arc::clone(&host)) {
            self.by_host.remove(&old);
        }
        self.by_host.insert(host, self.last);
        address(self.last)
    }

    /// The service at an address.
    pub(super) fn service(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.by_number.get(&number(address)?)
    }
}

/// Whether an address is one that stands for services, given or not.
pub(super) fn is_of_services(address: IpAddr) -> bool {
    number(address).is_some()
}

fn number(address: IpAddr) -> Option<u16> {
    let IpAddr::V4(v4) = address.to_canonical() else {
        return None;
    };
    let [a, b, c, d] = v4.octets();
    ([a, b] == NETWORK).then_some(u16::from_be_bytes([c, d]))
}

fn address(number: u16) -> Ipv4Addr {
    let [c, d] = number.to_be_bytes();
    Ipv4Addr::new(NETWORK[0], NETWORK[1], c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_keeps_its_address_and_the_oldest_goes_first() {
        let mut addresses = Addresses::default();
        let first = addresses.of("a");
        assert_eq!(first, Ipv4Addr::new(198, 19, 0, 1));
        assert_eq!(addresses.of("b"), Ipv4Addr::new(198, 19, 0, 2));
        assert_eq!(addresses.of("a"), first);
        assert_eq!(addresses.service(first.into()).map(|host| &**host), Some("a"));
        assert_eq!(addresses.service("198.19.0.3".parse().unwrap()), None);
        assert_eq!(addresses.service("198.18.0.1".parse().unwrap()), None);
        for n in 0..65_533 {
            addresses.of(&n.to_string());
        }
        assert_eq!(addresses.of("a"), first, "65,535 fit");
        assert_eq!(addresses.of("one more"), first);
        assert_eq!(addresses.service(first.into()).map(|host| &**host), Some("one more"));
        assert_ne!(addresses.of("a"), first);
        assert_eq!(addresses.by_host.len(), addresses.by_number.len());
    }
}
