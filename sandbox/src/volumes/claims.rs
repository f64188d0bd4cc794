//! The directories of claims: who has them, and which are to go when nobody has them any more.
//!
//! ```text
//! volumes/NS/NAME         what is claimed
//! volumes/NS/.NAME        its claim was deleted; it goes with its last user (Kubernetes: pvc-protection), or at the next start
//! volumes/.deleted/N      on its way out: nobody sees it any more
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use manifests::ids::{ObjectId, SandboxId};
use tokio::sync::Notify;

use super::{own_dir, remove};

/// All claims of one driver.
pub(super) struct Claims {
    root: PathBuf,
    known: Mutex<Known>,
    /// Somebody has let go of one.
    pub(super) released: Notify,
}

#[derive(Default)]
struct Known {
    claims: BTreeMap<ObjectId, Claim>,
    deletions: u64,
}

/// A claim that somebody has, or that is to go.
#[derive(Default)]
struct Claim {
    users: BTreeSet<SandboxId>,
    /// Its one user shares it with nobody.
    exclusive: bool,
    deleted: bool,
}

/// Why a sandbox cannot have a claim.
#[derive(Debug)]
pub(super) enum Taken {
    /// By this one.
    By(SandboxId),
    /// The claim was deleted.
    Deleted,
}

impl Claims {
    /// Makes the place, and removes what was on its way out. What is there stays, and so does the word that it is to go.
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        own_dir(&root)?;
        remove(&root.join(OUT))?;
        let mut known = Known::default();
        for claim in marked(&root)? {
            known.claims.entry(claim).or_default().deleted = true;
        }
        Ok(Self {
            root,
            known: Mutex::new(known),
            released: Notify::new(),
        })
    }

    /// Where it is.
    pub(super) fn path(&self, claim: &ObjectId) -> PathBuf {
        self.root.join(claim.namespace()).join(claim.name())
    }

    /// A sandbox has it from now on; again is fine.
    pub(super) fn take(&self, claim: &ObjectId, user: &SandboxId, exclusive: bool) -> Result<(), Taken> {
        let mut known = self.known();
        let entry = known.claims.entry(claim.clone()).or_default();
        if entry.deleted {
            return Err(Taken::Deleted);
        }
        let other = entry.users.iter().find(|other| *other != user);
        if let Some(other) = other
            && (exclusive || entry.exclusive)
        {
            return Err(Taken::By(other.clone()));
        }
        entry.users.insert(user.clone());
        entry.exclusive = exclusive;
        Ok(())
    }

    /// Who else has it, when it cannot be shared.
    pub(super) fn holder(&self, claim: &ObjectId, user: &SandboxId) -> Option<SandboxId> {
        let known = self.known();
        let mut users = known.claims.get(claim)?.users.iter();
        users.find(|other| *other != user).cloned()
    }

    /// A sandbox is gone. The last one takes a deleted claim with it. Blocks.
    pub(super) fn release(&self, claim: &ObjectId, user: &SandboxId) -> io::Result<()> {
        let out = {
            let mut known = self.known();
            let Some(entry) = known.claims.get_mut(claim) else {
                return Ok(());
            };
            entry.users.remove(user);
            let (free, deleted) = (entry.users.is_empty(), entry.deleted);
            if free && deleted {
                self.move_out(&mut known, claim)?
            } else {
                if free {
                    known.claims.remove(claim);
                }
                None
            }
        };
        self.released.notify_waiters();
        out.map_or(Ok(()), |out| remove(&out))
    }

    /// Its claim was deleted: it goes now, or with the last sandbox that has it. What is returned is to be removed: nobody
    /// sees it any more.
    pub(super) fn delete(&self, claim: &ObjectId) -> io::Result<Option<PathBuf>> {
        let mut known = self.known();
        let in_use = known.claims.get(claim).is_some_and(|entry| !entry.users.is_empty());
        if in_use {
            // Also when Knarr ends before the sandbox does.
            File::create(self.mark(claim))?;
            known.claims.entry(claim.clone()).or_default().deleted = true;
            return Ok(None);
        }
        self.move_out(&mut known, claim)
    }

    /// The claim is there, or there again: it stays.
    pub(super) fn keep(&self, claim: &ObjectId) -> io::Result<()> {
        let mut known = self.known();
        let Some(entry) = known.claims.get_mut(claim).filter(|entry| entry.deleted) else {
            return Ok(());
        };
        entry.deleted = false;
        if entry.users.is_empty() {
            known.claims.remove(claim);
        }
        remove_file(&self.mark(claim))
    }

    /// Those that are to go and that nobody has: an earlier Knarr has ended before their last user.
    pub(super) fn overdue(&self) -> Vec<ObjectId> {
        let known = self.known();
        let overdue = known.claims.iter().filter(|(_, it)| it.deleted && it.users.is_empty());
        overdue.map(|(claim, _)| claim.clone()).collect()
    }

    /// At once, for a new one of that name may come; what is in it may take long to remove.
    fn move_out(&self, known: &mut Known, claim: &ObjectId) -> io::Result<Option<PathBuf>> {
        own_dir(&self.root.join(OUT))?;
        let out = self.root.join(OUT).join(known.deletions.to_string());
        known.deletions += 1;
        let moved = match fs::rename(self.path(claim), &out) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            moved => Some(moved.map(|()| out)?),
        };
        known.claims.remove(claim);
        remove_file(&self.mark(claim))?;
        // The last one of its namespace.
        let _ = fs::remove_dir(self.root.join(claim.namespace()));
        Ok(moved)
    }

    fn mark(&self, claim: &ObjectId) -> PathBuf {
        self.root.join(claim.namespace()).join(format!(".{}", claim.name()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims that were deleted while somebody had them. No name of a claim or namespace begins with a dot.
fn marked(root: &Path) -> io::Result<Vec<ObjectId>> {
    let mut marked = Vec::new();
    for namespace in fs::read_dir(root)? {
        let namespace = namespace?;
        if !namespace.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(namespace.path())? {
            let name = entry?.file_name();
            if let (Some(namespace), Some(name)) = (namespace.file_name().to_str(), name.to_str())
                && let Some(claim) = name.strip_prefix('.')
            {
                marked.push(ObjectId::new(namespace, claim));
            }
        }
    }
    Ok(marked)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where deleted ones are until they are removed.
const OUT: &str = ".deleted";

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ObjectId {
        ObjectId::new("ns", name)
    }

    fn open(dir: &Path) -> Claims {
        Claims::open(dir.join("volumes")).unwrap()
    }

    /// Takes it, and writes something.
    fn fill(claims: &Claims, claim: &ObjectId, user: &str) {
        claims.take(claim, &SandboxId::new(user), false).unwrap();
        fs::create_dir_all(claims.path(claim)).unwrap();
        fs::write(claims.path(claim).join(user), "data").unwrap();
    }

    fn end(claims: &Claims, claim: &ObjectId, user: &str) {
        claims.release(claim, &SandboxId::new(user)).unwrap();
    }

    /// Everything below the place of claims.
    fn left(claims: &Claims) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![claims.root.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                found.push(path.strip_prefix(&claims.root).unwrap().display().to_string());
                open.extend(path.is_dir().then_some(path));
            }
        }
        found.retain(|path| path != OUT);
        found.sort();
        found
    }

    #[test]
    fn a_deleted_claim_goes_with_its_last_user() {
        let dir = tempfile::tempdir().unwrap();
        let claims = open(dir.path());
        let (a, b) = (id("a"), id("a.b"));
        for user in ["one", "two"] {
            fill(&claims, &a, user);
        }
        fill(&claims, &b, "one");
        end(&claims, &b, "one");
        assert_eq!(claims.delete(&a).unwrap(), None);
        remove(&claims.delete(&b).unwrap().unwrap()).unwrap();
        assert_eq!(left(&claims), ["ns", "ns/.a", "ns/a", "ns/a/one", "ns/a/two"]);
        assert!(matches!(
            claims.take(&a, &SandboxId::new("three"), false),
            Err(Taken::Deleted)
        ));
        end(&claims, &a, "one");
        assert!(claims.path(&a).join("one").exists(), "the other one still has it");
        end(&claims, &a, "two");
        assert_eq!(left(&claims), Vec::<String>::new());
        // A new one of that name is another one.
        fill(&claims, &a, "four");
        assert_eq!(left(&claims), ["ns", "ns/a", "ns/a/four"]);
        assert_eq!(claims.delete(&id("never")).unwrap(), None);
    }

    #[test]
    fn one_that_is_there_again_stays() {
        let dir = tempfile::tempdir().unwrap();
        let claims = open(dir.path());
        let a = id("a");
        fill(&claims, &a, "one");
        claims.delete(&a).unwrap();
        claims.keep(&a).unwrap();
        end(&claims, &a, "one");
        fill(&claims, &a, "two");
        assert_eq!(left(&claims), ["ns", "ns/a", "ns/a/one", "ns/a/two"]);
    }

    #[test]
    fn a_restart_loses_nothing_and_forgets_no_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let claims = open(dir.path());
        for name in ["stays", "goes", "again"] {
            fill(&claims, &id(name), "one");
        }
        claims.delete(&id("goes")).unwrap();
        claims.delete(&id("again")).unwrap();
        fs::create_dir_all(claims.root.join(OUT).join("7/deep")).unwrap();
        drop(claims);
        let claims = open(dir.path());
        assert!(!claims.root.join(OUT).join("7").exists());
        claims.keep(&id("again")).unwrap();
        assert_eq!(claims.overdue(), [id("goes")]);
        assert!(matches!(
            claims.take(&id("goes"), &SandboxId::new("x"), true),
            Err(Taken::Deleted)
        ));
        remove(&claims.delete(&id("goes")).unwrap().unwrap()).unwrap();
        assert_eq!(
            left(&claims),
            ["ns", "ns/again", "ns/again/one", "ns/stays", "ns/stays/one"]
        );
        drop(claims);
        assert!(open(dir.path()).overdue().is_empty());
    }

    #[test]
    fn shared_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let claims = open(dir.path());
        let (a, one, two) = (id("a"), SandboxId::new("one"), SandboxId::new("two"));
        for (first, second) in [(true, true), (true, false), (false, true)] {
            claims.take(&a, &one, first).unwrap();
            claims.take(&a, &one, first).unwrap();
            assert_eq!(claims.holder(&a, &two), Some(one.clone()));
            assert!(matches!(claims.take(&a, &two, second), Err(Taken::By(other)) if other == one));
            claims.release(&a, &one).unwrap();
            assert_eq!(claims.holder(&a, &two), None);
        }
        for user in [&one, &two] {
            claims.take(&a, user, false).unwrap();
        }
    }
}
