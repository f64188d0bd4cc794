//! What system calls a process may make, before it is compiled: rules by name and argument, first match wins.

use std::borrow::Cow;

use manifests::workload::CAPABILITIES;

use super::table::{ALLOWED, BY_CAPABILITY, NEWEST, find};
use super::{Arch, ENOSYS, EPERM, Verdict};

/// Rules for system calls. For each call the first rule whose conditions all hold decides; a rule without conditions comes
/// after those with some, wherever it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Profile {
    /// For calls that no rule decides.
    pub default: Verdict,
    /// A call that is newer than the profile is not refused but "not there" (`ENOSYS`), so that programs fall back to an
    /// older one, as runc has it. `None`: the default is for them too.
    pub newest: Option<u32>,
    pub rules: Vec<Rule>,
}

/// A verdict on some calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    /// Names that no call has are passed over: other architectures have them.
    pub names: Vec<Cow<'static, str>>,
    /// All must hold.
    pub conditions: Vec<Condition>,
    pub verdict: Verdict,
}

/// Something about one argument, in 64 bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub test: Test,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// The bits of `mask` are those of `value`.
    Masked {
        mask: u64,
        value: u64,
    },
    /// In one of these ranges, in order.
    Within(&'static [(u32, u32)]),
}

/// Flags of `clone` that make a namespace.
const NAMESPACES: u64 = 0x7E02_0000;

/// Linux, its 32-bit `uname` and no-randomisation flags, and the query.
const PERSONALITIES: &[(u32, u32)] = &[
    (0, 0),
    (8, 8),
    (0x2_0000, 0x2_0000),
    (0x2_0008, 0x2_0008),
    (u32::MAX, u32::MAX),
];

/// All families but DECnet, netbeui, key-less ones long gone, ALG and, above all, VSOCK.
const FAMILIES: &[(u32, u32)] = &[
    (0, 11),
    (13, 18),
    (21, 22),
    (24, 24),
    (26, 33),
    (35, 36),
    (39, 39),
    (41, 45),
];

impl Profile {
    /// The default profile of container runtimes for a process with these capabilities, as bits of the kernel's numbers.
    pub(crate) fn standard(capabilities: u64) -> Self {
        let with: Vec<&[&str]> = BY_CAPABILITY
            .iter()
            .filter(|(name, _)| has(capabilities, name))
            .map(|(_, calls)| *calls)
            .collect();
        let more = with.concat();
        let first = |argument, test| vec![Condition { argument, test }];
        let mut rules = vec![
            Rule::new(ALLOWED.iter().map(|call| call.0), Vec::new(), Verdict::Allow),
            Rule::new(more.iter().copied(), Vec::new(), Verdict::Allow),
            Rule::new(["personality"], first(0, Test::Within(PERSONALITIES)), Verdict::Allow),
            Rule::new(["socket"], first(0, Test::Within(FAMILIES)), Verdict::Allow),
        ];
        if !more.contains(&"clone") {
            let no_namespace = Test::Masked {
                mask: NAMESPACES,
                value: 0,
            };
            rules.push(Rule::new(["clone"], first(0, no_namespace), Verdict::Allow));
            // It hides its flags behind a pointer; libraries fall back to `clone` when it is "not there".
            rules.push(Rule::new(["clone3"], Vec::new(), ENOSYS));
        }
        Self {
            default: EPERM,
            newest: Some(NEWEST),
            rules,
        }
    }

    /// Those of these capabilities that the default profile depends on.
    pub(crate) fn relevant(capabilities: u64) -> u64 {
        let bits = BY_CAPABILITY.iter().map(|(name, _)| bit(name));
        capabilities & bits.fold(0, |all, bit| all | bit)
    }

    /// The newest call, on this architecture, that a rule names.
    pub(super) fn newest_named(rules: &[Rule], arch: Arch) -> Option<u32> {
        let names = rules.iter().flat_map(|rule| &rule.names);
        names.filter_map(|name| arch.number(find(name)?)).max()
    }
}

impl Rule {
    pub(super) fn new(
        names: impl IntoIterator<Item = &'static str>,
        conditions: Vec<Condition>,
        verdict: Verdict,
    ) -> Self {
        Self {
            names: names.into_iter().map(Cow::Borrowed).collect(),
            conditions,
            verdict,
        }
    }
}

impl Verdict {
    /// Whether a call that gets it runs, or may.
    pub(super) const fn is_permissive(self) -> bool {
        matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }
}

/// The bit of a capability; 0 for a name that is none.
fn bit(name: &str) -> u64 {
    let number = CAPABILITIES.iter().position(|known| *known == name);
    number.map_or(0, |number| 1 << number)
}

/// Whether the set has the capability of this name, without `CAP_`.
pub(super) fn has(capabilities: u64, name: &str) -> bool {
    capabilities & bit(name) != 0
}
