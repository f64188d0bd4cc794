//! What an OCI runtime is handed: a bundle whose root is mounted already, and the command line that runs it
//! (OCI runtime specification 1.0, config.md). Pure.
//!
//! The runtime takes the place of an app: it is executed in a shell, which has the network, the cgroup and a process
//! namespace for everything that the runtime makes. So Knarr dials, limits, freezes, kills and cleans up as always.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::account::Account;
use super::rights;
use crate::rootfs::{MASKED, NAMES, READ_ONLY};
use crate::seccomp;
use crate::spawner::protocol::{FilterPlan, FsStep};

/// An OCI runtime that manifests may name in `runtimeClassName`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runtime {
    /// The program; an absolute path.
    pub program: PathBuf,
    /// Its own flags, before `run`. It must not make cgroups: its shell is in one.
    pub args: Vec<String>,
}

impl Runtime {
    /// With the flags that keep runc and crun from making cgroups; none for others.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let args: &[&str] = match program.file_name().and_then(|name| name.to_str()) {
            // It then goes on without those that it cannot make.
            Some("runc") => &["--rootless=true"],
            Some("crun") => &["--cgroup-manager=disabled"],
            _ => &[],
        };
        Self {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            program,
        }
    }

    /// `RUNTIME ARGS --root STAGE/state run --bundle STAGE ID`.
    pub(super) fn command(&self, stage: &Path, id: &str) -> Vec<Vec<u8>> {
        let path = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        let mut argv = vec![path(&self.program)];
        argv.extend(self.args.iter().map(|arg| arg.clone().into_bytes()));
        argv.extend([
            b"--root".to_vec(),
            path(&stage.join("state")),
            b"run".to_vec(),
            b"--bundle".to_vec(),
            path(stage),
            id.as_bytes().to_vec(),
        ]);
        argv
    }
}

/// The process that the runtime shall run.
pub(super) struct Process<'a> {
    pub args: &'a [Vec<u8>],
    pub env: &'a BTreeMap<String, String>,
    pub cwd: &'a Path,
    pub account: &'a Account,
    pub groups: &'a [u32],
    pub capabilities: u64,
    pub filter: &'a FilterPlan,
    pub read_only: bool,
}

/// Files of the sandbox's own in the stage, and the bundle's `config.json` beside them.
pub(super) fn files(process: &Process<'_>, stage: &Path, names: Vec<FsStep>, termination_log: &Path) -> Vec<FsStep> {
    let content = |name: &str, content: String| FsStep::Content {
        name: name.to_owned(),
        content,
    };
    let mut steps = names;
    steps.push(content(TERMINATION_LOG, String::new()));
    steps.push(content(
        "config.json",
        config(process, stage, termination_log).to_string(),
    ));
    steps
}

fn config(process: &Process<'_>, stage: &Path, termination_log: &Path) -> Value {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let args: Vec<String> = process.args.iter().map(text).collect();
    let env: Vec<String> = process
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let capabilities = rights::capability_names(process.capabilities);
    // Capabilities of the default set are over the host here: the runtime makes no user namespace.
    let effective = if process.account.uid == 0 {
        capabilities.clone()
    } else {
        Vec::new()
    };
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {
                "uid": process.account.uid,
                "gid": process.account.gid,
                "additionalGids": process.groups,
            },
            "args": args,
            "env": env,
            "cwd": process.cwd,
            "capabilities": {
                "bounding": capabilities,
                "effective": effective,
                "permitted": effective,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": "r", "readonly": process.read_only },
        "mounts": mounts(stage, termination_log),
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "mount" }],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": match process.filter {
                FilterPlan::Default => seccomp::oci_profile(),
                FilterPlan::Unconfined | FilterPlan::Program(_) => Value::Null,
            },
        },
    })
}

fn mounts(stage: &Path, termination_log: &Path) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let own = NAMES.iter().map(|&(name, path)| (name, Path::new(path)));
    mounts.extend(own.chain([(TERMINATION_LOG, termination_log)]).map(|(name, path)| {
        json!({
            "destination": path,
            "type": "bind",
            "source": stage.join(name),
            "options": ["bind", "nosuid", "nodev", "noexec"],
        })
    }));
    mounts
}

const TERMINATION_LOG: &str = "termination-log";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_file_name() {
        assert_eq!(Runtime::new("/usr/sbin/runc").args, ["--rootless=true"]);
        assert_eq!(Runtime::new("/opt/kata-runtime").args, [""; 0]);
        let argv = Runtime::new("/usr/bin/crun").command(Path::new("/stage"), "app-1");
        let argv: Vec<_> = argv.iter().map(|arg| std::str::from_utf8(arg).unwrap()).collect();
        let wanted = "/usr/bin/crun --cgroup-manager=disabled --root /stage/state run --bundle /stage app-1";
        assert_eq!(argv.join(" "), wanted);
    }

    #[test]
    fn a_user_that_is_not_root_has_no_effective_capabilities() {
        let account = Account {
            uid: 1000,
            ..Account::default()
        };
        let env = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        let process = Process {
            args: &[b"/bin/app".to_vec()],
            env: &env,
            cwd: Path::new("/srv"),
            account: &account,
            groups: &[7],
            capabilities: 1,
            filter: &FilterPlan::Default,
            read_only: true,
        };
        let config = config(&process, Path::new("/stage"), Path::new("/dev/termination-log"));
        assert_eq!(config["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(config["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(config["process"]["env"], json!(["A=b"]));
        assert_eq!(config["root"], json!({ "path": "r", "readonly": true }));
        assert!(config["mounts"].as_array().unwrap().iter().any(|mount| {
            mount["destination"] == "/dev/termination-log" && mount["source"] == "/stage/termination-log"
        }));
    }
}
