//! How a spawner begins: signals, user namespace, and a trial sandbox that shows whether this host can isolate at all.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use libc::c_int;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::child::{COMMON, OF_ROOT, Report};
use super::compile::{Steps, Workshop, describe, real};
use super::identities::{self, Identities};
use super::kid::{Kid, Nursery, Outcome};
use super::protocol::{Abilities, FilterPlan, Isolation, Plan, RootPlan, Setup, Step, UidRanges, Users};
use crate::rootfs::ORDINARY_UID;
use crate::seccomp::Arch;

/// Makes this process fit to be a parent of sandboxes.
pub(super) fn calm_down() {
    // Ctrl-C in a terminal reaches the whole foreground group; what ends the spawner is Knarr's end of the socket. A
    // handler rather than "ignore": an ignored signal would stay ignored in the apps.
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGPIPE,
        libc::SIGUSR1,
    ] {
        // SAFETY: a handler that does nothing is safe at any moment.
        unsafe { libc::signal(signal, ignore as *const () as libc::sighandler_t) };
    }
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Each sandbox holds five descriptors here.
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        },
    );
}

extern "C" fn ignore(_: c_int) {}

/// Finds the strongest isolation that works here, by trying it.
///
/// # Errors
/// Why none does, in words for the user.
pub(super) fn nursery(setup: &Setup) -> Result<Nursery, String> {
    let wrong = |error: io::Error| format!("{}: {error}", setup.mountpoint.display());
    let arch = Arch::native().ok_or("no system call filter is known for this machine's architecture")?;
    let identities = Identities::new(setup.uids).map_err(wrong)?;
    let make = |isolation, identities: &Rc<RefCell<Identities>>| {
        let abilities = Abilities {
            isolation,
            own_users: Ok(()),
            images: Ok(()),
            mapped_images: Ok(()),
            alone: None,
        };
        let workshop = workshop(setup, isolation)?;
        Nursery::new(abilities, workshop, arch, Rc::clone(identities))
    };
    if !setup.isolate {
        let mut nursery = make(Isolation::None, &identities).map_err(wrong)?;
        let none = || Err("apps are not isolated".to_owned());
        let abilities = &mut nursery.abilities;
        (abilities.own_users, abilities.images, abilities.mapped_images) = (none(), none(), none());
        return Ok(nursery);
    }
    let as_root = if geteuid().is_root() {
        let mut nursery = make(Isolation::Root, &identities).map_err(wrong)?;
        nursery.abilities.own_users = trial(&mut nursery, Users::Own, host());
        match trial(&mut nursery, Users::Spawners, host()) {
            Ok(()) => return Ok(try_images(nursery)),
            Err(reason) => format!("as root: {reason}; "),
        }
    } else {
        String::new()
    };
    let given =
        enter_user_namespace().map_err(|e| format!("{as_root}user namespaces are not available to this user: {e}"))?;
    let identities = match &given {
        Ok(ranges) => Identities::new(*ranges).map_err(wrong)?,
        Err(_) => identities,
    };
    let mut nursery = make(Isolation::UserNamespace, &identities).map_err(wrong)?;
    nursery.abilities.alone = given.as_ref().ok().map(|ranges| ranges.count);
    nursery.abilities.own_users = match given {
        Ok(_) => trial(&mut nursery, Users::Own, host()),
        Err(reason) => Err(format!("an ordinary user has but one: {reason}")),
    };
    match trial(&mut nursery, Users::Spawners, host()) {
        Ok(()) => Ok(try_images(nursery)),
        Err(reason) => Err(format!("{as_root}in a user namespace: {reason}")),
    }
}

fn workshop(setup: &Setup, isolation: Isolation) -> io::Result<Workshop> {
    let empty = || Steps {
        ops: Vec::new(),
        list: Vec::new(),
    };
    let mut workshop = Workshop {
        mountpoint: real(&setup.mountpoint)?,
        host: Arc::new(empty()),
        image: Arc::new(empty()),
        skeleton: real(&setup.skeleton)?,
        in_user_namespace: isolation == Isolation::UserNamespace,
    };
    workshop.host = Arc::new(workshop.steps(setup.host.clone())?);
    workshop.image = Arc::new(workshop.steps(setup.image.clone())?);
    Ok(workshop)
}

const fn host() -> RootPlan {
    RootPlan::Host { steps: Vec::new() }
}

/// Finds out how far images go: with their own users, with the host's, or not at all.
fn try_images(mut nursery: Nursery) -> Nursery {
    let image = || RootPlan::Image {
        layers: Vec::new(),
        size: 1 << 20,
        userxattr: false,
        steps: Vec::new(),
    };
    if nursery.abilities.isolation == Isolation::UserNamespace {
        nursery.abilities.mapped_images = match nursery.abilities.own_users.clone() {
            Ok(()) => trial(&mut nursery, Users::Range, image()),
            Err(reason) => Err(reason),
        };
        if nursery.abilities.mapped_images.is_err() {
            nursery.abilities.images = trial(&mut nursery, Users::Single { uid: 0, gid: 0 }, image());
        }
        return nursery;
    }
    nursery.abilities.mapped_images = match nursery.abilities.own_users.clone() {
        Ok(()) => trial(&mut nursery, Users::Own, image()),
        Err(reason) => Err(reason),
    };
    if nursery.abilities.mapped_images.is_err() {
        let users = nursery.abilities.image_users(0, 0);
        nursery.abilities.images = trial(&mut nursery, users, image());
    }
    nursery
}

/// What a failed step was about, in words.
pub(super) fn explain(report: Report, kid: &Kid) -> (Step, String) {
    let step = Step::from_raw(report.step).unwrap_or(Step::Clone);
    let (root, plan) = (kid.root(), kid.plan());
    let index = usize::from(report.index);
    let steps = match report.list {
        COMMON => root.map(|root| &root.common.list),
        OF_ROOT => root.map(|root| &root.steps.list),
        _ => plan.map(|plan| &plan.steps.list),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let detail = match (step, plan) {
        (Step::Files, _) => steps.and_then(|list| list.get(index)).map(describe),
        (Step::Layers, _) => root
            .and_then(|root| root.layers.as_ref()?.lowers.get(index))
            .map(|(layer, _)| format!("{} {}", step.name(), text(layer.to_bytes()))),
        (Step::Execute, Some(plan)) => plan.program.first().map(|program| text(program.to_bytes())),
        (Step::WorkingDir, Some(plan)) => Some(format!("/{}", text(plan.cwd.path.to_bytes()))),
        _ => None,
    };
    (step, detail.unwrap_or_default())
}

/// Root in a namespace of its own, where it is nobody's root but its own children's. Single-threaded processes only.
/// Returns the ranges of subordinate ids for one sandbox each, or why there are none: then there is but this user.
fn enter_user_namespace() -> io::Result<Result<UidRanges, String>> {
    let reason = match identities::subordinate() {
        // SAFETY: no memory; this process has one thread.
        Ok((userns, ranges)) => match unsafe { libc::setns(userns.as_raw_fd(), libc::CLONE_NEWUSER) } {
            0 => return Ok(Ok(ranges)),
            _ => io::Error::last_os_error().to_string(),
        },
        Err(reason) => reason,
    };
    let (uid, gid) = (geteuid(), getegid());
    // SAFETY: no other thread, and no file descriptors are unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER)? };
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{ORDINARY_UID} {} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("{ORDINARY_UID} {} 1", gid.as_raw()))?;
    Ok(Err(reason))
}

/// Starts a sandbox around a program that does not exist: when that is the only thing wrong, everything before it works.
fn trial(nursery: &mut Nursery, users: Users, root: RootPlan) -> Result<(), String> {
    let plan = Plan {
        root: Some(root),
        steps: Vec::new(),
        read_only: true,
        runtime: false,
        program: vec![b"/knarr-trial".to_vec()],
        argv: Vec::new(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        hostname: "trial".to_owned(),
        uid: ORDINARY_UID,
        gid: ORDINARY_UID,
        groups: Vec::new(),
        capabilities: 0,
        filter: FilterPlan::Default,
        data_limit: None,
    };
    let plan = match users {
        Users::Single { uid, gid } => Plan { uid, gid, ..plan },
        _ => plan,
    };
    let filter = nursery.filter(&plan.filter, plan.capabilities);
    let started = nursery.workshop.plan(plan, filter).and_then(|plan| {
        let mut kid = nursery.bear(&[], users, None, None)?;
        // A child that has failed already does not read it; its report says why.
        let _ = kid.go(plan);
        Ok(kid)
    });
    let mut kid = started.map_err(|e| format!("cannot {}: {e}", Step::Clone.name()))?;
    let outcome = wait_for_outcome(&mut kid);
    kid.kill();
    kid.reap(true);
    let verdict = match outcome {
        Outcome::Failed(report) if report.step == Step::Execute as u8 && report.errno == libc::ENOENT => Ok(()),
        Outcome::Failed(report) => {
            let (step, detail) = explain(report, &kid);
            let what = if detail.is_empty() { step.name() } else { &detail };
            Err(format!("cannot {what}: {}", io::Error::from_raw_os_error(report.errno)))
        }
        Outcome::Left | Outcome::Pending | Outcome::Rooted(_) => {
            Err("the trial sandbox ended without a word".to_owned())
        }
    };
    kid.settle(nursery);
    verdict
}

fn wait_for_outcome(kid: &mut Kid) -> Outcome {
    loop {
        if let Some(report) = &kid.report {
            let _ = poll(&mut [PollFd::from_borrowed_fd(report.as_fd(), PollFlags::IN)], None);
        }
        match kid.outcome() {
            Outcome::Pending | Outcome::Rooted(_) if kid.report.is_some() => {}
            other => return other,
        }
    }
}
