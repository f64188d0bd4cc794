//! PURE  Names of sandboxes: `REVISION-xxxxx`, as Knative prints pod names.
//!
//! The five characters count in a scrambled order, so a name comes again only after 14 million starts; each start of Knarr
//! begins elsewhere in that order.

use manifests::ids::{RevisionId, SandboxId};
use manifests::names::child_name;
use serde::{Deserialize, Serialize};

/// Gives out names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Names {
    next: u64,
}

impl Names {
    /// `epoch` is the number of Knarr's start.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            next: (epoch % ALL).wrapping_mul(STRIDE) % ALL,
        }
    }

    /// The next name; a DNS label.
    pub(crate) fn next(&mut self, revision: &RevisionId) -> SandboxId {
        self.next = (self.next + 1) % ALL;
        // Both factors have no divisor in common with ALL, so that this visits every number once.
        let mut scrambled = (self.next * SCRAMBLE + OFFSET) % ALL;
        let mut suffix = String::from("-");
        for _ in 0..LENGTH {
            let (rest, digit) = (scrambled / BASE, scrambled % BASE);
            suffix.extend(
                usize::try_from(digit)
                    .ok()
                    .and_then(|digit| ALPHABET.get(digit))
                    .copied()
                    .map(char::from),
            );
            scrambled = rest;
        }
        // A dot, which a revision's name may have, cannot stand in a label.
        SandboxId::new(child_name(&revision.name().replace('.', "-"), &suffix))
    }
}

/// No vowels and no characters that look alike, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const BASE: u64 = 27;
const LENGTH: u32 = 5;
const ALL: u64 = BASE.pow(LENGTH);
const STRIDE: u64 = 1_000_003;
const SCRAMBLE: u64 = 8_867_641;
const OFFSET: u64 = 3_141_592;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn they_are_unique_labels() {
        let mut names = Names::new(7);
        let short = RevisionId::new("default", "hello-00001");
        let first = names.next(&short);
        assert!(
            first.as_str().starts_with("hello-00001-") && first.as_str().len() == 17,
            "{first}"
        );
        let long = RevisionId::new("default", format!("{}.b-{}", "a".repeat(53), "c".repeat(200)));
        let mut seen = HashSet::new();
        for _ in 0..100_000 {
            let name = names.next(&long);
            assert!(
                name.as_str().len() <= 63 && !name.as_str().contains(['.', '_']),
                "{name}"
            );
            assert!(seen.insert(name));
        }
    }

    #[test]
    fn each_start_of_knarr_begins_elsewhere() {
        let revision = RevisionId::new("default", "a");
        let of = |epoch| {
            let mut names = Names::new(epoch);
            (0..1000).map(|_| names.next(&revision)).collect::<HashSet<_>>()
        };
        let all: HashSet<_> = (1..=200).flat_map(of).collect();
        assert_eq!(all.len(), 200_000);
    }
}
