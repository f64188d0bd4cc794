//! The system call filter of a sandbox, as a classic BPF program in the shape of a binary search tree.
//!
//! The shape matters: at install the kernel runs the filter once for every system call number, and a linear list of this
//! length costs 0.8 ms of a cold start where a tree costs 0.1 ms. Compiled once, installed by every child with one call.
//!
//! ```text
//! architecture? ─no─▶ kill      number ≥ k? ─▶ … ─▶ leaf: allow, errno, or look at the first argument
//! ```

mod oci;
mod table;
#[cfg(test)]
mod tests;

use std::io;

pub(crate) use oci::oci_profile;
use table::{ABSENT, ALLOWED, NEWEST};

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
    /// It fails with this `errno`.
    Errno(u16),
    /// The process ends with SIGSYS: a call of another architecture, such as that of a 32-bit program.
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

    const fn number(self, call: &table::Call) -> u32 {
        match self {
            Self::X86_64 => call.1,
            Self::Aarch64 => call.2,
        }
    }
}

impl Filter {
    /// The default profile. Pure.
    pub fn compile(arch: Arch) -> Self {
        let mut program = vec![
            load(ARCH_OFFSET),
            jump(libc::BPF_JEQ, arch.audit(), 1, 0),
            ret(Verdict::Kill),
            load(NUMBER_OFFSET),
        ];
        program.extend(tree(&ranges(arch)));
        Self { program }
    }

    /// The program, for a child that loads it in raw system calls.
    pub(crate) fn instructions(&self) -> &[libc::sock_filter] {
        &self.program
    }

    /// How many instructions it has; the kernel takes 4096.
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Never: a filter without an instruction would be refused by the kernel.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }

    /// Puts the calling thread, and all that it starts, under the filter, for good. Makes one system call and touches
    /// no memory but its own, so a child may call it between `clone` and `exec`; `no_new_privs` must be set before.
    ///
    /// # Errors
    /// `EACCES` without `no_new_privs`, `EINVAL` on a kernel without seccomp filters.
    #[expect(unsafe_code, reason = "a raw system call")]
    pub fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            // At most 4096, checked by a test.
            len: u16::try_from(self.program.len()).unwrap_or(u16::MAX),
            filter: self.program.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points to as many instructions as it says, and the kernel copies them before it returns.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// What a system call number comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaf {
    Always(Verdict),
    /// By the first argument, as in `RULES` at this index.
    Rule(usize),
}

/// A call that is allowed by its first argument; all others fail with `EPERM`.
struct Rule {
    call: table::Call,
    allowed: Allowed,
}

enum Allowed {
    /// None of these bits, in the low word; the high word does not matter to the kernel.
    NoneOf(u32),
    /// One of these values, in 64 bits.
    Ranges(&'static [(u32, u32)]),
}

/// From the same profile. `clone`: no new namespace. `personality`: Linux, 32-bit-uname and no-randomisation flags, and
/// the query. `socket`: all families but DECnet, netbeui, key-less ones long gone, ALG and, above all, VSOCK.
static RULES: [Rule; 3] = [
    Rule {
        call: table::Call("clone", 56, 220),
        allowed: Allowed::NoneOf(0x7E02_0000),
    },
    Rule {
        call: table::Call("personality", 135, 92),
        allowed: Allowed::Ranges(&[
            (0, 0),
            (8, 8),
            (0x2_0000, 0x2_0000),
            (0x2_0008, 0x2_0008),
            (u32::MAX, u32::MAX),
        ]),
    },
    Rule {
        call: table::Call("socket", 41, 198),
        allowed: Allowed::Ranges(&[
            (0, 11),
            (13, 18),
            (21, 22),
            (24, 24),
            (26, 33),
            (35, 36),
            (39, 39),
            (41, 45),
        ]),
    },
];

/// `clone3` hides its flags behind a pointer; libraries fall back to `clone` when it is "not there".
const CLONE3: u32 = 435;

const EPERM: Verdict = Verdict::Errno(1);
const ENOSYS: Verdict = Verdict::Errno(38);

/// Offsets in `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const ARG0_OFFSET: u32 = 16;

/// The verdict for every number, as ranges in order: where each begins, and what holds up to the next.
fn ranges(arch: Arch) -> Vec<(u32, Leaf)> {
    let mut leaves = vec![Leaf::Always(EPERM); NEWEST as usize + 1];
    for call in ALLOWED {
        if arch.number(call) != ABSENT {
            leaves[arch.number(call) as usize] = Leaf::Always(Verdict::Allow);
        }
    }
    for (index, rule) in RULES.iter().enumerate() {
        leaves[arch.number(&rule.call) as usize] = Leaf::Rule(index);
    }
    leaves[CLONE3 as usize] = Leaf::Always(ENOSYS);

    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    for (number, leaf) in (0..).zip(leaves.into_iter().chain([Leaf::Always(ENOSYS)])) {
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((number, leaf));
        }
    }
    ranges
}

/// Halves the ranges until one is left. Conditional jumps reach 255 instructions, so a far half is reached by a plain one.
fn tree(ranges: &[(u32, Leaf)]) -> Vec<libc::sock_filter> {
    if let [(_, leaf)] = ranges {
        return leaf_program(*leaf);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (low, start, high) = (tree(low), high[0].0, tree(high));
    let mut program = match u8::try_from(low.len()) {
        Ok(skip) => vec![jump(libc::BPF_JGE, start, skip, 0)],
        Err(_) => vec![jump(libc::BPF_JGE, start, 0, 1), far(low.len())],
    };
    program.extend(low);
    program.extend(high);
    program
}

fn leaf_program(leaf: Leaf) -> Vec<libc::sock_filter> {
    match leaf {
        Leaf::Always(verdict) => vec![ret(verdict)],
        Leaf::Rule(index) => match RULES[index].allowed {
            Allowed::NoneOf(bits) => {
                vec![
                    load(arg0(Half::Low)),
                    jump(libc::BPF_JSET, bits, 0, 1),
                    ret(EPERM),
                    ret(Verdict::Allow),
                ]
            }
            Allowed::Ranges(ranges) => {
                let mut program = vec![load(arg0(Half::High)), jump(libc::BPF_JEQ, 0, 1, 0), ret(EPERM)];
                program.push(load(arg0(Half::Low)));
                for &(first, last) in ranges {
                    // Below the first: no range follows that could match, but a refusal is one jump away either way.
                    program.push(jump(libc::BPF_JGE, first, 0, 2));
                    program.push(jump(libc::BPF_JGT, last, 1, 0));
                    program.push(ret(Verdict::Allow));
                }
                program.push(ret(EPERM));
                program
            }
        },
    }
}

enum Half {
    Low,
    High,
}

/// Where a half of the first argument is, on this byte order.
const fn arg0(half: Half) -> u32 {
    match (half, cfg!(target_endian = "little")) {
        (Half::Low, true) | (Half::High, false) => ARG0_OFFSET,
        (Half::High, true) | (Half::Low, false) => ARG0_OFFSET + 4,
    }
}

const fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

const fn jump(condition: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, k, yes, no)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a program has a few hundred instructions"
)]
const fn far(skip: usize) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, skip as u32, 0, 0)
}

const fn ret(verdict: Verdict) -> libc::sock_filter {
    let value = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "instruction codes are 16 bits")]
const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}
