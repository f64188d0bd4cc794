//! Raw system calls for a child that shares its parent's memory.
//!
//! Between `clone(CLONE_VM)` and `execve` the child runs in the spawner's address space beside the spawner, with the
//! spawner's thread-local storage. Everything that allocates, locks, panics or touches `errno` is therefore forbidden
//! there; these functions are a register load and one instruction each.

#![allow(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "a register holds every argument: 64-bit machines only"
)]

use libc::c_long;

/// What the kernel answered: a value, or an error number.
pub(super) type Answer = Result<usize, i32>;

/// # Safety
/// As the system call `nr` demands of its arguments.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn call(nr: c_long, args: [usize; 6]) -> Answer {
    let result: isize;
    // SAFETY: the Linux x86_64 system call convention: rcx and r11 are clobbered, everything else is kept.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer(result)
}

/// # Safety
/// As the system call `nr` demands of its arguments.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) unsafe fn call(nr: c_long, args: [usize; 6]) -> Answer {
    let result: isize;
    // SAFETY: the Linux aarch64 system call convention: only x0 changes.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") nr,
            inlateout("x0") args[0] => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    answer(result)
}

fn answer(result: isize) -> Answer {
    if (-4095..0).contains(&result) {
        Err(-result as i32)
    } else {
        Ok(result.cast_unsigned())
    }
}

/// Calls by name: `sys!(SYS_close, fd)`; every argument must be a `usize`.
macro_rules! sys {
    ($nr:ident $(, $arg:expr)* $(,)?) => {{
        let given = [$($arg),*];
        let mut args = [0usize; 6];
        let mut i = 0;
        while i < given.len() {
            args[i] = given[i];
            i += 1;
        }
        $crate::spawner::raw::call(libc::$nr, args)
    }};
    (no_args $nr:ident) => { $crate::spawner::raw::call(libc::$nr, [0usize; 6]) };
}
pub(super) use sys;
