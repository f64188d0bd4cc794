//! Maps the users of the worker's user namespace, from outside: who is in one may map but itself.
//!
//! ```text
//! worker ──starts──▶ mapper          worker: unshare          worker ──"go"──▶ mapper: writes the maps ──answer──▶ worker
//! ```

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use super::MAP_ARGUMENT;
use crate::subordinate::{RANGE, Subordinate};

/// A process outside that waits for its parent to be in its namespace.
pub(super) struct Mapper(Child);

impl Mapper {
    pub(super) fn start() -> io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .arg(MAP_ARGUMENT)
            .arg(std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Has it map the namespace that this process is in now.
    pub(super) fn map(mut self) -> Result<(), String> {
        let mut talk = || -> io::Result<String> {
            let mut answer = String::new();
            if let Some(mut go) = self.0.stdin.take() {
                go.write_all(b"g")?;
            }
            if let Some(mut output) = self.0.stdout.take() {
                output.read_to_string(&mut answer)?;
            }
            self.0.wait()?;
            Ok(answer)
        };
        match talk() {
            Ok(answer) if answer == DONE => Ok(()),
            Ok(answer) => Err(format!("cannot map users: {answer}")),
            Err(error) => Err(format!("cannot map users: {error}")),
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // Its input closes, if that was not done yet, and it ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

const DONE: &str = "mapped";

/// The process outside. Returns its exit code.
pub(super) fn serve(parent: Option<OsString>) -> i32 {
    let pid = parent.and_then(|text| text.to_str()?.parse().ok());
    let mut go = [0];
    // Its parent has ended, or could not make the namespace.
    let (Some(pid), Ok(1)) = (pid, io::stdin().read(&mut go)) else {
        return 1;
    };
    let answer = match map(pid) {
        Ok(()) => DONE.to_owned(),
        Err(why) => why,
    };
    let told = io::stdout().write_all(answer.as_bytes());
    i32::from(told.is_err())
}

fn map(pid: i32) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        // Its own user is root inside, as for the sandboxes that will use the files.
        return Subordinate::find()?.map(pid, 0, 1, RANGE - 1);
    }
    // Everybody is who they are; what is given up is power over the host's namespaces.
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        let mapped = fs::read_to_string(format!("/proc/self/{file}")).and_then(|text| fs::write(&path, same(&text)));
        mapped.map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// A map of the same ids to themselves.
fn same(map: &str) -> String {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace();
        let (inside, count) = (numbers.next()?, numbers.nth(1)?);
        Some(format!("{inside} {inside} {count}\n"))
    };
    map.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_to_themselves_has_the_same_ids() {
        assert_eq!(same("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(same(""), "");
    }
}
