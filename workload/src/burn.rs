//! Burns CPU time, and holds memory: the two loads that a sandbox's limits act on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Uses `time` of this thread's CPU time and says how long that took: under a CPU limit, longer. Other requests get a
/// turn every millisecond.
pub(crate) async fn cpu(time: Duration) -> Duration {
    let began = read(ClockId::Monotonic);
    let mut left = time;
    while !left.is_zero() {
        let slice = left.min(Duration::from_millis(1));
        let start = read(ClockId::ThreadCPUTime);
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        while used(start) < slice {
            for _ in 0..1_000 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
            }
            std::hint::black_box(x);
        }
        left = left.saturating_sub(used(start));
        tokio::task::yield_now().await;
    }
    read(ClockId::Monotonic).saturating_sub(began)
}

/// Memory of the given size with every page touched, so that it is really there.
pub(crate) fn memory(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    memory
}

fn used(since: Duration) -> Duration {
    read(ClockId::ThreadCPUTime).saturating_sub(since)
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
