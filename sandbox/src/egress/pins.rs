//! Which names Knarr's own answers gave for which addresses, and until when. PURE.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use manifests::units::Timestamp;

/// The most that are kept for one sandbox; past it the one that ends first goes.
const MOST: usize = 4096;

/// What one sandbox was told.
#[derive(Default, Debug)]
pub(super) struct Pins {
    by_address: HashMap<IpAddr, Vec<Pin>>,
    count: usize,
}

#[derive(Debug)]
struct Pin {
    name: Arc<str>,
    until: Timestamp,
}

impl Pins {
    /// `name` was said to be at `address` for `ttl`.
    pub(super) fn pin(&mut self, name: &Arc<str>, address: IpAddr, ttl: Duration, now: Timestamp) {
        let until = now.plus(ttl);
        let address = address.to_canonical();
        let pins = self.by_address.entry(address).or_default();
        if let Some(pin) = pins.iter_mut().find(|pin| pin.name == *name) {
            pin.until = pin.until.max(until);
            return;
        }
        pins.push(Pin {
            name: Arc::clone(name),
            until,
        });
        self.count += 1;
        if self.count > MOST {
            self.make_room(now);
        }
    }

    /// The names that lead to `address` now.
    pub(super) fn names(&self, address: IpAddr, now: Timestamp) -> impl Iterator<Item = &str> {
        let pins = self.by_address.get(&address.to_canonical());
        pins.into_iter()
            .flatten()
            .filter(move |pin| pin.until > now)
            .map(|pin| &*pin.name)
    }

    /// Drops what has ended; if nothing has, the quarter that ends first.
    fn make_room(&mut self, now: Timestamp) {
        let mut ends: Vec<Timestamp> = self.by_address.values().flatten().map(|pin| pin.until).collect();
        ends.sort_unstable();
        let quarter = ends.get(MOST / 4).copied().unwrap_or(now);
        let cut = if ends.first().is_some_and(|first| *first <= now) {
            now
        } else {
            quarter
        };
        self.by_address.retain(|_, pins| {
            pins.retain(|pin| pin.until > cut);
            !pins.is_empty()
        });
        self.count = self.by_address.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(second))
    }

    #[test]
    fn a_pin_lasts_as_long_as_the_longest_answer() {
        let (name, address) = ("a.example".into(), "192.0.2.1".parse().unwrap());
        let mut pins = Pins::default();
        pins.pin(&name, address, Duration::from_secs(60), at(0));
        pins.pin(&name, address, Duration::from_secs(10), at(1));
        pins.pin(&"b.example".into(), address, Duration::from_secs(10), at(1));
        let names = |now| pins.names(address, now).collect::<Vec<_>>();
        assert_eq!(names(at(10)), ["a.example", "b.example"]);
        assert_eq!(names(at(11)), ["a.example"]);
        assert_eq!(names(at(59)), ["a.example"]);
        assert!(names(at(60)).is_empty());
        assert_eq!(pins.names("::ffff:192.0.2.1".parse().unwrap(), at(59)).count(), 1);
        assert_eq!(pins.names("192.0.2.2".parse().unwrap(), at(0)).count(), 0);
    }

    #[test]
    fn there_are_never_more_than_the_bound() {
        let mut pins = Pins::default();
        let address = |n: u32| IpAddr::V4(n.into());
        for n in 0..20_000_u32 {
            let ttl = Duration::from_secs(u64::from(n % 977) + 1);
            pins.pin(&"a.example".into(), address(n), ttl, at(0));
            assert!(pins.count <= MOST, "after {n}");
            assert_eq!(pins.count, pins.by_address.values().map(Vec::len).sum::<usize>());
            assert!(pins.count < MOST / 2 || n >= 1000);
        }
        // What has ended goes first, and nothing else.
        let mut pins = Pins::default();
        for n in 0..MOST {
            let ttl = Duration::from_secs(if n % 2 == 0 { 1 } else { 100 });
            pins.pin(&"a.example".into(), address(u32::try_from(n).unwrap()), ttl, at(0));
        }
        pins.pin(&"a.example".into(), address(u32::MAX), Duration::from_secs(100), at(2));
        assert_eq!(pins.count, MOST / 2 + 1);
    }
}
