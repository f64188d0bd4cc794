//! What each container of a sandbox may use, of what the sandbox may. PURE.
//!
//! With a single container both are the same. With several each has its own limits while the sandbox has all of them; when it
//! has less CPU or memory, each has the same part of its own less, so that together they keep to it.

use manifests::units::{Bytes, Millicores};
use manifests::workload::Workload;

use super::app::Role;
use crate::driver::Limits;

/// The limits of one container while its sandbox has `whole`.
pub(super) fn of(role: Role, workload: &Workload, whole: &Limits) -> Limits {
    let own = &role.container(workload).resources;
    if matches!(role, Role::Init(_)) {
        // It runs alone.
        return Limits {
            cpu: own.cpu_limit,
            memory: own.memory_limit,
            pids: whole.pids,
        };
    }
    if workload.sidecars.is_empty() {
        return *whole;
    }
    let cpu = |limit: Option<Millicores>| limit.map(|Millicores(limit)| u64::from(limit));
    let memory = |limit: Option<Bytes>| limit.map(|Bytes(limit)| limit);
    let (mut cpus, mut memories) = (Vec::new(), Vec::new());
    for container in workload.running() {
        cpus.push(cpu(container.resources.cpu_limit));
        memories.push(memory(container.resources.memory_limit));
    }
    let share = |whole, all: &[_], own| part(whole, all, own);
    let cpu = share(cpu(whole.cpu), &cpus, cpu(own.cpu_limit));
    Limits {
        cpu: cpu.map(|cpu| Millicores(u32::try_from(cpu).unwrap_or(u32::MAX).max(LEAST_CPU))),
        memory: share(memory(whole.memory), &memories, memory(own.memory_limit)).map(Bytes),
        pids: whole.pids,
    }
}

/// One container's part of `whole`, given all containers' own limits. One without a limit counts as if all of it were its own.
fn part(whole: Option<u64>, all: &[Option<u64>], own: Option<u64>) -> Option<u64> {
    let Some(whole) = whole else { return own };
    let sum: u128 = all.iter().map(|limit| u128::from(limit.unwrap_or(whole))).sum();
    let bounded = all.iter().all(Option::is_some);
    if sum == 0 || bounded && u128::from(whole) >= sum {
        return own;
    }
    let part = u128::from(whole) * u128::from(own.unwrap_or(whole)) / sum;
    let part = u64::try_from(part).unwrap_or(u64::MAX);
    Some(own.map_or(part, |own| own.min(part)))
}

/// The least that the kernel's quota can say: 1 ms of 100 ms.
const LEAST_CPU: u32 = 10;

#[cfg(test)]
mod tests {
    use manifests::workload::{Container, Image};

    use super::*;

    fn workload(limits: &[(Option<u32>, Option<u64>)]) -> Workload {
        let mut workload = Workload::host("app");
        for (nth, (cpu, memory)) in limits.iter().enumerate() {
            let mut container = Container::new(format!("c{nth}"), Image::Host("app".into()));
            container.resources.cpu_limit = cpu.map(Millicores);
            container.resources.memory_limit = memory.map(Bytes);
            if nth == 0 {
                workload.serving = container;
            } else {
                workload.sidecars.push(container);
            }
        }
        workload
    }

    fn whole(cpu: Option<u32>, memory: Option<u64>) -> Limits {
        Limits {
            cpu: cpu.map(Millicores),
            memory: memory.map(Bytes),
            pids: Some(7),
        }
    }

    #[test]
    fn each_has_its_part_and_together_they_keep_to_the_whole() {
        // The containers' own CPU limits, the sandbox's, and what each gets.
        type Row = (&'static [Option<u32>], Option<u32>, &'static [Option<u32>]);
        let table: &[Row] = &[
            (&[Some(1000)], Some(50), &[Some(50)]),
            (&[None], Some(50), &[Some(50)]),
            (&[Some(1000)], None, &[None]),
            (&[Some(300), Some(100)], Some(400), &[Some(300), Some(100)]),
            (&[Some(300), Some(100)], Some(900), &[Some(300), Some(100)]),
            (&[Some(300), Some(100)], None, &[Some(300), Some(100)]),
            (&[Some(300), Some(100)], Some(80), &[Some(60), Some(20)]),
            (&[Some(900), Some(100)], Some(50), &[Some(45), Some(10)]),
            (&[None, None], Some(50), &[Some(25), Some(25)]),
            (&[None, None], None, &[None, None]),
            (&[Some(50), None], Some(50), &[Some(25), Some(25)]),
            (&[Some(100), None], Some(1000), &[Some(90), Some(909)]),
        ];
        for (own, all, wanted) in table {
            let workload = workload(&own.iter().map(|cpu| (*cpu, None)).collect::<Vec<_>>());
            let roles = (0..own.len()).map(|nth| match nth {
                0 => Role::Serving,
                nth => Role::Sidecar(nth - 1),
            });
            let got: Vec<_> = roles.map(|role| of(role, &workload, &whole(*all, None))).collect();
            let cpus: Vec<_> = got.iter().map(|limits| limits.cpu.map(|cpu| cpu.0)).collect();
            assert_eq!(cpus, *wanted, "{own:?} of {all:?}");
            assert!(got.iter().all(|limits| limits.pids == Some(7)));
        }
    }

    #[test]
    fn memory_likewise_and_init_containers_run_alone() {
        let mut workload = workload(&[(Some(100), Some(300)), (None, Some(100))]);
        workload.init.push(workload.serving.clone());
        let memory = |role, all| of(role, &workload, &whole(Some(10), Some(all))).memory;
        assert_eq!(memory(Role::Serving, 400), Some(Bytes(300)));
        assert_eq!(memory(Role::Sidecar(0), 200), Some(Bytes(50)));
        let init = of(Role::Init(0), &workload, &whole(Some(10), Some(1)));
        assert_eq!((init.cpu, init.memory), (Some(Millicores(100)), Some(Bytes(300))));
    }
}
