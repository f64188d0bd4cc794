//! A child becomes a shell: tied to the spawner, in its cgroup and namespaces, with the host's part of its root.

use super::root::{Mounted, make, make_stage, write_file};
use super::{Birth, Report, at, die_with_spawner, fd, value};
use crate::spawner::protocol::{Isolation, Step};
use crate::spawner::raw::sys;

/// The root, if it was to be mounted already.
pub(super) fn become_shell(birth: &Birth) -> Result<Option<Mounted>, Report> {
    die_with_spawner(birth)?;
    for &procs in &birth.join {
        // SAFETY: one byte of a constant, into a descriptor of ours.
        at(Step::JoinCgroup, unsafe {
            sys!(SYS_write, fd(procs), c"0".as_ptr() as usize, 1)
        })?;
    }
    for &namespace in &birth.beside {
        // SAFETY: no memory.
        at(Step::Enter, unsafe { sys!(SYS_setns, fd(namespace), 0) })?;
    }
    close_foreign(birth)?;
    if birth.isolation == Isolation::None {
        // SAFETY: no arguments.
        return at(Step::Clone, unsafe { sys!(no_args SYS_setsid) }).map(|()| None);
    }
    // After the join, or the namespace would show the paths of the spawner's cgroup.
    // SAFETY: no memory.
    at(Step::CgroupNamespace, unsafe {
        sys!(SYS_unshare, libc::CLONE_NEWCGROUP as usize)
    })?;
    if birth.beside.is_empty() {
        loopback_up()?;
        // Best effort: some containers forbid it, and then only the ports below 1024 are missing.
        let _ = write_file(c"/proc/sys/net/ipv4/ip_unprivileged_port_start", libc::O_WRONLY, b"0");
    }
    make_stage(birth)?;
    let Some(root) = &birth.root else { return Ok(None) };
    let mounted = make(birth, root)?;
    tell_rooted(birth, mounted)?;
    Ok(Some(mounted))
}

/// Sends the root along: files can be looked up in it before anything of the image has run. And the file for last words,
/// which can be read when the root is gone.
pub(super) fn tell_rooted(birth: &Birth, root: Mounted) -> Result<(), Report> {
    let report = Report {
        step: Report::ROOTED,
        list: 0,
        index: 0,
        errno: 0,
    };
    let content = libc::iovec {
        iov_base: (&raw const report).cast_mut().cast(),
        iov_len: Report::SIZE,
    };
    // `struct cmsghdr`, one or two descriptors, and room to the next multiple of eight.
    let (length, second) = match root.message {
        Some(message) => (24, message as u32),
        None => (20, 0),
    };
    let pair = |first: u32, second: u32| {
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    };
    let kind = pair(libc::SOL_SOCKET as u32, libc::SCM_RIGHTS as u32);
    let control: [u64; 3] = [length, kind, pair(root.dir as u32, second)];
    // `struct msghdr`: name and its length, parts, control, flags.
    let message: [usize; 7] = [
        0,
        0,
        (&raw const content) as usize,
        1,
        control.as_ptr() as usize,
        size_of_val(&control),
        0,
    ];
    // SAFETY: all of this lies on this stack; the descriptor is this child's own copy, closed once.
    unsafe {
        let told = sys!(
            SYS_sendmsg,
            fd(birth.report),
            message.as_ptr() as usize,
            libc::MSG_NOSIGNAL as usize
        );
        if let Some(message) = root.message {
            let _ = sys!(SYS_close, message);
        }
        at(Step::Root, told)
    }
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
