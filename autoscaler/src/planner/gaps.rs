//! PURE  Idle gaps: how long nobody asked for a revision before somebody did, as a histogram over the logarithm of time.
//!
//! Eight bins to the octave from one second to fourteen days; the first bin holds everything below. Old gaps count less:
//! half after [`HALF_LIFE_GAPS`] further ones or [`HALF_LIFE`] of time, whichever comes first. A revision that has seen
//! nothing yet costs no memory here and behaves as the [`Population`] does.

use std::time::Duration;

use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

/// Bins of a histogram: 1 s to 14 d in steps of an eighth of an octave.
pub const BINS: usize = 162;

/// Gaps after which an old one counts half.
pub const HALF_LIFE_GAPS: f64 = 200.0;

/// Time after which an old gap counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A bin that weighs less is dropped: 13 half-lives after its last gap.
const FORGOTTEN: f32 = 1e-4;

const PER_OCTAVE: f64 = 8.0;

const DAY: f64 = 24.0 * 3600.0;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The bin that a gap falls into.
pub fn bin(gap: Duration) -> usize {
    let eighths = (gap.as_secs_f64().max(1.0).log2() * PER_OCTAVE).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 520")]
    let bin = eighths as usize;
    bin.min(BINS - 1)
}

/// Where a bin begins, in seconds; `edge(BINS)` is the end of the last one.
pub fn edge(bin: usize) -> f64 {
    EDGES[bin]
}

/// The gaps of one revision.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Gaps {
    /// Decayed counts of the bins that have any, by bin: most revisions know few, and there may be a hundred thousand.
    bins: Vec<(u8, f32)>,
    /// How many there were, ever.
    seen: u64,
    /// When the first of them began.
    began: Timestamp,
    /// When the newest came.
    newest: Timestamp,
}

impl Gaps {
    /// A gap ended at `now`.
    pub fn add(&mut self, gap: Duration, now: Timestamp) {
        if self.seen == 0 {
            self.newest = now;
            self.began = Timestamp::from_nanos(now.as_nanos().saturating_sub(nanos(gap)));
        }
        let halvings = 1.0 / HALF_LIFE_GAPS + now.since(self.newest).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let kept = f32_of((-halvings).exp2());
        self.bins.iter_mut().for_each(|(_, count)| *count *= kept);
        #[expect(clippy::cast_possible_truncation, reason = "below BINS")]
        let of = bin(gap) as u8;
        self.bins.retain(|(bin, count)| *bin == of || *count >= FORGOTTEN);
        match self.bins.binary_search_by_key(&of, |(bin, _)| *bin) {
            Ok(known) => self.bins[known].1 += 1.0,
            Err(place) => {
                self.bins.reserve_exact(1);
                self.bins.insert(place, (of, 1.0));
            }
        }
        self.seen += 1;
        self.newest = now;
    }

    /// How many there were, ever.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// How many end in a day, by all that was seen until `now`; a revision that was just made counts as if it had been called
    /// once in half an hour.
    pub fn per_day(&self, now: Timestamp) -> f64 {
        let began = if self.seen == 0 { now } else { self.began };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let seen = self.seen as f64;
        (seen + 1.0) * DAY / (now.since(began).as_secs_f64() + DAY / 48.0)
    }

    /// What they weigh now.
    pub fn weight(&self) -> f64 {
        self.bins.iter().map(|(_, count)| f64::from(*count)).sum()
    }

    /// The weight of every bin.
    pub(super) fn weights(&self) -> [f64; BINS] {
        let mut weights = [0.0; BINS];
        for (bin, count) in &self.bins {
            if let Some(weight) = weights.get_mut(usize::from(*bin)) {
                *weight = f64::from(*count);
            }
        }
        weights
    }
}

/// How gaps are spread over many revisions, each counted alike: what is believed of one that is not known yet. What came with
/// Knarr is worth 50 revisions beside those that are here.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Population {
    /// Weights of bins.
    bins: Vec<f32>,
    /// Of the revisions here, their sum.
    here: Vec<f64>,
    /// What they weigh together.
    weight: f64,
}

impl Population {
    /// From the gaps of revisions, with the time that each was idle at the end of what was seen of it. What nobody saw the
    /// end of counts as longer than that (Kaplan and Meier, 1958), and what is longer than everything seen is spread evenly
    /// over the logarithm of time up to fourteen days.
    pub fn learn<'a>(revisions: impl IntoIterator<Item = (&'a [Duration], Option<Duration>)>) -> Self {
        let (mut ends, mut lost) = ([0.0; BINS], [0.0; BINS]);
        for (gaps, open) in revisions {
            let each = 1.0 / as_f64(gaps.len() + usize::from(open.is_some())).max(1.0);
            gaps.iter().for_each(|gap| ends[bin(*gap)] += each);
            open.iter().for_each(|gap| lost[bin(*gap)] += each);
        }
        let mut at_risk: f64 = ends.iter().chain(&lost).sum();
        let (mut alive, mut bins, mut last) = (1.0, vec![0.0; BINS], 0);
        for bin in 0..BINS {
            if ends[bin] > 0.0 && at_risk > 0.0 {
                let ended = alive * (ends[bin] / at_risk).min(1.0);
                bins[bin] = f32_of(ended);
                alive -= ended;
                last = bin;
            }
            at_risk -= ends[bin] + lost[bin];
        }
        let beyond = &mut bins[(last + 1).min(BINS - 1)..];
        let each = f32_of(alive / as_f64(beyond.len()));
        beyond.iter_mut().for_each(|weight| *weight += each);
        Self::of(bins)
    }

    /// A revision here has shown these gaps now, where it had shown those before. One with few of them weighs less than
    /// one: as much of one as they are beside 4 more.
    pub fn shown(&mut self, before: Option<&Gaps>, now: Option<&Gaps>) {
        for (gaps, sign) in [(before, -1.0), (now, 1.0)] {
            let Some(gaps) = gaps else { continue };
            let each = sign / (gaps.weight() + FEW);
            for (bin, count) in &gaps.bins {
                if let Some(sum) = self.here.get_mut(usize::from(*bin)) {
                    *sum = (*sum + each * f64::from(*count)).max(0.0);
                }
            }
            self.weight = (self.weight + each * gaps.weight()).max(0.0);
        }
    }

    /// The share of gaps in each bin; all sum to one.
    pub(super) fn shares(&self) -> [f64; BINS] {
        let mut shares = [0.0; BINS];
        for ((share, shipped), here) in shares.iter_mut().zip(&self.bins).zip(&self.here) {
            *share = (WORTH * f64::from(*shipped) + here) / (WORTH + self.weight);
        }
        shares
    }

    fn of(mut bins: Vec<f32>) -> Self {
        let sum: f32 = bins.iter().sum();
        bins.iter_mut().for_each(|share| *share /= sum.max(f32::MIN_POSITIVE));
        Self {
            bins,
            here: vec![0.0; BINS],
            weight: 0.0,
        }
    }
}

/// Revisions that the shipped population is worth.
const WORTH: f64 = 50.0;

/// Gaps beside which those of a revision count.
const FEW: f64 = 4.0;

impl Default for Population {
    /// What functions of the Azure Functions trace of 2019 do (Shahrad et al., USENIX ATC 2020; CC-BY 4.0): see
    /// `population.txt` for how it was made.
    fn default() -> Self {
        let shares = include_str!("population.txt")
            .lines()
            .filter(|line| !line.starts_with('#'));
        let bins: Vec<f32> = shares.filter_map(|line| line.trim().parse().ok()).collect();
        debug_assert_eq!(bins.len(), BINS, "population.txt has a share for each bin");
        Self::of(bins)
    }
}

static EDGES: std::sync::LazyLock<[f64; BINS + 1]> = std::sync::LazyLock::new(|| {
    std::array::from_fn(|bin| {
        if bin == 0 {
            0.0
        } else {
            (as_f64(bin) / PER_OCTAVE).exp2()
        }
    })
});

#[expect(clippy::cast_possible_truncation, reason = "weights need no more digits")]
const fn f32_of(weight: f64) -> f32 {
    weight as f32
}

#[expect(clippy::cast_precision_loss, reason = "counts of gaps and bins")]
pub(super) const fn as_f64(count: usize) -> f64 {
    count as f64
}
