//! Turns messages into what a child can use without allocating: C strings, flag words, pointer arrays.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use libc::{c_char, sock_filter};

use super::protocol::{Access, FsStep, Owner, Plan, RootPlan};
use crate::rootfs::TERMINATION_LOG;

/// A place inside a root, relative to it.
pub(super) struct Place {
    pub path: CString,
    /// Its directory, and its name in there.
    pub parent: CString,
    pub name: CString,
}

/// A step of making a root, ready for the kernel.
pub(super) enum Op {
    Dir(Place),
    Symlink {
        target: CString,
        place: Place,
    },
    File {
        place: Place,
        content: Vec<u8>,
    },
    Mount {
        fstype: CString,
        place: Place,
        options: CString,
        owner: Option<Owner>,
        flags: libc::c_ulong,
        read_only: bool,
        optional: bool,
    },
    Bind {
        source: CString,
        place: Place,
        attributes: u64,
        mapped: bool,
    },
    Volume {
        source: CString,
        sub_path: Option<CString>,
        place: Place,
        attributes: u64,
    },
    /// `file` is a path of the host, beside the root.
    Staged {
        source: CString,
        sub_path: Option<CString>,
        file: CString,
        attributes: u64,
    },
    /// `file` likewise.
    Own {
        file: CString,
        place: Place,
        content: Vec<u8>,
        mode: usize,
    },
    Content {
        file: CString,
        content: Vec<u8>,
    },
}

/// Steps, and what they came to.
pub(super) struct Steps {
    pub ops: Vec<Op>,
    /// What went over the wire: to say in words what failed.
    pub list: Vec<FsStep>,
}

/// A [`RootPlan`], ready for the kernel.
pub(super) struct Root {
    pub layers: Option<Layers>,
    /// What all roots of its kind have.
    pub common: Arc<Steps>,
    pub steps: Steps,
    /// The file of its own for the app's last words, as a path of the host.
    pub message: Option<CString>,
}

/// The layers of an image, and what may be written over them.
pub(super) struct Layers {
    /// Topmost first, the skeleton last; and what each is called while it is mounted.
    pub lowers: Vec<(CString, CString)>,
    /// For the file system that is written to.
    pub upper: CString,
    pub overlay: CString,
}

/// A [`Plan`], ready for the kernel. Must not move while a child uses it: box it.
pub(super) struct Compiled {
    pub root: Option<Root>,
    pub steps: Steps,
    pub read_only: bool,
    pub runtime: bool,
    pub program: Vec<CString>,
    pub argv: Vec<*const c_char>,
    pub env: Vec<*const c_char>,
    pub cwd: Place,
    pub hostname: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub capabilities: u64,
    pub filter: Option<Arc<[sock_filter]>>,
    pub data_limit: Option<u64>,
    // `argv` and `env` point into these.
    _strings: Vec<CString>,
}

/// What is the same for all roots of one spawner.
pub(super) struct Workshop {
    /// Every root is mounted here.
    pub mountpoint: PathBuf,
    pub host: Arc<Steps>,
    pub image: Arc<Steps>,
    pub skeleton: PathBuf,
    /// Overlays keep their marks in user attributes.
    pub in_user_namespace: bool,
}

impl Workshop {
    /// # Errors
    /// `InvalidInput` when a path has a NUL in it, or an image too many layers for the kernel.
    pub(super) fn root(&self, plan: RootPlan) -> io::Result<Root> {
        let steps = match &plan {
            RootPlan::Host { steps } | RootPlan::Image { steps, .. } | RootPlan::Bundle { steps, .. } => {
                steps.as_slice()
            }
        };
        let has_message = steps
            .iter()
            .any(|step| matches!(step, FsStep::Own { name, .. } if name == TERMINATION_LOG));
        let message = has_message.then(|| c_path(&self.mountpoint.join(TERMINATION_LOG)));
        let message = message.transpose()?;
        Ok(match plan {
            RootPlan::Host { steps } => Root {
                layers: None,
                common: Arc::clone(&self.host),
                steps: self.steps(steps)?,
                message,
            },
            RootPlan::Image {
                layers,
                size,
                userxattr,
                steps,
            } => Root {
                layers: Some(self.layers(&layers, size, userxattr)?),
                common: Arc::clone(&self.image),
                steps: self.steps(steps)?,
                message,
            },
            RootPlan::Bundle {
                layers,
                size,
                userxattr,
                steps,
            } => Root {
                layers: Some(self.layers(&layers, size, userxattr)?),
                common: Arc::new(self.steps(Vec::new())?),
                steps: self.steps(steps)?,
                message,
            },
        })
    }

    fn layers(&self, layers: &[PathBuf], size: u64, userxattr: bool) -> io::Result<Layers> {
        let all = layers.iter().chain([&self.skeleton]);
        let lowers = all
            .enumerate()
            .map(|(nth, layer)| Ok((c_path(layer)?, CString::new(format!("{nth:x}"))?)))
            .collect::<io::Result<Vec<_>>>()?;
        let names: Vec<_> = lowers.iter().map(|(_, name)| name.to_string_lossy()).collect();
        // `userxattr` forbids `metacopy` and `redirect_dir` by itself.
        let extra = if userxattr || self.in_user_namespace {
            ",userxattr"
        } else {
            ",metacopy=off,redirect_dir=nofollow"
        };
        let overlay = format!(
            "lowerdir={},upperdir=up/u,workdir=up/w,index=off,xino=off{extra}",
            names.join(":")
        );
        if overlay.len() >= 4096 {
            let error = format!("an image of {} layers: this kernel takes fewer", layers.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        Ok(Layers {
            lowers,
            upper: CString::new(format!("mode=755,size={size}"))?,
            overlay: CString::new(overlay)?,
        })
    }

    /// # Errors
    /// `InvalidInput` when a string has a NUL in it.
    pub(super) fn steps(&self, list: Vec<FsStep>) -> io::Result<Steps> {
        let own = |name: &str| c_path(&self.mountpoint.join(name));
        let ops = list.iter().map(|step| op(step, &own)).collect::<io::Result<_>>()?;
        Ok(Steps { ops, list })
    }

    /// # Errors
    /// As [`Self::root`].
    pub(super) fn plan(&self, plan: Plan, filter: Option<Arc<[sock_filter]>>) -> io::Result<Compiled> {
        let strings = |list: Vec<Vec<u8>>| list.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let (argv, env) = (strings(plan.argv)?, strings(plan.env)?);
        Ok(Compiled {
            root: plan.root.map(|root| self.root(root)).transpose()?,
            steps: self.steps(plan.steps)?,
            read_only: plan.read_only,
            runtime: plan.runtime,
            program: strings(plan.program)?,
            argv: pointers(&argv),
            env: pointers(&env),
            cwd: place(&plan.cwd)?,
            hostname: plan.hostname.into_bytes(),
            uid: plan.uid,
            gid: plan.gid,
            groups: plan.groups,
            capabilities: plan.capabilities,
            filter,
            data_limit: plan.data_limit,
            _strings: argv.into_iter().chain(env).collect(),
        })
    }
}

fn op(step: &FsStep, own: &dyn Fn(&str) -> io::Result<CString>) -> io::Result<Op> {
    Ok(match step {
        FsStep::Dir { path } => Op::Dir(place(path)?),
        FsStep::Symlink { target, path } => Op::Symlink {
            target: c_path(target)?,
            place: place(path)?,
        },
        FsStep::File { path, content } => Op::File {
            place: place(path)?,
            content: content.clone().into_bytes(),
        },
        FsStep::Mount {
            fstype,
            path,
            options,
            owner,
            read_only,
            optional,
        } => Op::Mount {
            fstype: CString::new(fstype.as_str())?,
            place: place(path)?,
            options: CString::new(options.as_str())?,
            owner: *owner,
            flags: mount_flags(fstype),
            read_only: *read_only,
            optional: *optional,
        },
        FsStep::Volume {
            source,
            sub_path,
            path,
            read_only,
        } => Op::Volume {
            source: c_path(source)?,
            sub_path: sub_path.as_deref().map(c_path).transpose()?,
            place: place(path)?,
            attributes: of_volume(*read_only),
        },
        FsStep::Staged {
            source,
            sub_path,
            name,
            read_only,
        } => Op::Staged {
            source: c_path(source)?,
            sub_path: sub_path.as_deref().map(c_path).transpose()?,
            file: own(name)?,
            attributes: of_volume(*read_only),
        },
        FsStep::Bind {
            source,
            path,
            access,
            mapped,
        } => Op::Bind {
            source: c_path(source)?,
            place: place(path)?,
            attributes: match access {
                Access::ReadOnly => libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
                Access::ReadWrite => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
                Access::Device => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
            },
            mapped: *mapped,
        },
        FsStep::Own {
            name,
            path,
            content,
            writable_by_all,
        } => Op::Own {
            file: own(name)?,
            place: place(path)?,
            content: content.clone().into_bytes(),
            mode: if *writable_by_all { 0o666 } else { 0o644 },
        },
        FsStep::Content { name, content } => Op::Content {
            file: own(name)?,
            content: content.clone().into_bytes(),
        },
    })
}

const fn of_volume(read_only: bool) -> u64 {
    let fixed = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | fixed
}

/// What a step is about, for an error text.
pub(super) fn describe(step: &FsStep) -> String {
    match step {
        FsStep::Dir { path } => format!("make the directory {}", path.display()),
        FsStep::Symlink { path, .. } => format!("make the link {}", path.display()),
        FsStep::File { path, .. } => format!("write {}", path.display()),
        FsStep::Mount { fstype, path, .. } => format!("mount {fstype} on {}", path.display()),
        FsStep::Volume { source, path, .. } => format!("show the volume {} as {}", source.display(), path.display()),
        FsStep::Staged { source, .. } => format!("hand over the volume {}", source.display()),
        FsStep::Bind { source, path, .. } if source == path => format!("show {}", path.display()),
        FsStep::Bind { source, path, .. } => format!("show {} as {}", source.display(), path.display()),
        FsStep::Own { path, .. } => format!("mount a file of its own on {}", path.display()),
        FsStep::Content { name, .. } => format!("write {name}"),
    }
}

fn place(path: &Path) -> io::Result<Place> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let or_root = |path: &Path| {
        c_path(if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        })
    };
    Ok(Place {
        path: or_root(path)?,
        parent: or_root(path.parent().unwrap_or(Path::new("")))?,
        name: or_root(path.file_name().map_or(Path::new(""), Path::new))?,
    })
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
        "proc" | "mqueue" | "cgroup" | "cgroup2" => libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        // Its files are devices.
        "devpts" => libc::MS_NOSUID | libc::MS_NOEXEC,
        _ => libc::MS_NOSUID | libc::MS_NODEV,
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| CStr::as_ptr(s)).chain([ptr::null()]).collect()
}
