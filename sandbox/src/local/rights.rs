//! What an app may do: users, capabilities, system calls and signals, from the words of manifests and images.

use manifests::workload::{CAPABILITIES, Capabilities, Workload};
use rustix::process::Signal;

use crate::spawner::protocol::{Abilities, Isolation};

/// What uid 0 of an image has: the default of container runtimes without `NET_RAW`, `MKNOD` and `AUDIT_WRITE`, which
/// nothing works with in a user namespace.
const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities of an image's app that runs as `uid`: over its own users only. A user that is not root has none but
/// those that are asked for.
///
/// # Errors
/// A name that is none, in words for the user.
pub(super) fn capabilities(changes: &Capabilities, uid: u32) -> Result<u64, String> {
    let mut set = 0;
    if uid == 0 {
        for name in DEFAULT {
            set |= bits(name)?;
        }
    }
    for name in &changes.drop {
        set &= !bits(name)?;
    }
    for name in &changes.add {
        set |= bits(name)?;
    }
    Ok(set)
}

/// The names of a set, with `CAP_`.
pub(super) fn capability_names(set: u64) -> Vec<String> {
    let named = CAPABILITIES.iter().enumerate();
    named
        .filter(|(bit, _)| set & (1 << bit) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

fn bits(name: &str) -> Result<u64, String> {
    let plain = name.strip_prefix("CAP_").unwrap_or(name);
    if plain == "ALL" {
        return Ok((1 << CAPABILITIES.len()) - 1);
    }
    let found = CAPABILITIES.iter().position(|known| *known == plain);
    found
        .map(|bit| 1 << bit)
        .ok_or_else(|| format!("capabilities: {name:?} is none; they are written as NET_BIND_SERVICE, without CAP_"))
}

/// What an ordinary user's sandboxes cannot do: be more than one user, where it has no subordinate ids; and in no case own
/// files of volumes, which are the user's own.
///
/// # Errors
/// Which field cannot be honoured here, in words for the user.
pub(super) fn check_users(abilities: &Abilities, workload: &Workload) -> Result<(), String> {
    if abilities.isolation != Isolation::UserNamespace {
        return Ok(());
    }
    if workload.fs_group.is_some() {
        return Err(
            "securityContext.fsGroup: Knarr runs as an ordinary user here, which may not give files away; run Knarr as \
             root, or leave the field out"
                .to_owned(),
        );
    }
    let Err(why) = &abilities.mapped_images else {
        return Ok(());
    };
    let security = &workload.serving.security;
    let fields = [
        ("runAsUser", security.user.is_some()),
        ("runAsGroup", security.group.is_some()),
        ("supplementalGroups", !workload.supplemental_groups.is_empty()),
    ];
    match fields.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(format!(
            "securityContext.{field}: Knarr runs as an ordinary user here, and its sandboxes have that one user only \
             ({why}); give it subordinate ids, run Knarr as root, or leave the field out"
        )),
        None => Ok(()),
    }
}

/// Whether something of an image can run as another user than its app.
///
/// # Errors
/// Why it cannot, in words for the user.
pub(super) fn check_other_user(abilities: &Abilities) -> Result<(), String> {
    match &abilities.mapped_images {
        Err(why) if abilities.isolation == Isolation::UserNamespace => Err(format!(
            "Knarr runs as an ordinary user here, and its sandboxes have that one user only ({why}); give it subordinate \
             ids, or run Knarr as root"
        )),
        _ => Ok(()),
    }
}

/// `STOPSIGNAL`: a name with or without `SIG`, `RTMIN+3`, or a number.
///
/// # Errors
/// What it is instead, in words for the user.
pub(super) fn signal(name: &str) -> Result<Signal, String> {
    const NAMES: [(&str, Signal); 14] = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("ABRT", Signal::ABORT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("PIPE", Signal::PIPE),
        ("ALRM", Signal::ALARM),
        ("TERM", Signal::TERM),
        ("CONT", Signal::CONT),
        ("STOP", Signal::STOP),
        ("WINCH", Signal::WINCH),
        ("IO", Signal::IO),
    ];
    let upper = name.trim().to_ascii_uppercase();
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES
        .iter()
        .find(|(known, _)| *known == plain)
        .map(|(_, signal)| *signal);
    let real_time = || {
        let above = plain.strip_prefix("RTMIN")?;
        let above = if above.is_empty() {
            0
        } else {
            above.strip_prefix('+')?.parse::<i32>().ok()?
        };
        Signal::from_named_raw(above)
    };
    let number = || Signal::from_named_raw(plain.parse().ok()?);
    named
        .or_else(real_time)
        .or_else(number)
        .ok_or_else(|| format!("the image's stop signal {name:?} is none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_dropped_first_and_then_added() {
        let of = |drop: &[&str], add: &[&str], uid| {
            let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
            capabilities(
                &Capabilities {
                    drop: words(drop),
                    add: words(add),
                },
                uid,
            )
        };
        assert_eq!(of(&[], &[], 0), Ok(0x8004_05fb));
        assert_eq!(of(&[], &[], 1), Ok(0));
        assert_eq!(of(&["ALL"], &[], 0), Ok(0));
        assert_eq!(of(&["ALL"], &["CHOWN"], 0), Ok(1));
        assert_eq!(of(&["CHOWN"], &["CHOWN"], 0), Ok(0x8004_05fb));
        assert_eq!(of(&[], &["SYS_TIME"], 5), Ok(1 << 25));
        assert_eq!(of(&[], &["ALL"], 5), Ok((1 << 41) - 1));
        assert!(of(&[], &["NET_BIND"], 0).unwrap_err().contains("NET_BIND"));
    }

    #[test]
    fn stop_signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGQUIT", 3),
            ("USR1", 10),
            ("28", 28),
        ] {
            assert_eq!(signal(text).unwrap().as_raw(), number, "{text}");
        }
        assert!(signal("SIGNOPE").unwrap_err().contains("SIGNOPE"));
        assert!(signal("").is_err());
    }
}
