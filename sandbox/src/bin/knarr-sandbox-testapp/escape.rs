//! Attempts to get out of a sandbox, to get at its neighbours, or to take more than its share. Each must fail.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a register holds every argument: 64-bit machines only"
)]

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::{env, ptr};

/// What an attempt came to: what it reached, or why it did not.
type Outcome = Result<String, String>;
/// An attempt with its name.
type Attempt = (&'static str, fn() -> Outcome);

/// Every attempt that does not hurt by itself, one line each: `name: refused ...` or `name: REACHED ...`.
pub(crate) fn attempts() -> String {
    let mut lines = Vec::new();
    for (name, number, arguments) in calls() {
        lines.push(line(name, call(number, arguments)));
    }
    for (name, attempt) in ATTEMPTS {
        lines.push(line(name, attempt()));
    }
    lines.join("\n") + "\n"
}

fn line(name: &str, outcome: Outcome) -> String {
    match outcome {
        Ok(reached) => format!("{name}: REACHED {reached}"),
        Err(why) => format!("{name}: refused {why}"),
    }
}

/// System calls of which none may succeed. Pointers are null or to constants: a call that looks at its arguments first
/// says EFAULT or EINVAL, and that it was let in so far is a finding, except where anybody may call it.
fn calls() -> Vec<(&'static str, libc::c_long, [usize; 5])> {
    let root = c"/".as_ptr() as usize;
    let tmp = c"/tmp".as_ptr() as usize;
    let tmpfs = c"tmpfs".as_ptr() as usize;
    let proc_dir = c"/proc".as_ptr() as usize;
    let device = c"/tmp/mem".as_ptr() as usize;
    let name = c"evil".as_ptr() as usize;
    let new_user = libc::CLONE_NEWUSER as usize;
    let new_mount = libc::CLONE_NEWNS as usize;
    let child = libc::SIGCHLD as usize;
    let memory = usize::try_from(libc::makedev(1, 1)).unwrap();
    let node = (libc::S_IFCHR | 0o666) as usize;
    vec![
        ("mount tmpfs", libc::SYS_mount, [tmpfs, tmp, tmpfs, 0, 0]),
        (
            "mount proc",
            libc::SYS_mount,
            [proc_dir, tmp, c"proc".as_ptr() as usize, 0, 0],
        ),
        ("bind mount", libc::SYS_mount, [root, tmp, 0, libc::MS_BIND as usize, 0]),
        (
            "remount writable",
            libc::SYS_mount,
            [0, root, 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize, 0],
        ),
        (
            "umount /proc",
            libc::SYS_umount2,
            [proc_dir, libc::MNT_DETACH as usize, 0, 0, 0],
        ),
        ("pivot_root", libc::SYS_pivot_root, [tmp, tmp, 0, 0, 0]),
        (
            "open_tree clone",
            libc::SYS_open_tree,
            [libc::AT_FDCWD as usize, root, 1, 0, 0],
        ),
        ("fsopen", libc::SYS_fsopen, [tmpfs, 0, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [0, root, 0, tmp, 0]),
        (
            "mount_setattr",
            libc::SYS_mount_setattr,
            [libc::AT_FDCWD as usize, root, 0, 0, 0],
        ),
        ("unshare user", libc::SYS_unshare, [new_user, 0, 0, 0, 0]),
        ("unshare mount", libc::SYS_unshare, [new_mount, 0, 0, 0, 0]),
        (
            "unshare net",
            libc::SYS_unshare,
            [libc::CLONE_NEWNET as usize, 0, 0, 0, 0],
        ),
        ("clone user", libc::SYS_clone, [new_user | child, 0, 0, 0, 0]),
        (
            "mknod",
            libc::SYS_mknodat,
            [libc::AT_FDCWD as usize, device, node, memory, 0],
        ),
        (
            "ptrace parent",
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH as usize, 1, 0, 0, 0],
        ),
        ("sethostname", libc::SYS_sethostname, [name, 4, 0, 0, 0]),
        ("setdomainname", libc::SYS_setdomainname, [name, 4, 0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [0, name, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [tmp, 0, 0, 0, 0]),
        ("acct", libc::SYS_acct, [tmp, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [3, name, 4, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [name, name, name, 4, usize::MAX - 2]),
        ("request_key", libc::SYS_request_key, [name, name, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, usize::MAX - 2, 1, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [victim(), 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [0, 0, 0, 0, 0]),
        (
            "raw socket",
            libc::SYS_socket,
            [libc::AF_INET as usize, libc::SOCK_RAW as usize, 1, 0, 0],
        ),
        (
            "packet socket",
            libc::SYS_socket,
            [libc::AF_PACKET as usize, libc::SOCK_RAW as usize, 0, 0, 0],
        ),
        (
            "vsock",
            libc::SYS_socket,
            [libc::AF_VSOCK as usize, libc::SOCK_STREAM as usize, 0, 0, 0],
        ),
        ("kill a process of the host", libc::SYS_kill, [victim(), 0, 0, 0, 0]),
        (
            "pidfd of a process of the host",
            libc::SYS_pidfd_open,
            [victim(), 0, 0, 0, 0],
        ),
        (
            "raise the priority",
            libc::SYS_setpriority,
            [0, 0, usize::MAX - 9, 0, 0],
        ),
    ]
}

fn call(number: libc::c_long, [a, b, c, d, e]: [usize; 5]) -> Outcome {
    // SAFETY: arguments are numbers, null, or pointers to constants; whether the kernel takes them is the finding.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(io::Error::last_os_error().to_string()),
        // SAFETY: only after a clone that should have been refused: the child ends at once.
        0 if number == libc::SYS_clone => unsafe { libc::_exit(0) },
        result => Ok(result.to_string()),
    }
}

/// A process of the host, by its number there.
fn victim() -> usize {
    env::var("VICTIM")
        .ok()
        .and_then(|pid| pid.parse().ok())
        .unwrap_or(1 << 22)
}

const ATTEMPTS: [Attempt; 14] = [
    ("write a sysctl", || write("/proc/sys/kernel/core_pattern")),
    ("write sysrq-trigger", || write("/proc/sysrq-trigger")),
    ("change its own binary", || write("/proc/self/exe")),
    ("a sysctl of its own network", || write("/proc/sys/net/ipv4/ip_forward")),
    ("open a device", || {
        [
            "mem",
            "kmem",
            "kmsg",
            "port",
            "sda",
            "vda",
            "nvme0n1",
            "fuse",
            "kvm",
            "net/tun",
            "loop-control",
        ]
        .iter()
        .map(|name| format!("/dev/{name}"))
        .find_map(|path| fs::File::open(&path).ok().map(|_| path))
        .ok_or_else(|| "there is none".to_owned())
    }),
    ("the host's processes", || read(&format!("/proc/{}/environ", victim()))),
    ("another root", || {
        let own = fs::read_dir("/").map_err(|e| e.to_string())?.count();
        let other = fs::read_dir("/proc/1/root/").map_err(|e| e.to_string())?.count();
        if own == other {
            Err("it is its own".to_owned())
        } else {
            Ok(other.to_string())
        }
    }),
    ("kernel memory", || read("/proc/kcore")),
    ("kernel keys", || read("/proc/keys")),
    ("a cgroup's release agent", || {
        let files = fs::read_dir("/sys/fs/cgroup").map_err(|e| e.to_string())?;
        files
            .flatten()
            .next()
            .map(|e| e.path().display().to_string())
            .ok_or_else(|| "nothing is there".to_owned())
    }),
    ("abstract socket of the host", || {
        use std::os::linux::net::SocketAddrExt;
        let name = env::var("ABSTRACT").unwrap_or_default();
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).map_err(|e| e.to_string())?;
        UnixStream::connect_addr(&address)
            .map(|_| "connected".to_owned())
            .map_err(|e| e.to_string())
    }),
    ("shared memory of the host", || {
        let key = env::var("SHM_KEY")
            .ok()
            .and_then(|key| key.parse().ok())
            .unwrap_or(0x6b6e);
        // SAFETY: only asks for a segment that is there.
        match unsafe { libc::shmget(key, 1, 0) } {
            -1 => Err(io::Error::last_os_error().to_string()),
            id => Ok(id.to_string()),
        }
    }),
    ("a mount that honours setuid", || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let honours = |line: &&str| !line.split(' ').nth(5).is_some_and(|options| options.contains("nosuid"));
        mounts
            .lines()
            .find(honours)
            .map(str::to_owned)
            .ok_or_else(|| "every one is nosuid".to_owned())
    }),
    ("a file of its own with setuid", || {
        let path = "/tmp/setuid";
        fs::copy("/usr/bin/id", path).map_err(|e| e.to_string())?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).map_err(|e| e.to_string())?;
        // SAFETY: no memory.
        let own = unsafe { libc::geteuid() };
        let said = std::process::Command::new(path)
            .arg("-u")
            .output()
            .map_err(|e| e.to_string())?;
        let euid = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        if euid == own.to_string() {
            Err("it runs as before".to_owned())
        } else {
            Ok(euid)
        }
    }),
];

fn write(path: &str) -> Outcome {
    let opened = OpenOptions::new().write(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(b"1"));
    written.map(|()| "written".to_owned()).map_err(|e| e.to_string())
}

fn read(path: &str) -> Outcome {
    let read = fs::File::open(path).and_then(|mut file| io::Read::read(&mut file, &mut [0; 16]));
    match read {
        Ok(0) => Err("it is empty".to_owned()),
        Ok(bytes) => Ok(format!("{bytes} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

/// Processes that wait, until there can be no more: how many there were.
pub(crate) fn fork_bomb() -> String {
    let mut children = 0;
    loop {
        // SAFETY: the child only waits.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: no memory.
                unsafe { libc::pause() };
            },
            -1 => return format!("{children} children: {}", io::Error::last_os_error()),
            _ if children >= 100_000 => return "100000 children: ESCAPED".to_owned(),
            _ => children += 1,
        }
    }
}

/// Memory, touched, until it is killed for it.
pub(crate) fn memory_bomb() -> ! {
    const PIECE: usize = 1 << 20;
    loop {
        // SAFETY: a new mapping, written to within its size, and never given back.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let piece = libc::mmap(ptr::null_mut(), PIECE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if piece != libc::MAP_FAILED {
                libc::memset(piece, 1, PIECE);
            }
        }
    }
}

/// Files in every directory that can be written to, until there is no room: how much fitted.
pub(crate) fn disk_bomb() -> String {
    let block = vec![b'x'; 1 << 20];
    let mut told = Vec::new();
    for dir in ["/tmp", "/dev/shm", "/var/tmp", "/run", "/", "/root", "/home", "/dev"] {
        let path = CString::new(format!("{dir}/bomb")).unwrap();
        let path = path.to_str().unwrap();
        let mut written: u64 = 0;
        let why = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| {
                loop {
                    file.write_all(&block)?;
                    written += 1 << 20;
                    if written > 64 << 30 {
                        return Ok("ESCAPED".to_owned());
                    }
                }
            });
        let why = why.unwrap_or_else(|error| error.to_string());
        told.push(format!("{dir}: {written} {why}"));
    }
    told.join("\n") + "\n"
}
