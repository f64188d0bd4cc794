//! What this machine can still take: its free memory less a reserve, and no more than our own cgroup leaves.

use std::path::{Path, PathBuf};
use std::thread;

use manifests::units::Bytes;

use super::state::Inner;
use crate::cgroup::GroupMemory;
use crate::cgroup::files::{self, Kept};
use crate::driver::Capacity;

const MIB: u64 = 1024 * 1024;
const MEMINFO: &str = "/proc/meminfo";

/// Kept for the host and for Knarr itself: 1/20 of the memory, at least 128 MiB.
fn reserve(total: u64) -> u64 {
    (total / 20).max(128 * MIB)
}

/// Where to look, the same as long as Knarr runs: a request at zero waits for what is asked here.
#[derive(Debug)]
pub(super) struct Host {
    cores: u32,
    meminfo: Kept,
    /// Memory cgroups that we are in.
    cgroups: Vec<Cgroup>,
    /// That of all sandboxes.
    group: Option<GroupMemory>,
}

impl Host {
    pub(super) fn find(group: Option<GroupMemory>) -> Self {
        let cores = thread::available_parallelism();
        Self {
            cores: cores.map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            meminfo: Kept::new(MEMINFO.into()),
            cgroups: own_cgroups(),
            group,
        }
    }
}

/// Looks now.
pub(super) fn now(inner: &Inner) -> Capacity {
    let (host, budget, used) = (&inner.host, inner.budget, used(inner));
    let left = budget.0.saturating_sub(used.0);
    let ours = host.cgroups.iter().filter_map(Cgroup::limit).map(|limit| limit.left);
    let meminfo = host.meminfo.read().unwrap_or_default();
    Capacity {
        cores: host.cores,
        free_memory: Bytes(free(&meminfo, ours.min()).min(left)),
        budget,
        used,
    }
}

/// By the group's cgroup; without one, by what each process has.
fn used(inner: &Inner) -> Bytes {
    let group = inner.host.group.as_ref().and_then(GroupMemory::used);
    group.unwrap_or_else(|| {
        let live: Vec<_> = inner.lock().live().collect();
        let each = live.iter().filter_map(|sandbox| sandbox.stats().ok());
        Bytes(each.map(|stats| stats.memory.0).sum())
    })
}

/// 75 % of the machine's memory, or of the limit that our own cgroup is under.
pub(super) fn default_budget() -> Bytes {
    share_of_memory(75)
}

/// `percent` of the machine's memory, or of the limit that our own cgroup is under.
pub fn share_of_memory(percent: u64) -> Bytes {
    let total = kib(&files::read(Path::new(MEMINFO)).unwrap_or_default(), "MemTotal");
    let limits = own_cgroups().into_iter().filter_map(|cgroup| cgroup.limit());
    let limit = limits.map(|limit| limit.most).min().unwrap_or(u64::MAX);
    Bytes(total.min(limit) / 100 * percent)
}

fn own_cgroups() -> Vec<Cgroup> {
    let own = files::read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    memory_cgroups(&own).into_iter().filter_map(Cgroup::of).collect()
}

fn kib(meminfo: &str, key: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// `MemAvailable` less the reserve, and what our cgroup leaves when that is less.
fn free(meminfo: &str, ours: Option<u64>) -> u64 {
    let (total, available) = (kib(meminfo, "MemTotal"), kib(meminfo, "MemAvailable"));
    available
        .min(ours.unwrap_or(u64::MAX))
        .saturating_sub(reserve(total.min(ours.unwrap_or(u64::MAX))))
}

/// Our own memory cgroup and those above it, whichever version.
fn memory_cgroups(own: &str) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mounts: &[&str] = match controllers {
            "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            c if c.split(',').any(|c| c == "memory") => &["/sys/fs/cgroup/memory"],
            _ => continue,
        };
        for mount in mounts {
            for up in Path::new(path).ancestors() {
                dirs.push(Path::new(mount).join(up.strip_prefix("/").unwrap_or(up)));
            }
        }
    }
    dirs
}

/// The files of a memory cgroup, v2 or v1. Its limit may be changed at any time.
#[derive(Debug)]
struct Cgroup {
    limit: Kept,
    used: Kept,
    stat: Kept,
    /// What the page cache that is easily given back is called in it.
    cache: &'static str,
}

/// A memory limit that we are under.
struct Limit {
    most: u64,
    left: u64,
}

impl Cgroup {
    /// `None` for a directory that is none, or a root that has no limit.
    fn of(dir: PathBuf) -> Option<Self> {
        let names = [
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ];
        let (limit, used, cache) = names.into_iter().find(|(limit, ..)| dir.join(limit).exists())?;
        let kept = |name| Kept::new(dir.join(name));
        Some(Self {
            limit: kept(limit),
            used: kept(used),
            stat: kept("memory.stat"),
            cache,
        })
    }

    /// Limit, and limit less use; `None` where there is no limit. Reclaimable page cache counts as free, as it does in
    /// `MemAvailable`.
    fn limit(&self) -> Option<Limit> {
        // v2's "no limit" is `max`, v1's is the largest page count.
        let most = self.limit.number().ok().filter(|limit| *limit < 1 << 62)?;
        let used = self.used.number().ok()?;
        let cache = self.stat.keyed(self.cache).unwrap_or(0);
        Some(Limit {
            most,
            left: most.saturating_sub(used.saturating_sub(cache)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_stays_and_the_own_cgroup_counts() {
        let info = "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:    8192000 kB\n";
        let total = 16_384_000 * 1024;
        assert_eq!(free(info, None), 8_192_000 * 1024 - total / 20);
        assert_eq!(free(info, Some(1024 * MIB)), (1024 - 128) * MIB);
        assert_eq!(free(info, Some(MIB)), 0);
        assert_eq!(free("", None), 0);
    }

    #[test]
    fn the_own_cgroup_is_found_in_either_version() {
        let dirs = memory_cgroups("4:cpu,memory:/a/b\n2:pids:/x\n0::/c\n");
        let dirs: Vec<&str> = dirs.iter().map(|d| d.to_str().unwrap()).collect();
        assert!(dirs.contains(&"/sys/fs/cgroup/memory/a/b"));
        assert!(dirs.contains(&"/sys/fs/cgroup/memory/a"));
        assert!(dirs.contains(&"/sys/fs/cgroup/c"));
        assert!(!dirs.iter().any(|d| d.contains("/x")));
    }
}
