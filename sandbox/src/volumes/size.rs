//! How much a directory holds on disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes in use by everything in it, each file once. What cannot be read, or goes meanwhile, counts nothing: an app that
/// hides files from itself hides them from nobody else for long, and root sees them all.
pub(super) fn of(path: &Path) -> u64 {
    let (mut total, mut seen, mut open) = (0u64, HashSet::new(), vec![path.to_owned()]);
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            // Of the entry itself: links are not followed.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.nlink() > 1 && !seen.insert(meta.ino()) {
                continue;
            }
            total = total.saturating_add(meta.blocks().saturating_mul(512));
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_file_counts_once_and_holes_and_links_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let empty = of(dir.path());
        fs::write(dir.path().join("a"), vec![1; 1 << 20]).unwrap();
        let one = of(dir.path());
        assert!((1 << 20..(1 << 20) + 65536).contains(&(one - empty)), "{one}");
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        symlink("a", dir.path().join("c")).unwrap();
        fs::File::create(dir.path().join("hole"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert!(of(dir.path()) - one < 65536);
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/e"), vec![1; 1 << 20]).unwrap();
        assert!(of(dir.path()) - one >= 1 << 20);
        assert_eq!(of(&dir.path().join("none")), 0);
    }
}
