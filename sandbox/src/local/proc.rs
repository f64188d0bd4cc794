//! What `/proc` knows of a process: whether a signal would reach it, and what it uses where no cgroup counts.

use std::fs;
use std::time::Duration;

use manifests::units::Bytes;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// What a process and its descendants use.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Used {
    pub cpu: Duration,
    pub memory: Bytes,
    /// Processes and threads.
    pub tasks: u32,
}

/// Whether sending `signal` to the first process of a PID namespace has any effect: the kernel drops what such a process
/// neither handles nor blocks (pid_namespaces(7)). True when that cannot be told.
pub(super) fn listens_to(pid: i32, signal: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| mask_has(&status, signal))
}

fn mask_has(status: &str, signal: i32) -> bool {
    let bit = 1u64 << (signal - 1);
    ["SigCgt:", "SigBlk:"].iter().any(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .is_none_or(|mask| mask & bit != 0)
    })
}

/// Sums up `pid` and everything it has started that still hangs on it; `None` when it is gone.
pub(super) fn usage(pid: i32) -> Option<Used> {
    let mut sum = Used::default();
    let mut todo = vec![pid];
    let mut found = false;
    while let Some(pid) = todo.pop() {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some(one) = of_stat(&stat) else { continue };
        found = true;
        sum.cpu += one.cpu;
        sum.memory.0 += one.memory.0;
        sum.tasks += one.tasks;
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            todo.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<i32>().ok()),
            );
        }
    }
    found.then_some(sum)
}

/// Waits for the dead children that this process has inherited from its spawner, because it is init or a subreaper: those
/// called `name`, and those of a PID namespace further down, which does not end before somebody has waited for them. Not for
/// a first process of such a namespace: that is a shell's, and how it ended is asked for elsewhere.
pub(super) fn reap_inherited(name: &str) {
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in children
            .split_whitespace()
            .filter_map(|child| child.parse::<i32>().ok())
        {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if let Some(pid) = Pid::from_raw(pid)
                && is_stray(&status, name)
            {
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
        }
    }
}

/// By proc_pid_status(5): `NSpid` has its number in each PID namespace, ours first.
fn is_stray(status: &str, name: &str) -> bool {
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().trim()
    };
    let numbers: Vec<&str> = field("NSpid:").split_whitespace().collect();
    let inside = numbers.len() > 1 && numbers.last() != Some(&"1");
    field("State:").starts_with('Z') && (inside || field("Name:") == name)
}

/// proc_pid_stat(5): fields after the last `)`, which ends the name: 14 and 15 are clock ticks of 10 ms, 20 is the
/// number of threads, 24 is resident pages.
fn of_stat(stat: &str) -> Option<Used> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Used {
        cpu: Duration::from_millis((number(14)? + number(15)?) * 10),
        memory: Bytes(number(24)? * rustix::param::page_size() as u64),
        tasks: u32::try_from(number(20)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_reaches_who_handles_or_blocks_it() {
        let status = |cgt: &str, blk: &str| format!("Name:\tx\nSigBlk:\t{blk}\nSigIgn:\t0\nSigCgt:\t{cgt}\n");
        let (term, none, hup) = ("0000000000004000", "0000000000000000", "0000000000000001");
        assert!(mask_has(&status(term, none), 15));
        assert!(mask_has(&status(none, term), 15));
        assert!(!mask_has(&status(hup, none), 15));
        assert!(mask_has("Name:\tx\n", 15), "an unknown kernel");
    }

    #[test]
    fn a_stray_is_dead_and_inside_or_of_that_name_and_no_first_process() {
        let status = |name: &str, state: &str, pids: &str| format!("Name:\t{name}\nState:\t{state}\nNSpid:\t{pids}\n");
        let cases = [
            ("sh", "Z (zombie)", "70\t5", true),
            ("sh", "S (sleeping)", "70\t5", false),
            ("app", "Z (zombie)", "70\t1", false),
            ("make", "Z (zombie)", "70", false),
            ("spawner", "Z (zombie)", "70", true),
            ("spawner", "S (sleeping)", "70", false),
        ];
        for (name, state, pids, stray) in cases {
            assert_eq!(
                is_stray(&status(name, state, pids), "spawner"),
                stray,
                "{name} {state} {pids}"
            );
        }
        assert!(!is_stray("", "spawner"));
    }

    #[test]
    fn a_stat_line_is_read_past_any_name() {
        let line = "7 (a) b) c) S 1 7 7 0 -1 4194560 0 0 0 0 12 8 0 0 20 0 3 0 100 9999 25 1844674 rest";
        let used = of_stat(line).unwrap();
        assert_eq!(used.cpu, Duration::from_millis(200));
        assert_eq!(used.tasks, 3);
        assert_eq!(used.memory.0, 25 * rustix::param::page_size() as u64);
        assert!(of_stat("garbage").is_none());
    }
}
