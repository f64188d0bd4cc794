//! A command on its way into a sandbox, held after every system call from its birth to its execve: what can be seen of it
//! then can be seen at some instant.

#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

/// Follows what `spawner` makes next until it executes; calls `look` while the new process stands still, with what it has
/// just done. Returns how often that was. The process that is followed is the spawner's grandchild by `clone`.
pub fn follow(spawner: i32, look: impl Fn(&str)) -> usize {
    let options = libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SEIZE, spawner, options as usize);
    let (mut between, mut command) = (None, None);
    let mut looks = 0;
    loop {
        for pid in [Some(spawner), between, command].into_iter().flatten() {
            let Some(status) = wait(pid) else { continue };
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                assert_eq!(Some(pid), between, "ended before its time: {status:#x}");
                between = None;
                continue;
            }
            let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
            match event {
                libc::PTRACE_EVENT_EXEC if Some(pid) == command => {
                    ptrace(libc::PTRACE_DETACH, pid, 0);
                    ptrace(libc::PTRACE_INTERRUPT, spawner, 0);
                    while wait(spawner).is_none() {
                        std::thread::sleep(PAUSE);
                    }
                    ptrace(libc::PTRACE_DETACH, spawner, 0);
                    return looks;
                }
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                    let mut made: libc::c_ulong = 0;
                    ptrace(libc::PTRACE_GETEVENTMSG, pid, (&raw mut made) as usize);
                    let made = Some(i32::try_from(made).unwrap());
                    if pid == spawner {
                        between = made;
                    } else {
                        command = made;
                    }
                    ptrace(libc::PTRACE_CONT, pid, 0);
                }
                _ if Some(pid) == command => {
                    let syscall = signal == libc::SIGTRAP | 0x80;
                    look(&if syscall { done(pid) } else { "birth".to_owned() });
                    looks += 1;
                    ptrace(libc::PTRACE_SYSCALL, pid, 0);
                }
                0 if signal != libc::SIGTRAP => ptrace(libc::PTRACE_CONT, pid, signal as usize),
                _ => ptrace(libc::PTRACE_CONT, pid, 0),
            }
        }
        std::thread::sleep(PAUSE);
    }
}

const PAUSE: Duration = Duration::from_micros(100);

/// The system call that it is in or has left, by number.
fn done(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default()
}

fn wait(pid: i32) -> Option<i32> {
    let mut status = 0;
    let got = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::__WALL) };
    assert!(got >= 0, "waitpid {pid}: {}", std::io::Error::last_os_error());
    (got == pid).then_some(status)
}

fn ptrace(request: libc::c_uint, pid: i32, data: usize) {
    let none: *mut c_void = ptr::null_mut();
    let result = unsafe { libc::ptrace(request, pid, none, data as *mut c_void) };
    assert!(
        result >= 0,
        "ptrace {request:#x} {pid}: {}",
        std::io::Error::last_os_error()
    );
}
