//! What Knarr and its spawner say to each other. Versioned: both ends come from one binary today, but a restart will
//! meet a spawner of the version before.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::driver::ExitStatus;

/// The version of these messages; a spawner refuses any other.
pub(crate) const VERSION: u32 = 3;

/// Counts the shells of one driver; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct ShellId(pub u64);

/// Counts the commands run in sandboxes of one driver; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct CommandId(pub u64);

/// Knarr to spawner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first message, once. Descriptors: the lock on the data directory, held until the spawner has cleaned up.
    Setup(Setup),
    /// Make a shell: a process in its own namespaces that waits for [`Request::Go`]. Descriptors: the `cgroup.procs`
    /// files it joins.
    Prepare {
        /// Its name from now on.
        shell: ShellId,
        /// Its app's user namespace.
        users: Users,
        /// What it mounts while it waits.
        root: Option<Box<RootPlan>>,
        /// Whose network, IPC and host name it shares, and whose users where they are its own; it has ended when this does.
        beside: Option<ShellId>,
    },
    /// Turn a shell into a sandbox.
    Go {
        /// Which one.
        shell: ShellId,
        /// Into what.
        plan: Box<Plan>,
    },
    /// Kill the shell or sandbox.
    Kill {
        /// Which one.
        shell: ShellId,
    },
    /// Run a command in a sandbox. Descriptors: its standard input, output and error, or a socket that its terminal is
    /// sent over, in place of the three; then the `cgroup.procs` files it joins.
    Command {
        /// Its name from now on.
        command: CommandId,
        /// In which sandbox.
        shell: ShellId,
        /// What to run; the root is the sandbox's own, so there are no steps in it.
        plan: Box<Plan>,
        /// Rows and columns of its terminal; `None` for three streams.
        terminal: Option<(u16, u16)>,
    },
    /// Send a signal to a command and its process group.
    Signal {
        /// Which one.
        command: CommandId,
        /// Its number.
        signal: i32,
    },
}

/// Spawner to Knarr.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Answers `Setup`: sandboxes work, this way.
    Ready {
        /// What works on this host.
        abilities: Abilities,
    },
    /// Answers `Setup`: they do not work; the spawner has ended.
    Refused {
        /// Why, in words for the user.
        reason: String,
    },
    /// The shell has a process. Descriptors: its pidfd, the read ends of stdout and stderr, its network namespace (if it
    /// has one).
    Prepared {
        /// Which one.
        shell: ShellId,
        /// Its number in the host's PID namespace.
        pid: i32,
    },
    /// The shell has mounted its root. Descriptors: the root itself, to look files up in; only of an image.
    Rooted {
        /// Which one.
        shell: ShellId,
    },
    /// The program runs (or was killed just before).
    Executed {
        /// Which one.
        shell: ShellId,
    },
    /// A step failed; nothing of the user's has run. [`Event::Exited`] follows when there was a process.
    Failed {
        /// Which one.
        shell: ShellId,
        /// What was tried.
        step: Step,
        /// In more words: the path, for example.
        detail: String,
        /// What the kernel said.
        errno: i32,
        /// Whether `Exited` follows.
        had_process: bool,
    },
    /// The command has a process. Descriptor: its pidfd.
    CommandMade {
        /// Which one.
        command: CommandId,
    },
    /// The command runs.
    CommandExecuted {
        /// Which one.
        command: CommandId,
    },
    /// A step failed; nothing of the command has run, and nothing more is said of it.
    CommandFailed {
        /// Which one.
        command: CommandId,
        /// What was tried.
        step: Step,
        /// What the kernel said.
        errno: i32,
    },
    /// The command has ended.
    CommandExited {
        /// Which one.
        command: CommandId,
        /// How.
        status: ExitStatus,
    },
    /// Every process of it is gone, and its namespaces with them.
    Exited {
        /// Which one.
        shell: ShellId,
        /// How the first process ended.
        status: ExitStatus,
    },
}

/// How sandboxes are isolated on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Isolation {
    /// By root: every namespace, owned by the host, and where the kernel allows it, users of its own for each sandbox.
    Root,
    /// By an ordinary user: the spawner has a user namespace, sandboxes the other namespaces in it.
    UserNamespace,
    /// Not at all: plain processes.
    None,
}

/// What works on this host, found by trying it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Abilities {
    /// How sandboxes are isolated.
    pub isolation: Isolation,
    /// Each sandbox has users of its own; else why not, in words.
    pub own_users: Result<(), String>,
    /// Images can be run at all.
    pub images: Result<(), String>,
    /// Files of an image have its own users inside.
    pub mapped_images: Result<(), String>,
    /// An ordinary user's: how many sandboxes at once can have users of their own; all others share one range.
    pub alone: Option<u32>,
}

impl Abilities {
    /// The users of a program of this host.
    pub(crate) fn host_users(&self) -> Users {
        match self.own_users {
            Ok(()) => Users::Own,
            Err(_) => Users::Spawners,
        }
    }

    /// The users of an image that runs as `uid` and `gid`.
    pub(crate) fn image_users(&self, uid: u32, gid: u32) -> Users {
        match (self.isolation, &self.own_users, &self.mapped_images) {
            (Isolation::None, ..) => Users::Spawners,
            (Isolation::UserNamespace, _, Ok(())) => Users::Range,
            (Isolation::UserNamespace, ..) => Users::Single { uid, gid },
            (Isolation::Root, Ok(()), Ok(())) => Users::Own,
            (Isolation::Root, Ok(()), Err(_)) => Users::Shared,
            (Isolation::Root, Err(_), _) => Users::Spawners,
        }
    }
}

/// Uids, and gids of the same numbers, that only sandboxes have: `count` ranges of 65536.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UidRanges {
    /// The first uid of the first range. Default 0x7000_0000: above what user databases and subordinate ranges hand out.
    pub first: u32,
    /// At most this many sandboxes and shells have users of their own at once. Default 4096.
    pub count: u32,
}

impl Default for UidRanges {
    fn default() -> Self {
        Self {
            first: 0x7000_0000,
            count: 4096,
        }
    }
}

/// Whose user namespace a shell's app will enter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum Users {
    /// The spawner's own: none is entered.
    Spawners,
    /// One with a range of 65536 uids that no other sandbox has; for an ordinary user as long as there are some.
    Own,
    /// An ordinary user's first range of subordinate ids, with its own user as root: that of the files of images.
    Range,
    /// One with the host's own uids, the same for all: it only takes power away.
    Shared,
    /// One with a single user, who is the spawner's own user outside.
    Single {
        /// Its uid inside.
        uid: u32,
        /// Its gid inside.
        gid: u32,
    },
}

/// What a spawner needs to know before the first shell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// Whether sandboxes shall be isolated at all.
    pub isolate: bool,
    /// An empty directory: every shell mounts its root there, in its own mount namespace.
    pub mountpoint: PathBuf,
    /// Users of sandboxes.
    pub uids: UidRanges,
    /// The part of every root that shows programs of this host.
    pub host: Vec<FsStep>,
    /// The part of every root that an image gives.
    pub image: Vec<FsStep>,
    /// A directory to try an image's root with: the lowest layer of every image, with the places that are mounted on.
    pub skeleton: PathBuf,
    /// Directories to remove when Knarr is gone.
    pub temporary: Vec<PathBuf>,
    /// The cgroup group to clear when Knarr is gone; `None` without cgroups.
    pub cgroup_group: Option<String>,
}

/// A root that many sandboxes can have: what a shell may mount before its app is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum RootPlan {
    /// Programs of this host, and the directories they need.
    Host {
        /// After [`Setup::host`].
        steps: Vec<FsStep>,
    },
    /// An image.
    Image {
        /// Directories, topmost first; the skeleton not among them.
        layers: Vec<PathBuf>,
        /// How much may be written, in bytes.
        size: u64,
        /// The layers' marks are user attributes.
        userxattr: bool,
        /// After [`Setup::image`].
        steps: Vec<FsStep>,
    },
    /// An image for an OCI runtime, which mounts the rest itself.
    Bundle {
        /// As of [`Self::Image`].
        layers: Vec<PathBuf>,
        /// Likewise.
        size: u64,
        /// Likewise.
        userxattr: bool,
        /// What is made beside it.
        steps: Vec<FsStep>,
    },
}

/// The part of a sandbox that depends on the app.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Its root, for a shell that has none yet.
    pub root: Option<RootPlan>,
    /// The rest of its root.
    pub steps: Vec<FsStep>,
    /// Nothing in the root itself can be written.
    pub read_only: bool,
    /// The program is an OCI runtime of the host, which makes the sandbox itself from the bundle in the shell's stage.
    pub runtime: bool,
    /// Where the program may be, as paths inside: the first that is there is executed.
    pub program: Vec<Vec<u8>>,
    /// All arguments, the zeroth too.
    pub argv: Vec<Vec<u8>>,
    /// `KEY=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// Working directory inside; made when it is missing from an image.
    pub cwd: PathBuf,
    /// Host name inside; at most 64 bytes.
    pub hostname: String,
    /// Who it runs as: with users of its own as they are seen inside, else the host's; ignored where there is one only.
    pub uid: u32,
    /// Likewise.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Capabilities over its own users, as bits of the kernel's numbers.
    pub capabilities: u64,
    /// Which system calls it may use.
    pub filter: FilterPlan,
    /// `RLIMIT_DATA`, where no cgroup limits memory.
    pub data_limit: Option<u64>,
}

/// The system call filter of an app.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum FilterPlan {
    /// The default profile, for its capabilities.
    Default,
    /// None.
    Unconfined,
    /// These instructions, as the kernel reads them: eight bytes each.
    Program(Vec<u64>),
}

/// One step of making a root. Paths are absolute and as seen inside.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum FsStep {
    /// A directory, if there is none: of the root user inside.
    Dir { path: PathBuf },
    /// A symbolic link.
    Symlink { target: PathBuf, path: PathBuf },
    /// A small file, readable by all. Without content it is made only when it is missing: something to mount on.
    File { path: PathBuf, content: String },
    /// A new file system, on a directory that is there already.
    Mount {
        fstype: String,
        path: PathBuf,
        options: String,
        /// Adds `uid=` and `gid=` of these ids inside.
        owner: Option<Owner>,
        /// Not writable, whoever asks.
        read_only: bool,
        /// A sandbox without it is one too: no error when the kernel refuses.
        optional: bool,
    },
    /// A volume: a directory or file that others may change while a sandbox starts. Its target is there already.
    Volume {
        /// Where it is on the host; nobody but Knarr can change that.
        source: PathBuf,
        /// What of it is shown; links in it do not lead out.
        sub_path: Option<PathBuf>,
        path: PathBuf,
        read_only: bool,
    },
    /// A volume beside the root, for an OCI runtime to show. `name` is a plain file name.
    Staged {
        source: PathBuf,
        sub_path: Option<PathBuf>,
        name: String,
        read_only: bool,
    },
    /// Something of the host, with what is mounted below it. Its target is there already.
    Bind {
        source: PathBuf,
        path: PathBuf,
        access: Access,
        /// Ids on the host's disk are ids inside, whatever users the sandbox has.
        mapped: bool,
    },
    /// A small file of this sandbox alone, mounted over whatever the root has there. `name` is a plain file name.
    Own {
        name: String,
        path: PathBuf,
        content: String,
        /// By its root user only, or by all users inside.
        writable_by_all: bool,
    },
    /// New content for a file that [`Self::Own`] has mounted, or a file for a bundle.
    Content { name: String, content: String },
}

/// Ids inside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// `None` leaves it to the file system.
    pub uid: Option<u32>,
    pub gid: u32,
}

/// What a bind mount may be used for. Set-user-id never works on any.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum Access {
    /// Read and execute files; no devices.
    ReadOnly,
    /// The same, and write.
    ReadWrite,
    /// A device node: read and write, do not execute.
    Device,
}

/// The steps of a start, in order. A failed one is named in the error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Step {
    Clone = 1,
    DeathSignal,
    JoinCgroup,
    CgroupNamespace,
    Loopback,
    PortRange,
    Root,
    Layers,
    Files,
    WaitForPlan,
    Pivot,
    Hostname,
    Limits,
    WorkingDir,
    Output,
    CloseFiles,
    UserNamespace,
    Capabilities,
    User,
    NoNewPrivileges,
    Seccomp,
    Execute,
    Enter,
    Terminal,
}

impl Step {
    /// The step that a child has reported.
    pub(crate) fn from_raw(raw: u8) -> Option<Self> {
        const ALL: [Step; 24] = [
            Step::Clone,
            Step::DeathSignal,
            Step::JoinCgroup,
            Step::CgroupNamespace,
            Step::Loopback,
            Step::PortRange,
            Step::Root,
            Step::Layers,
            Step::Files,
            Step::WaitForPlan,
            Step::Pivot,
            Step::Hostname,
            Step::Limits,
            Step::WorkingDir,
            Step::Output,
            Step::CloseFiles,
            Step::UserNamespace,
            Step::Capabilities,
            Step::User,
            Step::NoNewPrivileges,
            Step::Seccomp,
            Step::Execute,
            Step::Enter,
            Step::Terminal,
        ];
        ALL.into_iter().find(|s| *s as u8 == raw)
    }

    /// In words for the user.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone into new namespaces",
            Self::DeathSignal => "tie the process to the spawner",
            Self::JoinCgroup => "join the cgroup",
            Self::CgroupNamespace => "make a cgroup namespace",
            Self::Loopback => "bring up the loopback interface",
            Self::PortRange => "open the low ports",
            Self::Root => "mount the root",
            Self::Layers => "mount the image",
            Self::Files => "make the root's content",
            Self::WaitForPlan => "wait for the app",
            Self::Pivot => "change to the new root",
            Self::Hostname => "set the host name",
            Self::Limits => "set resource limits",
            Self::WorkingDir => "change to the working directory",
            Self::Output => "connect the output",
            Self::CloseFiles => "close the other files",
            Self::UserNamespace => "enter the user namespace",
            Self::Capabilities => "drop capabilities",
            Self::User => "change the user",
            Self::NoNewPrivileges => "forbid new privileges",
            Self::Seccomp => "load the system call filter",
            Self::Execute => "execute",
            Self::Enter => "enter the sandbox's namespaces",
            Self::Terminal => "open a terminal",
        }
    }
}
