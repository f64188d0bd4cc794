//! Cgroups of sandboxes: found once per host (v1, v2, hybrid, delegated, none), then one small group of directories each.
//!
//! The spawner is the only writer. It makes a [`Cgroup`], opens [`Cgroup::open_join`] before it clones, and the child
//! writes `0` into each of these descriptors: one `write` each, no path, no allocation. What the host cannot enforce is
//! not an error here; [`Hierarchy::missing`] says it in words for the user.
//!
//! ```text
//! BASE/GROUP/NAME   in each tree: v1 cpu, v1 memory, v1 pids, v2 (freeze, kill and CPU time even without controllers)
//! ```

mod detect;
pub(crate) mod files;
mod freeze;
#[cfg(test)]
mod tests;
mod tree;
mod v1;
mod v2;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use manifests::units::Bytes;

use self::files::Kept;
use self::tree::{Controller, SEARCH_DEPTH, Tree, Version, children, find_groups, remove_tree, retry};
use crate::driver::Limits;
use crate::rootfs::CgroupMount;

pub use self::freeze::Freezer;

/// The cgroup trees of this host that sandboxes may use.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    trees: Vec<Tree>,
    /// A v1 freezer that is not needed, because v2 has one.
    spare_freezer: Option<Tree>,
    missing: Vec<String>,
}

/// The cgroup of one sandbox: a directory in every tree.
#[derive(Clone, Debug)]
pub struct Cgroup {
    parts: Vec<Tree>,
}

/// The files that say how much memory all sandboxes of a group use.
#[derive(Debug)]
pub struct GroupMemory {
    usage: Kept,
    stat: Kept,
    /// What the page cache that is easily given back is called in `stat`.
    cache: &'static str,
}

/// What a cgroup uses now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// CPU time so far; zero where no tree counts it.
    pub cpu: Duration,
    /// Memory charged to it now, page cache included; zero where no tree counts it.
    pub memory: Bytes,
    /// Processes and threads now; `None` where no tree counts them.
    pub pids: Option<u32>,
    /// Processes the kernel has killed in it for memory.
    pub oom_kills: u64,
    /// The limits in force, as the kernel rounds them (memory to pages, CPU to at least `10m`).
    pub limits: Limits,
}

impl Hierarchy {
    /// Looks what this host has. On v2 this also hands the controllers down to the directory where sandboxes will be,
    /// and moves Knarr's own processes one level down where that is needed for it.
    pub fn detect() -> Self {
        match detect::Host::real() {
            Ok(host) => Self::of(&host),
            Err(error) => Self {
                trees: Vec::new(),
                spare_freezer: None,
                missing: vec![format!(
                    "CPU, memory and process limits are not enforced: /proc cannot be read: {error}"
                )],
            },
        }
    }

    fn of(host: &detect::Host) -> Self {
        let (trees, spare_freezer, missing) = host.trees();
        Self {
            trees,
            spare_freezer,
            missing,
        }
    }

    /// What is used, such as `cgroup v1 (cpu, memory, pids) and v2 (no controllers)`.
    pub fn describe(&self) -> String {
        let names = |version| {
            let trees = self.trees.iter().filter(move |t| t.version == version);
            let names: Vec<_> = trees.flat_map(|t| t.controllers.iter().map(|c| c.name())).collect();
            if names.is_empty() {
                "no controllers".to_owned()
            } else {
                names.join(", ")
            }
        };
        let has = |version| self.trees.iter().any(|t| t.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, true) => format!("cgroup v1 ({}) and v2 ({})", names(Version::V1), names(Version::V2)),
            (true, false) => format!("cgroup v1 ({})", names(Version::V1)),
            (false, true) => format!("cgroup v2 ({})", names(Version::V2)),
            (false, false) => "no cgroups".to_owned(),
        }
    }

    /// For each limit that this host does not enforce: which, and why. Empty when everything holds.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What an image mounts under `/sys/fs/cgroup` to see its own cgroup.
    pub(crate) fn visible(&self) -> Vec<CgroupMount> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if self.trees.is_empty() {
            return Vec::new();
        }
        detect::visible(&detect::mounts(&mountinfo))
    }

    /// Makes the cgroup `group/name` and sets its limits; nothing is left after an error.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one of this name, otherwise what the kernel said, with the path.
    pub fn create(&self, group: &str, name: &str, limits: &Limits) -> io::Result<Cgroup> {
        let cgroup = self.open(group, name);
        for (made, (tree, part)) in self.trees.iter().zip(&cgroup.parts).enumerate() {
            let result = tree.prepare_group(group).and_then(|()| fs::create_dir(&part.base));
            if let Err(error) = result {
                // Only what was made here: the one that is there already is somebody's.
                let mine = Cgroup {
                    parts: cgroup.parts[..made].to_vec(),
                };
                let _ = mine.remove(Duration::ZERO);
                return Err(files::told(&part.base, error));
            }
        }
        if let Err(error) = cgroup.set_limits(limits) {
            let _ = cgroup.remove(Duration::ZERO);
            return Err(error);
        }
        Ok(cgroup)
    }

    /// The cgroup `group/name`, which somebody else has made.
    pub fn open(&self, group: &str, name: &str) -> Cgroup {
        Cgroup {
            parts: self
                .trees
                .iter()
                .map(|tree| tree.at(tree.base.join(group).join(name)))
                .collect(),
        }
    }

    /// Kills and removes everything that a crash has left under `group`, wherever in the trees an earlier run has put
    /// it; returns the names. Tries for at most `within`.
    ///
    /// # Errors
    /// What could not be killed or removed; the rest is done nevertheless.
    pub fn reap(&self, group: &str, within: Duration) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut result = Ok(());
        for tree in self.all_trees() {
            for dir in find_groups(tree.mount_point(), group, SEARCH_DEPTH) {
                for child in children(&dir) {
                    let left = Cgroup {
                        parts: vec![tree.at(child.clone())],
                    };
                    result = result.and(left.kill_all(within)).and(left.remove(within));
                    names.extend(child.file_name().map(|n| n.to_string_lossy().into_owned()));
                }
                // Busy when a group has children that could not be removed: told above.
                let _ = fs::remove_dir(&dir);
            }
        }
        names.sort();
        names.dedup();
        result.map(|()| names)
    }

    /// Makes the cgroup of all sandboxes of `group` and limits the memory of all of them together; false where no tree
    /// limits memory. What it has already stays when the limit is lower: the kernel takes back what it can.
    ///
    /// # Errors
    /// What the kernel said, with the path.
    pub fn limit_group(&self, group: &str, memory: Bytes) -> io::Result<bool> {
        let Some(tree) = self
            .trees
            .iter()
            .find(|tree| tree.controllers.contains(&Controller::Memory))
        else {
            return Ok(false);
        };
        tree.prepare_group(group)?;
        let dir = tree.base.join(group);
        match tree.version {
            Version::V1 => v1::limit_group(&dir, memory)?,
            Version::V2 => files::write(&dir.join("memory.max"), &memory.0.to_string())?,
        }
        Ok(true)
    }

    /// Where to read what all sandboxes of `group` use; `None` where no tree counts it.
    pub fn group_memory(&self, group: &str) -> Option<GroupMemory> {
        let tree = self
            .trees
            .iter()
            .find(|tree| tree.controllers.contains(&Controller::Memory))?;
        let dir = tree.base.join(group);
        let (usage, cache) = match tree.version {
            Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.current", "inactive_file"),
        };
        Some(GroupMemory {
            usage: Kept::new(dir.join(usage)),
            stat: Kept::new(dir.join("memory.stat")),
            cache,
        })
    }

    /// Also those that nothing is put into, where an earlier run may have.
    fn all_trees(&self) -> impl Iterator<Item = &Tree> {
        self.trees.iter().chain(&self.spare_freezer)
    }

    /// Removes the directory of `group` in every tree, where it is empty.
    pub fn remove_group(&self, group: &str) {
        for tree in self.all_trees() {
            // Not empty, or never made: both are fine.
            let _ = fs::remove_dir(tree.base.join(group));
        }
    }
}

impl GroupMemory {
    /// What they use now, less the page cache that the kernel gives back when it is asked; `None` where it cannot be read.
    pub fn used(&self) -> Option<Bytes> {
        match self.usage.number() {
            Ok(used) => Some(Bytes(used.saturating_sub(self.stat.keyed(self.cache).unwrap_or(0)))),
            // Nothing was started yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Bytes(0)),
            Err(_) => None,
        }
    }
}

impl Cgroup {
    /// Its directories, one in each tree.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.base.clone()).collect()
    }

    /// The files a process joins by: whoever writes `0` into all of them is in. Opened here, so that a child can do it
    /// after it has lost the paths and the rights. Close-on-exec.
    ///
    /// # Errors
    /// When the cgroup is gone or not ours.
    pub fn open_join(&self) -> io::Result<Vec<OwnedFd>> {
        self.parts
            .iter()
            .map(|part| {
                let path = part.base.join("cgroup.procs");
                let file: File = OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map_err(|e| files::told(&path, e))?;
                Ok(file.into())
            })
            .collect()
    }

    /// Rewrites the limits in place. Limits that no tree enforces are skipped: [`Hierarchy::missing`] has said so.
    ///
    /// # Errors
    /// `ResourceBusy` when more memory than the new limit is in use and cannot be reclaimed; then nothing has changed.
    pub fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        self.write_limits(limits, |_| true)
    }

    /// The same for a cgroup whose limits are `old`: only what differs is written, because a start waits for it.
    ///
    /// # Errors
    /// As [`Self::set_limits`].
    pub fn change_limits(&self, old: &Limits, new: &Limits) -> io::Result<()> {
        self.write_limits(new, |controller| match controller {
            Controller::Cpu => old.cpu != new.cpu,
            Controller::Memory => old.memory != new.memory,
            Controller::Pids => old.pids != new.pids,
            Controller::Cpuacct | Controller::Freezer => false,
        })
    }

    fn write_limits(&self, limits: &Limits, wanted: impl Fn(Controller) -> bool) -> io::Result<()> {
        // The tree that may refuse goes first.
        let memory = |part: &&Tree| part.controllers.contains(&Controller::Memory);
        let (first, rest): (Vec<&Tree>, Vec<&Tree>) = self.parts.iter().partition(memory);
        first.into_iter().chain(rest).try_for_each(|part| {
            let mut controllers = part.controllers.clone();
            controllers.retain(|controller| wanted(*controller));
            match part.version {
                Version::V1 => v1::set_limits(&part.base, &controllers, limits),
                Version::V2 => v2::set_limits(&part.base, &controllers, limits),
            }
        })
    }

    /// What it uses, and the limits as the kernel has them.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        let mut usage = Usage::default();
        for part in &self.parts {
            match part.version {
                Version::V1 => v1::usage(&part.base, &part.controllers, &mut usage)?,
                Version::V2 => v2::usage(&part.base, &part.controllers, &mut usage)?,
            }
        }
        Ok(usage)
    }

    /// The processes in it; `None` where there is no cgroup.
    ///
    /// # Errors
    /// When the list cannot be read. A cgroup that is gone has no process.
    pub fn processes(&self) -> io::Result<Option<Vec<i32>>> {
        self.parts.first().map(Tree::pids).transpose()
    }

    /// Sends SIGKILL to every process in it, once; true when there was none. A caller repeats it until then: one pass
    /// may miss a process that was just being forked, though on v2 (`cgroup.kill`) it does not.
    ///
    /// # Errors
    /// When a process is there and may not be killed. A cgroup that is gone has no process.
    pub fn kill(&self) -> io::Result<bool> {
        let mut empty = true;
        for part in &self.parts {
            let pids = part.pids()?;
            if pids.is_empty() {
                continue;
            }
            empty = false;
            let kill_file = part.base.join("cgroup.kill");
            if kill_file.exists() {
                match files::write(&kill_file, "1") {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
                continue;
            }
            if part.controllers.contains(&Controller::Pids) {
                // Nobody forks any more. Best effort: the repetition is what kills.
                let _ = files::write(&part.base.join("pids.max"), "0");
            }
            part.kill_each(&pids)?;
        }
        if !empty {
            self.thaw_for_kill();
        }
        Ok(empty)
    }

    /// Repeats [`Self::kill`] until nothing is left, for about `within`.
    ///
    /// # Errors
    /// `TimedOut` when there is still a process (one in an uninterruptible system call, for example).
    pub fn kill_all(&self, within: Duration) -> io::Result<()> {
        retry(within, || {
            if self.kill()? {
                Ok(())
            } else {
                Err(io::ErrorKind::TimedOut.into())
            }
        })
    }

    /// Removes the directories, inner ones first; the kernel says "busy" for a moment after the last process is gone, so
    /// this tries for about `within`. A cgroup that is gone already is fine.
    ///
    /// # Errors
    /// `ResourceBusy` while a process is left.
    pub fn remove(&self, within: Duration) -> io::Result<()> {
        self.parts
            .iter()
            .try_for_each(|part| retry(within, || remove_tree(&part.base)))
    }
}
