//! Conditions as Knative's condition manager keeps them (knative/pkg apis: ConditionSet, ConditionManager).

use manifests::exchange::ConditionStatus;
use manifests::resources::Condition;
use manifests::units::Timestamp;

use super::rfc3339;

/// Whether a condition decides readiness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// It does.
    Error,
    /// It only informs.
    Info,
}

/// The conditions of one object while it is reconciled: `Ready` follows its dependents.
#[derive(Clone, Debug)]
pub struct Conditions {
    list: Vec<Condition>,
    dependents: &'static [&'static str],
    now: Timestamp,
}

/// Status, reason and message of a condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Says<'a> {
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// CamelCase word; empty when True.
    pub reason: &'a str,
    /// For people; empty when True.
    pub message: &'a str,
}

/// True, without a word.
pub const TRUE: Says<'static> = Says {
    status: ConditionStatus::True,
    reason: "",
    message: "",
};

impl Says<'_> {
    /// Unknown, without a word: how every condition starts.
    pub const UNKNOWN: Says<'static> = Says {
        status: ConditionStatus::Unknown,
        reason: "",
        message: "",
    };
}

impl Conditions {
    /// Takes up the conditions of an object; missing dependents start Unknown.
    pub fn new(list: Vec<Condition>, dependents: &'static [&'static str], now: Timestamp) -> Self {
        let mut conditions = Self { list, dependents, now };
        for kind in dependents {
            if conditions.get(kind).is_none() {
                conditions.write(kind, Says::UNKNOWN, Severity::Error);
            }
        }
        if conditions.get(READY).is_none() {
            conditions.write(READY, Says::UNKNOWN, Severity::Error);
        }
        conditions
    }

    /// One condition.
    pub fn get(&self, kind: &str) -> Option<&Condition> {
        self.list.iter().find(|condition| condition.kind == kind)
    }

    /// Sets a condition; the time of transition moves only when something in it changes.
    pub fn set(&mut self, kind: &str, says: Says<'_>) {
        self.write(kind, says, Severity::Error);
    }

    /// Sets a condition that only informs.
    pub fn inform(&mut self, kind: &str, says: Says<'_>) {
        self.write(kind, says, Severity::Info);
    }

    /// The conditions with `Ready` brought up to date, sorted by type: any False (the latest transition first), else any
    /// Unknown, else True.
    pub fn finish(mut self) -> Vec<Condition> {
        if !self.dependents.is_empty() {
            let worst = |status: &str| {
                let mut found: Vec<&Condition> = self
                    .dependents
                    .iter()
                    .filter_map(|kind| self.get(kind))
                    .filter(|c| c.status == status)
                    .collect();
                found.sort_by(|a, b| b.last_transition_time.cmp(&a.last_transition_time));
                found
                    .first()
                    .map(|condition| (condition.reason.clone(), condition.message.clone()))
            };
            let (status, (reason, message)) = match (worst("False"), worst("Unknown")) {
                (Some(why), _) => (ConditionStatus::False, why),
                (None, Some(why)) => (ConditionStatus::Unknown, why),
                (None, None) => (ConditionStatus::True, Default::default()),
            };
            self.write(
                READY,
                Says {
                    status,
                    reason: &reason,
                    message: &message,
                },
                Severity::Error,
            );
        }
        self.list
    }

    fn write(&mut self, kind: &str, says: Says<'_>, severity: Severity) {
        let wanted = Condition {
            kind: kind.to_owned(),
            status: status_text(says.status).to_owned(),
            severity: if severity == Severity::Info {
                "Info".to_owned()
            } else {
                String::new()
            },
            last_transition_time: Some(rfc3339(self.now)),
            reason: says.reason.to_owned(),
            message: says.message.to_owned(),
        };
        match self.list.iter_mut().find(|condition| condition.kind == kind) {
            Some(old) => {
                let since = old.last_transition_time.clone();
                if (Condition {
                    last_transition_time: since,
                    ..wanted.clone()
                }) != *old
                {
                    *old = wanted;
                }
            }
            None => {
                self.list.push(wanted);
                self.list.sort_by(|a, b| a.kind.cmp(&b.kind));
            }
        }
    }
}

/// `True`, `False`, `Unknown`.
pub fn status_text(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

/// A condition as it stands in a status, read back.
pub fn says(condition: &Condition) -> Says<'_> {
    let status = match condition.status.as_str() {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    };
    Says {
        status,
        reason: &condition.reason,
        message: &condition.message,
    }
}

/// The condition that sums up the others.
pub const READY: &str = "Ready";

/// The `Ready` condition among `conditions`, Unknown when there is none.
pub fn ready(conditions: &[Condition]) -> Says<'_> {
    conditions
        .iter()
        .find(|condition| condition.kind == READY)
        .map_or(Says::UNKNOWN, says)
}
