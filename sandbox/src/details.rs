//! Everything a driver knows of one running sandbox, for `knarr inspect`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One sandbox, as it is now. What a driver has no notion of is empty.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Of which revision, as NAMESPACE/NAME.
    pub revision: String,
    /// The first process, as the host numbers it.
    pub pid: Option<u32>,
    /// How its kind of isolation is called.
    pub isolation: String,
    /// What the kernel says of its first process.
    pub process: Option<Process>,
    /// What is degraded on this host, in words.
    pub warnings: Vec<String>,
    /// Its directories in the cgroup trees.
    pub cgroups: Vec<PathBuf>,
    /// What it sees as its file system: mount point, type and options, one line each.
    pub mounts: Vec<String>,
    /// Its containers; the one that serves first.
    pub containers: Vec<String>,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Whether it is ready; why not, when it is not.
    pub ready: Result<(), String>,
    /// From the call of `start` to the execution of its program, microseconds.
    pub spawned_us: Option<u64>,
    /// From the call of `start` to readiness, microseconds.
    pub ready_us: Option<u64>,
}

impl Default for Details {
    /// Ready, and nothing known.
    fn default() -> Self {
        Self {
            revision: String::new(),
            pid: None,
            isolation: String::new(),
            process: None,
            warnings: Vec::new(),
            cgroups: Vec::new(),
            mounts: Vec::new(),
            containers: Vec::new(),
            frozen: false,
            ready: Ok(()),
            spawned_us: None,
            ready_us: None,
        }
    }
}

/// What `/proc` says of a process (proc(5)); host numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// User, as the host numbers it.
    pub uid: String,
    /// Group, as the host numbers it.
    pub gid: String,
    /// Capabilities in effect, hexadecimal.
    pub capabilities: String,
    /// Whether it may gain privileges by executing something.
    pub no_new_privileges: bool,
    /// Whether a system call filter is in place.
    pub seccomp_filter: bool,
    /// The kinds of namespaces that it does not share with Knarr.
    pub namespaces: Vec<String>,
    /// Program of the first process, without its arguments: there may be secrets in them.
    pub program: String,
}

/// In microseconds, for [`Details`].
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
