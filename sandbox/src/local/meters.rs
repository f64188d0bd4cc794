//! What is counted of the pool of shells; names and labels in one table.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use manifests::ids::RevisionId;
use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::PoolStats;

const SHELLS: &str = "knarr_pool_shells";
const REVISION_SHELLS: &str = "knarr_pool_revision_shells";
const STARTS: &str = "knarr_pool_starts_total";
const REFILLS: &str = "knarr_pool_refills_total";

/// Every metric of the pool: name, labels, meaning. `namespace` and `revision` say whose.
pub const TABLE: &[(&str, &[&str], &str)] = &[
    (
        SHELLS,
        &["kind"],
        "Shells that are ready for a start (generic: for any app; rooted: with the root of a service mounted)",
    ),
    (
        REVISION_SHELLS,
        &["namespace", "revision"],
        "Shells ready with the root of this revision mounted; revisions with the same root share them",
    ),
    (
        STARTS,
        &["namespace", "revision", "result"],
        "Starts by what they found in the pool (rooted: a shell with their root; generic: one without; missed: none)",
    ),
    (REFILLS, &["kind"], "Shells made ahead for the pool (generic, rooted)"),
];

/// Tells the recorder what the metrics mean; once, after it is installed.
pub fn describe() {
    for &(name, _, meaning) in TABLE {
        if name.ends_with("_total") {
            describe_counter!(name, meaning);
        } else {
            describe_gauge!(name, meaning);
        }
    }
}

/// A start found this in the pool: a shell, and whether it has the root.
pub(super) fn found(revision: &RevisionId, shell: Option<bool>) {
    let result = match shell {
        Some(true) => "rooted",
        Some(false) => "generic",
        None => "missed",
    };
    let (namespace, name) = (revision.namespace().to_owned(), revision.name().to_owned());
    counter!(STARTS, "namespace" => namespace, "revision" => name, "result" => result).increment(1);
}

/// A shell was made ahead.
pub(super) fn refilled(rooted: bool) {
    counter!(REFILLS, "kind" => kind(rooted)).increment(1);
}

/// The gauges, which are set when somebody asks.
#[derive(Default)]
pub(super) struct Gauges {
    /// Revisions whose gauge is not zero.
    set: Mutex<BTreeSet<RevisionId>>,
}

impl Gauges {
    /// As the pool is now.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred shells at most")]
    pub(super) fn update(&self, pool: &PoolStats) {
        gauge!(SHELLS, "kind" => kind(false)).set(pool.generic as f64);
        gauge!(SHELLS, "kind" => kind(true)).set(pool.rooted as f64);
        let of = |revision: &RevisionId| {
            let (namespace, name) = (revision.namespace().to_owned(), revision.name().to_owned());
            gauge!(REVISION_SHELLS, "namespace" => namespace, "revision" => name)
        };
        let now: BTreeSet<RevisionId> = pool.revisions.iter().map(|(revision, _)| revision.clone()).collect();
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.difference(&now).for_each(|forgotten| of(forgotten).set(0.0));
        for (revision, shells) in &pool.revisions {
            of(revision).set(*shells as f64);
        }
        *set = now;
    }
}

const fn kind(rooted: bool) -> &'static str {
    if rooted { "rooted" } else { "generic" }
}
