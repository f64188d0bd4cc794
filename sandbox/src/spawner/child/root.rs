//! A child makes its root: an empty file system or an image, the steps of a plan in it, and the change into it.
//!
//! An image's author decides what `/etc` or `/dev` is in it, a link to anywhere for instance. Every place inside is
//! therefore looked up by the kernel as if the root were changed already, never further out (`RESOLVE_IN_ROOT`).

use libc::c_int;

use super::text::Text;
use super::volume;
use super::{Birth, CWD, Report, at, failed, until_sure, value};
use crate::spawner::compile::{Layers, Op, Place, Root, Steps};
use crate::spawner::protocol::{Owner, Step};
use crate::spawner::raw::{Answer, sys};

/// Which list of steps a report is about.
pub(crate) const COMMON: u8 = 0;
pub(crate) const OF_ROOT: u8 = 1;
pub(crate) const OF_PLAN: u8 = 2;

/// A root that is mounted: where this child is, too.
#[derive(Clone, Copy)]
pub(super) struct Mounted {
    /// Opened as a place only.
    pub dir: usize,
    /// Everything in it was made by us: no look-up can lead out.
    ours: bool,
    /// The app's last words, to read.
    pub message: Option<usize>,
}

/// Where roots are made. What the host mounts later still comes in, until the pivot: a pooled shell must see a file
/// system that was mounted after it was made.
pub(super) fn make_stage(birth: &Birth) -> Result<(), Report> {
    // SAFETY: constant strings and the mount point, all NUL-terminated.
    unsafe {
        let slave = (libc::MS_REC | libc::MS_SLAVE) as usize;
        at(Step::Root, sys!(SYS_mount, 0, c"/".as_ptr() as usize, 0, slave, 0))?;
        let flags = (libc::MS_NOSUID | libc::MS_NODEV) as usize;
        let (tmpfs, root) = (c"tmpfs".as_ptr() as usize, birth.mountpoint.as_ptr() as usize);
        let options = c"mode=755,size=1m".as_ptr() as usize;
        at(Step::Root, sys!(SYS_mount, tmpfs, root, tmpfs, flags, options))?;
        at(Step::Root, sys!(SYS_chdir, root))
    }
}

/// Mounts a root; this child's working directory is in it then.
pub(super) fn make(birth: &Birth, root: &Root) -> Result<Mounted, Report> {
    match &root.layers {
        Some(layers) => make_layers(birth, layers)?,
        None => make_empty()?,
    }
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a constant string.
    let dir = unsafe { sys!(SYS_openat, CWD, c".".as_ptr() as usize, flags as usize, 0) };
    let mut mounted = Mounted {
        dir: value(Step::Root, dir)?,
        ours: root.layers.is_none(),
        message: None,
    };
    run(birth, mounted, &root.common, COMMON)?;
    run(birth, mounted, &root.steps, OF_ROOT)?;
    if let Some(file) = &root.message {
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
        // SAFETY: a NUL-terminated string of the spawner's.
        let file = unsafe { sys!(SYS_openat, CWD, file.as_ptr() as usize, flags, 0) };
        mounted.message = Some(value(Step::Root, file)?);
    }
    Ok(mounted)
}

/// An empty root of our own.
fn make_empty() -> Result<(), Report> {
    let (tmpfs, root) = (c"tmpfs".as_ptr() as usize, c"r".as_ptr() as usize);
    let flags = (libc::MS_NOSUID | libc::MS_NODEV) as usize;
    let options = c"mode=755,size=1m".as_ptr() as usize;
    // SAFETY: constant strings.
    unsafe {
        at(Step::Root, sys!(SYS_mkdirat, CWD, root, 0o755))?;
        at(Step::Root, sys!(SYS_mount, tmpfs, root, tmpfs, flags, options))?;
        at(Step::Root, sys!(SYS_chdir, root))
    }
}

/// The layers under short names, something to write to, and the overlay of all.
fn make_layers(birth: &Birth, layers: &Layers) -> Result<(), Report> {
    for (nth, (layer, name)) in (0u16..).zip(&layers.lowers) {
        // SAFETY: strings of the spawner's, NUL-terminated.
        let mounted = unsafe { bind_layer(birth, layer.as_ptr() as usize, name.as_ptr() as usize) };
        mounted.map_err(|errno| Report {
            index: nth,
            ..failed(Step::Layers, errno)
        })?;
    }
    let owner = Owner { uid: Some(0), gid: 0 };
    let mut upper = Text::new();
    upper.options(layers.upper.as_bytes(), birth, Some(owner));
    let id = birth.on_host(0) as usize;
    // SAFETY: constant strings, and options in the spawner's memory and on this stack, all NUL-terminated.
    unsafe {
        let (tmpfs, up) = (c"tmpfs".as_ptr() as usize, c"up".as_ptr() as usize);
        let flags = (libc::MS_NOSUID | libc::MS_NODEV) as usize;
        let (files, work, merged) = (
            c"up/u".as_ptr() as usize,
            c"up/w".as_ptr() as usize,
            c"r".as_ptr() as usize,
        );
        let overlay = c"overlay".as_ptr() as usize;
        at(Step::Root, sys!(SYS_mkdirat, CWD, up, 0o755))?;
        at(Step::Root, sys!(SYS_mount, tmpfs, up, tmpfs, flags, upper.address()))?;
        at(Step::Root, sys!(SYS_mkdirat, CWD, files, 0o755))?;
        at(Step::Root, sys!(SYS_fchownat, CWD, files, id, id, 0))?;
        at(Step::Root, sys!(SYS_mkdirat, CWD, work, 0o755))?;
        at(Step::Root, sys!(SYS_mkdirat, CWD, merged, 0o755))?;
        let options = layers.overlay.as_ptr() as usize;
        at(Step::Root, sys!(SYS_mount, overlay, merged, overlay, flags, options))?;
        at(Step::Root, sys!(SYS_chdir, merged))
    }
}

/// # Safety
/// Both are addresses of NUL-terminated strings.
unsafe fn bind_layer(birth: &Birth, layer: usize, name: usize) -> Result<(), i32> {
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    // SAFETY: as the caller promises.
    unsafe {
        sys!(SYS_mkdirat, CWD, name, 0o755)?;
        mount_tree(birth, layer, name, attributes, birth.maps_images, false)
    }
}

/// A copy of what is at `source`, on `target`.
///
/// # Safety
/// Both are addresses of NUL-terminated strings.
unsafe fn mount_tree(
    birth: &Birth,
    source: usize,
    target: usize,
    attributes: u64,
    mapped: bool,
    recursive: bool,
) -> Result<(), i32> {
    let (mut set, mut userns) = (attributes, 0);
    if mapped && let Some(own) = birth.users {
        set |= libc::MOUNT_ATTR_IDMAP;
        userns = u64::from(own.cast_unsigned());
    }
    let deep = if recursive { libc::AT_RECURSIVE as usize } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as usize | deep;
    let none = c"".as_ptr() as usize;
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let attr: [u64; 4] = [set, 0, 0, userns];
    // SAFETY: as the caller promises; `attr` has the size that is given.
    unsafe {
        let tree = sys!(SYS_open_tree, CWD, source, flags)?;
        let done = sys!(
            SYS_mount_setattr,
            tree,
            none,
            libc::AT_EMPTY_PATH as usize | deep,
            attr.as_ptr() as usize,
            size_of_val(&attr)
        )
        .and_then(|_| sys!(SYS_move_mount, tree, none, CWD, target, MOVE_MOUNT_FROM_FD_FOLLOWING));
        let _ = sys!(SYS_close, tree);
        done.map(drop)
    }
}

pub(super) fn run(birth: &Birth, root: Mounted, steps: &Steps, list: u8) -> Result<(), Report> {
    for (index, op) in (0u16..).zip(&steps.ops) {
        run_op(birth, root, op).map_err(|errno| Report {
            step: Step::Files as u8,
            list,
            index,
            errno,
        })?;
    }
    Ok(())
}

fn run_op(birth: &Birth, root: Mounted, op: &Op) -> Result<(), i32> {
    // SAFETY: every pointer is to a NUL-terminated string in the spawner's memory or on this stack.
    unsafe {
        match op {
            Op::Dir(place) => make_dir(birth, root, place),
            Op::Symlink { target, place } => {
                let (parent, name) = Found::parent(root, place)?;
                exists_is_fine(sys!(SYS_symlinkat, target.as_ptr() as usize, parent.fd(), name))
            }
            Op::File { place, content } => make_file(root, place, content),
            Op::Mount {
                fstype,
                place,
                options,
                owner,
                flags,
                read_only,
                optional,
            } => {
                let target = Found::at(root, &place.path, 0)?;
                let mut text = Text::new();
                text.options(options.as_bytes(), birth, *owner);
                let fstype = fstype.as_ptr() as usize;
                let mut path = Text::new();
                let to = target.path(&mut path);
                let mounted = sys!(SYS_mount, fstype, to, fstype, *flags as usize, text.address()).map(drop);
                if *optional && mounted.is_err() {
                    return Ok(());
                }
                mounted?;
                if *read_only {
                    // What was found lies below the new mount.
                    let above = Found::at(root, &place.path, 0)?;
                    set_attributes(above.path(&mut path), libc::MOUNT_ATTR_RDONLY, 0)?;
                }
                Ok(())
            }
            Op::Volume {
                source,
                sub_path,
                place,
                attributes,
            } => {
                let target = Found::at(root, &place.path, 0)?;
                let mut path = Text::new();
                let to = target.path(&mut path);
                volume::show(birth, source, sub_path.as_deref(), to, *attributes)
            }
            Op::Staged {
                source,
                sub_path,
                file,
                attributes,
            } => volume::stage(birth, source, sub_path.as_deref(), file, *attributes),
            Op::Bind {
                source,
                place,
                attributes,
                mapped,
            } => {
                let target = Found::at(root, &place.path, 0)?;
                let mut path = Text::new();
                let to = target.path(&mut path);
                // An empty source is the place itself.
                let from = if source.is_empty() {
                    to
                } else {
                    source.as_ptr() as usize
                };
                mount_tree(birth, from, to, *attributes, *mapped, true)
            }
            Op::Own {
                file,
                place,
                content,
                mode,
            } => {
                write_file(file, libc::O_WRONLY | libc::O_CREAT, content)?;
                let (id, path) = (birth.on_host(0) as usize, file.as_ptr() as usize);
                sys!(SYS_fchownat, CWD, path, id, id, 0)?;
                sys!(SYS_fchmodat, CWD, path, *mode)?;
                make_file(root, place, b"")?;
                let target = Found::at(root, &place.path, 0)?;
                let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
                mount_tree(birth, path, target.path(&mut Text::new()), attributes, false, false)
            }
            Op::Content { file, content } => write_file(file, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, content),
        }
    }
}

fn make_dir(birth: &Birth, root: Mounted, place: &Place) -> Result<(), i32> {
    let path = place.path.as_ptr() as usize;
    // SAFETY: NUL-terminated strings of the spawner's.
    unsafe {
        if root.ours {
            return exists_is_fine(sys!(SYS_mkdirat, CWD, path, 0o755));
        }
        match Found::at(root, &place.path, libc::O_DIRECTORY) {
            Err(libc::ENOENT) => {}
            other => return other.map(drop),
        }
        let (parent, name) = Found::parent(root, place)?;
        let id = birth.on_host(0) as usize;
        sys!(SYS_mkdirat, parent.fd(), name, 0o755)?;
        let nofollow = libc::AT_SYMLINK_NOFOLLOW as usize;
        sys!(SYS_fchownat, parent.fd(), name, id, id, nofollow).map(drop)
    }
}

/// A directory and those above it, where an image has none; the last one belongs to `owner`.
pub(super) fn make_dirs(birth: &Birth, root: Mounted, place: &Place) -> Result<(), i32> {
    if root.ours {
        return Ok(());
    }
    match Found::at(root, &place.path, libc::O_DIRECTORY) {
        Err(libc::ENOENT) => {}
        other => return other.map(drop),
    }
    // One component after the other, in a copy that is cut shorter: the path itself is the spawner's.
    let whole = place.path.as_bytes();
    let mut upto = 0;
    let mut parent = Text::new();
    while upto < whole.len() {
        let rest = &whole[upto..];
        let length = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let mut path = Text::new();
        path.push(&whole[..upto + length]);
        if Found::at_address(root, path.address(), libc::O_DIRECTORY).err() == Some(libc::ENOENT) {
            let above = if upto == 0 {
                Found::at_address(root, c".".as_ptr() as usize, 0)?
            } else {
                Found::at_address(root, parent.address(), 0)?
            };
            let mut name = Text::new();
            name.push(&rest[..length]);
            let id = birth.on_host(0) as usize;
            // SAFETY: NUL-terminated strings on this stack.
            unsafe {
                sys!(SYS_mkdirat, above.fd(), name.address(), 0o755)?;
                let nofollow = libc::AT_SYMLINK_NOFOLLOW as usize;
                sys!(SYS_fchownat, above.fd(), name.address(), id, id, nofollow)?;
            }
        }
        parent = path;
        upto += length + 1;
    }
    Ok(())
}

fn make_file(root: Mounted, place: &Place, content: &[u8]) -> Result<(), i32> {
    let create = libc::O_CREAT
        | libc::O_CLOEXEC
        | if content.is_empty() {
            libc::O_RDONLY
        } else {
            libc::O_WRONLY
        };
    if content.is_empty() && !root.ours {
        match Found::at(root, &place.path, 0) {
            Err(libc::ENOENT) => {}
            other => return other.map(drop),
        }
    }
    let file = lookup(root, place.path.as_ptr() as usize, create, 0o644)?;
    // SAFETY: `content` with its length.
    unsafe {
        let written = if content.is_empty() {
            Ok(0)
        } else {
            sys!(SYS_write, file, content.as_ptr() as usize, content.len())
        };
        let _ = sys!(SYS_close, file);
        written.map(drop)
    }
}

/// A place inside a root that is not only ours, held open so that its path cannot lead anywhere else.
struct Found {
    /// `None`: the path itself is safe, from here.
    held: Option<usize>,
    path: usize,
}

impl Found {
    fn at(root: Mounted, path: &std::ffi::CStr, flags: c_int) -> Result<Self, i32> {
        Self::at_address(root, path.as_ptr() as usize, flags)
    }

    fn at_address(root: Mounted, path: usize, flags: c_int) -> Result<Self, i32> {
        let held = if root.ours {
            None
        } else {
            Some(lookup(root, path, flags | libc::O_PATH | libc::O_CLOEXEC, 0)?)
        };
        Ok(Self { held, path })
    }

    /// Where something is made, and what it is called from there.
    fn parent(root: Mounted, place: &Place) -> Result<(Self, usize), i32> {
        let parent = Self::at(root, &place.parent, 0)?;
        let name = if root.ours { &place.path } else { &place.name };
        Ok((parent, name.as_ptr() as usize))
    }

    /// As the directory argument of a call.
    fn fd(&self) -> usize {
        self.held.unwrap_or(CWD)
    }

    /// As the path argument of a call.
    fn path(&self, text: &mut Text) -> usize {
        match self.held {
            None => self.path,
            Some(held) => {
                text.clear();
                text.push(b"/proc/self/fd/");
                text.number(held as u64);
                text.address()
            }
        }
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        if let Some(held) = self.held {
            // SAFETY: ours, and closed once.
            let _ = unsafe { sys!(SYS_close, held) };
        }
    }
}

fn lookup(root: Mounted, path: usize, flags: c_int, mode: u64) -> Answer {
    if root.ours {
        // SAFETY: the address of a NUL-terminated string, as in every call here.
        return unsafe { sys!(SYS_openat, CWD, path, flags as usize, mode as usize) };
    }
    // `struct open_how`: flags, mode, resolve.
    let how: [u64; 3] = [
        u64::from(flags.cast_unsigned()),
        mode,
        RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    ];
    // SAFETY: likewise; `how` has the size that is given.
    until_sure(|| unsafe { sys!(SYS_openat2, root.dir, path, how.as_ptr() as usize, size_of_val(&how)) })
}

/// The new root in place of the old one, which is then detached: nothing of the host is reachable any more but what was
/// bound. Nothing the host mounts from now on comes in.
pub(super) fn pivot(root: Mounted, read_only: bool) -> Result<(), Report> {
    let dot = c".".as_ptr() as usize;
    // SAFETY: constant strings, all NUL-terminated.
    unsafe {
        at(Step::Pivot, sys!(SYS_fchdir, root.dir))?;
        let private = (libc::MS_REC | libc::MS_PRIVATE) as usize;
        at(Step::Pivot, sys!(SYS_mount, 0, dot, 0, private, 0))?;
        if read_only {
            let read_only = set_attributes(dot, libc::MOUNT_ATTR_RDONLY, 0);
            at(Step::Pivot, read_only.map(|()| 0))?;
        }
        // Onto itself: the old root then lies on top of the new one and goes with the next call.
        at(Step::Pivot, sys!(SYS_pivot_root, dot, dot))?;
        at(Step::Pivot, sys!(SYS_umount2, dot, libc::MNT_DETACH as usize))?;
        at(Step::Pivot, sys!(SYS_chdir, c"/".as_ptr() as usize))
    }
}

/// The stage is the bundle. The runtime sees the host's files, its own process namespace, and cgroups that it cannot change:
/// what it makes stays in the shell's. On a hybrid host the unified tree is not for runtimes.
pub(super) fn hand_over(birth: &Birth) -> Result<(), Report> {
    let (proc, path) = (c"proc".as_ptr() as usize, c"/proc".as_ptr() as usize);
    let flags = (libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC) as usize;
    let (cgroup, unified) = (
        c"/sys/fs/cgroup".as_ptr() as usize,
        c"/sys/fs/cgroup/unified".as_ptr() as usize,
    );
    // SAFETY: constant strings and the mount point, all NUL-terminated.
    unsafe {
        at(Step::Root, sys!(SYS_chdir, birth.mountpoint.as_ptr() as usize))?;
        at(Step::Root, sys!(SYS_mount, proc, path, proc, flags, 0))?;
        let _ = sys!(SYS_umount2, unified, libc::MNT_DETACH as usize);
        let read_only = set_attributes(cgroup, libc::MOUNT_ATTR_RDONLY, libc::AT_RECURSIVE);
        at(Step::Root, read_only.map(|()| 0))
    }
}

const OPEN_TREE_CLONE: usize = 1;
/// `F_EMPTY_PATH` and `T_SYMLINKS`: a place that is held open is a link in `/proc`.
const MOVE_MOUNT_FROM_FD_FOLLOWING: usize = 0x04 | 0x10;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// # Safety
/// `path` is the address of a NUL-terminated string.
unsafe fn set_attributes(path: usize, attributes: u64, flags: c_int) -> Result<(), i32> {
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let attr: [u64; 4] = [attributes, 0, 0, 0];
    // SAFETY: `attr` has the size that is given.
    unsafe {
        sys!(
            SYS_mount_setattr,
            CWD,
            path,
            flags as usize,
            attr.as_ptr() as usize,
            size_of_val(&attr)
        )
    }
    .map(drop)
}

pub(super) fn write_file(path: &std::ffi::CStr, flags: c_int, content: &[u8]) -> Result<(), i32> {
    // SAFETY: a NUL-terminated path, and `content` with its length.
    unsafe {
        let file = sys!(
            SYS_openat,
            CWD,
            path.as_ptr() as usize,
            (flags | libc::O_CLOEXEC) as usize,
            0o644
        )?;
        let written = if content.is_empty() {
            Ok(0)
        } else {
            sys!(SYS_write, file, content.as_ptr() as usize, content.len())
        };
        let _ = sys!(SYS_close, file);
        written.map(drop)
    }
}

fn exists_is_fine(answer: Answer) -> Result<(), i32> {
    match answer {
        Err(errno) if errno != libc::EEXIST => Err(errno),
        _ => Ok(()),
    }
}
