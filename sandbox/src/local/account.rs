//! Who an image's app runs as: its user by name or number, through the image's own `/etc/passwd` and `/etc/group`.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use manifests::workload::Security;
use rustix::fs::{OFlags, ResolveFlags};

use crate::inside;

/// A user of an image, as its processes see it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
    /// Further groups: those that the image lists it in.
    pub groups: Vec<u32>,
    /// Its home directory; `None` when the image does not know the user.
    pub home: Option<String>,
}

/// What is known of users of an image.
pub(super) struct Users {
    passwd: String,
    group: String,
}

/// More of a file is not read.
const LARGEST: u64 = 1 << 20;

impl Users {
    /// Reads the files as if `root` were the root directory; missing ones are empty.
    pub(super) fn read(root: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            passwd: text(root, "etc/passwd")?,
            group: text(root, "etc/group")?,
        })
    }

    /// The account that `image_user` (`user`, `uid`, `user:group`, `uid:gid` or nothing) and a manifest's security context
    /// come to, as container runtimes do it.
    ///
    /// # Errors
    /// Why there is none, in words for the user.
    pub(super) fn account(&self, image_user: &str, security: &Security) -> Result<Account, String> {
        let (user, group) = image_user.split_once(':').unwrap_or((image_user, ""));
        let known = match security.user {
            Some(uid) => self.user(&uid.to_string()),
            None if user.is_empty() => self.user("0"),
            None => self.user(user),
        };
        let uid = match (security.user, &known) {
            (Some(uid), _) => uid,
            (None, Some(known)) => known.uid,
            (None, None) if user.is_empty() => 0,
            (None, None) => user
                .parse()
                .map_err(|_| format!("the image's user {user:?} is not in its /etc/passwd"))?,
        };
        let named = || match self.group(group) {
            Some(gid) => Ok(gid),
            None => group
                .parse()
                .map_err(|_| format!("the image's group {group:?} is not in its /etc/group")),
        };
        let gid = match (security.group, security.user) {
            (Some(gid), _) => gid,
            // Who is replaced takes the group along.
            (None, None) if !group.is_empty() => named()?,
            _ => known.as_ref().map_or(0, |known| known.gid),
        };
        if uid > LAST || gid > LAST {
            return Err(format!("user {uid} and group {gid}: a sandbox has ids up to {LAST}"));
        }
        if security.non_root && uid == 0 {
            return Err("runAsNonRoot: the image runs as root (uid 0); set runAsUser, or USER in the image".to_owned());
        }
        Ok(Account {
            uid,
            gid,
            groups: known
                .as_ref()
                .map_or_else(Vec::new, |known| self.groups_of(&known.name)),
            home: known.map(|known| known.home),
        })
    }

    /// By name, or by number.
    fn user(&self, wanted: &str) -> Option<User> {
        let number = wanted.parse().ok();
        let users = || self.passwd.lines().filter_map(User::parse);
        users()
            .find(|user| user.name == wanted)
            .or_else(|| users().find(|user| Some(user.uid) == number))
    }

    fn group(&self, wanted: &str) -> Option<u32> {
        let mut groups = self.group.lines().filter_map(group_line);
        groups.find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid)
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let groups = self.group.lines().filter_map(group_line);
        groups
            .filter(|(_, _, members)| members.split(',').any(|member| member == user))
            .map(|(_, gid, _)| gid)
            .filter(|gid| *gid <= LAST)
            .collect()
    }
}

/// The largest id inside.
pub(super) const LAST: u32 = 65_535;

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl User {
    /// `name:password:uid:gid:comment:home:shell`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/").to_owned();
        Some(Self { name, uid, gid, home })
    }
}

/// `name:password:gid:members`.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or("")))
}

fn text(root: &OwnedFd, path: &str) -> io::Result<String> {
    // A pipe or a device in its place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match inside::open(root, path, flags, resolve) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(String::new());
        }
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn users() -> Users {
        Users {
            passwd: "root:x:0:0:root:/root:/bin/sh\n\nbroken\nweb:x:101:102:Web:/var/www:/bin/false\n1000:x:7:8::/n:\n\
                     big:x:70000:1::/:\n"
                .to_owned(),
            group: "root:x:0:\nwheel:x:10:root,web\nstaff:x:20:other,web\nwww:x:33:\nhuge:x:99999:web\n".to_owned(),
        }
    }

    #[test]
    fn users_and_groups_come_to_what_container_runtimes_make_of_them() {
        let plain = Security::default();
        let asked = |user, group| Security {
            user,
            group,
            ..Security::default()
        };
        let cases = [
            ("", plain.clone(), (0, 0, vec![10], Some("/root"))),
            ("web", plain.clone(), (101, 102, vec![10, 20], Some("/var/www"))),
            ("101", plain.clone(), (101, 102, vec![10, 20], Some("/var/www"))),
            ("web:www", plain.clone(), (101, 33, vec![10, 20], Some("/var/www"))),
            ("5:6", plain.clone(), (5, 6, vec![], None)),
            ("5", plain.clone(), (5, 0, vec![], None)),
            // A name that looks like a number is a name.
            ("1000", plain.clone(), (7, 8, vec![], Some("/n"))),
            ("web", asked(Some(9), None), (9, 0, vec![], None)),
            ("web:www", asked(Some(0), None), (0, 0, vec![10], Some("/root"))),
            ("web", asked(None, Some(44)), (101, 44, vec![10, 20], Some("/var/www"))),
            ("", asked(Some(101), Some(1)), (101, 1, vec![10, 20], Some("/var/www"))),
        ];
        for (user, security, (uid, gid, groups, home)) in cases {
            let wanted = Account {
                uid,
                gid,
                groups,
                home: home.map(str::to_owned),
            };
            assert_eq!(users().account(user, &security), Ok(wanted), "{user:?} {security:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let non_root = Security {
            non_root: true,
            ..Security::default()
        };
        let cases = [
            ("nobody", Security::default(), "\"nobody\" is not in its /etc/passwd"),
            (
                "web:nogroup",
                Security::default(),
                "\"nogroup\" is not in its /etc/group",
            ),
            ("", non_root.clone(), "runAsNonRoot"),
            ("0:5", non_root, "runAsNonRoot"),
            ("big", Security::default(), "70000"),
            ("99999", Security::default(), "65535"),
        ];
        for (user, security, wanted) in cases {
            let error = users().account(user, &security).unwrap_err();
            assert!(error.contains(wanted), "{user:?}: {error}");
        }
    }

    #[test]
    fn files_are_looked_up_inside_whatever_links_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc/real")).unwrap();
        fs::write(dir.path().join("outside"), "evil:x:0:0::/:\n").unwrap();
        fs::write(root.join("outside"), "inside:x:3:4::/:\n").unwrap();
        // Absolute and far up: both end at the root's own file.
        symlink("/../../outside", root.join("etc/passwd")).unwrap();
        symlink("/proc/self/environ", root.join("etc/group")).unwrap();
        let open =
            |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap();
        let users = Users::read(&open(&root)).unwrap();
        assert_eq!(users.passwd, "inside:x:3:4::/:\n");
        assert_eq!(users.group, "");
        assert_eq!(Users::read(&open(&root.join("etc/real"))).unwrap().passwd, "");
    }
}
