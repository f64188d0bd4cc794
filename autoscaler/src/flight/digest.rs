//! PURE  What was decided, in 64 bits: equal bits in, equal digest out, on every machine and in every build.

use std::io;

use manifests::ids::RevisionId;
use sandbox::driver::Limits;
use serde::{Deserialize, Serialize};

use crate::explain::Record;
use crate::scaler::Output;

/// What one step of the fleet decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Digest {
    /// Decisions made: looks at a revision.
    #[serde(rename = "n", default, skip_serializing_if = "is_default")]
    pub(crate) decisions: u32,
    /// Orders that came of them, by kind.
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    pub(crate) orders: Orders,
    /// Of every decision, with what it was made from and why, and of every order.
    #[serde(rename = "h", default, skip_serializing_if = "is_default")]
    pub(crate) hash: u64,
}

/// Orders by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Orders([u32; KINDS]);

/// How many kinds of orders there are.
const KINDS: usize = 8;

/// What they are called.
const NAMES: [(&str, &str); KINDS] = [
    ("start", "starts"),
    ("cancel", "cancels"),
    ("stop", "stops"),
    ("limit", "limits"),
    ("freeze", "freezes"),
    ("thaw", "thaws"),
    ("endpoint set", "endpoint sets"),
    ("status", "statuses"),
];

impl Orders {
    /// Counts one more.
    pub(crate) fn add(&mut self, output: &Output) {
        self.0[kind(output)] += 1;
    }
}

impl std::fmt::Display for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let some = self.0.iter().zip(NAMES).filter(|(count, _)| **count > 0);
        let words: Vec<String> = some
            .map(|(count, (one, many))| format!("{count} {}", if *count == 1 { one } else { many }))
            .collect();
        if words.is_empty() {
            return f.write_str("no order");
        }
        f.write_str(&words.join(", "))
    }
}

const fn kind(output: &Output) -> usize {
    match output {
        Output::Start(_) => 0,
        Output::Cancel(_) => 1,
        Output::Stop { .. } => 2,
        Output::SetLimits { .. } => 3,
        Output::Freeze { .. } => 4,
        Output::Thaw { .. } => 5,
        Output::Endpoints(_) => 6,
        Output::Status(_) => 7,
    }
}

/// FNV-1a over what is written to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds up what a step decides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    decisions: u32,
    orders: Orders,
    hash: Hash,
}

impl Tally {
    /// One decision about a revision.
    pub(crate) fn decision(&mut self, revision: &RevisionId, record: &Record) {
        self.decisions += 1;
        self.add(&(revision, record));
    }

    /// One order.
    pub(crate) fn order(&mut self, output: &Output) {
        self.orders.add(output);
        let of = |limits: &Limits| (limits.cpu, limits.memory, limits.pids);
        match output {
            Output::Start(spec) => self.add(&("start", &spec.id, &spec.revision, of(&spec.limits), spec.deadline)),
            Output::Cancel(id) => self.add(&("cancel", id)),
            Output::Stop { id, grace, .. } => self.add(&("stop", id, grace)),
            Output::SetLimits { id, limits, .. } => self.add(&("limits", id, of(limits))),
            Output::Freeze { id, .. } => self.add(&("freeze", id)),
            Output::Thaw { id, .. } => self.add(&("thaw", id)),
            Output::Endpoints(set) => self.add(set),
            Output::Status(status) => self.add(status),
        }
    }

    /// What it comes to; it starts anew.
    pub(crate) fn take(&mut self) -> Digest {
        let Self {
            decisions,
            orders,
            hash,
        } = std::mem::take(self);
        let nothing = decisions == 0 && orders == Orders::default();
        Digest {
            decisions,
            orders,
            hash: if nothing { 0 } else { hash.0 },
        }
    }

    fn add(&mut self, value: &impl Serialize) {
        // Neither the writer nor these types can fail.
        let _ = serde_json::to_writer(&mut self.hash, value);
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
