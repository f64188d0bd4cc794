//! Limits and usage in the files of cgroup v1 (kernel: admin-guide/cgroup-v1, scheduler/sched-bwc).

use std::io;
use std::path::Path;
use std::time::Duration;

use manifests::units::{Bytes, Millicores};

use super::{Controller, Usage, files};
use crate::driver::Limits;

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

/// Limits what all children use together; swap beside it is the host's business.
pub(super) fn limit_group(dir: &Path, memory: Bytes) -> io::Result<()> {
    files::write(&dir.join("memory.limit_in_bytes"), &memory.0.to_string())
}

/// Adds what `controllers` know to `usage`.
pub(super) fn usage(dir: &Path, controllers: &[Controller], usage: &mut Usage) -> io::Result<()> {
    if controllers.contains(&Controller::Cpuacct) {
        usage.cpu = Duration::from_nanos(files::number(&dir.join("cpuacct.usage"))?);
    }
    if controllers.contains(&Controller::Memory) {
        usage.memory = Bytes(files::number(&dir.join("memory.usage_in_bytes"))?);
        usage.oom_kills = files::keyed(&dir.join("memory.oom_control"), "oom_kill")?;
        let limit = files::number(&dir.join("memory.limit_in_bytes"))?;
        usage.limits.memory = (limit < NO_MEMORY_LIMIT).then_some(Bytes(limit));
    }
    if controllers.contains(&Controller::Pids) {
        usage.pids = files::small(files::number(&dir.join("pids.current"))?);
        usage.limits.pids = files::maximum(&dir.join("pids.max"))?.and_then(files::small);
    }
    if controllers.contains(&Controller::Cpu) {
        let quota = files::read(&dir.join("cpu.cfs_quota_us"))?;
        let period = files::number(&dir.join("cpu.cfs_period_us"))?;
        // -1 is no limit, and not a number for `parse::<u64>`.
        usage.limits.cpu = quota.parse().ok().and_then(|quota| files::millicores(quota, period));
    }
    Ok(())
}

/// The kernel prints "no limit" as the largest multiple of the page size; nobody has an exbibyte.
const NO_MEMORY_LIMIT: u64 = 1 << 60;

fn set_cpu(dir: &Path, cpu: Option<Millicores>) -> io::Result<()> {
    files::write(&dir.join("cpu.shares"), &files::shares(cpu).to_string())?;
    files::write(&dir.join("cpu.cfs_period_us"), &files::CPU_PERIOD_US.to_string())?;
    files::write(
        &dir.join("cpu.cfs_quota_us"),
        &files::or(cpu.map(files::quota_us), "-1"),
    )
}

/// Memory, and memory plus swap at the same value: no swap, as Kubernetes' kubelet has it by default. The kernel refuses
/// a moment in which the sum is below the part, hence the order. The file of the sum exists only where swap is counted.
fn set_memory(dir: &Path, memory: Option<Bytes>) -> io::Result<()> {
    let (plain, with_swap) = (
        dir.join("memory.limit_in_bytes"),
        dir.join("memory.memsw.limit_in_bytes"),
    );
    let old = files::number(&plain)?;
    let text = files::or(memory.map(|m| m.0), "-1");
    if !with_swap.exists() {
        return files::write(&plain, &text);
    }
    if memory.is_none_or(|m| m.0 > old) {
        files::write(&with_swap, &text)?;
        files::write(&plain, &text)
    } else {
        files::write(&plain, &text)?;
        files::write(&with_swap, &text).inspect_err(|_| {
            // The part was lowered and the sum was not: as before is the honest state. The error is told either way.
            let _ = files::write(&plain, &old.to_string());
        })
    }
}
