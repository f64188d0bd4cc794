//! The clock and the timer of the generator: the one place that reads them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// What [`Timer`] is, for reports.
pub(crate) const NAME: &str = "timerfd";

/// The time.
#[expect(clippy::disallowed_methods, reason = "the shell of this crate")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The kernel's high-resolution timer: the runtime's own rounds up to the next millisecond, which would make every
/// request late and bunch those of one millisecond together.
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an `OwnedFd` is one open descriptor for all its life"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Sleeps for `time`, at least a nanosecond; or less, after [`Timer::wake`]. Cancel-safe: the next call sets it anew.
    pub(crate) async fn sleep(&self, time: Duration) -> io::Result<()> {
        self.set(time)?;
        // Never read: to set it anew takes back what it has counted, and the next expiry is a new edge.
        self.0.readable().await?.clear_ready();
        Ok(())
    }

    /// Ends a sleep early.
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.set(Duration::ZERO)
    }

    fn set(&self, time: Duration) -> io::Result<()> {
        // Zero would switch it off.
        let time = time.max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(
            self.0.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval: once,
                it_value: value,
            },
        )?;
        Ok(())
    }
}
