//! A child becomes a shell: tied to the spawner, in its cgroup and namespaces, with the host's part of its root.

use super::root::{make_root, run_ops, write_file};
use super::{Birth, Report, at, die_with_spawner, fd, value};
use crate::spawner::protocol::{Isolation, Step};
use crate::spawner::raw::sys;

pub(super) fn become_shell(birth: &Birth) -> Result<(), Report> {
    die_with_spawner(birth)?;
    for &procs in &birth.join {
        // SAFETY: one byte of a constant, into a descriptor of ours.
        at(Step::JoinCgroup, unsafe {
            sys!(SYS_write, fd(procs), c"0".as_ptr() as usize, 1)
        })?;
    }
    close_foreign(birth)?;
    if birth.isolation == Isolation::None {
        // SAFETY: no arguments.
        return at(Step::Clone, unsafe { sys!(no_args SYS_setsid) });
    }
    // After the join, or the namespace would show the paths of the spawner's cgroup.
    // SAFETY: no memory.
    at(Step::CgroupNamespace, unsafe {
        sys!(SYS_unshare, libc::CLONE_NEWCGROUP as usize)
    })?;
    loopback_up()?;
    // Best effort: some containers forbid it, and then only the ports below 1024 are missing.
    let _ = write_file(c"/proc/sys/net/ipv4/ip_unprivileged_port_start", libc::O_WRONLY, b"0");
    make_root(birth)?;
    run_ops(&birth.base, false)
}

/// Closes what belongs to the spawner and to other sandboxes: a shell may wait for long, and would keep their network
/// namespaces and pipes alive.
fn close_foreign(birth: &Birth) -> Result<(), Report> {
    let mut next = 3;
    // SAFETY: no memory.
    unsafe {
        at(Step::CloseFiles, sys!(SYS_dup3, fd(birth.null), 0, 0))?;
        at(Step::CloseFiles, sys!(SYS_dup3, fd(birth.null), 1, 0))?;
        for kept in birth.keep {
            if fd(kept) > next {
                at(Step::CloseFiles, sys!(SYS_close_range, next, fd(kept) - 1, 0))?;
            }
            next = fd(kept) + 1;
        }
        at(Step::CloseFiles, sys!(SYS_close_range, next, u32::MAX as usize, 0))
    }
}

fn loopback_up() -> Result<(), Report> {
    // `struct ifreq`: 16 bytes of name, then the flags.
    let mut request = [0u8; 40];
    request[0] = b'l';
    request[1] = b'o';
    request[16] = (libc::IFF_UP | libc::IFF_RUNNING) as u8;
    // SAFETY: no memory in `socket` and `close`; `request` is a whole `ifreq`.
    unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let socket = value(
            Step::Loopback,
            sys!(SYS_socket, libc::AF_INET as usize, kind as usize, 0),
        )?;
        let up = sys!(
            SYS_ioctl,
            socket,
            libc::SIOCSIFFLAGS as usize,
            request.as_ptr() as usize
        );
        let _ = sys!(SYS_close, socket);
        at(Step::Loopback, up)
    }
}
