//! A shell becomes a sandbox: the app's part of its root, its limits, output, user and rights, and then its program.

use super::root::{Mounted, OF_PLAN, hand_over, make, make_dirs, pivot, run};
use super::shell::tell_rooted;
use super::{Birth, Never, Report, at, die_with_spawner, failed, fd};
use crate::spawner::compile::Compiled;
use crate::spawner::protocol::{Isolation, Step};
use crate::spawner::raw::sys;

pub(super) fn become_sandbox(birth: &Birth, root: Option<Mounted>, plan: &Compiled) -> Result<Never, Report> {
    let isolated = birth.isolation != Isolation::None;
    if isolated {
        let root = match (root, &plan.root) {
            (Some(root), _) => root,
            (None, Some(root)) => {
                let mounted = make(birth, root)?;
                tell_rooted(birth, mounted)?;
                mounted
            }
            (None, None) => return Err(failed(Step::Root, libc::ENOENT)),
        };
        run(birth, root, &plan.steps, OF_PLAN)?;
        if plan.runtime {
            hand_over(birth)?;
        } else {
            make_dirs(birth, root, &plan.cwd).map_err(|errno| failed(Step::WorkingDir, errno))?;
            pivot(root, plan.read_only)?;
        }
        // SAFETY: the name lies in the spawner's memory, its length is given.
        let named = unsafe { sys!(SYS_sethostname, plan.hostname.as_ptr() as usize, plan.hostname.len()) };
        at(Step::Hostname, named)?;
    }
    set_limits(plan)?;
    connect_output(birth, plan)?;
    if plan.runtime {
        return execute(plan);
    }
    if isolated {
        drop_capabilities_and_user(birth, plan)?;
        die_with_spawner(birth)?;
    }
    // As the sandbox's user, who may not see every directory.
    // SAFETY: a NUL-terminated string.
    at(Step::WorkingDir, unsafe {
        sys!(SYS_chdir, plan.cwd.path.as_ptr() as usize)
    })?;
    // SAFETY: no memory.
    let none = unsafe { sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0) };
    at(Step::NoNewPrivileges, none)?;
    if let Some(filter) = &plan.filter {
        load_filter(filter)?;
    }
    execute(plan)
}

/// The first program of the list that is there: what a shell does with `PATH`, errors included.
fn execute(plan: &Compiled) -> Result<Never, Report> {
    let (argv, env) = (plan.argv.as_ptr() as usize, plan.env.as_ptr() as usize);
    let mut worst = libc::ENOENT;
    for program in &plan.program {
        // SAFETY: a NUL-terminated string and two NULL-terminated arrays of such.
        match unsafe { sys!(SYS_execve, program.as_ptr() as usize, argv, env) } {
            Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(libc::EACCES) => worst = libc::EACCES,
            Err(errno) => return Err(failed(Step::Execute, errno)),
            Ok(_) => return Err(failed(Step::Execute, 0)),
        }
    }
    Err(failed(Step::Execute, worst))
}

pub(in crate::spawner) fn set_limits(plan: &Compiled) -> Result<(), Report> {
    limit(libc::RLIMIT_CORE as usize, 0, 0)?;
    let mut files = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let nofile = libc::RLIMIT_NOFILE as usize;
    // SAFETY: room for one rlimit.
    let got = unsafe { sys!(SYS_prlimit64, 0, nofile, 0, (&raw mut files) as usize) };
    at(Step::Limits, got)?;
    // The spawner has raised its own soft limit; an app gets what servers usually run with.
    let soft = if files.rlim_max < FILES_SOFT {
        files.rlim_max
    } else {
        FILES_SOFT
    };
    limit(nofile, soft, files.rlim_max)?;
    match plan.data_limit {
        Some(bytes) => limit(libc::RLIMIT_DATA as usize, bytes, bytes),
        None => Ok(()),
    }
}

fn limit(resource: usize, soft: u64, hard: u64) -> Result<(), Report> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: one rlimit on this stack.
    at(Step::Limits, unsafe {
        sys!(SYS_prlimit64, 0, resource, (&raw const limit) as usize, 0)
    })
}

/// stdin is empty, stdout and stderr are the log; every other descriptor goes away on exec.
fn connect_output(birth: &Birth, plan: &Compiled) -> Result<(), Report> {
    // SAFETY: no memory.
    unsafe {
        if birth.has_users() {
            // Apps open /dev/stdout by name, as their own user.
            let (uid, gid) = (birth.on_host(plan.uid) as usize, birth.on_host(plan.gid) as usize);
            for output in birth.output {
                at(Step::Output, sys!(SYS_fchown, fd(output), uid, gid))?;
            }
        }
        at(Step::Output, sys!(SYS_dup3, fd(birth.null), 0, 0))?;
        at(Step::Output, sys!(SYS_dup3, fd(birth.output[0]), 1, 0))?;
        at(Step::Output, sys!(SYS_dup3, fd(birth.output[1]), 2, 0))?;
        let all = u32::MAX as usize;
        at(
            Step::CloseFiles,
            sys!(SYS_close_range, 3, all, libc::CLOSE_RANGE_CLOEXEC as usize),
        )
    }
}

pub(in crate::spawner) fn drop_capabilities_and_user(birth: &Birth, plan: &Compiled) -> Result<(), Report> {
    // SAFETY: no memory in the calls before `capset`.
    unsafe {
        if let Some(userns) = birth.users {
            // The last thing done as the host's root: from here on every capability is one over the own users only.
            at(
                Step::UserNamespace,
                sys!(SYS_setns, fd(userns), libc::CLONE_NEWUSER as usize),
            )?;
        }
        let mut capability = 0;
        // The kernel knows fewer than 64; the first it does not know ends the list.
        while capability < 64 {
            let kept = plan.capabilities & (1 << capability) != 0;
            let option = if kept {
                libc::PR_CAPBSET_READ
            } else {
                libc::PR_CAPBSET_DROP
            };
            if sys!(SYS_prctl, option as usize, capability, 0, 0, 0).is_err() {
                break;
            }
            capability += 1;
        }
        if capability == 0 {
            return Err(failed(Step::Capabilities, libc::EPERM));
        }
        let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as usize;
        at(
            Step::Capabilities,
            sys!(SYS_prctl, libc::PR_CAP_AMBIENT as usize, clear, 0, 0, 0),
        )?;
        let (uid, gid) = (plan.uid as usize, plan.gid as usize);
        if birth.has_users() {
            let groups = plan.groups.as_ptr() as usize;
            at(Step::User, sys!(SYS_setgroups, plan.groups.len(), groups))?;
        }
        if birth.has_users() || birth.users.is_some() {
            // A user that is not root keeps what it was given explicitly.
            let keep = plan.capabilities != 0;
            at(
                Step::Capabilities,
                sys!(SYS_prctl, libc::PR_SET_KEEPCAPS as usize, keep.into(), 0, 0, 0),
            )?;
            at(Step::User, sys!(SYS_setresgid, gid, gid, gid))?;
            at(Step::User, sys!(SYS_setresuid, uid, uid, uid))?;
        }
        set_capabilities(plan)
    }
}

/// Exactly these, and for a user that is not root also across `execve`.
fn set_capabilities(plan: &Compiled) -> Result<(), Report> {
    let ambient = if plan.uid == 0 { 0 } else { plan.capabilities };
    let (low, high) = (plan.capabilities as u32, (plan.capabilities >> 32) as u32);
    let (low_kept, high_kept) = (ambient as u32, (ambient >> 32) as u32);
    // `struct __user_cap_header_struct` of version 3, and two `__user_cap_data_struct`: effective, permitted, inheritable.
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets: [u32; 6] = [low, low, low_kept, high, high, high_kept];
    // SAFETY: both have the size that the kernel reads; no memory in the other call.
    unsafe {
        at(
            Step::Capabilities,
            sys!(SYS_capset, header.as_ptr() as usize, sets.as_ptr() as usize),
        )?;
        let mut capability = 0;
        while capability < 64 {
            if ambient & (1 << capability) != 0 {
                let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
                at(
                    Step::Capabilities,
                    sys!(SYS_prctl, libc::PR_CAP_AMBIENT as usize, raise, capability, 0, 0),
                )?;
            }
            capability += 1;
        }
    }
    Ok(())
}

pub(in crate::spawner) fn load_filter(filter: &[libc::sock_filter]) -> Result<(), Report> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel reads `len` instructions, which the spawner keeps.
    at(Step::Seccomp, unsafe {
        sys!(SYS_seccomp, mode, 0, (&raw const program) as usize)
    })
}

/// Soft limit on open files.
const FILES_SOFT: u64 = 65_536;
