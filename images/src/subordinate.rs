//! Subordinate ids: users and groups that an administrator lets an ordinary user give to namespaces of its own, in
//! `/etc/subuid` and `/etc/subgid` (subuid(5)), by the set-user-id programs `newuidmap` and `newgidmap`.
//!
//! With them an image's files have their owners on disk, and its processes users of their own. Files that such a user has
//! made are removed by [`crate::worker`], which is root among them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A stretch of ids of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// What an ordinary user was given, and the programs that hand it out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subordinate {
    uids: Vec<Range>,
    gids: Vec<Range>,
    programs: [PathBuf; 2],
}

/// A line of a user namespace's map: ids inside from `inside` on are ids of the host from `outside` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first id inside.
    pub inside: u32,
    /// The first of the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Ids of one namespace: as many as numeric ids in images go up to.
pub const RANGE: u32 = 65_536;

impl Subordinate {
    /// What this user has.
    ///
    /// # Errors
    /// What is missing, in words for the user.
    pub fn find() -> Result<Self, String> {
        // A program cannot gain rights then, and these must.
        if rustix::thread::no_new_privs().unwrap_or(false) {
            return Err("no_new_privs is set, so newuidmap cannot gain the right to map users".to_owned());
        }
        let programs = [program("newuidmap")?, program("newgidmap")?];
        let uid = rustix::process::geteuid().as_raw();
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = user_name(&users, uid).unwrap_or_default();
        let read = |path: &str| {
            let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            let ranges = parse(&text, &name, uid);
            let count: u64 = ranges.iter().map(|range| u64::from(range.count)).sum();
            if count < u64::from(RANGE) {
                let user = if name.is_empty() { uid.to_string() } else { name.clone() };
                return Err(format!("{path} gives {user} {count} ids, and {RANGE} are needed"));
            }
            Ok(ranges)
        };
        Ok(Self {
            uids: read("/etc/subuid")?,
            gids: read("/etc/subgid")?,
            programs,
        })
    }

    /// How many namespaces of [`RANGE`] ids they are enough for; at least one.
    pub fn ranges(&self) -> u32 {
        let of = |ranges: &[Range]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>() / u64::from(RANGE);
        u32::try_from(of(&self.uids).min(of(&self.gids))).unwrap_or(u32::MAX)
    }

    /// Maps users and groups of the namespace that process `pid` is in: this user's own to `own`, and the first `count`
    /// subordinate ones to those from `first` on.
    ///
    /// # Errors
    /// What `newuidmap` or `newgidmap` says, in words for the user. Users may be mapped then, and groups are not.
    pub fn map(&self, pid: i32, own: u32, first: u32, count: u32) -> Result<(), String> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for (program, id, ranges) in [
            (&self.programs[0], uid, &self.uids),
            (&self.programs[1], gid, &self.gids),
        ] {
            let mut extents = vec![Extent {
                inside: own,
                outside: id,
                count: 1,
            }];
            extents.extend(lay_out(ranges, first, count));
            let mut command = Command::new(program);
            command.arg(pid.to_string()).stdin(Stdio::null());
            for extent in extents {
                command.args([extent.inside, extent.outside, extent.count].map(|number| number.to_string()));
            }
            let output = command
                .output()
                .map_err(|error| format!("{}: {error}", program.display()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim();
                return Err(if said.is_empty() {
                    format!("{}: {}", program.display(), output.status)
                } else {
                    said.to_owned()
                });
            }
        }
        Ok(())
    }
}

fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|path: &PathBuf| Path::is_file(path));
    found.ok_or_else(|| format!("{name} is not installed (Debian package uidmap)"))
}

/// By number, from `passwd(5)`.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    passwd.lines().find_map(named)
}

/// Lines `NAME:FIRST:COUNT` or `UID:FIRST:COUNT` of this user; others, and broken ones, are passed over.
fn parse(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let ours = (!name.is_empty() && owner == name) || owner == number;
        // The last id is none, and nobody is given root.
        (ours && first > 0 && count > 0 && first.checked_add(count).is_some()).then_some(Range { first, count })
    };
    text.lines().filter_map(range).collect()
}

/// The first `count` ids of the ranges, one after the other, from `inside` on.
fn lay_out(ranges: &[Range], mut inside: u32, mut count: u32) -> Vec<Extent> {
    let mut extents = Vec::new();
    for range in ranges {
        let taken = range.count.min(count);
        if taken == 0 {
            break;
        }
        extents.push(Extent {
            inside,
            outside: range.first,
            count: taken,
        });
        inside = inside.saturating_add(taken);
        count -= taken;
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_this_user_count_and_broken_ones_do_not() {
        let text = "root:100000:65536\nme:200000:65536\n\n# me:1:2\nme:300000\nme:x:5\nmeme:1:1\n1000:400000:10\nme:0:7\n\
                    me:4294967295:9\n me:500000:1\nme:600000:0\n";
        let range = |first, count| Range { first, count };
        assert_eq!(
            parse(text, "me", 1000),
            [range(200_000, 65_536), range(400_000, 10), range(500_000, 1)]
        );
        assert_eq!(parse(text, "", 1000), [range(400_000, 10)]);
        assert_eq!(parse(text, "other", 5), []);
    }

    #[test]
    fn names_come_from_the_user_database() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nme:x:1000:1000:,,,:/home/me:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("me"));
        assert_eq!(user_name(passwd, 7), None);
    }

    #[test]
    fn ranges_are_laid_out_one_after_the_other_up_to_what_is_wanted() {
        let ranges = [Range { first: 500, count: 10 }, Range { first: 900, count: 100 }];
        let extents = |inside, count| {
            let all = lay_out(&ranges, inside, count);
            all.iter()
                .map(|it| (it.inside, it.outside, it.count))
                .collect::<Vec<_>>()
        };
        assert_eq!(extents(1, 10), [(1, 500, 10)]);
        assert_eq!(extents(1, 15), [(1, 500, 10), (11, 900, 5)]);
        assert_eq!(extents(7, 1000), [(7, 500, 10), (17, 900, 100)]);
        assert_eq!(extents(1, 0), []);
        let all = Subordinate {
            uids: vec![Range {
                first: 1,
                count: 3 * RANGE + 5,
            }],
            gids: vec![
                Range { first: 1, count: RANGE },
                Range {
                    first: 100_000,
                    count: RANGE,
                },
            ],
            programs: [PathBuf::new(), PathBuf::new()],
        };
        assert_eq!(all.ranges(), 2);
    }
}
