//! A profile in the words of the OCI runtime specification, for runtimes that compile it themselves.

use serde_json::{Value, json};

use super::profile::{Condition, Profile, Rule, Test};
use super::{Arch, Verdict};

impl Profile {
    /// `linux.seccomp` of a bundle's configuration (config-linux.md, Seccomp).
    pub(crate) fn oci(&self, arch: Arch) -> Value {
        let (action, errno) = action(self.default);
        let mut profile = json!({
            "defaultAction": action,
            "architectures": [arch.names().0],
            "syscalls": self.rules.iter().flat_map(calls).collect::<Vec<_>>(),
        });
        if let Some(errno) = errno {
            profile["defaultErrnoRet"] = errno.into();
        }
        profile
    }
}

/// The specification has no ranges: a rule with one becomes several.
fn calls(rule: &Rule) -> Vec<Value> {
    if rule.names.is_empty() {
        return Vec::new();
    }
    let (action, errno) = action(rule.verdict);
    let mut all: Vec<Vec<Value>> = vec![Vec::new()];
    for condition in &rule.conditions {
        let ways = alternatives(condition);
        let with = |so_far: Vec<Value>| {
            ways.clone()
                .into_iter()
                .map(move |way| so_far.iter().cloned().chain([way]).collect())
        };
        all = all.into_iter().flat_map(with).collect();
    }
    let call = |args: Vec<Value>| {
        let mut call = json!({ "names": rule.names, "action": action });
        if !args.is_empty() {
            call["args"] = args.into();
        }
        if let Some(errno) = errno {
            call["errnoRet"] = errno.into();
        }
        call
    };
    all.into_iter().map(call).collect()
}

/// One of these must hold.
fn alternatives(condition: &Condition) -> Vec<Value> {
    let arg = |op: &str, value: u64, second: u64| json!({ "index": condition.argument, "value": value, "valueTwo": second, "op": op });
    let one = match condition.test {
        Test::Equal(value) => arg("SCMP_CMP_EQ", value, 0),
        Test::NotEqual(value) => arg("SCMP_CMP_NE", value, 0),
        Test::Less(value) => arg("SCMP_CMP_LT", value, 0),
        Test::LessOrEqual(value) => arg("SCMP_CMP_LE", value, 0),
        Test::Greater(value) => arg("SCMP_CMP_GT", value, 0),
        Test::GreaterOrEqual(value) => arg("SCMP_CMP_GE", value, 0),
        Test::Masked { mask, value } => arg("SCMP_CMP_MASKED_EQ", mask, value),
        Test::Within(ranges) => {
            let values = ranges.iter().flat_map(|&(first, last)| first..=last);
            return values.map(|value| arg("SCMP_CMP_EQ", value.into(), 0)).collect();
        }
    };
    vec![one]
}

const fn action(verdict: Verdict) -> (&'static str, Option<u16>) {
    match verdict {
        Verdict::Allow => ("SCMP_ACT_ALLOW", None),
        Verdict::Log => ("SCMP_ACT_LOG", None),
        Verdict::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        Verdict::Trap => ("SCMP_ACT_TRAP", None),
        Verdict::Trace(word) => ("SCMP_ACT_TRACE", Some(word)),
        Verdict::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Verdict::Kill => ("SCMP_ACT_KILL_PROCESS", None),
    }
}
