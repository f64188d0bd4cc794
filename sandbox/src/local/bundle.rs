//! What an OCI runtime is handed: a bundle whose root is mounted already, and the command line that runs it
//! (OCI runtime specification 1.0, config.md). Pure, but for a look into the root.
//!
//! The runtime takes the place of an app: it is executed in a shell, which has the network, the cgroup and a process
//! namespace for everything that the runtime makes; beside the first container's it shares that one's network, IPC and
//! host name. So Knarr dials, limits, freezes, kills and cleans up as always. A command is one more run of the runtime.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use manifests::workload::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::account::Account;
use super::rights;
use crate::exec::WindowSize;
use crate::rootfs::{MASKED, NAMES, READ_ONLY, TERMINATION_LOG};
use crate::spawner::protocol::FsStep;

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
        let rest = [
            b"run".to_vec(),
            b"--bundle".to_vec(),
            bytes(stage),
            id.as_bytes().to_vec(),
        ];
        self.argv(stage, rest)
    }

    /// `RUNTIME ARGS --root STAGE/state exec --process FILE ID`.
    pub(super) fn exec(&self, stage: &Path, file: &Path, id: &str) -> Vec<Vec<u8>> {
        let rest = [
            b"exec".to_vec(),
            b"--process".to_vec(),
            bytes(file),
            id.as_bytes().to_vec(),
        ];
        self.argv(stage, rest)
    }

    fn argv(&self, stage: &Path, rest: [Vec<u8>; 4]) -> Vec<Vec<u8>> {
        let own = self.args.iter().map(|arg| arg.clone().into_bytes());
        let state = [b"--root".to_vec(), bytes(&stage.join("state"))];
        [bytes(&self.program)]
            .into_iter()
            .chain(own)
            .chain(state)
            .chain(rest)
            .collect()
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

/// The process that the runtime shall run.
pub(super) struct Process<'a> {
    pub args: &'a [Vec<u8>],
    pub env: &'a BTreeMap<String, String>,
    pub cwd: &'a Path,
    pub account: &'a Account,
    pub groups: &'a [u32],
    pub capabilities: u64,
    /// `linux.seccomp`.
    pub seccomp: Value,
    pub read_only: bool,
    /// The runtime gives it a terminal of this size, by its own.
    pub terminal: Option<WindowSize>,
}

/// What is made for the runtime in the stage: the sandbox's own files, its volumes, and the bundle's `config.json`. `steps`
/// are as for a root of ours.
pub(super) fn files(process: &Process<'_>, stage: &Path, steps: Vec<FsStep>, termination_log: &Path) -> Vec<FsStep> {
    let mut mounts = mounts(stage, termination_log);
    let mut staged = 0;
    let to_stage = |step| match step {
        FsStep::Volume {
            source,
            sub_path,
            path,
            read_only,
        } => {
            let name = format!("volume-{staged}");
            staged += 1;
            let access = if read_only { "ro" } else { "rw" };
            mounts.push(bind(&path, &stage.join(&name), &["rbind", "nosuid", "nodev", access]));
            FsStep::Staged {
                source,
                sub_path,
                name,
                read_only,
            }
        }
        other => other,
    };
    let mut steps: Vec<FsStep> = steps.into_iter().map(to_stage).collect();
    steps.push(FsStep::Content {
        name: "config.json".to_owned(),
        content: config(process, mounts).to_string(),
    });
    steps
}

/// The `process` of a bundle, and of a command in its container.
pub(super) fn process(process: &Process<'_>) -> Value {
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
    let size = process.terminal.unwrap_or_default();
    json!({
        "terminal": process.terminal.is_some(),
        "consoleSize": { "height": size.rows, "width": size.columns },
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
    })
}

fn config(app: &Process<'_>, mounts: Vec<Value>) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": process(app),
        "root": { "path": "r", "readonly": app.read_only },
        "mounts": mounts,
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "mount" }],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": app.seccomp,
        },
    })
}

/// Whether one of these programs is in the root of a bundle, or may be in a volume.
pub(super) fn may_have(root: BorrowedFd<'_>, programs: &[Vec<u8>], cwd: &Path, volumes: &[Mount]) -> bool {
    programs.iter().any(|program| {
        let path = cwd.join(OsStr::from_bytes(program));
        let (flags, inside) = (
            OFlags::PATH | OFlags::CLOEXEC,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        let found = openat2(root, &path, flags, Mode::empty(), inside);
        // It is not there only when the kernel says so.
        let missing = matches!(found, Err(Errno::NOENT | Errno::NOTDIR));
        !missing || volumes.iter().any(|volume| path.starts_with(&volume.path))
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
    let options = ["bind", "nosuid", "nodev", "noexec"];
    mounts.extend(
        own.chain([(TERMINATION_LOG, termination_log)])
            .map(|(name, path)| bind(path, &stage.join(name), &options)),
    );
    mounts
}

fn bind(destination: &Path, source: &Path, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

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
    fn a_bundle_has_what_the_manifest_asks_for() {
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
            seccomp: Value::Null,
            read_only: true,
            terminal: None,
        };
        let volume = |path: &str, sub_path: Option<&str>, read_only| FsStep::Volume {
            source: "/data/volume".into(),
            sub_path: sub_path.map(Into::into),
            path: path.into(),
            read_only,
        };
        let steps = vec![volume("/a", None, false), volume("/a/b", Some("s"), true)];
        let steps = files(&process, Path::new("/stage"), steps, Path::new("/dev/termination-log"));
        let Some(FsStep::Content { content, .. }) = steps.last() else {
            panic!("{steps:?}")
        };
        let config: Value = serde_json::from_str(content).unwrap();
        // A link in a volume is followed by the kernel, within the volume, before the runtime sees it.
        let staged = |step: &FsStep| match step {
            FsStep::Staged {
                name,
                sub_path,
                read_only,
                ..
            } => Some((name.clone(), sub_path.clone(), *read_only)),
            _ => None,
        };
        let staged: Vec<_> = steps.iter().filter_map(staged).collect();
        let wanted = [
            ("volume-0".to_owned(), None, false),
            ("volume-1".to_owned(), Some("s".into()), true),
        ];
        assert_eq!(staged, wanted);
        let mounts = config["mounts"].as_array().unwrap();
        let wanted = [
            bind(
                Path::new("/a"),
                Path::new("/stage/volume-0"),
                &["rbind", "nosuid", "nodev", "rw"],
            ),
            bind(
                Path::new("/a/b"),
                Path::new("/stage/volume-1"),
                &["rbind", "nosuid", "nodev", "ro"],
            ),
        ];
        assert_eq!(mounts[mounts.len() - 2..], wanted);
        assert_eq!(config["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(config["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(config["process"]["env"], json!(["A=b"]));
        assert_eq!(config["root"], json!({ "path": "r", "readonly": true }));
        assert!(config["mounts"].as_array().unwrap().iter().any(|mount| {
            mount["destination"] == "/dev/termination-log" && mount["source"] == "/stage/termination-log"
        }));
    }
}
