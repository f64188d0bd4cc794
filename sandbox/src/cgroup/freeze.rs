//! Freezing a cgroup, and taking the memory of a frozen one back (kernel: admin-guide/cgroup-v2, cgroup-v1/freezer-subsystem).
//!
//! v2 needs no controller for it, so it also works in the unified tree of a hybrid host. The two differ in one thing that
//! matters: what is frozen by v1 does not die of SIGKILL before it is thawed.

use std::io;
use std::path::Path;

use manifests::units::Bytes;

use super::tree::{Controller, Tree, Version, children, find_groups};
use super::{Cgroup, Hierarchy, SEARCH_DEPTH, files};

/// Which of the kernel's freezers is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freezer {
    /// `cgroup.freeze`.
    V2,
    /// `freezer.state`.
    V1,
}

impl Hierarchy {
    /// Makes this use the v1 freezer also where v2 has one; false when there is none.
    pub fn prefer_v1_freezer(&mut self) -> bool {
        match self.spare_freezer.take() {
            Some(tree) => self.trees.push(tree),
            None => return self.trees.iter().any(is_v1_freezer),
        }
        true
    }

    /// Tries which freezer works here, v1 first when it is in use, on an empty cgroup of `group`.
    pub fn freezer(&self, group: &str) -> Option<Freezer> {
        let probe = self.create(group, "probe", &crate::driver::Limits::default()).ok()?;
        let works = |freezer: &Freezer| probe.freeze(*freezer).and_then(|()| probe.thaw(*freezer)).is_ok();
        let found = [Freezer::V1, Freezer::V2].into_iter().find(works);
        let _ = probe.remove(std::time::Duration::ZERO);
        found
    }

    /// Thaws whatever a v1 freezer holds under `group`, so that a kill can do its work.
    pub fn thaw_group(&self, group: &str) {
        for tree in self.all_trees().filter(|tree| is_v1_freezer(tree)) {
            for dir in find_groups(tree.mount_point(), group, SEARCH_DEPTH) {
                for child in children(&dir) {
                    // Gone already is as good.
                    let _ = files::write(&child.join(V1_STATE), "THAWED");
                }
            }
        }
    }
}

impl Cgroup {
    /// Asks the kernel to stop every process in it; [`Self::is_frozen`] tells when it has.
    ///
    /// # Errors
    /// `NotFound` when it is gone or has no such freezer.
    pub fn freeze(&self, freezer: Freezer) -> io::Result<()> {
        match freezer {
            Freezer::V2 => files::write(&self.part(freezer)?.join("cgroup.freeze"), "1"),
            Freezer::V1 => files::write(&self.part(freezer)?.join(V1_STATE), "FROZEN"),
        }
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn thaw(&self, freezer: Freezer) -> io::Result<()> {
        match freezer {
            Freezer::V2 => files::write(&self.part(freezer)?.join("cgroup.freeze"), "0"),
            Freezer::V1 => files::write(&self.part(freezer)?.join(V1_STATE), "THAWED"),
        }
    }

    /// Whether all of it stands still.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn is_frozen(&self, freezer: Freezer) -> io::Result<bool> {
        match freezer {
            Freezer::V2 => Ok(files::keyed(&self.part(freezer)?.join("cgroup.events"), "frozen")? == 1),
            Freezer::V1 => Ok(files::read(&self.part(freezer)?.join(V1_STATE))? == "FROZEN"),
        }
    }

    /// What is frozen by v1 dies only when it is thawed. Best effort: whoever kills looks for himself whether it worked.
    pub fn thaw_for_kill(&self) {
        if self.parts.iter().any(is_v1_freezer) {
            let _ = self.thaw(Freezer::V1);
        }
    }

    /// Memory charged to it; `None` where no tree counts it.
    pub fn memory(&self) -> Option<Bytes> {
        let part = self.memory_part()?;
        let file = match part.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        files::number(&part.base.join(file)).ok().map(Bytes)
    }

    /// The most that was ever charged to it; `None` where no tree counts it.
    pub fn peak_memory(&self) -> Option<Bytes> {
        let part = self.memory_part()?;
        let file = match part.version {
            Version::V1 => "memory.max_usage_in_bytes",
            // Since Linux 5.19.
            Version::V2 => "memory.peak",
        };
        files::number(&part.base.join(file)).ok().map(Bytes)
    }

    /// Moves what can be moved of its memory to swap, while `go_on` holds. v2 is asked in small steps; v1 has no measure.
    ///
    /// # Errors
    /// What the kernel said, or `Unsupported` where it cannot.
    pub fn reclaim(&self, go_on: impl Fn() -> bool) -> io::Result<()> {
        let part = self.memory_part().ok_or(io::ErrorKind::Unsupported)?;
        match part.version {
            Version::V1 if go_on() => files::write(&part.base.join("memory.force_empty"), "0"),
            Version::V1 => Ok(()),
            Version::V2 => reclaim_v2(&part.base, go_on),
        }
    }

    /// Whether [`Self::reclaim`] may do something.
    pub fn can_reclaim(&self) -> bool {
        self.memory_part().is_some_and(|part| {
            let file = match part.version {
                Version::V1 => "memory.force_empty",
                Version::V2 => "memory.reclaim",
            };
            part.base.join(file).exists()
        })
    }

    fn memory_part(&self) -> Option<&Tree> {
        self.parts
            .iter()
            .find(|part| part.controllers.contains(&Controller::Memory))
    }

    fn part(&self, freezer: Freezer) -> io::Result<&Path> {
        let has = |part: &&Tree| match freezer {
            Freezer::V2 => part.version == Version::V2,
            Freezer::V1 => is_v1_freezer(part),
        };
        let part = self.parts.iter().find(has).ok_or(io::ErrorKind::NotFound)?;
        Ok(&part.base)
    }
}

pub(super) fn is_v1_freezer(tree: &Tree) -> bool {
    tree.version == Version::V1 && tree.controllers.contains(&Controller::Freezer)
}

/// A sandbox with a memory limit has no swap (as the kubelet's pods); a frozen one may go there as a whole. What is there
/// stays when the limit is 0 again, and comes back as it is touched.
fn reclaim_v2(dir: &Path, go_on: impl Fn() -> bool) -> io::Result<()> {
    let swap = dir.join("memory.swap.max");
    let before = files::read(&swap).ok();
    if before.is_some() {
        files::write(&swap, "max")?;
    }
    let steps = files::number(&dir.join("memory.current"))? / RECLAIM_STEP + 1;
    for _ in 0..steps {
        // It fails when it got less than it was asked for: there is not more.
        if !go_on() || files::write(&dir.join("memory.reclaim"), &RECLAIM_STEP.to_string()).is_err() {
            break;
        }
    }
    match before {
        Some(limit) => files::write(&swap, &limit),
        None => Ok(()),
    }
}

const V1_STATE: &str = "freezer.state";

/// About 10 ms of work, so that a thaw is not slowed down for longer.
const RECLAIM_STEP: u64 = 4 << 20;
