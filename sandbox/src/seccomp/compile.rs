//! A profile as instructions: one leaf for each stretch of numbers with the same fate, found by halving.

use super::profile::{Condition, Profile, Test};
use super::table::find;
use super::{Arch, ENOSYS, Verdict};

/// Offsets in `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;

/// Numbers from here on are x32's, under the architecture of x86_64: they would go around rules for the same calls.
const X32: u32 = 0x4000_0000;

/// The whole program.
pub(super) fn program(arch: Arch, profile: &Profile) -> Vec<libc::sock_filter> {
    let mut program = vec![
        load(ARCH_OFFSET),
        jump(libc::BPF_JEQ, arch.audit(), 1, 0),
        ret(Verdict::Kill),
        load(NUMBER_OFFSET),
    ];
    program.extend(tree(&ranges(arch, profile)));
    program
}

/// What a system call number comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Leaf {
    /// In order: the first whose conditions all hold.
    cases: Vec<(Vec<Condition>, Verdict)>,
    otherwise: Option<Verdict>,
}

impl Leaf {
    const fn always(verdict: Verdict) -> Self {
        Self {
            cases: Vec::new(),
            otherwise: Some(verdict),
        }
    }
}

/// The fate of every number, as ranges in order: where each begins, and what holds up to the next.
fn ranges(arch: Arch, profile: &Profile) -> Vec<(u32, Leaf)> {
    let named = Profile::newest_named(&profile.rules, arch).unwrap_or(0);
    let newest = profile.newest.map_or(named, |newest| newest.max(named));
    let empty = Leaf {
        cases: Vec::new(),
        otherwise: None,
    };
    let mut leaves = vec![empty; newest as usize + 1];
    for rule in &profile.rules {
        let calls = rule.names.iter().filter_map(|name| arch.number(find(name)?));
        for number in calls {
            let leaf = &mut leaves[number as usize];
            if rule.conditions.is_empty() {
                leaf.otherwise.get_or_insert(rule.verdict);
            } else {
                leaf.cases.push((rule.conditions.clone(), rule.verdict));
            }
        }
    }
    for leaf in &mut leaves {
        leaf.otherwise.get_or_insert(profile.default);
    }
    let beyond = if profile.newest.is_some() {
        ENOSYS
    } else {
        profile.default
    };
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    for (number, leaf) in (0..).zip(leaves.into_iter().chain([Leaf::always(beyond)])) {
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((number, leaf));
        }
    }
    if beyond != ENOSYS {
        ranges.push((X32, Leaf::always(ENOSYS)));
    }
    ranges
}

/// Halves the ranges until one is left. Conditional jumps reach 255 instructions, so a far half is reached by a plain one.
fn tree(ranges: &[(u32, Leaf)]) -> Vec<libc::sock_filter> {
    if let [(_, leaf)] = ranges {
        return leaf_program(leaf);
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

fn leaf_program(leaf: &Leaf) -> Vec<libc::sock_filter> {
    let mut program: Vec<_> = leaf.cases.iter().flat_map(case_program).collect();
    program.extend(leaf.otherwise.map(ret));
    program
}

/// Where a jump goes.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// Behind the condition: it holds.
    Holds,
    /// Behind the case: it does not.
    Fails,
}

/// A comparison with what was loaded last, or a load or an operation, which go on to the next.
struct Part {
    code: u32,
    k: u32,
    yes: To,
    no: To,
}

/// Falls through to what comes after it when a condition does not hold.
fn case_program((conditions, verdict): &(Vec<Condition>, Verdict)) -> Vec<libc::sock_filter> {
    let parts: Vec<Vec<Part>> = conditions.iter().map(condition).collect();
    let length = parts.iter().map(Vec::len).sum::<usize>() + 1;
    let mut program = Vec::with_capacity(length);
    for condition in parts {
        let holds = program.len() + condition.len();
        for part in condition {
            let here = program.len() + 1;
            let distance = |to| match to {
                To::Next => 0,
                To::Holds => holds - here,
                To::Fails => length - here,
            };
            program.push(instruction(part.code, part.k, distance(part.yes), distance(part.no)));
        }
    }
    program.push(ret(*verdict));
    program
}

fn condition(condition: &Condition) -> Vec<Part> {
    use To::{Fails, Holds, Next};
    let go_on = |code, k| Part {
        code,
        k,
        yes: Next,
        no: Next,
    };
    let word = |half| {
        let offset = argument(condition.argument, half);
        go_on(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
    };
    let test = |how, k, yes, no| Part {
        code: libc::BPF_JMP | how | libc::BPF_K,
        k,
        yes,
        no,
    };
    let (high, low) = (word(Half::High), word(Half::Low));
    let (equal, greater, at_least) = (libc::BPF_JEQ, libc::BPF_JGT, libc::BPF_JGE);
    match condition.test {
        Test::Equal(value) => {
            let (h, l) = halves(value);
            vec![high, test(equal, h, Next, Fails), low, test(equal, l, Next, Fails)]
        }
        Test::NotEqual(value) => {
            let (h, l) = halves(value);
            vec![high, test(equal, h, Next, Holds), low, test(equal, l, Fails, Next)]
        }
        Test::Greater(value) | Test::GreaterOrEqual(value) => {
            let (h, l) = halves(value);
            let last = if matches!(condition.test, Test::Greater(_)) {
                greater
            } else {
                at_least
            };
            let differs = [test(greater, h, Holds, Next), test(equal, h, Next, Fails)];
            let [more, same] = differs;
            vec![high, more, same, low, test(last, l, Next, Fails)]
        }
        Test::Less(value) | Test::LessOrEqual(value) => {
            let (h, l) = halves(value);
            let last = if matches!(condition.test, Test::Less(_)) {
                at_least
            } else {
                greater
            };
            let differs = [test(greater, h, Fails, Next), test(equal, h, Next, Holds)];
            let [more, same] = differs;
            vec![high, more, same, low, test(last, l, Fails, Next)]
        }
        Test::Masked { mask, value } => {
            let mut parts = Vec::new();
            let (masks, values) = (halves(mask), halves(value));
            for (load, mask, value) in [(high, masks.0, values.0), (low, masks.1, values.1)] {
                if (mask, value) == (0, 0) {
                    continue;
                }
                let only = go_on(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask);
                parts.extend([load, only, test(equal, value, Next, Fails)]);
            }
            parts
        }
        Test::Within(ranges) => {
            let mut parts = vec![high, test(equal, 0, Next, Fails), low];
            for (nth, &(first, last)) in ranges.iter().enumerate() {
                let above = if nth + 1 == ranges.len() { Fails } else { Next };
                parts.extend([test(at_least, first, Next, Fails), test(greater, last, above, Holds)]);
            }
            parts
        }
    }
}

const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, (value & 0xffff_ffff) as u32)
}

enum Half {
    Low,
    High,
}

/// Where a half of an argument is, on this byte order.
const fn argument(nth: u8, half: Half) -> u32 {
    let offset = ARGUMENTS_OFFSET + 8 * nth as u32;
    match (half, cfg!(target_endian = "little")) {
        (Half::Low, true) | (Half::High, false) => offset,
        (Half::High, true) | (Half::Low, false) => offset + 4,
    }
}

const fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

const fn jump(condition: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, k, yes as usize, no as usize)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a program has a few thousand instructions"
)]
const fn far(skip: usize) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, skip as u32, 0, 0)
}

const fn ret(verdict: Verdict) -> libc::sock_filter {
    let value = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Log => libc::SECCOMP_RET_LOG,
        Verdict::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        Verdict::Trap => libc::SECCOMP_RET_TRAP,
        Verdict::Trace(word) => libc::SECCOMP_RET_TRACE | word as u32,
        Verdict::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "instruction codes are 16 bits; a case has at most six conditions, none as long as 20 instructions"
)]
const fn instruction(code: u32, k: u32, yes: usize, no: usize) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: yes as u8,
        jf: no as u8,
        k,
    }
}
