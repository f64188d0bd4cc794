//! What one sandbox of a revision runs, checked: its containers, their images, volumes, probes and rights.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::ObjectId;
use crate::reference::Reference;
use crate::text::Text;
use crate::units::{Bytes, Millicores};

/// Containers that start and end together, in one network namespace (Kubernetes: a pod).
#[derive(Clone, PartialEq, Debug)]
pub struct Workload {
    /// The one that serves requests.
    pub serving: Container,
    /// The others, in the manifest's order.
    pub sidecars: Vec<Container>,
    /// Run before the others, one after the other, each to its successful end.
    pub init: Vec<Container>,
    /// What containers may mount; each is mounted somewhere.
    pub volumes: Vec<Volume>,
    /// The port the serving container listens on, also `PORT`; 1 to 65535, 8080 by default.
    pub port: u16,
    /// What it speaks there.
    pub protocol: Protocol,
    /// How long `stop` waits after the stop signal before it kills: `timeoutSeconds`, as Knative's pods.
    pub stop_grace: Duration,
    /// Group that owns the volumes and that every process has (`fsGroup`).
    pub fs_group: Option<u32>,
    /// Further groups of every process.
    pub supplemental_groups: Vec<u32>,
    /// `runtimeClassName`: an OCI runtime of the configuration; `None` is Knarr's own.
    pub runtime: Option<Arc<str>>,
    /// Where processes may connect to; `None` is the server's setting.
    pub egress: Option<Egress>,
    /// `imagePullSecrets`, resolved; the first that fits a registry is used.
    pub registry_auth: Vec<RegistryAuth>,
    /// `hostAliases`: further lines of `/etc/hosts`.
    pub host_aliases: Vec<HostAlias>,
}

impl Workload {
    /// A program of this machine, with Knative's defaults for the rest.
    pub fn host(program: impl Into<PathBuf>) -> Self {
        Self::new(Image::Host(program.into()))
    }

    /// An image, with Knative's defaults for the rest.
    pub fn new(image: Image) -> Self {
        Self {
            serving: Container {
                probes: Probes {
                    readiness: Some(Probe::aggressive(Check::Tcp { port: 8080 })),
                    ..Probes::default()
                },
                ..Container::new("user-container", image)
            },
            sidecars: Vec::new(),
            init: Vec::new(),
            volumes: Vec::new(),
            port: 8080,
            protocol: Protocol::Http1,
            stop_grace: Duration::from_secs(300),
            fs_group: None,
            supplemental_groups: Vec::new(),
            runtime: None,
            egress: None,
            registry_auth: Vec::new(),
            host_aliases: Vec::new(),
        }
    }

    /// Containers that run while the sandbox does: the serving one first.
    pub fn running(&self) -> impl Iterator<Item = &Container> {
        std::iter::once(&self.serving).chain(&self.sidecars)
    }

    /// Every container: init containers in their order, then the running ones.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.init.iter().chain(self.running())
    }

    /// Claims that one sandbox may have at a time, of all sandboxes on this machine (`ReadWriteOnce`). A revision with one
    /// has max-scale 1, and its sandbox starts only when the one of any other revision with the same claim is gone.
    pub fn exclusive_claims(&self) -> impl Iterator<Item = &ObjectId> {
        self.claims().filter(|(_, shared)| !shared).map(|(claim, _)| claim)
    }

    /// All claims, each with whether several sandboxes may have it.
    pub fn claims(&self) -> impl Iterator<Item = (&ObjectId, bool)> {
        self.volumes.iter().filter_map(|volume| match &volume.source {
            VolumeSource::Claim { claim, shared, .. } => Some((claim, *shared)),
            _ => None,
        })
    }

    /// The CPU limit of one sandbox: of its running containers together; `None` when one of them has none.
    pub fn cpu_limit(&self) -> Option<Millicores> {
        let limits = self.running().map(|container| container.resources.cpu_limit);
        limits.reduce(|sum, limit| Some(Millicores(sum?.0.saturating_add(limit?.0))))?
    }

    /// The CPU that one sandbox requests: of its running containers together; `None` when none of them says.
    pub fn cpu_request(&self) -> Option<Millicores> {
        let requests = self.running().filter_map(|container| container.resources.cpu_request);
        requests.reduce(|sum, request| Millicores(sum.0.saturating_add(request.0)))
    }

    /// The memory that one sandbox requests: of its running containers together; `None` when none of them says.
    pub fn memory_request(&self) -> Option<Bytes> {
        let requests = self
            .running()
            .filter_map(|container| container.resources.memory_request);
        requests.reduce(|sum, request| Bytes(sum.0.saturating_add(request.0)))
    }

    /// The memory limit of one sandbox: of its running containers together; `None` when one of them has none.
    pub fn memory_limit(&self) -> Option<Bytes> {
        let limits = self.running().map(|container| container.resources.memory_limit);
        limits.reduce(|sum, limit| Some(Bytes(sum?.0.saturating_add(limit?.0))))?
    }
}

/// One container.
#[derive(Clone, PartialEq)]
pub struct Container {
    /// Its name; `user-container` by default.
    pub name: Arc<str>,
    /// What to run.
    pub image: Image,
    /// When the image is looked for again at its registry.
    pub pull: PullPolicy,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<Text>,
    /// Arguments; the image's own when this and `command` are empty.
    pub args: Vec<Text>,
    /// The user's variables, resolved, over the image's; Knative's own (`PORT`, `K_*`) are added at start and win.
    pub env: BTreeMap<String, Text>,
    /// Working directory; the image's own, or `/`, when `None`.
    pub working_dir: Option<PathBuf>,
    /// What it may use.
    pub resources: Resources,
    /// When it counts as started, ready, alive.
    pub probes: Probes,
    /// Who it runs as and what it may do.
    pub security: Security,
    /// Which volumes it sees where.
    pub mounts: Vec<Mount>,
    /// Where its last words are.
    pub termination: TerminationMessage,
}

/// Without the values of variables, and the words that may be made of them: they may be secret.
impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            image,
            pull,
            command,
            args,
            env,
            working_dir,
            resources,
            probes,
            security,
            mounts,
            termination,
        } = self;
        f.debug_struct("Container")
            .field("name", name)
            .field("image", image)
            .field("pull", pull)
            .field("command", &command.len())
            .field("args", &args.len())
            .field("env", &env.keys())
            .field("working_dir", working_dir)
            .field("resources", resources)
            .field("probes", probes)
            .field("security", security)
            .field("mounts", mounts)
            .field("termination", termination)
            .finish()
    }
}

impl Container {
    /// Kubernetes' defaults, without any probe.
    pub fn new(name: impl Into<Arc<str>>, image: Image) -> Self {
        Self {
            name: name.into(),
            image,
            pull: PullPolicy::IfNotPresent,
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            resources: Resources::default(),
            probes: Probes::default(),
            security: Security::default(),
            mounts: Vec::new(),
            termination: TerminationMessage::default(),
        }
    }
}

/// Where the program comes from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Image {
    /// `host:/path` or `host:NAME`: a program that is installed on this machine.
    Host(PathBuf),
    /// At a registry.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Oci {
        /// The layout's directory; absolute.
        path: PathBuf,
        /// `org.opencontainers.image.ref.name` of the manifest; may be left out when there is one only.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: the same in a tar file.
    OciArchive {
        /// The file; absolute.
        path: PathBuf,
        /// As in [`Self::Oci`].
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:NAME:TAG]`: what `docker save` writes.
    DockerArchive {
        /// The file; absolute.
        path: PathBuf,
        /// One of its `RepoTags`; may be left out when there is one image only.
        tag: Option<String>,
    },
    /// `docker-daemon:NAME[:TAG]`: an image of the local Docker.
    DockerDaemon(String),
    /// `dir:PATH`: skopeo's directory format, or a plain directory that is the root file system.
    Dir(PathBuf),
    /// One of the five above as it was when its revision was made, whatever is there now. Not written in manifests.
    Pinned {
        /// Where it was.
        image: Box<Self>,
        /// Of its manifest.
        digest: String,
    },
}

impl Image {
    /// Whether it is an image that lies on this machine, outside of the store.
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Oci { .. }
            | Self::OciArchive { .. }
            | Self::DockerArchive { .. }
            | Self::DockerDaemon(_)
            | Self::Dir(_) => true,
            Self::Host(_) | Self::Registry(_) | Self::Pinned { .. } => false,
        }
    }

    /// With what an image of this machine holds now.
    #[must_use]
    pub fn pinned(&self, digest: String) -> Self {
        Self::Pinned {
            image: Box::new(self.clone()),
            digest,
        }
    }
}

/// As it is written in `image:`.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged = |f: &mut fmt::Formatter<'_>, scheme: &str, path: &PathBuf, tag: &Option<String>| match tag {
            Some(tag) => write!(f, "{scheme}:{}:{tag}", path.display()),
            None => write!(f, "{scheme}:{}", path.display()),
        };
        match self {
            Self::Host(program) => write!(f, "host:{}", program.display()),
            Self::Registry(reference) => reference.fmt(f),
            Self::Oci { path, tag } => tagged(f, "oci", path, tag),
            Self::OciArchive { path, tag } => tagged(f, "oci-archive", path, tag),
            Self::DockerArchive { path, tag } => tagged(f, "docker-archive", path, tag),
            Self::DockerDaemon(name) => write!(f, "docker-daemon:{name}"),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::Pinned { image, digest } => write!(f, "{image}@{digest}"),
        }
    }
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PullPolicy {
    /// Once; what is there is used.
    #[default]
    IfNotPresent,
    /// Ask the registry whenever a revision is made.
    Always,
    /// Never ask; what is not there is an error.
    Never,
}

/// How to log in at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// Host with an optional port and path, as in a Docker configuration's `auths`.
    pub registry: String,
    /// Who.
    pub username: String,
    /// The secret.
    pub password: String,
}

/// Without the secret.
impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryAuth({} at {})", self.username, self.registry)
    }
}

/// Names for an address in `/etc/hosts`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostAlias {
    /// The address.
    pub address: std::net::IpAddr,
    /// Its names; at least one.
    pub names: Vec<String>,
}

/// What a container speaks on its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, no TLS (port name `h2c`).
    H2c,
}

/// `resources` of a container; `None` is not set, and no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    /// Share of CPU when there is not enough for all; becomes the cgroup's weight.
    pub cpu_request: Option<Millicores>,
    /// CPU time per wall time.
    pub cpu_limit: Option<Millicores>,
    /// What the machine must have free for it.
    pub memory_request: Option<Bytes>,
    /// Memory, page cache included.
    pub memory_limit: Option<Bytes>,
    /// Files the container writes outside its volumes.
    pub ephemeral_limit: Option<Bytes>,
}

/// The probes of a container.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Probes {
    /// Until it passes, the others wait; when it fails for good, the sandbox is replaced.
    pub startup: Option<Probe>,
    /// While it fails, no request comes.
    pub readiness: Option<Probe>,
    /// When it fails, the sandbox is replaced.
    pub liveness: Option<Probe>,
}

/// A probe (Kubernetes' fields; Knative's defaults).
#[derive(Clone, PartialEq, Debug)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// Consecutive successes wanted; at least 1.
    pub success_threshold: u32,
    /// Consecutive failures that count as one; at least 1.
    pub failure_threshold: u32,
    /// Wait before the first try.
    pub initial_delay: Duration,
    /// Between tries. `None` is Knative's aggressive probing (`periodSeconds: 0`): as often as is cheap until it passes.
    pub period: Option<Duration>,
    /// Per try.
    pub timeout: Duration,
    /// How long the app may take to end once this probe has failed for good; the workload's own time when `None`. Of no
    /// use to a readiness probe.
    pub grace: Option<Duration>,
}

impl Probe {
    /// Knative's default for the serving container: as often as is cheap, each try for at most 100 ms.
    pub const fn aggressive(check: Check) -> Self {
        Self {
            check,
            success_threshold: 1,
            failure_threshold: 3,
            initial_delay: Duration::ZERO,
            period: None,
            timeout: Duration::from_millis(100),
            grace: None,
        }
    }
}

/// What a probe asks.
#[derive(Clone, PartialEq, Debug)]
pub enum Check {
    /// The port accepts a connection.
    Tcp {
        /// Which port.
        port: u16,
    },
    /// `GET` answers 200 to 399.
    Http {
        /// Which port.
        port: u16,
        /// `scheme: HTTPS`. Whose certificate it is, is not looked at, as kubelet does not.
        tls: bool,
        /// Path with query, starts with `/`.
        path: String,
        /// Extra headers; `Host` replaces the default.
        headers: Vec<(String, String)>,
    },
    /// `grpc.health.v1.Health/Check` answers `SERVING`.
    Grpc {
        /// Which port.
        port: u16,
        /// The `service` asked for; empty is the whole server.
        service: String,
    },
    /// A command inside the container exits with 0.
    Exec {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
}

/// Who a container runs as and what it may do: the pod's `securityContext` under the container's own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Security {
    /// `runAsUser`; the image's own user when `None`.
    pub user: Option<u32>,
    /// `runAsGroup`; the image's own group when `None`.
    pub group: Option<u32>,
    /// Refuse to run as user 0.
    pub non_root: bool,
    /// Nothing outside volumes and `/dev/shm` can be written.
    pub read_only_root: bool,
    /// Changes to the default set of capabilities.
    pub capabilities: Capabilities,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
}

/// Changes to the default set; names without `CAP_`. `ALL` drops or adds every one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Taken from the default set first.
    pub drop: Vec<String>,
    /// Then given.
    pub add: Vec<String>,
}

/// Names of capabilities without `CAP_`, at the kernel's numbers (linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `seccompProfile`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Seccomp {
    /// The default profile of container runtimes.
    #[default]
    RuntimeDefault,
    /// None; for manifests from files only.
    Unconfined,
    /// A profile in the format of container runtimes, from this file below the directory of profiles; for manifests from
    /// files only.
    Localhost(PathBuf),
}

/// A volume of the sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// What mounts call it.
    pub name: Arc<str>,
    /// What is in it.
    pub source: VolumeSource,
}

/// What a volume holds.
#[derive(Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// Empty at the start, gone with the sandbox.
    Empty {
        /// In memory (`medium: Memory`), counted as the sandbox's own.
        memory: bool,
        /// The most that fits.
        size: Option<Bytes>,
    },
    /// Files made of ConfigMaps, Secrets and fields, read-only.
    Files(Vec<VolumeFile>),
    /// A directory under Knarr's data directory that outlives the sandbox (`persistentVolumeClaim`).
    Claim {
        /// The claim's name, with its namespace.
        claim: ObjectId,
        /// Mounted read-only.
        read_only: bool,
        /// Several sandboxes may have it at once: its access mode is `ReadWriteMany` or `ReadOnlyMany`.
        shared: bool,
    },
    /// A path of the host; for manifests from files only.
    HostPath {
        /// Where; absolute.
        path: PathBuf,
        /// What must be there.
        kind: HostPathKind,
    },
}

/// `type` of a `hostPath` volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostPathKind {
    /// Anything that is there.
    #[default]
    Any,
    /// A directory.
    Directory,
    /// A directory; made (0755) when nothing is there.
    DirectoryOrCreate,
    /// A file.
    File,
    /// A file; made (0644) when nothing is there.
    FileOrCreate,
    /// A unix socket.
    Socket,
}

/// Without the content of files, which may be secret.
impl fmt::Debug for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { memory, size } => f
                .debug_struct("Empty")
                .field("memory", memory)
                .field("size", size)
                .finish(),
            Self::Files(files) => write!(f, "Files({} files)", files.len()),
            Self::Claim {
                claim,
                read_only,
                shared,
            } => f
                .debug_struct("Claim")
                .field("claim", claim)
                .field("read_only", read_only)
                .field("shared", shared)
                .finish(),
            Self::HostPath { path, kind } => write!(f, "HostPath({}, {kind:?})", path.display()),
        }
    }
}

/// A file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// Below the volume's root; relative, without `..`.
    pub path: PathBuf,
    /// What is in it.
    pub content: FileContent,
    /// Permission bits; 0o644 by default.
    pub mode: u32,
}

/// What a file of a volume holds.
#[derive(Clone, PartialEq, Eq)]
pub enum FileContent {
    /// A value of a ConfigMap or Secret.
    Bytes(Arc<[u8]>),
    /// A fact about the sandbox (`downwardAPI`).
    Text(Text),
}

/// Where a container sees a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Name of a [`Volume`].
    pub volume: Arc<str>,
    /// Where; absolute.
    pub path: PathBuf,
    /// A file or directory of the volume instead of its root; relative, without `..`.
    pub sub_path: Option<PathBuf>,
    /// Not writable through this mount.
    pub read_only: bool,
}

/// `terminationMessagePath` and `terminationMessagePolicy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TerminationMessage {
    /// A file that the app may write its last words to; at most 4096 bytes of it are read.
    pub path: PathBuf,
    /// Take the end of the log when the file is empty and the app failed; Knative's default.
    pub fall_back_to_logs: bool,
}

impl Default for TerminationMessage {
    fn default() -> Self {
        Self {
            path: "/dev/termination-log".into(),
            fall_back_to_logs: true,
        }
    }
}

/// Where the processes of a sandbox may connect to, beside each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Egress {
    /// Nowhere.
    #[default]
    None,
    /// Everywhere but this host, its own networks' link-local addresses and Knarr's listeners.
    Full,
    /// Only these, under the same limits.
    AllowList(Vec<EgressRule>),
}

/// One destination of an allow-list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EgressRule {
    /// Where.
    pub to: Destination,
    /// Which port; every one when `None`.
    pub port: Option<u16>,
}

/// The host part of an [`EgressRule`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// A name; `*.example.com` is every name below. Only addresses that Knarr's own answers gave for it.
    Name(String),
    /// A network in CIDR notation, or one address.
    Network {
        /// Its address.
        address: std::net::IpAddr,
        /// Bits that count: at most 32 or 128.
        prefix: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_variable_is_in_what_is_logged() {
        let mut workload = Workload::host("/bin/app");
        let mut secret = crate::text::Text::default();
        secret.push_str("hunter2");
        workload.serving.env.insert("PASSWORD".to_owned(), secret.clone());
        workload.serving.args.push(secret);
        let said = format!("{workload:?}");
        assert!(said.contains("PASSWORD") && !said.contains("hunter2"), "{said}");
    }
}
