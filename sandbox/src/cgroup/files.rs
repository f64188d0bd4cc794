//! Reading and writing cgroup files, and the arithmetic between Kubernetes' units and the kernel's.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use manifests::units::Millicores;

/// The CFS period: 100 ms, Kubernetes' and the kernel's default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;

/// The kernel refuses quotas below 1 ms (Kubernetes: `minQuotaPeriod`).
const MIN_QUOTA_US: u64 = 1_000;

/// CPU time per period for a limit (Kubernetes: `MilliCPUToQuota`); at least 1 ms, which is `10m`.
pub(super) fn quota_us(cpu: Millicores) -> u64 {
    (u64::from(cpu.0) * CPU_PERIOD_US / 1_000).max(MIN_QUOTA_US)
}

/// The limit that a quota stands for; `None` for one that makes no sense.
pub(super) fn millicores(quota_us: u64, period_us: u64) -> Option<Millicores> {
    (quota_us * 1_000)
        .checked_div(period_us)
        .and_then(|m| u32::try_from(m).ok())
        .map(Millicores)
}

/// Relative weight under contention (Kubernetes: `MilliCPUToShares`, with the request equal to the limit): 1024 per core,
/// 2 to 262144. Without a limit one core's worth: Kubernetes would write 2 for a container without a request, and a
/// sandbox without a limit would starve beside one with `100m`.
pub(super) fn shares(cpu: Option<Millicores>) -> u64 {
    cpu.map_or(1024, |cpu| (u64::from(cpu.0) * 1024 / 1000).clamp(2, 262_144))
}

/// v1's shares as v2's weight, 1 to 10000: 2 is 1, 1024 is 100, 262144 is 10000 (opencontainers/cgroups:
/// `ConvertCPUSharesToCgroupV2Value`, used by runc since 1.3.2).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=10000"
)]
#[expect(clippy::cast_precision_loss, reason = "shares are at most 262144")]
pub(super) fn weight(shares: u64) -> u64 {
    let l = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64
}

/// `value`, or the file's word for "no limit".
pub(super) fn or<T: Display>(value: Option<T>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |v| v.to_string())
}

pub(super) fn small(value: u64) -> Option<u32> {
    u32::try_from(value).ok()
}

/// The content without the last newline. A cgroup that is gone is `NotFound`, whichever way the kernel says so.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path).map_err(|e| told(path, e))?;
    whole(&file).map_err(|e| told(path, e))
}

/// Holds `/proc/meminfo` and `memory.stat`.
const PAGES: usize = 8192;

pub(crate) fn number(path: &Path) -> io::Result<u64> {
    as_number(path, &read(path)?)
}

fn as_number(path: &Path, text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| unreadable(path, text))
}

/// A number, or `None` for `max`.
pub(super) fn maximum(path: &Path) -> io::Result<Option<u64>> {
    match read(path)?.as_str() {
        "max" => Ok(None),
        text => text.parse().map(Some).map_err(|_| unreadable(path, text)),
    }
}

/// The number beside `key` in a file of `key number` lines; 0 when an older kernel does not have the key.
pub(crate) fn keyed(path: &Path, key: &str) -> io::Result<u64> {
    value_of(path, &read(path)?, key)
}

fn value_of(path: &Path, text: &str, key: &str) -> io::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.map_or(Ok(0), |v| v.trim().parse().map_err(|_| unreadable(path, text)))
}

/// A file that is read again and again, and stays open from the first time on: to find and open it takes longer than to read
/// it.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    file: OnceLock<File>,
}

impl Kept {
    pub(crate) fn new(path: PathBuf) -> Self {
        let file = OnceLock::new();
        Self { path, file }
    }

    /// As [`read`], of now.
    pub(crate) fn read(&self) -> io::Result<String> {
        if let Some(Ok(text)) = self.file.get().map(whole) {
            return Ok(text);
        }
        // Not open yet; or it was the file of a cgroup that is gone, and there may be another one.
        let file = File::open(&self.path).map_err(|e| told(&self.path, e))?;
        let text = whole(&file).map_err(|e| told(&self.path, e))?;
        let _ = self.file.set(file);
        Ok(text)
    }

    /// As [`number`].
    pub(crate) fn number(&self) -> io::Result<u64> {
        as_number(&self.path, &self.read()?)
    }

    /// As [`keyed`].
    pub(crate) fn keyed(&self, key: &str) -> io::Result<u64> {
        value_of(&self.path, &self.read()?, key)
    }
}

/// All of a file, wherever it was read to before. In one read and the one that finds the end: the size that the kernel tells of
/// such a file is 0, and `fs::read_to_string` then asks in seven pieces.
fn whole(file: &File) -> io::Result<String> {
    let mut text = Vec::with_capacity(PAGES);
    loop {
        let end = text.len();
        text.resize(end.max(PAGES / 2) * 2, 0);
        let read = file.read_at(&mut text[end..], end as u64)?;
        text.truncate(end + read);
        if read == 0 {
            break;
        }
    }
    text.truncate(text.trim_ascii_end().len());
    String::from_utf8(text).map_err(io::Error::other)
}

/// The processes in the cgroup `dir` itself; 0 stands for one in a PID namespace that is not below ours.
pub(super) fn pids(dir: &Path) -> io::Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    let text = read(&path)?;
    text.lines()
        .map(|line| line.parse().map_err(|_| unreadable(&path, line)))
        .collect()
}

/// One `write`, as cgroup files want it; never creates the file.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .map_err(|e| told(path, e))?;
    file.write_all(text.as_bytes()).map_err(|e| {
        let told = told(path, e);
        io::Error::new(told.kind(), format!("{told} (writing {text:?})"))
    })
}

/// Adds the path to an error.
pub(super) fn told(path: &Path, error: io::Error) -> io::Error {
    let gone = error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error());
    let kind = if gone { io::ErrorKind::NotFound } else { error.kind() };
    io::Error::new(kind, format!("{}: {error}", path.display()))
}

fn unreadable(path: &Path, text: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: not understood: {text:?}", path.display()),
    )
}
