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
}

/// What was stopped and is to run on.
#[derive(Default)]
pub(super) struct Held(HashMap<i32, OwnedFd>);

impl Held {
    /// Stops what runs; true when all had been stopped already. What the app itself had stopped is left as it is.
    pub(super) fn stop(&mut self, processes: &[Process]) -> io::Result<bool> {
        let mut still = true;
        for process in processes.iter().filter(|process| !process.stopped) {
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
    of_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_tells_state_parent_and_session() {
        let process = of_stat(7, "7 (a) b) T 5 6 4 0 -1 4194560 rest").unwrap();
        let want = Process {
            pid: 7,
            parent: 5,
            session: 4,
            stopped: true,
        };
        assert_eq!(process, want);
        assert!(!of_stat(7, "7 (x) S 5 6 4 0").unwrap().stopped);
        assert_eq!(of_stat(7, "7 (x) Z 5 6 4 0"), None);
        assert_eq!(of_stat(7, "garbage"), None);
    }

    #[test]
    fn a_family_is_its_descendants_and_without_isolation_its_session() {
        let process = |pid, parent, session| Process {
            pid,
            parent,
            session,
            stopped: false,
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
