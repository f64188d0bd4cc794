//! PURE  From what the decider wants to what the manifest allows: min, max and initial scale.
//!
//! Knative: `ScaleBounds` and `applyBounds` of the KPA reconciler. Activation scale is the decider's own business.

use manifests::revision::{Reachability, Revision};
use manifests::units::Replicas;

/// The range a revision's replicas must stay in now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// At least; wins over `max`.
    pub min: Replicas,
    /// At most; `None` is no limit.
    pub max: Option<Replicas>,
}

/// What the bounds did to a count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bounded {
    /// It was inside.
    Inside(Replicas),
    /// Raised to min-scale, or to initial-scale while that has not been reached yet.
    Raised(Replicas),
    /// Lowered to max-scale.
    Lowered(Replicas),
}

impl Bounds {
    /// Unreachable revisions have no minimum; a revision that never reached its initial scale may not fall below it.
    pub fn of(revision: &Revision, initialized: bool) -> Self {
        let scaling = &revision.scaling;
        let unreachable = revision.reachability == Reachability::Unreachable;
        let mut min = if unreachable { Replicas(0) } else { scaling.min_scale };
        if scaling.initial_scale.0 > 1 && !initialized && !unreachable {
            min = min.max(scaling.initial_scale);
        }
        Self {
            min,
            max: scaling.max_scale,
        }
    }

    /// Applies them. `None` is Knative's -1, not decided yet: it becomes the minimum.
    pub fn apply(self, desired: Option<Replicas>) -> Bounded {
        match (desired, self.max) {
            (None, _) => Bounded::Inside(self.min),
            (Some(desired), _) if desired < self.min => Bounded::Raised(self.min),
            (Some(desired), Some(max)) if desired > max => Bounded::Lowered(max),
            (Some(desired), _) => Bounded::Inside(desired),
        }
    }
}

impl Bounded {
    /// The count afterwards.
    pub const fn replicas(self) -> Replicas {
        match self {
            Self::Inside(replicas) | Self::Raised(replicas) | Self::Lowered(replicas) => replicas,
        }
    }
}

/// Ready replicas from which a revision counts as active (and, the first time, as initialized).
pub fn active_threshold(revision: &Revision, initialized: bool) -> Replicas {
    let min = if revision.reachability == Reachability::Unreachable {
        Replicas(0)
    } else {
        revision.scaling.min_scale
    };
    min.max(if initialized {
        Replicas(1)
    } else {
        revision.scaling.initial_scale
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::revision;

    #[test]
    fn a_table() {
        // (min, max, initial, initialized, unreachable, desired) to (replicas, threshold)
        let table = [
            (0, None, 1, false, false, None, (0, 1)),
            (0, None, 3, false, false, None, (3, 3)),
            (0, None, 3, true, false, None, (0, 1)),
            (0, None, 3, false, true, None, (0, 3)),
            (2, None, 1, false, false, Some(0), (2, 2)),
            (2, None, 1, true, true, Some(0), (0, 1)),
            (2, Some(4), 1, true, false, Some(9), (4, 2)),
            (0, Some(2), 5, false, false, Some(1), (5, 5)),
            (0, Some(2), 0, false, false, Some(0), (0, 0)),
            (0, None, 0, true, false, Some(7), (7, 1)),
        ];
        for (n, (min, max, initial, initialized, unreachable, desired, want)) in table.into_iter().enumerate() {
            let mut revision = revision("default", "hello-00001");
            revision.scaling.min_scale = Replicas(min);
            revision.scaling.max_scale = max.map(Replicas);
            revision.scaling.initial_scale = Replicas(initial);
            revision.reachability = if unreachable {
                Reachability::Unreachable
            } else {
                Reachability::Unknown
            };
            let got = Bounds::of(&revision, initialized)
                .apply(desired.map(Replicas))
                .replicas();
            assert_eq!((got.0, active_threshold(&revision, initialized).0), want, "row {n}");
        }
    }
}
