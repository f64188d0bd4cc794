//! How a spawner begins: signals, user namespace, and a trial sandbox that shows whether this host can isolate at all.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libc::c_int;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::child::Report;
use super::compile::{Compiled, c_path, describe, ops, real};
use super::identities::Identities;
use super::kid::{Kid, Nursery, Outcome};
use super::protocol::{FsStep, Isolation, Plan, Setup, Step};
use crate::rootfs::ORDINARY_UID;
use crate::seccomp::{Arch, Filter};

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

/// Whether each sandbox has users of its own; else why not.
type OwnUsers = Result<(), String>;

/// Finds the strongest isolation that works here, by trying it.
///
/// # Errors
/// Why none does, in words for the user.
pub(super) fn nursery(setup: &Setup) -> Result<(Nursery, OwnUsers), String> {
    let no_root = || Err("only root can give them".to_owned());
    let wrong = |error: io::Error| format!("{}: {error}", setup.mountpoint.display());
    let mountpoint = real(&setup.mountpoint).map_err(wrong)?;
    let arch = Arch::native().ok_or("no system call filter is known for this machine's architecture")?;
    let filter = Filter::compile(arch);
    let make = |isolation| {
        let base: Arc<[_]> = ops(&setup.base, &mountpoint)?.into();
        Nursery::new(isolation, c_path(&mountpoint)?, base, filter.instructions().into())
    };
    if !setup.isolate {
        return Ok((make(Isolation::None).map_err(wrong)?, no_root()));
    }
    let as_root = if geteuid().is_root() {
        let mut nursery = make(Isolation::Root).map_err(wrong)?;
        nursery.identities = Some(Identities::new(setup.uids).map_err(wrong)?);
        let Err(reason) = trial(&mut nursery, &mountpoint, &setup.base) else {
            return Ok((nursery, Ok(())));
        };
        nursery.identities = None;
        match trial(&mut nursery, &mountpoint, &setup.base) {
            Ok(()) => return Ok((nursery, Err(reason))),
            Err(reason) => format!("as root: {reason}; "),
        }
    } else {
        String::new()
    };
    enter_user_namespace().map_err(|e| format!("{as_root}user namespaces are not available to this user: {e}"))?;
    let mut nursery = make(Isolation::UserNamespace).map_err(wrong)?;
    match trial(&mut nursery, &mountpoint, &setup.base) {
        Ok(()) => Ok((nursery, no_root())),
        Err(reason) => Err(format!("{as_root}in a user namespace: {reason}")),
    }
}

/// What a failed step was about, in words.
pub(super) fn explain(report: Report, base: &[FsStep], plan: Option<&Compiled>) -> (Step, String) {
    let step = Step::from_raw(report.step).unwrap_or(Step::Clone);
    let steps = if report.of_plan == 0 {
        Some(base)
    } else {
        plan.map(|p| p.steps.as_slice())
    };
    let detail = match (step, plan) {
        (Step::Files, _) => steps
            .and_then(|s| s.get(usize::from(report.index)))
            .map(describe)
            .unwrap_or_default(),
        (Step::Execute, Some(plan)) => plan.program.to_string_lossy().into_owned(),
        (Step::WorkingDir, Some(plan)) => plan.cwd.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    (step, detail)
}

/// Root in a namespace of its own, where it is nobody's root but its own children's. Single-threaded processes only.
fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    // SAFETY: no other thread, and no file descriptors are unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER)? };
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{ORDINARY_UID} {} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("{ORDINARY_UID} {} 1", gid.as_raw()))
}

/// Starts a sandbox around a program that does not exist: when that is the only thing wrong, everything before it works.
fn trial(nursery: &mut Nursery, mountpoint: &Path, base: &[FsStep]) -> Result<(), String> {
    let plan = Plan {
        root: Vec::new(),
        program: b"/knarr-trial".to_vec(),
        argv: Vec::new(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        hostname: "trial".to_owned(),
        uid: ORDINARY_UID,
        data_limit: None,
    };
    let started = Compiled::new(plan, mountpoint).and_then(|plan| {
        let mut kid = nursery.bear(&[])?;
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
            let (step, detail) = explain(report, base, kid.plan());
            let what = if detail.is_empty() { step.name() } else { &detail };
            Err(format!("cannot {what}: {}", io::Error::from_raw_os_error(report.errno)))
        }
        Outcome::Left | Outcome::Pending => Err("the trial sandbox ended without a word".to_owned()),
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
            Outcome::Pending if kid.report.is_some() => {}
            other => return other,
        }
    }
}
