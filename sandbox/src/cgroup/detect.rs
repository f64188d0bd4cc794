//! Where sandboxes may put their cgroups on this host: reads the mounts and the own cgroup, and picks one directory per tree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::freeze::is_v1_freezer;
use super::tree::{Controller, LIMITERS, Tree, Version};
use super::v2;
use crate::rootfs::CgroupMount;

/// What `/proc` says about the host, and where its files are; tests fill it from a fixture.
pub(super) struct Host {
    /// Put before every absolute path; `/` on a real host.
    pub root: PathBuf,
    /// `/proc/self/mountinfo`.
    pub mountinfo: String,
    /// `/proc/self/cgroup`.
    pub own: String,
}

/// A mounted cgroup tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    pub version: Version,
    /// v1 only: what is bound to it. A v2 tree says so in its files.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Which cgroup of the tree is mounted there; not `/` inside a container.
    pub root: PathBuf,
}

impl Host {
    pub(super) fn real() -> io::Result<Self> {
        Ok(Self {
            root: PathBuf::from("/"),
            mountinfo: fs::read_to_string("/proc/self/mountinfo")?,
            own: fs::read_to_string("/proc/self/cgroup")?,
        })
    }

    /// The trees to use, a v1 freezer that is not needed beside them, and for each limit that cannot be enforced, why, in
    /// words for the user.
    pub(super) fn trees(&self) -> (Vec<Tree>, Option<Tree>, Vec<String>) {
        let mounts = mounts(&self.mountinfo);
        let own = own_cgroups(&self.own);
        let mut trees = Vec::new();
        let mut refused = Vec::new();
        for mount in &mounts {
            let path = own
                .iter()
                .find(|(names, _)| *names == mount.controllers)
                .map_or("/", |(_, path)| path.as_str());
            let (point, own) = (self.under(&mount.point), self.under(&mount.own_dir(path)));
            let found = match mount.version {
                Version::V1 => v1_tree(mount, &own),
                Version::V2 => v2_tree(&point, &own),
            };
            match found {
                Ok(tree) => trees.push(tree),
                Err(why) => refused.push((mount.controllers.clone(), why)),
            }
        }
        let freezer = trees.iter().find(|tree| is_v1_freezer(tree)).cloned();
        drop_useless(&mut trees);
        let used = trees.iter().any(is_v1_freezer);
        let missing = missing(&trees, &refused);
        (trees, freezer.filter(|_| !used), missing)
    }

    fn under(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Mount {
    /// The directory of the own cgroup `path`, as far as it can be seen through this mount.
    fn own_dir(&self, path: &str) -> PathBuf {
        match Path::new(path).strip_prefix(&self.root) {
            Ok(inside) if inside.as_os_str().is_empty() => self.point.clone(),
            Ok(inside) => self.point.join(inside),
            Err(_) => self.point.clone(),
        }
    }
}

/// What a sandbox mounts to see its own cgroup, as this host shows its own: the v2 tree, or the v1 trees that limit.
pub(super) fn visible(mounts: &[Mount]) -> Vec<CgroupMount> {
    let limits = |mount: &&Mount| {
        let mut names = mount.controllers.iter().filter_map(|name| Controller::named(name));
        mount.version == Version::V1 && names.any(|controller| LIMITERS.contains(&controller))
    };
    let v1: Vec<_> = mounts.iter().filter(limits).collect();
    if v1.is_empty() {
        let v2 = mounts.iter().filter(|mount| mount.version == Version::V2).take(1);
        let whole = v2.map(|_| CgroupMount {
            dir: String::new(),
            fstype: "cgroup2",
            options: String::new(),
        });
        return whole.collect();
    }
    let each = v1.into_iter().map(|mount| CgroupMount {
        dir: mount
            .point
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        fstype: "cgroup",
        options: mount.controllers.join(","),
    });
    each.filter(|mount| !mount.dir.is_empty()).collect()
}

/// The cgroup mounts of a mountinfo text, each tree once (proc(5): optional fields end at ` - `).
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let mut right = right.split(' ');
        let (Some(fstype), _source, Some(options)) = (right.next(), right.next(), right.next()) else {
            continue;
        };
        let (Some(root), Some(point)) = (left.get(3), left.get(4)) else {
            continue;
        };
        let (version, controllers) = match fstype {
            "cgroup" => (Version::V1, v1_controllers(options)),
            "cgroup2" => (Version::V2, Vec::new()),
            _ => continue,
        };
        let mount = Mount {
            version,
            controllers,
            point: unescape(point),
            root: unescape(root),
        };
        if !found
            .iter()
            .any(|m| m.version == version && m.controllers == mount.controllers)
        {
            found.push(mount);
        }
    }
    found
}

/// The lines of `/proc/self/cgroup`: controllers (none for v2) and path.
fn own_cgroups(text: &str) -> Vec<(Vec<String>, String)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_id, names, path) = (parts.next()?, parts.next()?, parts.next()?);
            let mut names: Vec<String> = names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect();
            names.sort();
            Some((names, path.to_owned()))
        })
        .collect()
}

/// The controllers among the super options of a v1 mount, such as `rw,cpu,cpuacct` or `rw,xattr,name=systemd`.
fn v1_controllers(options: &str) -> Vec<String> {
    const FLAGS: [&str; 7] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
    ];
    let mut names: Vec<String> = options
        .split(',')
        .filter(|o| !FLAGS.contains(o) && !o.starts_with("release_agent="))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> PathBuf {
    let text = text
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\");
    PathBuf::from(text)
}

/// On v1 any cgroup may have both processes and children: sandboxes live below the own one, so that limits set on Knarr
/// itself hold for them too.
fn v1_tree(mount: &Mount, own: &Path) -> Result<Tree, String> {
    let controllers: Vec<Controller> = mount.controllers.iter().filter_map(|n| Controller::named(n)).collect();
    if writable(own) {
        Ok(Tree {
            version: Version::V1,
            controllers,
            base: own.to_owned(),
        })
    } else {
        Err(format!("{} is not writable for this user", own.display()))
    }
}

/// On v2 only a cgroup without processes may hand controllers to its children ("no internal processes"), the root
/// excepted. So: the nearest cgroup from the own one upwards that gives all three limits, else the one that gives most.
fn v2_tree(point: &Path, own: &Path) -> Result<Tree, String> {
    let mut best: Option<Tree> = None;
    // What we, or systemd for us (`DelegateSubgroup=`), have made to be in is not to be divided once more.
    let from = if own.file_name().is_some_and(|name| name == v2::LEAF) {
        own.parent().unwrap_or(own)
    } else {
        own
    };
    for dir in from.ancestors().take_while(|dir| dir.starts_with(point)) {
        if !writable(dir) || !writable(&dir.join("cgroup.procs")) {
            continue;
        }
        let controllers = v2::hand_down(dir, dir == own);
        let complete = LIMITERS.iter().all(|c| controllers.contains(c));
        if best.as_ref().is_none_or(|b| controllers.len() > b.controllers.len()) {
            best = Some(Tree {
                version: Version::V2,
                controllers,
                base: dir.to_owned(),
            });
        }
        if complete {
            break;
        }
    }
    best.ok_or_else(|| format!("no cgroup from {} upwards is writable for this user", own.display()))
}

fn writable(path: &Path) -> bool {
    access(path, Access::WRITE_OK).is_ok()
}

/// Every tree joined costs about 50 us of a start, so only those are kept that give a limit, the CPU time or a freezer. A
/// v2 tree gives CPU time, kill and freeze even without controllers; beside one, trees with nothing else are not needed.
fn drop_useless(trees: &mut Vec<Tree>) {
    let unified = trees.iter().any(|t| t.version == Version::V2);
    trees.retain(|tree| match tree.version {
        Version::V2 => true,
        Version::V1 => {
            tree.controllers.iter().any(|c| LIMITERS.contains(c))
                || (!unified
                    && [Controller::Cpuacct, Controller::Freezer]
                        .iter()
                        .any(|c| tree.controllers.contains(c)))
        }
    });
}

fn missing(trees: &[Tree], refused: &[(Vec<String>, String)]) -> Vec<String> {
    let mut missing = Vec::new();
    for limiter in LIMITERS {
        if trees.iter().any(|t| t.controllers.contains(&limiter)) {
            continue;
        }
        let unified = trees.iter().find(|t| t.version == Version::V2);
        let v1 = refused
            .iter()
            .find(|(names, _)| names.iter().any(|n| n == limiter.name()));
        let v2 = refused.iter().find(|(names, _)| names.is_empty());
        let why = match (v1, v2, unified) {
            (Some((_, why)), _, _) | (None, Some((_, why)), _) => why.clone(),
            (None, None, Some(tree)) => {
                format!(
                    "the {} controller is not handed down to {}",
                    limiter.name(),
                    tree.base.display()
                )
            }
            (None, None, None) => format!("no cgroup tree with the {} controller is mounted", limiter.name()),
        };
        missing.push(format!("{} are not enforced: {why}", limiter.limits()));
    }
    missing
}
