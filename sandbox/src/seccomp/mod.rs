//! System call filters: what a sandbox may ask of the kernel, compiled to a classic BPF program in the shape of a binary
//! search tree.
//!
//! The shape matters: at install the kernel runs the filter once for every system call number, and a linear list of this
//! length costs 0.8 ms of a cold start where a tree costs 0.1 ms. Compiled once, installed by every child with one call.
//!
//! ```text
//! capabilities ─▶ the default profile ─┐
//! a profile's file ─▶ Document ────────┴▶ Profile ─▶ Filter, for the kernel; or words for an OCI runtime
//!
//! architecture? ─no─▶ kill      number ≥ k? ─▶ … ─▶ leaf: a verdict, or look at the arguments
//! ```

mod compile;
mod document;
mod oci;
mod profile;
mod table;
#[cfg(test)]
mod tests;

use std::io;

pub(crate) use document::{Circumstances, Document};
pub(crate) use profile::Profile;

/// An architecture that filters can be made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    /// 64-bit x86, without its 32-bit and x32 calls.
    X86_64,
    /// 64-bit ARM, without its 32-bit calls.
    Aarch64,
}

/// What happens to a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It runs.
    Allow,
    /// It runs, and the kernel's log says so.
    Log,
    /// It fails with this `errno`.
    Errno(u16),
    /// The process gets SIGSYS, which it may handle.
    Trap,
    /// A tracer is asked, with this word; without one it fails with `ENOSYS`.
    Trace(u16),
    /// The thread ends.
    KillThread,
    /// The process ends with SIGSYS: also for a call of another architecture, such as that of a 32-bit program.
    Kill,
}

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

impl Arch {
    /// The architecture of this build; `None` where there is no table for it.
    pub const fn native() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// As in `seccomp_data.arch` (linux/audit.h).
    const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::Aarch64 => 0xC000_00B7,
        }
    }

    /// Its name in OCI's words, and in Docker's.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("SCMP_ARCH_X86_64", "amd64"),
            Self::Aarch64 => ("SCMP_ARCH_AARCH64", "arm64"),
        }
    }

    /// `None` where it has no such call.
    fn number(self, call: &table::Call) -> Option<u32> {
        let number = match self {
            Self::X86_64 => call.1,
            Self::Aarch64 => call.2,
        };
        (number != table::ABSENT).then_some(number)
    }
}

impl Filter {
    /// Pure.
    pub(crate) fn compile(arch: Arch, profile: &Profile) -> Self {
        Self {
            program: compile::program(arch, profile),
        }
    }

    /// The program, for a child that loads it in raw system calls.
    pub(crate) fn instructions(&self) -> &[libc::sock_filter] {
        &self.program
    }

    /// The program as it crosses to the spawner: eight bytes an instruction.
    pub(crate) fn words(&self) -> Vec<u64> {
        let word = |it: &libc::sock_filter| {
            let ([c0, c1], [k0, k1, k2, k3]) = (it.code.to_ne_bytes(), it.k.to_ne_bytes());
            u64::from_ne_bytes([c0, c1, it.jt, it.jf, k0, k1, k2, k3])
        };
        self.program.iter().map(word).collect()
    }

    /// Back from [`Self::words`].
    pub(crate) fn from_words(words: &[u64]) -> Self {
        let instruction = |word: &u64| {
            let [c0, c1, jt, jf, k0, k1, k2, k3] = word.to_ne_bytes();
            libc::sock_filter {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            }
        };
        Self {
            program: words.iter().map(instruction).collect(),
        }
    }

    /// How many instructions it has; the kernel takes [`Self::LARGEST`].
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// The kernel's `BPF_MAXINSNS`.
    pub const LARGEST: usize = 4096;

    /// Never: a filter without an instruction would be refused by the kernel.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }

    /// Puts the calling thread, and all that it starts, under the filter, for good. Makes one system call and touches
    /// no memory but its own, so a child may call it between `clone` and `exec`; `no_new_privs` must be set before.
    ///
    /// # Errors
    /// `EACCES` without `no_new_privs`, `EINVAL` on a kernel without seccomp filters, or for a filter that is too long.
    #[expect(unsafe_code, reason = "a raw system call")]
    pub fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            // A length that does not fit is one that the kernel refuses.
            len: u16::try_from(self.program.len()).unwrap_or(u16::MAX),
            filter: self.program.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points to at least as many instructions as it says (or is refused for its length), and the
        // kernel copies them before it returns.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

const EPERM: Verdict = Verdict::Errno(1);
const ENOSYS: Verdict = Verdict::Errno(38);
