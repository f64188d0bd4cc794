//! What a sandbox sees as its root: pure lists of steps, for every sandbox and for one app. No I/O beyond looking what
//! this host has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{Program, Shown};
use crate::spawner::protocol::{Access, FsStep};

/// The user and group of a sandbox that has none of its own: a spawner without root can give only one.
pub(crate) const ORDINARY_UID: u32 = 65_532;

/// `/tmp` of an app without a memory limit.
const TMP_SIZE: u64 = 512 * 1024 * 1024;

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
const MASKED: [&str; 9] = [
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
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The part of every sandbox's root that does not depend on the app; `mountpoint` is where it is built.
pub(crate) fn base(mountpoint: &Path) -> Vec<FsStep> {
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
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let path = PathBuf::from("/dev").join(device);
        steps.file(&path, "");
        steps.bind(&path, &path, Access::Device);
    }
    steps.link("/proc/self/fd", "/dev/fd");
    steps.link("/proc/self/fd/0", "/dev/stdin");
    steps.link("/proc/self/fd/1", "/dev/stdout");
    steps.link("/proc/self/fd/2", "/dev/stderr");
    steps.mount("tmpfs", "/dev/shm", "mode=1777,size=64m");
    // Terminals of the sandbox's own.
    steps.mount("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620");
    steps.link("pts/ptmx", "/dev/ptmx");
    steps.mount("proc", "/proc", "");
    for masked in MASKED.map(Path::new).into_iter().filter(|p| p.exists()) {
        if masked.is_dir() {
            steps.remount("tmpfs", masked, "mode=555,nr_inodes=2,size=4k");
        } else {
            steps.bind(Path::new("/dev/null"), masked, Access::Device);
        }
    }
    for fixed in READ_ONLY.map(Path::new).into_iter().filter(|p| p.exists()) {
        let own = mountpoint.join(fixed.strip_prefix("/").unwrap_or(fixed));
        steps.bind(&own, fixed, Access::ReadOnly);
    }
    steps.list
}

/// The rest, for one app: its program, its `/tmp`, its names.
pub(crate) fn of_app(program: &Program, hostname: &str, uid: u32, memory: Option<u64>) -> Vec<FsStep> {
    let mut steps = Steps::default();
    let size = memory.unwrap_or(TMP_SIZE).min(TMP_SIZE);
    steps.mount("tmpfs", "/tmp", &format!("mode=1777,size={size}"));
    steps.file(
        Path::new("/etc/passwd"),
        &format!("root:x:0:0:root:/root:/usr/sbin/nologin\napp:x:{uid}:{uid}:app:/tmp:/bin/sh\n"),
    );
    steps.file(Path::new("/etc/group"), &format!("root:x:0:\napp:x:{uid}:\n"));
    steps.file(Path::new("/etc/hostname"), &format!("{hostname}\n"));
    steps.file(
        Path::new("/etc/hosts"),
        &format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.0.1 {hostname}\n"),
    );
    // No egress: a resolver that fails at once is better than one that waits for a name server.
    steps.file(Path::new("/etc/resolv.conf"), "# No network but loopback.\n");
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
        self.remount(fstype, Path::new(path), options);
    }

    /// On something that is there already.
    fn remount(&mut self, fstype: &str, path: &Path, options: &str) {
        self.list.push(FsStep::Mount {
            fstype: fstype.to_owned(),
            path: path.to_owned(),
            options: options.to_owned(),
        });
    }

    fn bind(&mut self, source: &Path, path: &Path, access: Access) {
        self.list.push(FsStep::Bind {
            source: source.to_owned(),
            path: path.to_owned(),
            access,
        });
    }

    fn parent(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.dir(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is mounted, linked or written has its directory made before; nothing of the forbidden places is shown.
    #[test]
    fn every_step_has_its_directory_and_nothing_private_is_shown() {
        let program = Program {
            path: "/home/ann/app/bin/run".into(),
            show: vec![
                Shown::Dir("/home/ann/app/bin".into()),
                Shown::File {
                    source: "/tmp/x".into(),
                    path: "/tmp/x".into(),
                },
            ],
        };
        let mut steps = base(Path::new("/data/root"));
        steps.extend(of_app(&program, "hello-1", 7, Some(1000)));
        let mut made: BTreeSet<PathBuf> = [PathBuf::from("/")].into();
        let mut proc_is_up = false;
        for step in &steps {
            match step {
                FsStep::Dir { path } | FsStep::Symlink { path, .. } | FsStep::File { path, .. } => {
                    assert!(made.contains(path.parent().unwrap()), "{step:?} has no directory");
                    made.insert(path.clone());
                }
                FsStep::Mount { path, fstype, .. } => {
                    assert!(
                        made.contains(path) || (proc_is_up && path.starts_with("/proc")),
                        "{step:?}"
                    );
                    proc_is_up |= fstype == "proc";
                }
                FsStep::Bind { source, path, access } => {
                    assert!(
                        made.contains(path) || (proc_is_up && path.starts_with("/proc")),
                        "{step:?}"
                    );
                    let private = [
                        "/run",
                        "/var",
                        "/root",
                        "/etc/shadow",
                        "/etc/ssl/private",
                        "/data/other",
                    ];
                    assert!(!private.iter().any(|p| source.starts_with(p)), "{step:?}");
                    assert!(*access == Access::ReadOnly || source.starts_with("/dev"), "{step:?}");
                }
            }
        }
    }

    #[test]
    fn tmp_is_never_larger_than_the_memory_limit() {
        let program = Program {
            path: "/bin/sh".into(),
            show: Vec::new(),
        };
        let tmp = |memory| match &of_app(&program, "h", 1, memory)[1] {
            FsStep::Mount { options, .. } => options.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(tmp(Some(4096)), "mode=1777,size=4096");
        assert_eq!(tmp(None), "mode=1777,size=536870912");
        assert_eq!(tmp(Some(u64::MAX)), "mode=1777,size=536870912");
    }
}
