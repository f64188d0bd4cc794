//! What can be said of a running sandbox: what Knarr knows, and what the kernel says of its first process.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::state::{Inner, Sandbox};
use crate::details::{Details, Process, micros};
use crate::driver::DriverError;

/// Looks now.
pub(super) fn inspect(inner: &Inner, sandbox: &Sandbox) -> Result<Details, DriverError> {
    let gone = || DriverError::NotFound(sandbox.id.clone());
    let pid = sandbox.shell.held().ok_or_else(gone)?.pid;
    let phases = sandbox.phases.get();
    let mountinfo = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let unready = sandbox.progress().unready.clone();
    Ok(Details {
        revision: sandbox.revision.to_string(),
        pid: u32::try_from(pid).ok(),
        isolation: inner.describe(),
        process: process(pid),
        warnings: inner.warnings.clone(),
        cgroups: sandbox.shell.cgroup.dirs(),
        mounts: mountinfo.lines().filter_map(mount).collect(),
        containers: sandbox.spec.workload.running().map(|it| it.name.to_string()).collect(),
        frozen: sandbox.is_frozen(),
        ready: match (phases, unready) {
            (_, Some(why)) => Err(why.to_string()),
            (None, None) => Err("it is starting".to_owned()),
            (Some(_), None) => Ok(()),
        },
        spawned_us: phases.map(|it| micros(it.spawned)),
        ready_us: phases.map(|it| micros(it.ready)),
    })
}

/// `None` when it is gone, or this user may not look.
fn process(pid: i32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    // The effective one is the second of four.
    let id = |name| field(name).split_whitespace().nth(1).unwrap_or_default().to_owned();
    let inode = |process: &str, kind: &str| {
        fs::metadata(format!("/proc/{process}/ns/{kind}"))
            .ok()
            .map(|it| it.ino())
    };
    let own = |kind: &&&str| {
        let theirs = inode(&pid.to_string(), kind);
        theirs.is_some() && theirs != inode("self", kind)
    };
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(Process {
        uid: id("Uid"),
        gid: id("Gid"),
        capabilities: field("CapEff").to_owned(),
        no_new_privileges: field("NoNewPrivs") == "1",
        seccomp_filter: field("Seccomp") == "2",
        namespaces: NAMESPACES.iter().filter(own).map(|kind| (*kind).to_owned()).collect(),
        program: String::from_utf8_lossy(command.split(|b| *b == 0).next().unwrap_or_default()).into_owned(),
    })
}

const NAMESPACES: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

/// Mount point, type and options of a line of mountinfo (proc(5): optional fields end at ` - `).
fn mount(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    let (point, options) = (left.next()?, left.next()?);
    let kind = right.split(' ').next()?;
    Some(format!("{point} {kind} {options}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mount_is_read_past_its_optional_fields() {
        let line = "36 35 98:0 /a /usr ro,nosuid shared:1 master:2 - ext4 /dev/root rw,errors=continue";
        assert_eq!(super::mount(line).unwrap(), "/usr ext4 ro,nosuid");
        assert_eq!(super::mount("garbage"), None);
    }
}
