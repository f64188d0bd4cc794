//! What a start executes, as whom and in which root: everything that follows from the spec alone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use images::Root;
use manifests::text::Facts;
use manifests::workload::{Container, Image, Security, Workload};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;

use super::account::{Account, Users as ImageUsers};
use super::bundle::{self, Process, Runtime};
use super::image;
use super::limits;
use super::profile::Profile;
use super::rights;
use super::shell::Shell;
use super::state::Inner;
use super::texts::{self, environment};
use crate::driver::{Limits, SandboxSpec, StartError};
use crate::egress::resolv_conf;
use crate::exec::ExecSpec;
use crate::program::{self, Program};
use crate::rootfs;
use crate::spawner::protocol::{FilterPlan, Isolation, Plan, RootPlan, ShellId, Users};
use crate::volumes::Made;

/// Which container of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// The one that serves.
    Serving,
    /// One that runs beside it, by its place in the list.
    Sidecar(usize),
    /// One that runs before the others, likewise.
    Init(usize),
}

impl Role {
    pub(super) fn container(self, workload: &Workload) -> &Container {
        match self {
            Self::Serving => &workload.serving,
            Self::Sidecar(nth) => &workload.sidecars[nth],
            Self::Init(nth) => &workload.init[nth],
        }
    }

    /// What it may use when the sandbox starts.
    pub(super) fn limits(self, spec: &SandboxSpec) -> Limits {
        limits::of(self, &spec.workload, &spec.limits)
    }
}

/// What is executed, found once per start.
pub(super) struct App {
    pub role: Role,
    /// What it sees.
    pub root: RootPlan,
    pub from: From,
    pub stop_signal: Signal,
    profile: Profile,
    /// Makes the sandbox instead of us.
    runtime: Option<Runtime>,
}

/// Where the program comes from.
pub(super) enum From {
    Host(Program),
    /// Held while it runs, so that nobody removes it.
    Image(Arc<Root>),
}

impl App {
    /// # Errors
    /// What the manifest got wrong, or why the image cannot be had, in words for the user.
    pub(super) async fn find(inner: &Inner, spec: &SandboxSpec, role: Role) -> Result<Self, StartError> {
        let container = role.container(&spec.workload);
        if inner.isolation == Isolation::None
            && let Some(needs) = own_roots_only(&spec.workload)
        {
            let text = format!("{needs} cannot be had without isolation");
            return Err(StartError::Refused(text));
        }
        let app = match &container.image {
            Image::Host(name) => Self::of_host(inner, spec, role, name).map_err(StartError::Refused)?,
            _ => {
                let root = image::find(inner, &spec.workload, container).await?;
                Self::of_image(inner, spec, role, root).map_err(StartError::Refused)?
            }
        };
        let mut texts = container
            .command
            .iter()
            .chain(&container.args)
            .chain(container.env.values());
        if texts.any(|text| text.contains('\0')) || container.env.keys().any(|name| name.contains('\0')) {
            let text = "an argument or environment variable has a NUL character in it";
            return Err(StartError::Refused(text.to_owned()));
        }
        Ok(app)
    }

    fn of_host(inner: &Inner, spec: &SandboxSpec, role: Role, name: &Path) -> Result<Self, String> {
        if let Some(runtime) = &spec.workload.runtime {
            return Err(format!(
                "runtimeClassName {runtime}: it runs images, not programs of this machine"
            ));
        }
        let container = role.container(&spec.workload);
        let mut program = program::find(name, &inner.data_dir)?;
        if let Some(command) = container.command.first() {
            let command = command.fill(&texts::facts(spec, spec.workload.port));
            let other = program::find(Path::new(&command), &inner.data_dir)?;
            program = Program {
                path: other.path,
                show: program.show.into_iter().chain(other.show).collect(),
            };
            program.show.dedup();
        }
        let mut steps = rootfs::of_program(&program, writable(spec, role).min(rootfs::writable(None, None)));
        steps.extend(rootfs::of_container(&container.termination.path));
        Ok(Self {
            role,
            root: RootPlan::Host { steps },
            from: From::Host(program),
            stop_signal: Signal::TERM,
            profile: Profile::find(&inner.config.seccomp, &container.security.seccomp)?,
            runtime: None,
        })
    }

    fn of_image(inner: &Inner, spec: &SandboxSpec, role: Role, image: Arc<Root>) -> Result<Self, String> {
        let container = role.container(&spec.workload);
        if let Err(reason) = &inner.abilities.images {
            return Err(format!("images cannot be run here: {reason}"));
        }
        rights::check_users(&inner.abilities, &spec.workload)?;
        let image_says =
            !image.config.entrypoint.is_empty() || (container.args.is_empty() && !image.config.cmd.is_empty());
        if container.command.is_empty() && !image_says {
            return Err(format!(
                "{}: the image does not say what to run: set command",
                container.image
            ));
        }
        let stop_signal = image
            .config
            .stop_signal
            .as_deref()
            .map_or(Ok(Signal::TERM), rights::signal)?;
        let runtime = runtime(inner, spec)?;
        let (layers, size, userxattr) = (image.layers.clone(), writable(spec, role), image.userxattr);
        let root = if runtime.is_some() {
            RootPlan::Bundle {
                layers,
                size,
                userxattr,
                steps: rootfs::of_container(&container.termination.path),
            }
        } else {
            RootPlan::Image {
                layers,
                size,
                userxattr,
                steps: rootfs::of_container(&container.termination.path),
            }
        };
        Ok(Self {
            role,
            root,
            from: From::Image(image),
            stop_signal,
            profile: Profile::find(&inner.config.seccomp, &container.security.seccomp)?,
            runtime,
        })
    }

    /// Who it runs as; `users` are the image's.
    ///
    /// # Errors
    /// Why it cannot run as anybody, in words for the user.
    pub(super) fn account(&self, spec: &SandboxSpec, users: &ImageUsers) -> Result<Account, String> {
        match &self.from {
            From::Host(_) => Ok(Account::default()),
            From::Image(image) => {
                let container = self.role.container(&spec.workload);
                let account = users.account(&image.config.user, &container.security);
                account.map_err(|error| format!("{}: {error}", container.image))
            }
        }
    }

    /// Another user of a container that runs in this shell, as its own files say now.
    ///
    /// # Errors
    /// Why nothing can run as that one, in words for the user.
    pub(super) fn other_account(
        &self,
        inner: &Inner,
        spec: &SandboxSpec,
        shell: &Shell,
        user: &str,
    ) -> Result<Account, String> {
        if let From::Host(_) = self.from {
            return Err("a program of this machine has one user; only an image has several".to_owned());
        }
        rights::check_other_user(&inner.abilities)?;
        let root = self.root_of(inner, shell).and_then(|root| ImageUsers::read(&root));
        let users = root.map_err(|error| format!("cannot read the container's /etc/passwd: {error}"))?;
        let own = &self.role.container(&spec.workload).security;
        let security = Security {
            user: None,
            group: None,
            ..own.clone()
        };
        users.account(user, &security)
    }

    /// The root of a container that runs in this shell.
    fn root_of(&self, inner: &Inner, shell: &Shell) -> io::Result<OwnedFd> {
        let held = shell.held().ok_or(io::ErrorKind::NotFound)?;
        let mut path = PathBuf::from(format!("/proc/{}/root", held.pid));
        if self.is_handed_over() {
            // The shell sees the stage; a link in there does not lead out of the root.
            path.as_mut_os_string().push(stage(inner).join("r"));
        }
        Ok(open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The user namespace its shell must have.
    pub(super) fn users(&self, inner: &Inner, account: &Account) -> Users {
        match self.from {
            From::Host(_) => inner.abilities.host_users(),
            // It has none of ours, and sees the layers as they are.
            From::Image(_) if self.runtime.is_some() => Users::Spawners,
            From::Image(_) => inner.abilities.image_users(account.uid, account.gid),
        }
    }

    /// What the spawner is told; `rooted` when the shell has this app's root already.
    pub(super) fn plan(
        &self,
        inner: &Inner,
        spec: &SandboxSpec,
        account: &Account,
        (shell, rooted): (ShellId, bool),
        volumes: Option<&Made>,
        port: u16,
    ) -> Result<Plan, String> {
        let container = self.role.container(&spec.workload);
        let hostname = spec.id.as_str();
        let names = resolv_conf(spec.revision.namespace());
        let facts = texts::facts(spec, port);
        let env = self.environment(spec, account, &facts);
        let argv = self.argv(container, &facts);
        let memory = self.role.limits(spec).memory.map(|m| m.0);
        let unlimited = inner.hierarchy.missing().iter().any(|m| m.starts_with("memory"));
        let (uid, gid) = match self.from {
            From::Host(_) => (inner.uid(shell), inner.uid(shell)),
            From::Image(_) => (account.uid, account.gid),
        };
        let groups = groups(spec, account);
        let cwd = self.cwd(container);
        let (mut steps, program) = match &self.from {
            From::Host(program) => (
                rootfs::names(hostname, uid, &names, &spec.workload.host_aliases),
                vec![program.path.as_os_str().as_encoded_bytes().to_vec()],
            ),
            From::Image(_) => (
                rootfs::image_names(hostname, &names, &spec.workload.host_aliases),
                candidates(argv.first().map_or(&[][..], Vec::as_slice), &env["PATH"]),
            ),
        };
        let capabilities = self.capabilities(container, uid)?;
        if let Some(volumes) = volumes {
            steps.extend(volumes.steps(container)?);
        }
        if let Some(runtime) = &self.runtime {
            let process = Process {
                args: &argv,
                env: &env,
                cwd: &cwd,
                account,
                groups: &groups,
                capabilities,
                seccomp: self.profile.oci(capabilities),
                read_only: container.security.read_only_root,
                terminal: None,
            };
            let stage = stage(inner);
            let command = runtime.command(&stage, hostname);
            return Ok(Plan {
                root: (!rooted).then(|| self.root.clone()),
                steps: bundle::files(&process, &stage, steps, &container.termination.path),
                read_only: false,
                runtime: true,
                program: command[..1].to_vec(),
                argv: command,
                env: vec![format!("PATH={}", texts::PATH).into_bytes()],
                cwd: "/".into(),
                hostname: hostname.to_owned(),
                uid,
                gid,
                groups: Vec::new(),
                capabilities: 0,
                filter: FilterPlan::Unconfined,
                data_limit: None,
            });
        }
        Ok(Plan {
            root: (!rooted).then(|| self.root.clone()),
            steps,
            read_only: matches!(self.from, From::Host(_)) || container.security.read_only_root,
            runtime: false,
            program,
            argv,
            env: variables(env),
            cwd,
            hostname: hostname.to_owned(),
            uid,
            gid,
            groups,
            capabilities,
            filter: self.profile.plan(capabilities)?,
            data_limit: memory.filter(|_| unlimited),
        })
    }

    /// The plan of a command beside the app, from the app's own. For an OCI runtime it is the runtime once more, which
    /// reads from `file` what is returned.
    ///
    /// # Errors
    /// Why it cannot run, in words for the user.
    pub(super) fn for_command(
        &self,
        (inner, spec, port): (&Inner, &SandboxSpec, u16),
        account: &Account,
        command: &ExecSpec,
        (plan, file): (Plan, &Path),
    ) -> Result<(Plan, Option<String>), String> {
        let container = self.role.container(&spec.workload);
        let mut env = self.environment(spec, account, &texts::facts(spec, port));
        env.extend(command.env.iter().cloned());
        let argv: Vec<Vec<u8>> = command.command.iter().map(|a| a.clone().into_bytes()).collect();
        let plan = Plan {
            root: None,
            steps: Vec::new(),
            ..plan
        };
        let Some(runtime) = &self.runtime else {
            let program = argv.first().map_or(&[][..], Vec::as_slice);
            let plan = Plan {
                program: candidates(program, &env["PATH"]),
                argv,
                env: variables(env),
                ..plan
            };
            return Ok((plan, None));
        };
        let process = Process {
            args: &argv,
            env: &env,
            cwd: &self.cwd(container),
            account,
            groups: &groups(spec, account),
            capabilities: self.capabilities(container, account.uid)?,
            // As the sandbox was made with: a process has no profile of its own there.
            seccomp: serde_json::Value::Null,
            read_only: container.security.read_only_root,
            terminal: command.terminal,
        };
        let said = bundle::process(&process).to_string();
        let argv = runtime.exec(&stage(inner), file, spec.id.as_str());
        Ok((Plan { argv, ..plan }, Some(said)))
    }

    /// Whether an OCI runtime makes the sandbox.
    pub(super) const fn is_handed_over(&self) -> bool {
        self.runtime.is_some()
    }

    /// Whether a program, its own without one, may be in a container that an OCI runtime makes or has made in this shell: the
    /// runtime would only say in its output that it is not. True when that cannot be told.
    pub(super) fn may_have_program(
        &self,
        inner: &Inner,
        (spec, port): (&SandboxSpec, u16),
        (shell, account): (&Shell, &Account),
        program: Option<&str>,
    ) -> bool {
        let Ok(root) = self.root_of(inner, shell) else {
            return true;
        };
        let container = self.role.container(&spec.workload);
        let facts = texts::facts(spec, port);
        let env = self.environment(spec, account, &facts);
        let own = self.argv(container, &facts).into_iter().next();
        let Some(program) = program.map(|it| it.as_bytes().to_vec()).or(own) else {
            return true;
        };
        let candidates = candidates(&program, &env["PATH"]);
        bundle::may_have(root.as_fd(), &candidates, &self.cwd(container), &container.mounts)
    }

    /// Where it works.
    fn cwd(&self, container: &Container) -> PathBuf {
        let of_image = match &self.from {
            From::Host(_) => "",
            From::Image(image) => image.config.working_dir.as_str(),
        };
        let own = || if of_image.is_empty() { "/" } else { of_image }.into();
        container.working_dir.clone().unwrap_or_else(own)
    }

    fn capabilities(&self, container: &Container, uid: u32) -> Result<u64, String> {
        match &self.from {
            From::Host(_) => Ok(0),
            From::Image(_) => rights::capabilities(&container.security.capabilities, uid),
        }
    }

    fn environment(&self, spec: &SandboxSpec, account: &Account, facts: &Facts) -> BTreeMap<String, String> {
        let under = match &self.from {
            From::Host(_) => ("/tmp", &[][..]),
            From::Image(image) => (account.home.as_deref().unwrap_or("/"), image.config.env.as_slice()),
        };
        let serving = self.role == Role::Serving;
        environment(spec, self.role.container(&spec.workload), facts, serving, under)
    }

    /// Program and arguments.
    fn argv(&self, container: &Container, facts: &Facts) -> Vec<Vec<u8>> {
        match &self.from {
            From::Host(program) => {
                let name = container.command.is_empty();
                let name = name.then(|| program.path.as_os_str().as_encoded_bytes().to_vec());
                let rest = texts::filled(&container.command, facts).into_iter();
                name.into_iter()
                    .chain(rest)
                    .chain(texts::filled(&container.args, facts))
                    .collect()
            }
            From::Image(image) => {
                let (given, args) = (
                    texts::filled(&container.command, facts),
                    texts::filled(&container.args, facts),
                );
                command((&image.config.entrypoint, &image.config.cmd), given, args)
            }
        }
    }
}

/// The account's groups, and those of the Pod.
fn groups(spec: &SandboxSpec, account: &Account) -> Vec<u32> {
    let mut groups = account.groups.clone();
    groups.extend(spec.workload.fs_group);
    groups.extend(&spec.workload.supplemental_groups);
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Where a bundle is, in its shell.
pub(super) fn stage(inner: &Inner) -> PathBuf {
    inner.data_dir.join("root")
}

fn variables(env: BTreeMap<String, String>) -> Vec<Vec<u8>> {
    env.into_iter().map(|(k, v)| format!("{k}={v}").into_bytes()).collect()
}

/// The OCI runtime that the manifest names.
///
/// # Errors
/// Why it cannot be used, in words for the user.
fn runtime(inner: &Inner, spec: &SandboxSpec) -> Result<Option<Runtime>, String> {
    let Some(name) = &spec.workload.runtime else {
        return Ok(None);
    };
    let known = &inner.config.runtimes;
    let Some(runtime) = known.get(&**name) else {
        let names: Vec<&str> = ["native"].into_iter().chain(known.keys().map(String::as_str)).collect();
        return Err(format!(
            "runtimeClassName {name}: no such runtime; the configuration has {}",
            names.join(", ")
        ));
    };
    if inner.isolation != Isolation::Root {
        return Err(format!(
            "runtimeClassName {name}: other runtimes need Knarr to run as root"
        ));
    }
    if !runtime.program.is_file() {
        return Err(format!(
            "runtimeClassName {name}: {} is not there",
            runtime.program.display()
        ));
    }
    Ok(Some(runtime.clone()))
}

fn writable(spec: &SandboxSpec, role: Role) -> u64 {
    let ephemeral = role.container(&spec.workload).resources.ephemeral_limit;
    let memory = role.limits(spec).memory;
    rootfs::writable(ephemeral.map(|limit| limit.0), memory.map(|limit| limit.0))
}

/// What needs a root that Knarr makes.
fn own_roots_only(workload: &Workload) -> Option<&'static str> {
    let asked = [
        ("several containers", !workload.sidecars.is_empty()),
        ("initContainers", !workload.init.is_empty()),
        ("volumes", !workload.volumes.is_empty()),
        ("hostAliases", !workload.host_aliases.is_empty()),
    ];
    asked.into_iter().find(|(_, asked)| *asked).map(|(what, _)| what)
}

/// Program and arguments, by Kubernetes' table: `command` replaces the entry point and, without `args`, the arguments too.
fn command((entrypoint, cmd): (&[String], &[String]), command: Vec<Vec<u8>>, args: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let bytes = |list: &[String]| list.iter().map(|text| text.clone().into_bytes()).collect::<Vec<_>>();
    let (program, arguments) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, args),
        (true, false) => (bytes(entrypoint), args),
        (true, true) => (bytes(entrypoint), bytes(cmd)),
    };
    program.into_iter().chain(arguments).collect()
}

/// Where a program may be: as it is when it has a directory, else in each of `PATH`'s.
fn candidates(program: &[u8], path: &str) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    dirs.map(|dir| [dir.as_bytes(), b"/", program].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_and_args_replace_what_the_image_says_by_kubernetes_table() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        // Entry point and arguments of the image, command and args of the manifest: what runs.
        let cases = [
            ("/ep", "a b", "", "", "/ep a b"),
            ("/ep", "a b", "/c", "", "/c"),
            ("/ep", "a b", "", "x", "/ep x"),
            ("/ep", "a b", "/c", "x", "/c x"),
            ("", "a b", "", "", "a b"),
            ("", "a b", "", "x", "x"),
            ("", "", "", "", ""),
        ];
        for (entrypoint, cmd, given, args, wanted) in cases {
            let bytes = |text| words(text).into_iter().map(String::into_bytes).collect::<Vec<_>>();
            let runs = command((&words(entrypoint), &words(cmd)), bytes(given), bytes(args));
            assert_eq!(runs, bytes(wanted), "{entrypoint:?} {cmd:?} {given:?} {args:?}");
        }
    }

    #[test]
    fn a_name_is_looked_for_in_path_and_a_path_is_not() {
        let found = |program: &str, path| {
            let list = candidates(program.as_bytes(), path);
            list.into_iter()
                .map(|p| String::from_utf8(p).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("sh", "/bin:/usr/bin"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(found("./sh", "/bin"), ["./sh"]);
        assert_eq!(found("a/b", "/bin"), ["a/b"]);
        assert_eq!(found("sh", ":/bin"), ["./sh", "/bin/sh"]);
    }
}
