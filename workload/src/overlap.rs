//! Sees whether two requests were ever inside at once: the witness for `containerConcurrency: 1`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts for one process.
#[derive(Default)]
pub(crate) struct Detector(Mutex<Seen>);

/// What was seen so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    /// Requests that came in.
    pub(crate) requests: u64,
    /// Requests that came in while another was inside.
    pub(crate) overlaps: u64,
    /// Inside now.
    pub(crate) running: u64,
    /// Most at once.
    pub(crate) most: u64,
}

/// One request's stay; ends on drop.
pub(crate) struct Stay<'a> {
    detector: &'a Detector,
    /// `overlaps` before this request was counted: a later value means that somebody was inside at the same time.
    before: u64,
}

impl Detector {
    pub(crate) fn enter(&self) -> Stay<'_> {
        let mut seen = self.lock();
        let before = seen.overlaps;
        seen.requests += 1;
        seen.overlaps += u64::from(seen.running > 0);
        seen.running += 1;
        seen.most = seen.most.max(seen.running);
        Stay { detector: self, before }
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay<'_> {
    /// Whether another request was inside at any time since this one entered.
    pub(crate) fn overlapped(&self) -> bool {
        self.detector.lock().overlaps > self.before
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.detector.lock().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_an_overlap_know_and_a_later_request_does_not() {
        let detector = Detector::default();
        let first = detector.enter();
        assert!(!first.overlapped());
        let second = detector.enter();
        assert!(first.overlapped() && second.overlapped());
        drop(first);
        assert!(second.overlapped(), "it happened, even when it is over");
        drop(second);
        let third = detector.enter();
        assert!(!third.overlapped());
        assert_eq!(
            detector.seen(),
            Seen {
                requests: 3,
                overlaps: 1,
                running: 1,
                most: 2
            }
        );
    }
}
