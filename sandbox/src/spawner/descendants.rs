//! Kills what a process has started: an OCI runtime that is killed leaves its command behind.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// How often is looked for more: what is born while we look is found the next time.
const ROUNDS: u32 = 32;

/// Kills every living descendant of `pid`, and stops it before, so that it starts no more; the caller kills it then. It is
/// our child and stands still: nobody waits for its children, so their numbers are not used again.
pub(super) fn kill(pid: i32) {
    send(pid, Signal::STOP);
    for _ in 0..ROUNDS {
        let alive = below(pid);
        if alive.is_empty() {
            return;
        }
        for one in alive {
            send(one, Signal::KILL);
        }
    }
}

/// Those that are not dead, whoever waits for them.
fn below(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut todo = vec![pid];
    while let Some(pid) = todo.pop() {
        let children = children(pid);
        found.extend(children.iter().copied().filter(|pid| !is_dead(*pid)));
        todo.extend(children);
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

/// Dead, or about to be: a kill is under way.
fn is_dead(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    matches!(state, None | Some(b'Z' | b'X'))
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Gone already is as good.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn children_and_theirs_are_killed_and_nobody_else() {
        let script = "sleep 86395 & sh -c 'sleep 86395 & echo up; wait' & wait";
        let mut first = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut other = Command::new("sleep").arg("86395").spawn().unwrap();
        let mut line = String::new();
        BufReader::new(first.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = i32::try_from(first.id()).unwrap();
        assert_eq!(below(pid).len(), 3);
        kill(pid);
        // The kernel takes a moment.
        while !below(pid).is_empty() {
            std::thread::yield_now();
        }
        assert!(other.try_wait().unwrap().is_none());
        for child in [&mut first, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
