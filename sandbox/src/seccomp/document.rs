//! A profile as container runtimes write it: JSON in Docker's format (with `includes` and `excludes`) or in OCI's.
//!
//! Read strictly: a word that is not known is an error, for a condition that is passed over would open a call.

use std::borrow::Cow;

use manifests::workload::CAPABILITIES;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::profile::{Condition, Profile, Rule, Test, has};
use super::{Arch, Verdict};

/// A profile that was read, for processes with any capabilities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Document {
    default: Verdict,
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    /// With all of these, and on one of these machines.
    includes: When,
    /// With none of these, and on none of these machines.
    excludes: When,
    rules: Vec<Rule>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct When {
    capabilities: Vec<String>,
    arches: Vec<String>,
    kernel: Option<(u32, u32)>,
}

/// What a profile is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub arch: Arch,
    /// As bits of the kernel's numbers.
    pub capabilities: u64,
    /// The first two numbers of its version.
    pub kernel: (u32, u32),
}

impl Document {
    /// # Errors
    /// Where and what is wrong, in words for the user.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (field, set) in [
            ("listenerPath", raw.listener_path.is_some()),
            ("listenerMetadata", raw.listener_metadata.is_some()),
        ] {
            if set {
                return Err(format!("{field}: there is no agent to ask; leave it out"));
            }
        }
        let flags = raw.flags.unwrap_or_default();
        if let Some(flag) = flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
            return Err(format!("flags: {flag:?} is none; {} are", FLAGS.join(", ")));
        }
        let default =
            verdict(&raw.default_action, raw.default_errno_ret).map_err(|error| format!("defaultAction: {error}"))?;
        let syscalls = raw.syscalls.unwrap_or_default();
        let entries = syscalls
            .into_iter()
            .enumerate()
            .map(|(nth, call)| entry(call).map_err(|error| format!("syscalls[{nth}].{error}")))
            .collect::<Result<_, _>>()?;
        Ok(Self { default, entries })
    }

    /// What it comes to.
    pub(crate) fn profile(&self, under: Circumstances) -> Profile {
        let applies = |entry: &&Entry| entry.includes.all(under) && !entry.excludes.any(under);
        let rules: Vec<Rule> = self
            .entries
            .iter()
            .filter(applies)
            .flat_map(|entry| entry.rules.clone())
            // What holds anyhow must not come before what does not, as runtimes have it.
            .filter(|rule| !(rule.conditions.is_empty() && rule.verdict == self.default))
            .collect();
        let newest = (!self.default.is_permissive())
            .then(|| Profile::newest_named(&rules, under.arch))
            .flatten();
        Profile {
            default: self.default,
            newest,
            rules,
        }
    }
}

impl When {
    fn all(&self, under: Circumstances) -> bool {
        let arch = under.arch.names().1;
        self.capabilities.iter().all(|name| has(under.capabilities, name))
            && (self.arches.is_empty() || self.arches.iter().any(|name| name == arch))
            && self.kernel.is_none_or(|least| under.kernel >= least)
    }

    fn any(&self, under: Circumstances) -> bool {
        let arch = under.arch.names().1;
        self.capabilities.iter().any(|name| has(under.capabilities, name))
            || self.arches.iter().any(|name| name == arch)
            || self.kernel.is_some_and(|least| under.kernel >= least)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    default_action: String,
    default_errno_ret: Option<u16>,
    /// Of 32-bit programs too; here they are always stopped.
    #[serde(rename = "architectures")]
    _architectures: Option<IgnoredAny>,
    #[serde(rename = "archMap")]
    _arch_map: Option<IgnoredAny>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<RawCall>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCall {
    /// Docker's older word for one.
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<RawArg>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<RawWhen>,
    excludes: Option<RawWhen>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawArg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawWhen {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// They change nothing here: filters are loaded before there is a second thread, and refusals are not logged.
const FLAGS: [&str; 3] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
];

fn entry(raw: RawCall) -> Result<Entry, String> {
    let verdict = verdict(&raw.action, raw.errno_ret).map_err(|error| format!("action: {error}"))?;
    let names: Vec<Cow<'static, str>> = raw
        .names
        .unwrap_or_default()
        .into_iter()
        .chain(raw.name)
        .map(Cow::Owned)
        .collect();
    if names.is_empty() {
        return Err("names: is empty; name at least one call".to_owned());
    }
    let conditions = raw
        .args
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(nth, arg)| condition(arg).map_err(|error| format!("args[{nth}].{error}")))
        .collect::<Result<Vec<_>, _>>()?;
    let twice = |(nth, one): (usize, &Condition)| conditions[..nth].iter().any(|other| other.argument == one.argument);
    let alternatives = if conditions.iter().enumerate().any(twice) {
        // As runtimes have it: several conditions on one argument are alternatives.
        conditions.into_iter().map(|one| vec![one]).collect()
    } else {
        vec![conditions]
    };
    let rules = alternatives.into_iter().map(|conditions| Rule {
        names: names.clone(),
        conditions,
        verdict,
    });
    Ok(Entry {
        includes: when(raw.includes).map_err(|error| format!("includes.{error}"))?,
        excludes: when(raw.excludes).map_err(|error| format!("excludes.{error}"))?,
        rules: rules.collect(),
    })
}

fn when(raw: Option<RawWhen>) -> Result<When, String> {
    let raw = raw.unwrap_or_default();
    let plain = |name: String| {
        let plain = name.strip_prefix("CAP_").unwrap_or(&name);
        match CAPABILITIES.contains(&plain) {
            true => Ok(plain.to_owned()),
            false => Err(format!("caps: {name:?} is no capability")),
        }
    };
    let kernel = raw.min_kernel.map(|text| {
        let mut numbers = text.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
            _ => Err(format!("minKernel: {text:?} is no version; write it as 4.8")),
        }
    });
    Ok(When {
        capabilities: raw
            .caps
            .unwrap_or_default()
            .into_iter()
            .map(plain)
            .collect::<Result<_, _>>()?,
        arches: raw.arches.unwrap_or_default(),
        kernel: kernel.transpose()?,
    })
}

fn verdict(action: &str, errno: Option<u16>) -> Result<Verdict, String> {
    Ok(match action {
        "SCMP_ACT_ALLOW" => Verdict::Allow,
        "SCMP_ACT_LOG" => Verdict::Log,
        "SCMP_ACT_ERRNO" => Verdict::Errno(errno.unwrap_or(1)),
        "SCMP_ACT_TRAP" => Verdict::Trap,
        "SCMP_ACT_TRACE" => Verdict::Trace(errno.unwrap_or(1)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Verdict::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Verdict::Kill,
        "SCMP_ACT_NOTIFY" => return Err("SCMP_ACT_NOTIFY needs an agent, and there is none".to_owned()),
        other => {
            return Err(format!(
                "{other:?} is none; write SCMP_ACT_ and one of ALLOW, LOG, ERRNO, TRAP, TRACE, KILL_THREAD, KILL_PROCESS"
            ));
        }
    })
}

fn condition(raw: &RawArg) -> Result<Condition, String> {
    if raw.index > 5 {
        return Err(format!(
            "index: {} is out of range; a call has arguments 0 to 5",
            raw.index
        ));
    }
    let test = match raw.op.as_str() {
        "SCMP_CMP_EQ" => Test::Equal(raw.value),
        "SCMP_CMP_NE" => Test::NotEqual(raw.value),
        "SCMP_CMP_LT" => Test::Less(raw.value),
        "SCMP_CMP_LE" => Test::LessOrEqual(raw.value),
        "SCMP_CMP_GT" => Test::Greater(raw.value),
        "SCMP_CMP_GE" => Test::GreaterOrEqual(raw.value),
        "SCMP_CMP_MASKED_EQ" => Test::Masked {
            mask: raw.value,
            value: raw.value_two,
        },
        other => {
            return Err(format!(
                "op: {other:?} is none; write SCMP_CMP_ and one of EQ, NE, LT, LE, GT, GE, MASKED_EQ"
            ));
        }
    };
    Ok(Condition {
        argument: raw.index,
        test,
    })
}
