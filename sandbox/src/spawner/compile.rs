//! Turns messages into what a child can use without allocating: C strings, flag words, pointer arrays.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use libc::c_char;

use super::protocol::{Access, FsStep, Plan};

/// A step of making a root, ready for the kernel; paths as seen from the host.
pub(super) enum Op {
    Dir(CString),
    Symlink {
        target: CString,
        path: CString,
    },
    File {
        path: CString,
        content: Vec<u8>,
    },
    Mount {
        fstype: CString,
        path: CString,
        options: CString,
        flags: libc::c_ulong,
    },
    Bind {
        source: CString,
        path: CString,
        attributes: u64,
    },
}

/// A [`Plan`], ready for the kernel. Must not move while a child uses it: box it.
pub(super) struct Compiled {
    pub root: Vec<Op>,
    pub program: CString,
    pub argv: Vec<*const c_char>,
    pub env: Vec<*const c_char>,
    pub cwd: CString,
    pub hostname: Vec<u8>,
    pub uid: u32,
    pub data_limit: Option<u64>,
    /// What went over the wire: to say in words what failed.
    pub steps: Vec<FsStep>,
    // `argv` and `env` point into these.
    _strings: Vec<CString>,
}

impl Compiled {
    /// # Errors
    /// `InvalidInput` when a string has a NUL in it.
    pub(super) fn new(plan: Plan, mountpoint: &Path) -> io::Result<Self> {
        let argv: Vec<CString> = plan.argv.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let env: Vec<CString> = plan.env.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        Ok(Self {
            root: ops(&plan.root, mountpoint)?,
            program: CString::new(plan.program)?,
            argv: pointers(&argv),
            env: pointers(&env),
            cwd: c_path(&plan.cwd)?,
            hostname: plan.hostname.into_bytes(),
            uid: plan.uid,
            data_limit: plan.data_limit,
            steps: plan.root,
            _strings: argv.into_iter().chain(env).collect(),
        })
    }
}

/// The steps, with their paths moved below `mountpoint`.
pub(super) fn ops(steps: &[FsStep], mountpoint: &Path) -> io::Result<Vec<Op>> {
    let under = |path: &Path| c_path(&mountpoint.join(path.strip_prefix("/").unwrap_or(path)));
    steps
        .iter()
        .map(|step| {
            Ok(match step {
                FsStep::Dir { path } => Op::Dir(under(path)?),
                FsStep::Symlink { target, path } => Op::Symlink {
                    target: c_path(target)?,
                    path: under(path)?,
                },
                FsStep::File { path, content } => Op::File {
                    path: under(path)?,
                    content: content.clone().into_bytes(),
                },
                FsStep::Mount { fstype, path, options } => Op::Mount {
                    fstype: CString::new(fstype.as_str())?,
                    path: under(path)?,
                    options: CString::new(options.as_str())?,
                    flags: mount_flags(fstype),
                },
                FsStep::Bind { source, path, access } => Op::Bind {
                    source: c_path(source)?,
                    path: under(path)?,
                    attributes: match access {
                        Access::ReadOnly => libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
                        Access::Device => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
                    },
                },
            })
        })
        .collect()
}

/// What a step is about, for an error text.
pub(super) fn describe(step: &FsStep) -> String {
    match step {
        FsStep::Dir { path } => format!("make the directory {}", path.display()),
        FsStep::Symlink { path, .. } => format!("make the link {}", path.display()),
        FsStep::File { path, .. } => format!("write {}", path.display()),
        FsStep::Mount { fstype, path, .. } => format!("mount {fstype} on {}", path.display()),
        FsStep::Bind { source, path, .. } if source == path => format!("show {}", path.display()),
        FsStep::Bind { source, path, .. } => format!("show {} as {}", source.display(), path.display()),
    }
}

pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The mount point as the spawner uses it: without links, so that nobody can turn it elsewhere later.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

fn mount_flags(fstype: &str) -> libc::c_ulong {
    match fstype {
        "proc" => libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        // Devices are what it is for.
        "devpts" => libc::MS_NOSUID | libc::MS_NOEXEC,
        _ => libc::MS_NOSUID | libc::MS_NODEV,
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| CStr::as_ptr(s)).chain([ptr::null()]).collect()
}
