//! What a sandbox sees as its root: pure lists of steps, for programs of this host and for images. No I/O beyond looking
//! what this host has, and making the skeleton.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use manifests::workload::HostAlias;

use crate::program::{Program, Shown};
use crate::spawner::protocol::{Access, FsStep, Owner};

/// The user and group of a sandbox that has none of its own: a spawner without root can give only one.
pub(crate) const ORDINARY_UID: u32 = 65_532;

/// What may be written outside volumes without a limit: `/tmp` of a program of this host, everything of an image.
const WRITABLE: u64 = 512 * 1024 * 1024;

/// What the loader, TLS and the C library's look-ups need of `/etc`; nothing here is secret.
const ETC: [&str; 14] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates",
    "/etc/alternatives",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
];

/// Hidden in `/proc`, where it exists: what tells about the host or its kernel (the OCI runtime's default list).
pub(crate) const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
];

/// Not writable in `/proc`, whoever asks.
pub(crate) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The name of the file for last words, beside the root.
pub(crate) const TERMINATION_LOG: &str = "termination-log";

/// The group of terminals, in every distribution.
const TTY: u32 = 5;

/// Files of the sandbox's own that are mounted over an image's: what the staging area calls them, and where.
pub(crate) const NAMES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// How much a sandbox may write outside its volumes, in bytes: its limit, and never more than its memory, where it is.
pub(crate) fn writable(ephemeral: Option<u64>, memory: Option<u64>) -> u64 {
    ephemeral.unwrap_or(WRITABLE).min(memory.unwrap_or(u64::MAX))
}

/// The part of every root for programs of this host.
pub(crate) fn host() -> Vec<FsStep> {
    let mut steps = Steps::default();
    for dir in ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
        steps.show_as_is(Path::new(dir));
    }
    for file in ETC {
        steps.show_as_is(Path::new(file));
    }
    for dir in ["/run", "/sys", "/var", "/home"] {
        steps.dir(dir);
    }
    steps.link("/run", "/var/run");
    steps.link("/tmp", "/var/tmp");
    steps.devices();
    steps.proc();
    steps.list
}

/// The rest, for one program: what it needs of the host, and `/tmp`.
pub(crate) fn of_program(program: &Program, size: u64) -> Vec<FsStep> {
    let mut steps = Steps::default();
    steps.mount("tmpfs", "/tmp", &format!("mode=1777,size={size}"));
    for shown in &program.show {
        match shown {
            Shown::Dir(dir) => {
                steps.dir(dir);
                steps.bind(dir, dir, Access::ReadOnly);
            }
            Shown::File { source, path } => {
                steps.file(path, "");
                steps.bind(source, path, Access::ReadOnly);
            }
        }
    }
    steps.list
}

/// The names of one sandbox, for a root that is ours to write in.
pub(crate) fn names(hostname: &str, uid: u32, resolv_conf: &str, aliases: &[HostAlias]) -> Vec<FsStep> {
    let mut steps = Steps::default();
    steps.file(
        Path::new("/etc/passwd"),
        &format!("root:x:0:0:root:/root:/usr/sbin/nologin\napp:x:{uid}:{uid}:app:/tmp:/bin/sh\n"),
    );
    steps.file(Path::new("/etc/group"), &format!("root:x:0:\napp:x:{uid}:\n"));
    for (path, content) in NAMES.iter().zip(contents(hostname, resolv_conf, aliases)) {
        steps.file(Path::new(path.1), &content);
    }
    steps.list
}

/// The part of every root that an image gives; `cgroups` are the file systems under `/sys/fs/cgroup`.
pub(crate) fn image(cgroups: &[CgroupMount]) -> Vec<FsStep> {
    let mut steps = Steps::default();
    steps.dir("/etc");
    steps.dir("/dev");
    steps.owned("tmpfs", "/dev", "mode=755,size=1m");
    steps.devices();
    steps.proc();
    // Nothing of the machine but the sandbox's own cgroup, which runtimes read their limits from.
    steps.mount("tmpfs", "/sys", "mode=755,size=16k,nr_inodes=32");
    steps.dir("/sys/fs");
    steps.dir("/sys/fs/cgroup");
    for cgroup in cgroups {
        let path = Path::new("/sys/fs/cgroup").join(&cgroup.dir);
        steps.dir(&path);
        steps.list.push(FsStep::Mount {
            fstype: cgroup.fstype.to_owned(),
            path,
            options: cgroup.options.clone(),
            owner: None,
            read_only: true,
            optional: true,
        });
    }
    steps.bind(Path::new(""), Path::new("/sys"), Access::ReadOnly);
    for (name, path) in NAMES {
        steps.own(name, Path::new(path), false);
    }
    steps.list
}

/// One cgroup file system as a sandbox sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CgroupMount {
    /// Below `/sys/fs/cgroup`; empty is that itself.
    pub dir: String,
    /// `cgroup` or `cgroup2`.
    pub fstype: &'static str,
    /// Controllers, of `cgroup`.
    pub options: String,
}

/// The rest of an image's root, for one container of it.
pub(crate) fn of_container(termination_log: &Path) -> Vec<FsStep> {
    let mut steps = Steps::default();
    steps.own(TERMINATION_LOG, termination_log, true);
    steps.list
}

/// The names of one sandbox, for the files that [`image`] has mounted.
pub(crate) fn image_names(hostname: &str, resolv_conf: &str, aliases: &[HostAlias]) -> Vec<FsStep> {
    let files = NAMES.iter().zip(contents(hostname, resolv_conf, aliases));
    files
        .map(|((name, _), content)| FsStep::Content {
            name: (*name).to_owned(),
            content,
        })
        .collect()
}

/// Of [`NAMES`], in their order.
fn contents(hostname: &str, resolv_conf: &str, aliases: &[HostAlias]) -> [String; 3] {
    let aliases = aliases
        .iter()
        .map(|it| format!("{} {}\n", it.address, it.names.join(" ")));
    let aliases: String = aliases.collect();
    [
        format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.0.1 {hostname}\n{aliases}"),
        format!("{hostname}\n"),
        resolv_conf.to_owned(),
    ]
}

/// Makes the lowest layer of every image: the places that are mounted on, for an image that does not have them.
pub(crate) fn make_skeleton(dir: &Path) -> io::Result<()> {
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    fs::create_dir_all(dir)?;
    mode(dir, 0o755)?;
    for (name, bits) in [
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("tmp", 0o1777),
    ] {
        let path = dir.join(name);
        fs::create_dir_all(&path)?;
        mode(&path, bits)?;
    }
    for (_, path) in NAMES {
        let path = dir.join(path.trim_start_matches('/'));
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).open(&path)?;
        mode(&path, 0o644)?;
    }
    Ok(())
}

/// Steps in order, with every directory made once and before what goes into it.
#[derive(Default)]
struct Steps {
    list: Vec<FsStep>,
    dirs: BTreeSet<PathBuf>,
}

impl Steps {
    /// A file, directory or link of the host at its own path; nothing where the host has none.
    fn show_as_is(&mut self, path: &Path) {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        if meta.is_symlink() && (path.parent() == Some(Path::new("/"))) {
            // /bin and its like on a system with a merged /usr.
            if let Ok(target) = fs::read_link(path) {
                self.link(target, path);
            }
        } else if path.is_dir() {
            self.dir(path);
            self.bind(path, path, Access::ReadOnly);
        } else if path.is_file() {
            self.file(path, "");
            self.bind(path, path, Access::ReadOnly);
        }
    }

    /// Devices that every program may use, terminals of its own, and memory to share among its processes.
    fn devices(&mut self) {
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            let path = PathBuf::from("/dev").join(device);
            if path.exists() {
                self.file(&path, "");
                self.bind(&path, &path, Access::Device);
            }
        }
        self.link("/proc/self/fd", "/dev/fd");
        self.link("/proc/self/fd/0", "/dev/stdin");
        self.link("/proc/self/fd/1", "/dev/stdout");
        self.link("/proc/self/fd/2", "/dev/stderr");
        self.dir("/dev/pts");
        let terminals = Owner { uid: None, gid: TTY };
        let options = "newinstance,ptmxmode=666,mode=620";
        self.remount("devpts", Path::new("/dev/pts"), options, Some(terminals));
        self.link("pts/ptmx", "/dev/ptmx");
        self.mount("tmpfs", "/dev/shm", "mode=1777,size=64m");
        self.mount("mqueue", "/dev/mqueue", "");
    }

    fn proc(&mut self) {
        self.mount("proc", "/proc", "");
        for masked in MASKED.map(Path::new).into_iter().filter(|p| p.exists()) {
            if masked.is_dir() {
                self.remount("tmpfs", masked, "mode=555,nr_inodes=2,size=4k", None);
            } else {
                self.bind(Path::new("/dev/null"), masked, Access::Device);
            }
        }
        for fixed in READ_ONLY.map(Path::new).into_iter().filter(|p| p.exists()) {
            self.bind(Path::new(""), fixed, Access::ReadOnly);
        }
    }

    fn dir(&mut self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        if path == Path::new("/") || !self.dirs.insert(path.to_owned()) {
            return;
        }
        self.parent(path);
        self.list.push(FsStep::Dir { path: path.to_owned() });
    }

    fn file(&mut self, path: &Path, content: &str) {
        self.parent(path);
        self.list.push(FsStep::File {
            path: path.to_owned(),
            content: content.to_owned(),
        });
    }

    fn link(&mut self, target: impl AsRef<Path>, path: impl AsRef<Path>) {
        self.parent(path.as_ref());
        self.list.push(FsStep::Symlink {
            target: target.as_ref().to_owned(),
            path: path.as_ref().to_owned(),
        });
    }

    fn mount(&mut self, fstype: &str, path: &str, options: &str) {
        self.dir(path);
        self.remount(fstype, Path::new(path), options, None);
    }

    /// Owned by the root user inside.
    fn owned(&mut self, fstype: &str, path: &str, options: &str) {
        let root = Owner { uid: Some(0), gid: 0 };
        self.remount(fstype, Path::new(path), options, Some(root));
    }

    /// On something that is there already.
    fn remount(&mut self, fstype: &str, path: &Path, options: &str, owner: Option<Owner>) {
        self.list.push(FsStep::Mount {
            fstype: fstype.to_owned(),
            path: path.to_owned(),
            options: options.to_owned(),
            owner,
            read_only: false,
            optional: false,
        });
    }

    /// An empty source is what is there already.
    fn bind(&mut self, source: &Path, path: &Path, access: Access) {
        self.list.push(FsStep::Bind {
            source: source.to_owned(),
            path: path.to_owned(),
            access,
            mapped: false,
        });
    }

    fn own(&mut self, name: &str, path: &Path, writable_by_all: bool) {
        self.parent(path);
        self.list.push(FsStep::Own {
            name: name.to_owned(),
            path: path.to_owned(),
            content: String::new(),
            writable_by_all,
        });
    }

    fn parent(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.dir(parent);
        }
    }
}

#[cfg(test)]
mod tests;
