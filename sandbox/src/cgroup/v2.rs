//! Limits, usage and delegation in the files of cgroup v2 (kernel: admin-guide/cgroup-v2).

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use manifests::units::{Bytes, Millicores};

use super::tree::{Controller, LIMITERS};
use super::{Usage, files};
use crate::driver::Limits;

/// Where Knarr's own processes go, so that the cgroup above them may hand controllers down.
pub(super) const LEAF: &str = "knarr-main";

/// Writes what `controllers` can enforce. Memory first: it alone can be refused, and then nothing has changed.
pub(super) fn set_limits(dir: &Path, controllers: &[Controller], limits: &Limits) -> io::Result<()> {
    if controllers.contains(&Controller::Memory) {
        set_memory(dir, limits.memory)?;
    }
    if controllers.contains(&Controller::Pids) {
        files::write(&dir.join("pids.max"), &files::or(limits.pids, "max"))?;
    }
    if controllers.contains(&Controller::Cpu) {
        set_cpu(dir, limits.cpu)?;
    }
    Ok(())
}

/// Adds what the tree knows to `usage`. `cpu.stat` is there with and without the cpu controller.
pub(super) fn usage(dir: &Path, controllers: &[Controller], usage: &mut Usage) -> io::Result<()> {
    usage.cpu = Duration::from_micros(files::keyed(&dir.join("cpu.stat"), "usage_usec")?);
    if controllers.contains(&Controller::Memory) {
        usage.memory = Bytes(files::number(&dir.join("memory.current"))?);
        usage.oom_kills = files::keyed(&dir.join("memory.events"), "oom_kill")?;
        usage.limits.memory = files::maximum(&dir.join("memory.max"))?.map(Bytes);
    }
    if controllers.contains(&Controller::Pids) {
        usage.pids = files::small(files::number(&dir.join("pids.current"))?);
        usage.limits.pids = files::maximum(&dir.join("pids.max"))?.and_then(files::small);
    }
    if controllers.contains(&Controller::Cpu) {
        let text = files::read(&dir.join("cpu.max"))?;
        let (quota, period) = text.split_once(' ').unwrap_or((&text, ""));
        let period = period.parse().unwrap_or(files::CPU_PERIOD_US);
        usage.limits.cpu = quota.parse().ok().and_then(|quota| files::millicores(quota, period));
    }
    Ok(())
}

/// Hands as many of the three limiting controllers as possible down to the children of `dir`; returns those they have.
/// `own` is true when this process itself lives in `dir`.
pub(super) fn hand_down(dir: &Path, own: bool) -> Vec<Controller> {
    let listed = |file: &str| {
        let text = files::read(&dir.join(file)).unwrap_or_default();
        LIMITERS
            .into_iter()
            .filter(|c| text.split_whitespace().any(|w| w == c.name()))
            .collect::<Vec<_>>()
    };
    let (available, mut handed) = (listed("cgroup.controllers"), listed("cgroup.subtree_control"));
    let wanted: Vec<Controller> = available.into_iter().filter(|c| !handed.contains(c)).collect();
    if wanted.is_empty() {
        return handed;
    }
    let control = dir.join("cgroup.subtree_control");
    let mut vacated = false;
    for controller in wanted {
        let text = format!("+{}", controller.name());
        let mut written = files::write(&control, &text);
        if written.is_err() && own && !vacated {
            vacated = true;
            written = vacate(dir).and_then(|()| files::write(&control, &text));
        }
        if written.is_ok() {
            handed.push(controller);
        }
    }
    handed
}

/// Moves Knarr's own processes from `dir` to a child of it, so that `dir` may hand controllers down. Only when all of
/// them are Knarr's (the same executable): others are not ours to move.
pub(super) fn vacate(dir: &Path) -> io::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    let pids = files::pids(dir)?;
    let ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own);
    if !pids.iter().all(ours) {
        return Err(io::Error::from(io::ErrorKind::ResourceBusy));
    }
    let leaf = dir.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    pids.iter()
        .try_for_each(|pid| files::write(&leaf.join("cgroup.procs"), &pid.to_string()))
}

fn set_cpu(dir: &Path, cpu: Option<Millicores>) -> io::Result<()> {
    files::write(&dir.join("cpu.weight"), &files::weight(files::shares(cpu)).to_string())?;
    let quota = files::or(cpu.map(files::quota_us), "max");
    files::write(&dir.join("cpu.max"), &format!("{quota} {}", files::CPU_PERIOD_US))
}

/// Unlike v1, v2 takes a limit below the usage and kills until it holds. A running sandbox must survive a change, so
/// the excess is reclaimed first, and what cannot be reclaimed is an error. No swap and one death for all processes of
/// the sandbox, as Kubernetes' kubelet has it by default.
fn set_memory(dir: &Path, memory: Option<Bytes>) -> io::Result<()> {
    if let Some(Bytes(limit)) = memory {
        let current = || files::number(&dir.join("memory.current"));
        let excess = current()?.saturating_sub(limit);
        if excess > 0 {
            // Fails when it got less than it was asked for: only what is left counts.
            let _ = files::write(&dir.join("memory.reclaim"), &excess.to_string());
        }
        let left = current()?;
        if left > limit {
            let text = format!(
                "{}: {left} bytes are in use, more than the new limit of {limit}",
                dir.display()
            );
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
    }
    files::write(&dir.join("memory.max"), &files::or(memory.map(|m| m.0), "max"))?;
    // Absent without swap accounting and before Linux 4.19: then there is nothing to say.
    for (file, value) in [
        ("memory.swap.max", if memory.is_some() { "0" } else { "max" }),
        ("memory.oom.group", "1"),
    ] {
        let path = dir.join(file);
        if path.exists() {
            files::write(&path, value)?;
        }
    }
    Ok(())
}
