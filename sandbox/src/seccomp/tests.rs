//! The filter against its table, number by number, in an interpreter; and the real kernel against a handful of calls.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use super::*;

const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// Runs the program as the kernel would, on `struct seccomp_data`; also returns how many steps it took.
fn run(filter: &Filter, arch: u32, number: u32, arg0: u64) -> (Verdict, usize) {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    data[16..24].copy_from_slice(&arg0.to_ne_bytes());
    let (mut acc, mut at, mut steps) = (0u32, 0usize, 0);
    loop {
        let i = filter.program[at];
        at += 1;
        steps += 1;
        let code = u32::from(i.code);
        match code & 0x07 {
            libc::BPF_LD => {
                let offset = i.k as usize;
                acc = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            libc::BPF_JMP if code & 0xf0 == libc::BPF_JA => at += i.k as usize,
            libc::BPF_JMP => {
                let yes = match code & 0xf0 {
                    libc::BPF_JEQ => acc == i.k,
                    libc::BPF_JGE => acc >= i.k,
                    libc::BPF_JGT => acc > i.k,
                    libc::BPF_JSET => acc & i.k != 0,
                    other => panic!("jump {other:#x}"),
                };
                at += usize::from(if yes { i.jt } else { i.jf });
            }
            libc::BPF_RET => {
                let verdict = match i.k & 0xffff_0000 {
                    libc::SECCOMP_RET_ALLOW => Verdict::Allow,
                    libc::SECCOMP_RET_ERRNO => Verdict::Errno(u16::try_from(i.k & 0xffff).unwrap()),
                    libc::SECCOMP_RET_KILL_PROCESS => Verdict::Kill,
                    other => panic!("return {other:#x}"),
                };
                return (verdict, steps);
            }
            other => panic!("class {other:#x}"),
        }
    }
}

/// The verdict by looking through the table, one row after the other.
fn oracle(arch: Arch, number: u32, arg0: u64) -> Verdict {
    let is = |call: &table::Call| arch.number(call) == number;
    if number > NEWEST || number == CLONE3 {
        return ENOSYS;
    }
    if let Some(rule) = RULES.iter().find(|rule| is(&rule.call)) {
        let allowed = match rule.allowed {
            Allowed::NoneOf(bits) => arg0 & u64::from(bits) == 0,
            Allowed::Ranges(ranges) => ranges
                .iter()
                .any(|&(first, last)| (u64::from(first)..=u64::from(last)).contains(&arg0)),
        };
        return if allowed { Verdict::Allow } else { EPERM };
    }
    if ALLOWED.iter().any(is) { Verdict::Allow } else { EPERM }
}

#[test]
fn every_number_gets_the_verdict_of_the_table() {
    let high = [0x4000_0000, 0x4000_0001, 0x4000_0208, i32::MAX as u32, u32::MAX];
    for arch in ARCHES {
        let filter = Filter::compile(arch);
        for number in (0..=600).chain(high) {
            for arg0 in [0, 1, 17, u64::MAX] {
                let (verdict, steps) = run(&filter, arch.audit(), number, arg0);
                assert_eq!(verdict, oracle(arch, number, arg0), "{arch:?} {number} {arg0:#x}");
                assert!(steps <= 50, "{arch:?} {number}: {steps} steps");
            }
        }
    }
}

#[test]
fn arguments_are_looked_at_to_the_last_value() {
    let edges = [
        0x1000_0000u64,
        0x0002_0000,
        0x4000_0000,
        0x0100_0000,
        0x003d_0f00,
        0x0000_0011,
        1 << 32,
        1 << 60,
    ];
    let personalities = [
        0x2_0000,
        0x2_0008,
        0x2_0001,
        0xffff_ffff,
        0xffff_ffff_ffff_ffff,
        0x1_0000_0008,
    ];
    for arch in ARCHES {
        let filter = Filter::compile(arch);
        for rule in &RULES {
            let number = arch.number(&rule.call);
            for arg0 in (0..64).chain(edges).chain(personalities) {
                let (verdict, _) = run(&filter, arch.audit(), number, arg0);
                assert_eq!(
                    verdict,
                    oracle(arch, number, arg0),
                    "{arch:?} {} {arg0:#x}",
                    rule.call.0
                );
            }
        }
    }
    // Spot checks that the oracle itself says what the profile means.
    assert_eq!(oracle(Arch::X86_64, 41, libc::AF_VSOCK as u64), EPERM);
    assert_eq!(oracle(Arch::X86_64, 41, libc::AF_INET6 as u64), Verdict::Allow);
    assert_eq!(oracle(Arch::X86_64, 56, libc::CLONE_NEWUSER as u64), EPERM);
    assert_eq!(
        oracle(Arch::X86_64, 56, (libc::CLONE_VM | libc::CLONE_THREAD) as u64),
        Verdict::Allow
    );
}

#[test]
fn another_architecture_is_killed() {
    const I386: u32 = 0x4000_0003;
    for arch in ARCHES {
        let filter = Filter::compile(arch);
        let other = if arch == Arch::X86_64 {
            Arch::Aarch64
        } else {
            Arch::X86_64
        };
        for wrong in [I386, other.audit(), 0, u32::MAX] {
            for number in 0..=600 {
                assert_eq!(
                    run(&filter, wrong, number, 0).0,
                    Verdict::Kill,
                    "{arch:?} {wrong:#x} {number}"
                );
            }
        }
    }
}

#[test]
fn the_tree_is_shallow() {
    for arch in ARCHES {
        let filter = Filter::compile(arch);
        assert!(
            filter.len() < 400 && !filter.is_empty(),
            "{arch:?}: {} instructions",
            filter.len()
        );
        // What the kernel emulates at install: numbers without arguments. 4 in front, then the depth of the tree.
        let deepest = (0..=600)
            .map(|number| run(&filter, arch.audit(), number, 0).1)
            .max()
            .unwrap();
        assert!(deepest <= 24, "{arch:?}: {deepest} steps");
    }
}

/// Numbers by name from the C library, so that a slip in the table shows on the architecture the tests run on.
#[test]
fn the_table_agrees_with_the_c_library() {
    let arch = Arch::native().expect("tests run where sandboxes run");
    let known: &[(&str, libc::c_long)] = &[
        ("read", libc::SYS_read),
        ("openat2", libc::SYS_openat2),
        ("execve", libc::SYS_execve),
        ("exit_group", libc::SYS_exit_group),
        ("rt_sigreturn", libc::SYS_rt_sigreturn),
        ("futex", libc::SYS_futex),
        ("mremap", libc::SYS_mremap),
        ("newfstatat", libc::SYS_newfstatat),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("seccomp", libc::SYS_seccomp),
        ("writev", libc::SYS_writev),
    ];
    for (name, number) in known {
        let call = ALLOWED
            .iter()
            .find(|call| call.0 == *name)
            .unwrap_or_else(|| panic!("{name} is not allowed"));
        assert_eq!(libc::c_long::from(arch.number(call)), *number, "{name}");
    }
    let rules = [libc::SYS_clone, libc::SYS_personality, libc::SYS_socket];
    for (rule, number) in RULES.iter().zip(rules) {
        assert_eq!(libc::c_long::from(arch.number(&rule.call)), number, "{}", rule.call.0);
    }
    let denied = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_perf_event_open,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_pivot_root,
        libc::SYS_open_by_handle_at,
    ];
    for number in denied {
        assert_eq!(oracle(arch, u32::try_from(number).unwrap(), 0), EPERM, "{number}");
    }
    assert_eq!(libc::SYS_clone3, libc::c_long::from(CLONE3));
    let mut names: Vec<_> = ALLOWED.iter().map(|call| call.0).collect();
    names.dedup();
    assert!(
        names.is_sorted() && names.len() == ALLOWED.len(),
        "sorted by name, each once"
    );
}

/// Runs `probe` in a child under the filter, between fork and exec; what it returns becomes the exit code.
fn under_filter(probe: fn() -> i32) -> std::process::ExitStatus {
    let filter = Filter::compile(Arch::native().unwrap());
    let mut command = Command::new("/bin/true");
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: the closure makes raw system calls only; the filter was compiled before the fork.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || filter.install().is_err() {
                libc::_exit(99);
            }
            match probe() {
                0 => Ok(()),
                code => libc::_exit(code),
            }
        })
    };
    command.status().unwrap()
}

/// 0 when the call fails with this errno; for use under the filter.
#[expect(unsafe_code, reason = "raw system calls, to meet the filter")]
fn fails(number: libc::c_long, arg0: libc::c_long, errno: i32) -> bool {
    // SAFETY: every call used here takes zero or null for its arguments; nothing is dereferenced.
    let result = unsafe { libc::syscall(number, arg0, 0, 0, 0, 0) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(errno)
}

#[test]
fn the_kernel_takes_it_and_an_ordinary_program_runs() {
    assert!(under_filter(|| 0).success());
}

#[test]
fn the_kernel_refuses_what_the_table_refuses() {
    let probe = || {
        let refused = [
            (libc::SYS_unshare, libc::CLONE_NEWUSER.into(), libc::EPERM),
            (libc::SYS_mount, 0, libc::EPERM),
            (libc::SYS_ptrace, 0, libc::EPERM),
            (libc::SYS_bpf, 0, libc::EPERM),
            (libc::SYS_clone, libc::CLONE_NEWNS.into(), libc::EPERM),
            (libc::SYS_clone3, 0, libc::ENOSYS),
            (libc::SYS_personality, 1, libc::EPERM),
            (libc::SYS_socket, libc::AF_VSOCK.into(), libc::EPERM),
            (500, 0, libc::ENOSYS),
        ];
        let wrong = refused
            .iter()
            .position(|(number, arg0, errno)| !fails(*number, *arg0, *errno));
        wrong.map_or(0, |index| 10 + i32::try_from(index).unwrap_or(50))
    };
    let status = under_filter(probe);
    assert!(
        status.success(),
        "call {:?} of the list was not refused as it should be",
        status.code().map(|c| c - 10)
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_call_ends_the_process() {
    let probe = || {
        #[expect(unsafe_code, reason = "a 32-bit system call")]
        // SAFETY: getpid by the 32-bit gate; takes nothing, changes nothing but eax.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("eax") 20 => _, options(nostack));
        }
        1
    };
    assert_eq!(under_filter(probe).signal(), Some(libc::SIGSYS));
}
