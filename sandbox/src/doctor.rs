//! What this host can do, found by trying: the findings, and the tries that need no sandbox.
//!
//! What a driver does on this host it says itself ([`crate::LocalDriver::examine`]); nothing here judges that a second
//! time.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::process::{PidfdFlags, Resource, geteuid, getpid, getrlimit, pidfd_open};
use serde::Serialize;

/// One thing that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is about, in a word or two.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub found: String,
    /// What is lost; empty when nothing is.
    pub costs: String,
    /// What to do about it; empty when there is nothing to do.
    pub fix: String,
}

/// How something is on this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and something is lost.
    Degraded,
    /// It does not work.
    Missing,
}

impl State {
    /// The word for the user.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

impl Finding {
    /// As it should be.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            costs: String::new(),
            fix: String::new(),
        }
    }

    /// Something is lost.
    pub fn degraded(
        name: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            name,
            state: State::Degraded,
            found: found.into(),
            costs: costs.into(),
            fix: fix.into(),
        }
    }

    /// It does not work.
    pub fn missing(
        name: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Missing,
            ..Self::degraded(name, found, costs, fix)
        }
    }
}

/// The tries that need no sandbox. `data_dir` is where state will be, whether it is there or not; `listen` are the
/// addresses that a server would listen on.
pub fn host(data_dir: &Path, listen: &[SocketAddr]) -> Vec<Finding> {
    let mut found = vec![
        kernel(),
        pidfds(),
        swap(),
        files(),
        processes(),
        namespaces(),
        room(data_dir),
    ];
    found.extend(listen.iter().map(|address| port(*address)));
    found.push(names());
    found
}

fn kernel() -> Finding {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let machine = system.machine().to_string_lossy().into_owned();
    let found = format!("Linux {release}, {machine}");
    match version(&release) {
        Some(version) if version < OLDEST => Finding::missing(
            "kernel",
            found,
            "sandboxes need mount_setattr and close_range, which came with Linux 5.12",
            "run a newer kernel",
        ),
        Some(version) if version < MAPS_OVERLAYS => Finding::degraded(
            "kernel",
            found,
            "overlay file systems cannot map users before Linux 5.19: images run without users of their own",
            "run Linux 5.19 or newer",
        ),
        _ => Finding::ok("kernel", found),
    }
}

/// The first two numbers of `6.1.0-18-amd64`.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

const OLDEST: (u32, u32) = (5, 12);
const MAPS_OVERLAYS: (u32, u32) = (5, 19);

fn pidfds() -> Finding {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Finding::ok("pidfd", "processes can be held without a race"),
        Err(error) => Finding::missing(
            "pidfd",
            error.to_string(),
            "sandboxes cannot be looked after",
            "allow pidfd_open where a filter around Knarr forbids it (Linux 5.3 has it)",
        ),
    }
}

fn swap() -> Finding {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let devices: Vec<&str> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    if devices.is_empty() {
        return Finding::degraded(
            "swap",
            "none",
            "memory of frozen sandboxes stays resident: fewer of them fit",
            "add compressed memory: modprobe zram; echo 4G > /sys/block/zram0/disksize; mkswap /dev/zram0; swapon /dev/zram0",
        );
    }
    Finding::ok("swap", devices.join(", "))
}

fn files() -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum;
    let sandboxes = limit.map(|limit| limit / FILES_EACH);
    match (limit, sandboxes) {
        (Some(limit), Some(sandboxes)) if sandboxes < MANY => Finding::degraded(
            "open files",
            format!("at most {limit}"),
            format!("room for about {sandboxes} sandboxes"),
            "raise the hard limit: LimitNOFILE= in the unit, or ulimit -Hn",
        ),
        (None, _) => Finding::ok("open files", "no limit"),
        (Some(limit), _) => Finding::ok("open files", format!("at most {limit}")),
    }
}

/// Descriptors of one sandbox, in Knarr and in its spawner together.
const FILES_EACH: u64 = 16;

/// What a host should have room for.
const MANY: u64 = 1_000;

fn processes() -> Finding {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let own = if geteuid().is_root() {
        None
    } else {
        getrlimit(Resource::Nproc).maximum
    };
    let limits = [
        ("kernel.pid_max", number("/proc/sys/kernel/pid_max")),
        ("kernel.threads-max", number("/proc/sys/kernel/threads-max")),
        ("ulimit -Hu", own),
    ];
    let least = limits
        .into_iter()
        .filter_map(|(name, limit)| Some((limit?, name)))
        .min();
    match least {
        Some((limit, name)) if limit < 4 * MANY => Finding::degraded(
            "processes",
            format!("at most {limit} ({name})"),
            "many sandboxes, or ones with many threads, run out of processes",
            format!("raise {name}"),
        ),
        Some((limit, name)) => Finding::ok("processes", format!("at most {limit} ({name})")),
        None => Finding::ok("processes", "no limit that /proc knows of"),
    }
}

fn namespaces() -> Finding {
    let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let limit = |kind: &&str| -> Option<(u64, String)> {
        let name = format!("user.max_{kind}_namespaces");
        let path = format!("/proc/sys/user/max_{kind}_namespaces");
        Some((fs::read_to_string(path).ok()?.trim().parse().ok()?, name))
    };
    match kinds.iter().filter_map(limit).min() {
        Some((0, name)) => Finding::missing(
            "namespaces",
            format!("{name} is 0"),
            "none can be made",
            format!("sysctl {name}=30000"),
        ),
        Some((least, name)) if least < MANY => Finding::degraded(
            "namespaces",
            format!("at most {least} ({name})"),
            format!("room for about {least} sandboxes"),
            format!("sysctl {name}=30000"),
        ),
        Some((least, name)) => Finding::ok("namespaces", format!("at most {least} ({name})")),
        None => Finding::ok("namespaces", "no limit that /proc knows of"),
    }
}

/// The nearest directory that is there says how much room there will be.
fn room(data_dir: &Path) -> Finding {
    let there = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let found = match rustix::fs::statvfs(there) {
        Ok(found) => found,
        Err(error) => {
            return Finding::missing(
                "disk",
                format!("{}: {error}", there.display()),
                "state, logs and images have no place",
                "give another directory with --data-dir",
            );
        }
    };
    let (free, files) = (found.f_bavail.saturating_mul(found.f_frsize), found.f_favail);
    let text = format!("{} MiB free on {}", free >> 20, there.display());
    // Some file systems do not count files.
    if free < LITTLE_ROOM || (found.f_files > 0 && files < FEW_FILES) {
        return Finding::degraded(
            "disk",
            format!("{text}, {files} more files"),
            "images of some size do not fit, and logs are cut short",
            "make room, or give another directory with --data-dir",
        );
    }
    Finding::ok("disk", text)
}

const LITTLE_ROOM: u64 = 2 << 30;
const FEW_FILES: u64 = 50_000;

fn port(address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "a Knarr that runs already may have it; else give another one with --listen or --admin"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are for root: sysctl net.ipv4.ip_unprivileged_port_start=80, or give another one"
                }
                _ => "give an address of this machine with --listen or --admin",
            };
            Finding::degraded("port", format!("{address}: {error}"), "nothing can listen there", fix)
        }
    }
}

/// Asks the first name server for the root's own, which each of them knows.
fn names() -> Finding {
    let configured = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<&str> = configured
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.split_whitespace().next())
        .collect();
    let costs =
        "images cannot be pulled by the name of their registry, and sandboxes with a way out resolve nothing outside";
    let Some(server) = servers.first() else {
        return Finding::degraded("DNS", "no name server in /etc/resolv.conf", costs, "name one there");
    };
    match ask(server) {
        Ok(()) => Finding::ok("DNS", format!("{server} answers")),
        Err(error) => Finding::degraded(
            "DNS",
            format!("{server}: {error}"),
            costs,
            "check the network, or name another server in /etc/resolv.conf",
        ),
    }
}

fn ask(server: &str) -> io::Result<()> {
    let address: std::net::IpAddr = server
        .split('%')
        .next()
        .unwrap_or(server)
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not an address"))?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address, 53))?;
    // A question for NS of the root: id, recursion wanted, one question; an empty name, type 2, class 1 (RFC 1035, 4.1).
    let question = [0x6b, 0x6e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    socket.send(&question)?;
    let mut answer = [0; 1500];
    let n = socket.recv(&mut answer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        _ => error,
    })?;
    if n >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0 {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer"))
    }
}

/// For a name server on this network.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        for (release, wanted) in [
            ("6.1.0-18-amd64", Some((6, 1))),
            ("5.19", Some((5, 19))),
            ("5.4.0+", Some((5, 4))),
            ("weird", None),
        ] {
            assert_eq!(version(release), wanted, "{release}");
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_found_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port(address).state, State::Degraded);
        drop(taken);
        assert_eq!(port(address).state, State::Ok);
    }

    #[test]
    fn room_is_looked_for_where_the_directory_will_be() {
        let dir = tempfile::tempdir().unwrap();
        let found = room(&dir.path().join("not/there/yet"));
        assert!(
            found.found.ends_with(&format!("on {}", dir.path().display())) || found.state != State::Ok,
            "{found:?}"
        );
    }

    #[test]
    fn every_finding_that_is_not_ok_says_what_it_costs_and_how_to_mend_it() {
        for found in host(Path::new("/nowhere"), &["127.0.0.1:0".parse().unwrap()]) {
            let complete = !found.costs.is_empty() && !found.fix.is_empty();
            assert!(found.state == State::Ok || complete, "{found:?}");
            assert!(!found.found.is_empty(), "{found:?}");
        }
    }
}
