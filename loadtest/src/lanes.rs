//! Who is on a connection and who stands in line for one. Pure.

use std::collections::VecDeque;

/// `limit` requests may be under way; others wait in order, up to a bound, or are turned away.
///
/// - I1. Nobody waits while a lane is free.
/// - I2. `busy <= limit` and `waiting.len() <= max_waiting`.
pub(crate) struct Lanes<T> {
    limit: usize,
    max_waiting: usize,
    busy: usize,
    waiting: VecDeque<T>,
}

/// What becomes of a request that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer<T> {
    /// Send it now; [`Lanes::next`] must be called when it is over.
    Go(T),
    /// [`Lanes::next`] will return it.
    Waits,
    /// No room: it will never be sent.
    Refused,
}

impl<T> Lanes<T> {
    pub(crate) fn new(limit: usize, max_waiting: usize) -> Self {
        Self {
            limit,
            max_waiting,
            busy: 0,
            waiting: VecDeque::new(),
        }
    }

    /// A request is due.
    pub(crate) fn offer(&mut self, request: T) -> Offer<T> {
        let offer = if self.busy < self.limit {
            self.busy += 1;
            Offer::Go(request)
        } else if self.waiting.len() < self.max_waiting {
            self.waiting.push_back(request);
            Offer::Waits
        } else {
            Offer::Refused
        };
        self.check();
        offer
    }

    /// A request is over: whose turn it is on the same lane, or nobody's, and the lane is free.
    pub(crate) fn next(&mut self) -> Option<T> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.busy -= 1;
        }
        self.check();
        next
    }

    /// Requests under way.
    pub(crate) fn busy(&self) -> usize {
        self.busy
    }

    /// Requests in line.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn check(&self) {
        let sizes = (self.busy, self.limit, self.waiting.len(), self.max_waiting);
        debug_assert!(self.waiting.is_empty() || self.busy == self.limit, "I1: {sizes:?}");
        debug_assert!(
            self.busy <= self.limit && self.waiting.len() <= self.max_waiting,
            "I2: {sizes:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_then_waits_in_order_then_is_refused() {
        let mut lanes = Lanes::new(2, 2);
        assert_eq!([1, 2].map(|n| lanes.offer(n)), [Offer::Go(1), Offer::Go(2)]);
        assert_eq!(
            [3, 4, 5].map(|n| lanes.offer(n)),
            [Offer::Waits, Offer::Waits, Offer::Refused]
        );
        assert_eq!((lanes.next(), lanes.busy(), lanes.waiting()), (Some(3), 2, 1));
        assert_eq!((lanes.next(), lanes.next(), lanes.busy()), (Some(4), None, 1));
        assert_eq!(
            (lanes.offer(6), lanes.next(), lanes.next(), lanes.busy()),
            (Offer::Go(6), None, None, 0)
        );
    }
}
