//! What is in a new volume, and who may use it: files of ConfigMaps and Secrets, and the group of `fsGroup`.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown};
use std::path::Path;

use manifests::text::Facts;
use manifests::workload::{FileContent, VolumeFile};

/// Every user inside may write, as in Kubernetes' `emptyDir`; what is made belongs to the group, when there is one.
pub(super) fn open_to_all(path: &Path, group: Option<u32>) -> io::Result<()> {
    if let Some(group) = group {
        give(path, group)?;
    }
    // Last: a change of the owner takes set-group-id away.
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Makes `files` below `path`, which is empty. The group may read all of them.
pub(super) fn files(path: &Path, files: &[VolumeFile], group: Option<u32>, facts: &Facts) -> io::Result<()> {
    for file in files {
        let to = path.join(&file.path);
        if let Some(parent) = to.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to)?;
        match &file.content {
            FileContent::Bytes(bytes) => open.write_all(bytes)?,
            FileContent::Text(text) => open.write_all(text.fill(facts).as_bytes())?,
        }
        let mut mode = file.mode;
        if let Some(group) = group {
            give(&to, group)?;
            mode |= 0o440;
        }
        open.set_permissions(Permissions::from_mode(mode))?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Gives everything to a group, which may then read and write it (Kubernetes: `SetVolumeOwnership`, `OnRootMismatch`).
pub(super) fn give_to_group(path: &Path, group: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.gid() == group && meta.mode() & 0o2070 == 0o2070 {
        return Ok(());
    }
    for entry in walk(path)? {
        let meta = fs::symlink_metadata(&entry)?;
        give(&entry, group)?;
        if meta.is_symlink() {
            continue;
        }
        let more = if meta.is_dir() { 0o2770 } else { 0o660 };
        fs::set_permissions(&entry, Permissions::from_mode(meta.mode() & 0o7777 | more))?;
    }
    open_to_all(path, Some(group))
}

/// Only root can give; an ordinary user's sandboxes have one user and one group.
fn give(path: &Path, group: u32) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match fs::symlink_metadata(path)?.is_symlink() {
        true => lchown(path, None, Some(group)),
        false => chown(path, None, Some(group)),
    }
}

/// Everything below a directory, links not followed.
fn walk(path: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![path.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    Ok(found)
}
