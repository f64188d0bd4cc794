//! The system calls of the worker: reading, making files, one more thread. Everything else fails.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// What unpacking and removing take, and what a Rust program with a thread and an allocator takes.
const ALLOWED: &[libc::c_long] = &[
    // The archive, and files.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_ftruncate,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fsetxattr,
    libc::SYS_utimensat,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_prlimit64,
    libc::SYS_prctl,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Flags of `clone` that make a namespace.
const NAMESPACES: u64 = 0x7E02_0000;

/// Puts this process, and the thread it will start, under the filter. `no_new_privs` must be set.
///
/// # Errors
/// Why it cannot be, in words for the user.
pub(super) fn install() -> Result<(), String> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Err(format!("no system call filter is known for {}", std::env::consts::ARCH));
    };
    let failed = |error: &dyn std::fmt::Display| format!("cannot make the system call filter: {error}");
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    let only_threads = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NAMESPACES), 0)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| failed(&error))?;
    rules.insert(libc::SYS_clone, vec![only_threads]);
    // Decided by the second filter.
    rules.insert(libc::SYS_clone3, Vec::new());
    let deny = |errno: libc::c_int| SeccompAction::Errno(errno.unsigned_abs());
    // It hides its flags behind a pointer; libraries fall back to `clone` when it is "not there".
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let filters = [
        (absent, SeccompAction::Allow, deny(libc::ENOSYS)),
        (rules, deny(libc::EPERM), SeccompAction::Allow),
    ];
    // Loading the second one takes a call that it does not allow, so it comes last.
    for (rules, otherwise, when_matched) in filters {
        let filter = SeccompFilter::new(rules, otherwise, when_matched, arch).map_err(|error| failed(&error))?;
        let program: BpfProgram = filter.try_into().map_err(|error| failed(&error))?;
        apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(())
}
