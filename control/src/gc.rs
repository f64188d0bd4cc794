//! Which old revisions go, by `config-gc` (Knative: the garbage collector of a Configuration's revisions). PURE.

use std::time::Duration;

use manifests::config::GcConfig;
use manifests::units::Timestamp;

/// A revision that no route uses, that is not its Configuration's latest ready one, and that nobody marked
/// `serving.knative.dev/no-gc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// Its name.
    pub(crate) name: String,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// When a route last used it; its creation when none ever did.
    pub(crate) last_active: Timestamp,
}

/// The revisions of one Configuration to delete, the longest idle first: stale ones, but never so many that fewer than the
/// minimum are left; then the oldest beyond the maximum, stale or not.
pub(crate) fn surplus(mut candidates: Vec<Candidate>, config: &GcConfig, now: Timestamp) -> Vec<String> {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (least, most) = (count(config.min_non_active), config.max_non_active.map(count));
    candidates.sort_by(|a, b| a.last_active.cmp(&b.last_active).then_with(|| a.name.cmp(&b.name)));
    let mut may_go = candidates.len().saturating_sub(least);
    let mut gone = Vec::new();
    candidates.retain(|candidate| {
        let goes = may_go > 0 && is_stale(candidate, config, now);
        if goes {
            may_go -= 1;
            gone.push(candidate.name.clone());
        }
        !goes
    });
    let beyond = most.map_or(0, |most| candidates.len().saturating_sub(most));
    gone.extend(candidates.into_iter().take(beyond).map(|candidate| candidate.name));
    gone
}

/// Older than both ages; an age that is disabled does not keep it, but with both disabled nothing is stale.
fn is_stale(candidate: &Candidate, config: &GcConfig, now: Timestamp) -> bool {
    let over = |since: Timestamp, age: Option<Duration>| age.is_none_or(|age| now.since(since) >= age);
    let (created, active) = (config.retain_since_create, config.retain_since_last_active);
    (created.is_some() || active.is_some()) && over(candidate.created, created) && over(candidate.last_active, active)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: Timestamp = Timestamp::from_millis(1_000 * HOUR);

    /// Revisions by age in hours: (created, last active).
    fn surplus_of(ages: &[(u64, u64)], config: &GcConfig) -> Vec<String> {
        let ago = |hours: u64| Timestamp::from_millis(NOW.as_millis() - hours * HOUR);
        let candidate = |(nth, &(created, active)): (usize, &(u64, u64))| Candidate {
            name: format!("r{nth}"),
            created: ago(created),
            last_active: ago(active),
        };
        surplus(ages.iter().enumerate().map(candidate).collect(), config, NOW)
    }

    #[test]
    fn a_table_of_ages_and_bounds() {
        let config = |least, most| GcConfig {
            min_non_active: least,
            max_non_active: most,
            ..GcConfig::default()
        };
        let never = GcConfig {
            retain_since_create: None,
            retain_since_last_active: None,
            min_non_active: 0,
            max_non_active: None,
        };
        let old = (100, 50);
        for (ages, config, gone) in [
            (&[old, old, old][..], config(0, None), &["r0", "r1", "r2"][..]),
            (&[old, (100, 60), old], config(2, None), &["r1"]),
            (&[(48, 15), (47, 15), (48, 14)], config(0, None), &["r0"]),
            (&[old, old], config(20, Some(1000)), &[]),
            (&[(1, 1), (3, 3), (2, 2)], config(0, Some(1)), &["r1", "r2"]),
            (&[old, old], never.clone(), &[]),
            (
                &[(100, 0)],
                GcConfig {
                    retain_since_last_active: None,
                    ..never
                },
                &[],
            ),
            (
                &[(100, 0)],
                GcConfig {
                    retain_since_last_active: None,
                    ..config(0, None)
                },
                &["r0"],
            ),
        ] {
            assert_eq!(surplus_of(ages, &config), gone, "{ages:?} {config:?}");
        }
    }
}
