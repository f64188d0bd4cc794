//! The same profile in the words of the OCI runtime specification, for runtimes that compile it themselves.

use serde_json::{Value, json};

use super::{Allowed, RULES, table};

/// `linux.seccomp` of a bundle's configuration (config-linux.md, Seccomp).
pub(crate) fn oci_profile() -> Value {
    let names: Vec<&str> = table::ALLOWED.iter().map(|call| call.0).collect();
    let mut calls = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    for rule in &RULES {
        let allow = |arg: Value| json!({ "names": [rule.call.0], "action": "SCMP_ACT_ALLOW", "args": [arg] });
        match rule.allowed {
            Allowed::NoneOf(bits) => calls.push(allow(
                json!({ "index": 0, "value": bits, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }),
            )),
            Allowed::Ranges(ranges) => {
                for value in ranges.iter().flat_map(|&(first, last)| first..=last) {
                    calls.push(allow(json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" })));
                }
            }
        }
    }
    calls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": [if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" }],
        "syscalls": calls,
    })
}
