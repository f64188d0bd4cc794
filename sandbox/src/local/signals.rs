//! Freezing without a cgroup: SIGSTOP to every process of a sandbox until none is left that runs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup::Cgroup;

/// A process as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Process {
    pub pid: i32,
    parent: i32,
    session: i32,
    stopped: bool,
    /// It waits in vfork(2), where no signal reaches it, until its child runs another program or ends.
    forks: bool,
}

/// What was stopped and is to run on.
#[derive(Default)]
pub(super) struct Held(HashMap<i32, OwnedFd>);

impl Held {
    /// Stops what runs; true when all had been stopped already. What the app itself had stopped is left as it is. One that
    /// waits for the child of its vfork(2) stands still as long as that does, and stops before it runs on.
    pub(super) fn stop(&mut self, processes: &[Process]) -> io::Result<bool> {
        let mut still = true;
        let stands = |of: i32| processes.iter().any(|child| child.parent == of && child.stopped);
        for process in processes.iter().filter(|process| !process.stopped) {
            if process.forks && self.0.contains_key(&process.pid) && stands(process.pid) {
                continue;
            }
            still = false;
            if self.0.contains_key(&process.pid) {
                // Told, and on its way; or the number was used again.
                self.0.remove(&process.pid);
            }
            let Some(pid) = Pid::from_raw(process.pid) else {
                continue;
            };
            let sent = pidfd_open(pid, PidfdFlags::empty())
                .and_then(|fd| pidfd_send_signal(&fd, Signal::STOP).map(|()| self.0.insert(process.pid, fd)));
            match sent {
                Ok(_) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(still)
    }

    /// Lets them run on.
    pub(super) fn resume(self) {
        for fd in self.0.values() {
            // Gone already is as good.
            let _ = pidfd_send_signal(fd, Signal::CONT);
        }
    }
}

/// Every process of the sandbox whose first one is `main`: of its cgroup where there is one, else its descendants and,
/// without a PID namespace that keeps them together, its session.
pub(super) fn processes(cgroup: &Cgroup, main: i32, isolated: bool) -> io::Result<Vec<Process>> {
    if let Some(pids) = cgroup.processes()? {
        return Ok(pids.into_iter().filter_map(look).collect());
    }
    let all: Vec<Process> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| look(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    Ok(family(&all, main, isolated))
}

fn family(all: &[Process], main: i32, isolated: bool) -> Vec<Process> {
    let mut found: HashSet<i32> = all
        .iter()
        .filter(|process| process.pid == main || !isolated && process.session == main)
        .map(|process| process.pid)
        .collect();
    loop {
        let before = found.len();
        let children = all.iter().filter(|process| found.contains(&process.parent));
        let children: Vec<i32> = children.map(|process| process.pid).collect();
        found.extend(children);
        if found.len() == before {
            break;
        }
    }
    all.iter()
        .filter(|process| found.contains(&process.pid))
        .copied()
        .collect()
}

fn look(pid: i32) -> Option<Process> {
    let mut process = of_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    // Whose system calls cannot be looked at is taken to wait for something that ends.
    process.forks &= fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| is_fork(&call));
    Some(process)
}

/// proc_pid_syscall(5): the number of the system call comes first.
fn is_fork(call: &str) -> bool {
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number: libc::c_long| FORKS.contains(&number))
}

/// Those that vfork(3) and posix_spawn(3) are made of.
#[cfg(target_arch = "x86_64")]
const FORKS: [libc::c_long; 3] = [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: [libc::c_long; 2] = [libc::SYS_clone, libc::SYS_clone3];

/// proc_pid_stat(5): state, parent, process group and session follow the last `)`, which ends the name. Dead ones need no
/// stopping.
fn of_stat(pid: i32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Process {
        pid,
        parent,
        session,
        stopped: matches!(state, "T" | "t"),
        forks: state == "D",
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stat_line_tells_state_parent_and_session() {
        let process = of_stat(7, "7 (a) b) T 5 6 4 0 -1 4194560 rest").unwrap();
        let want = Process {
            pid: 7,
            parent: 5,
            session: 4,
            stopped: true,
            forks: false,
        };
        assert_eq!(process, want);
        assert!(!of_stat(7, "7 (x) S 5 6 4 0").unwrap().stopped);
        assert_eq!(of_stat(7, "7 (x) Z 5 6 4 0"), None);
        assert_eq!(of_stat(7, "garbage"), None);
    }

    /// The child of its vfork sleeps before it runs anything: the kernel lets no signal through to the parent meanwhile.
    #[test]
    fn one_that_waits_for_its_vfork_is_stopped_with_its_child() {
        let dir = tempfile::tempdir().unwrap();
        let (source, program) = (dir.path().join("forks.c"), dir.path().join("forks"));
        let text = "#include <unistd.h>\nint main() { if (!vfork()) { sleep(1000); _exit(0); } }\n";
        fs::write(&source, text).unwrap();
        let compiled = Command::new("cc").arg("-o").args([&program, &source]).status().unwrap();
        assert!(compiled.success());
        let mut forks = Command::new(&program).spawn().unwrap();
        let pid = i32::try_from(forks.id()).unwrap();
        let seen = || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let all: Vec<Process> = all
                .filter_map(|entry| look(entry.file_name().to_str()?.parse().ok()?))
                .collect();
            family(&all, pid, true)
        };
        let soon = |mut done: Box<dyn FnMut() -> bool + '_>| {
            (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                done()
            })
        };
        assert!(soon(Box::new(|| seen().iter().any(|it| it.forks))), "{:?}", seen());
        let mut held = Held::default();
        let stood = soon(Box::new(|| held.stop(&seen()).unwrap()));
        let found = seen();
        held.resume();
        let runs_on = soon(Box::new(|| seen().iter().all(|it| !it.stopped)));
        for process in seen() {
            let _ = rustix::process::kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL);
        }
        forks.wait().unwrap();
        assert_eq!((stood, found.len(), runs_on), (true, 2, true), "{found:?}");
    }

    #[test]
    fn a_family_is_its_descendants_and_without_isolation_its_session() {
        let process = |pid, parent, session| Process {
            pid,
            parent,
            session,
            stopped: false,
            forks: false,
        };
        let all = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12),
            // Left alone by its parent, in the session still.
            process(13, 1, 10),
            process(14, 13, 14),
            process(20, 1, 20),
        ];
        let pids = |isolated| family(&all, 10, isolated).iter().map(|p| p.pid).collect::<Vec<_>>();
        assert_eq!(pids(true), [10, 11, 12]);
        assert_eq!(pids(false), [10, 11, 12, 13, 14]);
    }
}
