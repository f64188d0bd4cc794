//! Which sandbox: Knative's policies by `containerConcurrency`. PURE: the caller says what is free and draws the lots.
//!
//! Knative: `pkg/activator/net` lb_policy. 0 picks the less loaded of two random ones, 1 to 3 the first that is free in
//! sorted order, more goes round. Where sandboxes do not take equally many (Knative's all do), it is the less loaded of two
//! random ones by what each takes.

use manifests::units::ContainerConcurrency;

/// How a revision's requests are spread over its sandboxes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Two at random, the one with fewer requests in flight. Without a limit nothing is ever full.
    TwoChoices,
    /// The first with a free slot: keeps the others idle, so that they can be stopped.
    FirstAvailable,
    /// The next with a free slot, after the one picked last.
    RoundRobin,
}

impl Policy {
    /// The policy Knative uses at this `containerConcurrency`.
    pub const fn of(limit: ContainerConcurrency) -> Self {
        match limit.0 {
            0 => Self::TwoChoices,
            1..=3 => Self::FirstAvailable,
            _ => Self::RoundRobin,
        }
    }
}

/// The first of `count` that lets itself be reserved.
pub fn first_available(count: usize, reserve: impl FnMut(usize) -> bool) -> Option<usize> {
    let mut reserve = reserve;
    (0..count).find(|&index| reserve(index))
}

/// The first of `count` from `next` on, going round, that lets itself be reserved; `next` then points behind it. A `next`
/// past the end (the list has shrunk) starts over at 0.
pub fn round_robin(next: &mut usize, count: usize, reserve: impl FnMut(usize) -> bool) -> Option<usize> {
    let mut reserve = reserve;
    if *next >= count {
        *next = 0;
    }
    let index = (0..count)
        .map(|step| (*next + step) % count)
        .find(|&index| reserve(index))?;
    *next = index + 1;
    Some(index)
}

/// How loaded one is whose weight says what it takes beside the others: what it would be with one more request.
pub fn relative_load(in_flight: u32, weight: u32) -> u64 {
    (u64::from(in_flight) + 1) * (1 << 20) / u64::from(weight.max(1))
}

/// The less loaded of two random ones of `count`. `draw(n)` returns a number below `n`; it is asked for two contestants
/// when there are more than two, and for a coin when both are equally loaded.
pub fn two_choices<L: Ord>(
    count: usize,
    load: impl Fn(usize) -> L,
    mut draw: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let (one, other) = match count {
        0 => return None,
        1 => return Some(0),
        2 => (0, 1),
        _ => {
            let one = draw(count);
            let other = draw(count - 1);
            (one, if other >= one { other + 1 } else { other })
        }
    };
    let swap = match load(one).cmp(&load(other)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => draw(2) == 0,
        std::cmp::Ordering::Greater => true,
    };
    Some(if swap { other } else { one })
}
