//! A shell becomes a sandbox: the app's part of its root, its limits, output, user and rights, and then its program.

use super::root::{pivot, run_ops};
use super::{Birth, Never, Report, at, die_with_spawner, failed, fd};
use crate::spawner::compile::Compiled;
use crate::spawner::protocol::{Isolation, Step};
use crate::spawner::raw::sys;

pub(super) fn become_sandbox(birth: &Birth, plan: &Compiled) -> Result<Never, Report> {
    let isolated = birth.isolation != Isolation::None;
    if isolated {
        run_ops(&plan.root, true)?;
        pivot(birth)?;
        // SAFETY: the name lies in the spawner's memory, its length is given.
        let named = unsafe { sys!(SYS_sethostname, plan.hostname.as_ptr() as usize, plan.hostname.len()) };
        at(Step::Hostname, named)?;
    }
    set_limits(plan)?;
    connect_output(birth, plan)?;
    if isolated {
        drop_capabilities_and_user(birth, plan)?;
        die_with_spawner(birth)?;
    }
    // As the sandbox's user, who may not see every directory.
    // SAFETY: a NUL-terminated string.
    at(Step::WorkingDir, unsafe { sys!(SYS_chdir, plan.cwd.as_ptr() as usize) })?;
    // SAFETY: no memory.
    let none = unsafe { sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0) };
    at(Step::NoNewPrivileges, none)?;
    if isolated {
        load_filter(birth)?;
    }
    let (argv, env) = (plan.argv.as_ptr() as usize, plan.env.as_ptr() as usize);
    // SAFETY: two NULL-terminated arrays of NUL-terminated strings.
    match unsafe { sys!(SYS_execve, plan.program.as_ptr() as usize, argv, env) } {
        Err(errno) => Err(failed(Step::Execute, errno)),
        Ok(_) => Err(failed(Step::Execute, 0)),
    }
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
        if birth.isolation == Isolation::Root {
            // Apps open /dev/stdout by name, as their own user.
            let id = birth.on_host(plan.uid) as usize;
            for output in birth.output {
                at(Step::Output, sys!(SYS_fchown, fd(output), id, id))?;
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
        if let Some((userns, _)) = birth.users {
            // The last thing done as the host's root: from here on every capability is one over the own users only.
            at(
                Step::UserNamespace,
                sys!(SYS_setns, fd(userns), libc::CLONE_NEWUSER as usize),
            )?;
        }
        let mut capability = 0;
        // The kernel knows fewer than 64; the first it does not know ends the list.
        while capability < 64 && sys!(SYS_prctl, libc::PR_CAPBSET_DROP as usize, capability, 0, 0, 0).is_ok() {
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
        if birth.isolation == Isolation::Root {
            let id = plan.uid as usize;
            at(Step::User, sys!(SYS_setgroups, 0, 0))?;
            at(Step::User, sys!(SYS_setresgid, id, id, id))?;
            at(Step::User, sys!(SYS_setresuid, id, id, id))?;
        }
        // `struct __user_cap_header_struct` of version 3, and two empty `__user_cap_data_struct`.
        let header: [u32; 2] = [0x2008_0522, 0];
        let none = [0u32; 6];
        at(
            Step::Capabilities,
            sys!(SYS_capset, header.as_ptr() as usize, none.as_ptr() as usize),
        )
    }
}

pub(in crate::spawner) fn load_filter(birth: &Birth) -> Result<(), Report> {
    let program = libc::sock_fprog {
        len: birth.filter.len() as u16,
        filter: birth.filter.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel reads `len` instructions, which the spawner keeps.
    at(Step::Seccomp, unsafe {
        sys!(SYS_seccomp, mode, 0, (&raw const program) as usize)
    })
}

/// Soft limit on open files.
const FILES_SOFT: u64 = 65_536;
