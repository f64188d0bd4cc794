//! What this driver does on this host: what its own trial has found, and a real sandbox on top.

use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::units::{Bytes, Millicores};
use manifests::workload::Workload;
use rustix::process::geteuid;

use super::state::shared_users;
use super::{Freezing, LocalDriver, SetupError, freeze};
use crate::doctor::{Finding, State};
use crate::driver::{Driver, Limits, SandboxSpec};
use crate::exec::ExecSpec;
use crate::spawner::protocol::Isolation;

const SUBORDINATE_FIX: &str = "apt-get install uidmap; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \
                               USER (a range that nobody else has); or run as root";
const MORE_FIX: &str = "usermod --add-subuids and --add-subgids for USER, 65536 ids more for each sandbox that shall \
                        have users of its own; or run as root";
const USERS_FIX: &str = "run Linux 5.12 or newer as root, and allow user namespaces (user.max_user_namespaces)";
const ROOT_FIX: &str = "run as root, or with the unit packaging/knarr.service";
const CGROUP_FIX: &str = "let systemd delegate a cgroup: packaging/knarr.service as root, packaging/user/knarr.service \
                          with systemctl --user; in a container, mount the cgroup tree writable";

/// Why no driver starts at all, as a finding.
pub fn refused(error: &SetupError) -> Finding {
    let fix = match error {
        SetupError::NoIsolation { .. } => {
            "run as root, or allow user namespaces: sysctl user.max_user_namespaces=30000 \
             kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
        }
        _ => "see the message",
    };
    Finding::missing(
        "isolation",
        error.to_string(),
        "no sandbox can be started; --unsafe-no-isolation runs plain processes",
        fix,
    )
}

impl LocalDriver {
    /// What sandboxes have on this host. Starts one, with this workload, and tries what can be done with it.
    pub async fn examine(&self, workload: Workload) -> Vec<Finding> {
        let mut found = self.abilities();
        found.extend(self.try_out(workload).await);
        // Whatever else the driver tells of itself at every start.
        let told = |text: &str| found.iter().any(|finding| finding.found.contains(text));
        let rest: Vec<&String> = self.inner.warnings.iter().filter(|warning| !told(warning)).collect();
        let rest = rest
            .into_iter()
            .map(|warning| Finding::degraded("other", warning.clone(), "as it says", "see docs/sandbox.md"));
        let rest: Vec<Finding> = rest.collect();
        found.extend(rest);
        found
    }

    /// What the spawner's trial has found.
    fn abilities(&self) -> Vec<Finding> {
        let inner = &self.inner;
        let abilities = &inner.abilities;
        let ordinary = !geteuid().is_root();
        let isolation = match abilities.isolation {
            Isolation::Root => Finding::ok("isolation", inner.describe()),
            Isolation::UserNamespace => Finding::degraded(
                "isolation",
                inner.describe(),
                "a program that breaks out of an image's sandbox as its uid 0 is this user to the host, and reaches the \
                 others",
                ROOT_FIX,
            ),
            Isolation::None => Finding::missing(
                "isolation",
                inner.describe(),
                "apps are plain processes of this user",
                "leave out --unsafe-no-isolation",
            ),
        };
        let of = |name, result: &Result<(), String>, good: &str, costs: &str, fix: &str| match result {
            Ok(()) => Finding::ok(name, good),
            Err(why) => Finding::degraded(name, why.clone(), costs, fix),
        };
        let users_fix = if ordinary { SUBORDINATE_FIX } else { USERS_FIX };
        let users = match (&abilities.own_users, abilities.alone) {
            (Err(why), _) if ordinary => Finding::degraded(
                "users",
                why.clone(),
                "all sandboxes are the same user to the host, images have one user, and runAsUser, runAsGroup, \
                 supplementalGroups and fsGroup are refused",
                SUBORDINATE_FIX,
            ),
            (Ok(()), Some(alone)) => Finding::degraded(
                "users",
                shared_users(alone),
                "sandboxes that share a range are kept apart by the other namespaces, not by users; fsGroup is refused",
                MORE_FIX,
            ),
            _ => of(
                "users",
                &abilities.own_users,
                "each sandbox has users of its own",
                "runAsUser and images with several users are refused",
                USERS_FIX,
            ),
        };
        let images = match (&abilities.images, &abilities.mapped_images) {
            (Err(why), _) => Finding::missing(
                "images",
                why.clone(),
                "only programs of this machine (host:) can run",
                "load the overlay module: modprobe overlay; an ordinary user needs Linux 5.11 for it",
            ),
            (Ok(()), mapped) => of(
                "images",
                mapped,
                "overlay works, and files have their own users inside",
                "files of an image have no users of their own inside",
                users_fix,
            ),
        };
        let mut found = vec![isolation, users, images];
        let missing = inner.hierarchy.missing();
        for (name, costs) in [
            (
                "CPU limits",
                "a busy sandbox slows down its neighbours; throttled is as good as full",
            ),
            (
                "memory limits",
                "one sandbox may use all memory; its data segment alone is bounded",
            ),
            ("process limits", "a fork bomb reaches the whole machine"),
        ] {
            found.push(match missing.iter().find(|text| text.starts_with(name)) {
                None => Finding::ok(name, inner.hierarchy.describe()),
                Some(text) => Finding::degraded(name, text.clone(), costs, CGROUP_FIX),
            });
        }
        found
    }

    /// A real sandbox, and what can be done with it.
    async fn try_out(&self, workload: Workload) -> Vec<Finding> {
        let id = SandboxId::new("doctor");
        let spec = SandboxSpec {
            id: id.clone(),
            revision: RevisionId::new("knarr", "doctor"),
            configuration: ObjectId::new("knarr", "doctor"),
            service: None,
            workload: Arc::new(workload),
            limits: Limits {
                cpu: Some(Millicores(1000)),
                memory: Some(Bytes(256 << 20)),
                pids: Some(64),
            },
            deadline: START,
        };
        let started = match self.start(spec).await {
            Ok(started) => started,
            Err(error) => {
                return vec![Finding::missing(
                    "a sandbox",
                    error.to_string(),
                    "nothing can be served",
                    "see the message; knarr logs of a service says more",
                )];
            }
        };
        let mut found = vec![Finding::ok(
            "a sandbox",
            format!(
                "started and ready after {:.1} ms",
                started.phases.ready.as_secs_f64() * 1e3
            ),
        )];
        found.push(self.lockdown(&id).await);
        found.push(self.way_out(&id));
        let command = match self.exec(&id, ExecSpec::new(["/bin/sh", "-c", "exit 7"])).await {
            Ok(exec) => exec.ran(0).await.status.code().to_string(),
            Err(error) => error.to_string(),
        };
        found.push(if command == "7" {
            Finding::ok("commands", "a command was run inside")
        } else {
            Finding::degraded(
                "commands",
                command,
                "knarr exec and exec probes do not work",
                "see the message",
            )
        });
        found.push(self.freezing(&id).await);
        found.push(self.reclaiming(&id));
        let _ = self.stop(&id, Duration::ZERO).await;
        found
    }

    /// Whether the doors of its network could be opened, and all that they do.
    fn way_out(&self, id: &SandboxId) -> Finding {
        let costs = "knarr.dev/egress and calls of services by name do less than they should";
        let fix = "load nf_tables, nft_tproxy and nfnetlink_queue (modprobe), or run a kernel that has them";
        let warned = self.inner.warnings.iter().find(|warning| warning.starts_with("egress"));
        if let Some(why) = warned {
            return Finding::degraded("egress", why.clone(), costs, fix);
        }
        let sandbox = self.inner.sandbox(id);
        let shut_in = sandbox.as_ref().and_then(|sandbox| sandbox.shut_in.get());
        match (self.inner.isolation, shut_in) {
            (Isolation::None, _) => Finding::degraded(
                "egress",
                "apps are not isolated",
                "they connect wherever this machine can",
                "leave out --unsafe-no-isolation",
            ),
            (_, Some(why)) => Finding::missing(
                "egress",
                format!("the doors of a sandbox's network cannot be opened: {why}"),
                "sandboxes reach nothing but themselves, and no name",
                fix,
            ),
            (_, None) => Finding::ok("egress", "nf_tables lead connections and names through Knarr"),
        }
    }

    /// As the kernel has it.
    async fn lockdown(&self, id: &SandboxId) -> Finding {
        let process = self.inspect(id).await.ok().and_then(|details| details.process);
        let Some(process) = process else {
            return Finding::degraded(
                "lockdown",
                "its process cannot be looked at",
                "nothing is known",
                "look into /proc",
            );
        };
        let found = format!(
            "uid {}, capabilities {}, seccomp {}, namespaces {}",
            process.uid,
            process.capabilities,
            if process.seccomp_filter { "filter" } else { "none" },
            process.namespaces.join(" ")
        );
        if process.no_new_privileges && process.seccomp_filter && process.namespaces.len() >= 6 {
            Finding::ok("lockdown", found)
        } else {
            Finding::missing(
                "lockdown",
                found,
                "apps are not shut in",
                "report this: a start should have failed",
            )
        }
    }

    async fn freezing(&self, id: &SandboxId) -> Finding {
        let tried = match self.freeze(id).await {
            Ok(_) => self.thaw(id).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let method = self.inner.freezing.map_or("no way", Freezing::as_str);
        match (tried, self.inner.freezing) {
            (Err(error), _) => Finding::missing(
                "freezing",
                error,
                "knarr.dev/idle: frozen falls back to a warmer way to idle",
                CGROUP_FIX,
            ),
            (Ok(()), Some(Freezing::Signals)) => Finding::degraded(
                "freezing",
                method,
                "apps can notice that their processes were stopped",
                CGROUP_FIX,
            ),
            (Ok(()), _) => Finding::ok("freezing", method),
        }
    }

    fn reclaiming(&self, id: &SandboxId) -> Finding {
        let can = self.inner.sandbox(id).is_some_and(|it| it.shell.cgroup.can_reclaim());
        let costs = "frozen sandboxes keep their memory resident";
        match (can, freeze::has_swap()) {
            (true, true) => Finding::ok("reclaim", "memory of frozen sandboxes goes to swap"),
            (false, _) => Finding::degraded("reclaim", "no cgroup of this host takes memory back", costs, CGROUP_FIX),
            (true, false) => Finding::degraded(
                "reclaim",
                "there is no swap to move it to",
                costs,
                "add swap, best zram",
            ),
        }
    }
}

/// Whether no sandbox can be isolated, by what was found.
pub fn is_hopeless(found: &[Finding]) -> bool {
    let needed = ["isolation", "a sandbox", "lockdown"];
    found
        .iter()
        .any(|it| it.state == State::Missing && needed.contains(&it.name))
}

/// For one small app on the slowest machine.
const START: Duration = Duration::from_secs(20);
