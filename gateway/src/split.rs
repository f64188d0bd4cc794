//! Which target of a route gets a request. PURE: the caller draws.

use manifests::units::Percent;

/// Draws are from `0..DRAWS`.
pub(crate) const DRAWS: u8 = 100;

/// The shares of a route's targets; exact: of all possible draws, each target gets as many as its percentage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Split {
    /// For each target, the first draw that is not its own nor an earlier one's.
    ends: Box<[u8]>,
}

impl Split {
    /// Shares in order of the targets. A sum below 100 leaves draws without a target; what exceeds 100 is never drawn.
    pub(crate) fn new(percents: impl IntoIterator<Item = Percent>) -> Self {
        let mut end = 0_u8;
        let ends = percents.into_iter().map(|percent| {
            end = end.saturating_add(percent.get()).min(DRAWS);
            end
        });
        Self { ends: ends.collect() }
    }

    /// The only target with a share, which needs no draw.
    pub(crate) fn only(&self) -> Option<usize> {
        let target = self.pick(0)?;
        (self.ends[target] == DRAWS).then_some(target)
    }

    /// The target of this draw; `None` when the shares leave it over.
    pub(crate) fn pick(&self, draw: u8) -> Option<usize> {
        self.ends.iter().position(|&end| draw < end)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn split(percents: &[u8]) -> Split {
        Split::new(percents.iter().map(|&p| Percent::new(p).expect("a percentage")))
    }

    #[test]
    fn all_draws_together_are_the_percentages() {
        for shares in [
            &[100][..],
            &[90, 10],
            &[0, 100],
            &[100, 0],
            &[33, 33, 34],
            &[1, 0, 99],
            &[50, 25, 25, 0],
        ] {
            let split = split(shares);
            let mut got = vec![0_u8; shares.len()];
            for draw in 0..DRAWS {
                got[split.pick(draw).expect("every draw has a target")] += 1;
            }
            assert_eq!(got, shares);
        }
    }

    #[test]
    fn the_only_target_needs_no_draw() {
        assert_eq!(split(&[100]).only(), Some(0));
        assert_eq!(split(&[0, 100]).only(), Some(1));
        assert_eq!(split(&[100, 0]).only(), Some(0));
        assert_eq!(split(&[99, 1]).only(), None);
        assert_eq!(split(&[]).only(), None);
        assert_eq!(split(&[50]).only(), None);
    }

    #[test]
    fn nothing_is_picked_where_nothing_is_left() {
        assert_eq!(split(&[]).pick(0), None);
        assert_eq!(split(&[40]).pick(39), Some(0));
        assert_eq!(split(&[40]).pick(40), None);
    }

    #[test]
    fn seeded_draws_keep_the_split() {
        for seed in 0..64 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let split = split(&[90, 10]);
            let first = (0..10_000)
                .filter(|_| split.pick(rng.random_range(0..DRAWS)) == Some(0))
                .count();
            // Mean 9,000, standard deviation 30: five of them either way.
            assert!((8_850..=9_150).contains(&first), "seed {seed}: {first}");
        }
    }
}
