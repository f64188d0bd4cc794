//! A picture of what a host holds for us before a test, to compare with afterwards: nothing may be left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{getpid, set_child_subreaper};

use crate::local::group;

/// Processes, mounts, cgroups, namespaces, file descriptors and temporary directories at one moment.
///
/// Processes and namespaces are those of this process and its descendants; it becomes their subreaper, so that a process
/// whose parent was killed stays a descendant. Cgroups and temporary files count when their name begins with `knarr` (or
/// `.knarr`), or only those of given data directories, for a machine with more than one Knarr. Only what has been added
/// counts as a difference. File descriptors and descendants are process-wide: a test that compares them must be the only one
/// running in its binary.
#[derive(Clone, Debug)]
pub struct HostSnapshot {
    whose: Whose,
    /// By kind: what makes a thing the same one, and how to name it.
    found: BTreeMap<&'static str, BTreeMap<String, String>>,
}

/// Whose cgroups, mounts and temporary files count.
#[derive(Clone, Debug)]
enum Whose {
    All,
    /// Of these data directories, which have cgroups of these names.
    Of(Vec<(PathBuf, String)>),
}

impl Whose {
    /// A cgroup or temporary file of this name.
    fn is_named(&self, name: &str) -> bool {
        match self {
            Self::All => name.trim_start_matches('.').starts_with("knarr"),
            Self::Of(dirs) => dirs.iter().any(|(_, group)| name.contains(group)),
        }
    }

    /// Other tests mount things below the directory of temporary files.
    fn is_mount(&self, line: &str) -> bool {
        let point = Path::new(line.split(' ').nth(4).unwrap_or_default());
        match self {
            Self::All => true,
            Self::Of(dirs) => {
                !point.starts_with(std::env::temp_dir()) || dirs.iter().any(|(dir, _)| point.starts_with(dir))
            }
        }
    }
}

impl HostSnapshot {
    /// Looks now.
    pub fn take() -> Self {
        Self::look(Whose::All)
    }

    /// What names of cgroups and temporary files of a data directory have in them.
    pub fn mark(data_dir: &Path) -> String {
        group(&data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned()))
    }

    /// Looks now for what belongs to the Knarrs of these data directories, whatever others do on this machine meanwhile. The
    /// directories are there already.
    pub fn of(data_dirs: &[&Path]) -> Self {
        let named = |dir: &&Path| {
            (
                dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf()),
                Self::mark(dir),
            )
        };
        Self::look(Whose::Of(data_dirs.iter().map(named).collect()))
    }

    fn look(whose: Whose) -> Self {
        // Only fails on kernels older than 3.4; then orphans are not seen.
        let _ = set_child_subreaper(Some(getpid()));
        let family = family();
        let found = [
            ("process", processes(&family)),
            ("mount", named(mounts(&whose))),
            ("cgroup", named(cgroups(&whose))),
            ("namespace", named(namespaces(&family))),
            ("file descriptor", named(descriptors())),
            ("temporary file", named(temporary(&whose))),
        ];
        let found = found.into();
        Self { whose, found }
    }

    /// What there is now and was not then, in words; empty when the host is as it was.
    pub fn added(&self) -> Vec<String> {
        let now = Self::look(self.whose.clone());
        let mut added = Vec::new();
        for (kind, things) in &now.found {
            let before = self.found.get(kind);
            let new = things
                .iter()
                .filter(|(key, _)| before.is_none_or(|b| !b.contains_key(*key)));
            added.extend(new.map(|(_, name)| format!("{kind}: {name}")));
        }
        added
    }

    /// Waits until nothing is added any more; the kernel frees some things only a little later.
    ///
    /// # Panics
    /// With what is left, when that takes longer than about `bound`.
    pub fn assert_same_within(&self, bound: Duration) {
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        loop {
            let added = self.added();
            if added.is_empty() {
                return;
            }
            assert!(
                waited < bound,
                "left on this host after {bound:?}:\n  {}",
                added.join("\n  ")
            );
            thread::sleep(step);
            waited += step;
        }
    }
}

/// One line of `/proc/PID/stat` (proc(5)).
struct Process {
    pid: i32,
    parent: i32,
    zombie: bool,
    /// Clock ticks after boot: tells a process from a later one of the same number.
    born: String,
    name: String,
}

impl Process {
    fn read(dir: &Path) -> Option<Self> {
        let pid = dir.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        // The name is in parentheses and may hold any character: the last one closes it.
        let (left, right) = stat.rsplit_once(") ")?;
        let name = left.split_once(" (")?.1.to_owned();
        let fields: Vec<&str> = right.split(' ').collect();
        let (state, parent, born) = (fields.first()?, fields.get(1)?, fields.get(19)?);
        Some(Self {
            pid,
            parent: parent.parse().ok()?,
            zombie: *state == "Z",
            born: (*born).to_owned(),
            name,
        })
    }
}

/// All living descendants. A zombie that is our own child is ours to wait for, not something left.
fn family() -> Vec<Process> {
    let own = getpid().as_raw_nonzero().get();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<Process> = entries.filter_map(|entry| Process::read(&entry.path())).collect();
    let mut known = BTreeSet::from([own]);
    // A parent may have a higher number than its child: until nothing is added.
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|p| known.contains(&p.parent) && !known.contains(&p.pid))
            .map(|p| p.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        known.extend(more);
    }
    let counts = |p: &Process| p.pid != own && known.contains(&p.pid) && !(p.zombie && p.parent == own);
    all.into_iter().filter(counts).collect()
}

/// Number and birth make it the same one: name and command line change when it executes something.
fn processes(family: &[Process]) -> BTreeMap<String, String> {
    let name = |p: &Process| {
        let command = fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let state = if p.zombie { ", zombie" } else { "" };
        format!("{} ({}{state}) {command}", p.pid, p.name)
    };
    family
        .iter()
        .map(|p| (format!("{} {}", p.pid, p.born), name(p)))
        .collect()
}

/// Things that are what they are called.
fn named(things: BTreeSet<String>) -> BTreeMap<String, String> {
    things.into_iter().map(|thing| (thing.clone(), thing)).collect()
}

fn mounts(whose: &Whose) -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter(|line| whose.is_mount(line))
        .map(str::to_owned)
        .collect()
}

fn cgroups(whose: &Whose) -> BTreeSet<String> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots = mountinfo
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4));
    let mut found = BTreeSet::new();
    let mut dirs: Vec<PathBuf> = roots.map(PathBuf::from).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let path = entry.path();
                if path.iter().any(|name| whose.is_named(&name.to_string_lossy())) {
                    found.insert(entry.path().display().to_string());
                }
                dirs.push(entry.path());
            }
        }
    }
    found
}

/// Those that the family is in or holds open; no other can be alive for long once the family is gone.
fn namespaces(family: &[Process]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let own = getpid().as_raw_nonzero().get();
    for pid in family.iter().map(|p| p.pid).chain([own]) {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let held = fs::read_dir(dir.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let own = KINDS.map(|kind| dir.join("ns").join(kind));
        for link in held.chain(own) {
            let target = fs::read_link(link).unwrap_or_default().display().to_string();
            if KINDS.iter().any(|kind| target.starts_with(&format!("{kind}:["))) {
                found.insert(target);
            }
        }
    }
    found
}

/// Of this process: how many of each kind, the n-th as `kind #n`. Two pipes are one kind: their numbers never repeat.
fn descriptors() -> BTreeSet<String> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.display().to_string();
        // `socket:[123]`, `pipe:[45]`, but `anon_inode:[eventpoll]` says what it is.
        let kind = match target.split_once(":[") {
            Some((kind, number)) if number.starts_with(|c: char| c.is_ascii_digit()) => kind.to_owned(),
            _ => target,
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
        .into_iter()
        .flat_map(|(kind, count)| (1..=count).map(move |n| format!("{kind} #{n}")))
        .collect()
}

/// Of namespaces, as `/proc/PID/ns` calls them.
const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

fn temporary(whose: &Whose) -> BTreeSet<String> {
    let dirs = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
    let entries = dirs.iter().flat_map(fs::read_dir).flatten().flatten();
    let ours = entries.filter(|entry| whose.is_named(&entry.file_name().to_string_lossy()));
    ours.map(|entry| entry.path().display().to_string()).collect()
}
