//! One cgroup tree: which version, what it controls, and the raw steps on its directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::files;

/// A cgroup tree and the directory in it below which sandboxes go; or, in a [`Cgroup`], the sandbox's own directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tree {
    pub version: Version,
    /// What this tree does for sandboxes; a v2 tree may do none of it.
    pub controllers: Vec<Controller>,
    pub base: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    V1,
    V2,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Controller {
    Cpu,
    Cpuacct,
    Memory,
    Pids,
    /// v1 only: v2 freezes without a controller.
    Freezer,
}

/// The controllers that enforce a limit.
pub(super) const LIMITERS: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];

/// How deep `reap` looks for groups: deeper than the services of a systemd user session.
pub(super) const SEARCH_DEPTH: u32 = 8;

impl Controller {
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Cpu, Self::Cpuacct, Self::Memory, Self::Pids, Self::Freezer]
            .into_iter()
            .find(|c| c.name() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        }
    }

    /// What it limits, in words for the user.
    pub(super) const fn limits(self) -> &'static str {
        match self {
            Self::Cpu | Self::Cpuacct => "CPU limits",
            Self::Memory => "memory limits",
            Self::Pids => "process limits",
            Self::Freezer => "frozen sandboxes",
        }
    }
}

impl Tree {
    pub(super) fn at(&self, dir: PathBuf) -> Self {
        Self {
            version: self.version,
            controllers: self.controllers.clone(),
            base: dir,
        }
    }

    /// Makes the directory of a group, and on v2 hands the controllers through it.
    pub(super) fn prepare_group(&self, group: &str) -> io::Result<()> {
        let dir = self.base.join(group);
        match fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if self.version == Version::V1 || self.controllers.is_empty() {
            return Ok(());
        }
        let control = dir.join("cgroup.subtree_control");
        let handed = files::read(&control)?;
        let names = self.controllers.iter().map(|c| c.name());
        let missing: Vec<String> = names
            .filter(|n| !handed.split_whitespace().any(|h| h == *n))
            .map(|n| format!("+{n}"))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            files::write(&control, &missing.join(" "))
        }
    }

    /// The topmost directory above `base` that is still a cgroup.
    pub(super) fn mount_point(&self) -> &Path {
        let is_cgroup = |dir: &&Path| dir.join("cgroup.procs").exists();
        self.base.ancestors().take_while(is_cgroup).last().unwrap_or(&self.base)
    }

    /// The processes in it and below it; none when it is gone.
    pub(super) fn pids(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        let mut dirs = vec![self.base.clone()];
        while let Some(dir) = dirs.pop() {
            match files::pids(&dir) {
                Ok(found) => pids.extend(found),
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            }
            dirs.extend(children(&dir));
        }
        Ok(pids)
    }

    /// By pidfd, and only after a second look at the list: a number that was used again in between is not killed.
    pub(super) fn kill_each(&self, pids: &[i32]) -> io::Result<()> {
        let gone = rustix::io::Errno::SRCH;
        let mut held = Vec::new();
        for &raw in pids {
            let Some(pid) = Pid::from_raw(raw) else {
                let text = format!("{}: a process outside our PID namespace is in it", self.base.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            };
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(fd) => held.push((raw, fd)),
                Err(e) if e == gone => {}
                Err(e) => return Err(e.into()),
            }
        }
        let still = self.pids()?;
        for (_, fd) in held.iter().filter(|(raw, _)| still.contains(raw)) {
            match pidfd_send_signal(fd, Signal::KILL) {
                Err(e) if e != gone => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

pub(super) fn find_groups(dir: &Path, group: &str, depth: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for child in children(dir) {
        if child.file_name().is_some_and(|name| name == group) {
            found.push(child);
        } else if depth > 0 {
            found.extend(find_groups(&child, group, depth - 1));
        }
    }
    found
}

pub(super) fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| files::told(dir, e)),
    }
}

/// Tries at once, then after 0.1 ms, 0.2 ms and so on up to 20 ms apart, until about `within` has been waited.
pub(super) fn retry(within: Duration, mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_micros(100);
    loop {
        match attempt() {
            Err(e) if matches!(e.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::TimedOut) && waited < within => {
                std::thread::sleep(pause);
                waited += pause;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}
