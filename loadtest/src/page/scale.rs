//! Where values lie on an axis, which of them get a label, and how they are written. Pure.

use std::time::Duration;

/// An axis from 0 (left, bottom) to 1 (right, top).
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// Between these two, by their logarithms.
    Log(f64, f64),
}

impl Scale {
    /// From 0 to a round number that is not less than `most`.
    pub(super) fn linear(most: f64) -> Self {
        Self::Linear(round_up(most.max(f64::MIN_POSITIVE), &ENDS))
    }

    /// Between round numbers around these two, both positive.
    pub(super) fn log(least: f64, most: f64) -> Self {
        let low = round_down(least, &ENDS);
        let high = round_up(most.max(low * 4.0), &ENDS);
        Self::Log(low, high)
    }

    /// Where a value lies, 0 to 1; what lies outside is put on the edge.
    pub(super) fn at(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(most) => value / most,
            Self::Log(low, high) => (value.max(low) / low).ln() / (high / low).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    /// Round values for labels.
    pub(super) fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(most) => {
                let step = round_up(most / 4.0, &LABELS);
                (0..=4)
                    .map(|nth| f64::from(nth) * step)
                    .filter(|it| *it <= most * 1.001)
                    .collect()
            }
            Self::Log(low, high) => {
                // All of 1, 2, 5 where there is room, powers of ten where there is none.
                let decades = (high / low).log10();
                let parts: &[f64] = if decades <= 2.5 { &LABELS } else { &[1.0] };
                let first = 10_f64.powf(low.log10().floor());
                let powers =
                    std::iter::successors(Some(first), |power| Some(power * 10.0)).take_while(|it| *it <= high);
                let values = powers.flat_map(|power| parts.iter().map(move |part| part * power));
                values.filter(|it| (low * 0.999..=high * 1.001).contains(it)).collect()
            }
        }
    }
}

/// The next of these parts of a power of ten; 10 ends them.
fn round_up(value: f64, parts: &[f64]) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let fits = parts.iter().find(|part| value <= *part * power * 1.000_001);
    fits.unwrap_or(&10.0) * power
}

/// The last of them.
fn round_down(value: f64, parts: &[f64]) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let fits = parts.iter().rev().find(|part| value >= *part * power * 0.999_999);
    fits.unwrap_or(&1.0) * power
}

/// Where axes end, and where they have labels.
const ENDS: [f64; 9] = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];
const LABELS: [f64; 3] = [1.0, 2.0, 5.0];

/// Seconds at which an axis of time gets labels: about six.
pub(super) fn time_ticks(total: f64) -> Vec<f64> {
    const STEPS: [f64; 24] = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
        600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0,
    ];
    let step = STEPS.into_iter().find(|step| total / step <= 7.0).unwrap_or(86_400.0);
    (0..)
        .map(|nth| f64::from(nth) * step)
        .take_while(|at| *at <= total)
        .collect()
}

/// Seconds since the start, as short as can be.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        ..0.000_5 => "0".to_owned(),
        ..1.0 => format!("{} ms", trimmed(seconds * 1e3)),
        ..120.0 => format!("{} s", trimmed(seconds)),
        ..7_200.0 => format!("{} min", trimmed(seconds / 60.0)),
        _ => format!("{} h", trimmed(seconds / 3_600.0)),
    }
}

/// Milliseconds, with three digits at most.
pub(super) fn millis(millis: f64) -> String {
    match millis {
        ..0.000_000_5 => "0".to_owned(),
        ..0.001 => format!("{} ns", trimmed(millis * 1e6)),
        ..0.999_5 => format!("{} µs", trimmed(millis * 1e3)),
        ..999.5 => format!("{} ms", trimmed(millis)),
        _ => format!("{} s", trimmed(millis / 1e3)),
    }
}

/// The same of a duration.
pub(super) fn duration(duration: Duration) -> String {
    millis(duration.as_secs_f64() * 1e3)
}

/// A count or a rate.
pub(super) fn number(value: f64) -> String {
    match value {
        ..9_999.5 => trimmed(value),
        ..999_500.0 => format!("{}k", trimmed(value / 1e3)),
        _ => format!("{}M", trimmed(value / 1e6)),
    }
}

/// Three digits, and no zeros behind the point.
fn trimmed(value: f64) -> String {
    let decimals = match value.abs() {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_begin_and_end_with_round_numbers_and_hold_their_values() {
        for (least, most) in [(0.3, 250.0), (1.0, 1.0), (0.0007, 30_000.0), (12.0, 13.0)] {
            let scale = Scale::log(least, most);
            let Scale::Log(low, high) = scale else { unreachable!() };
            assert!(
                low <= least * 1.001 && high >= most * 0.999,
                "{least} {most}: {scale:?}"
            );
            assert!(scale.at(low) < 1e-9 && scale.at(high) > 1.0 - 1e-9);
            let ticks = scale.ticks();
            assert!((2..=9).contains(&ticks.len()), "{least} {most}: {ticks:?}");
        }
        assert_eq!(Scale::linear(87.0).ticks(), [0.0, 50.0, 100.0]);
        assert_eq!(Scale::linear(280.0).ticks(), [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(Scale::linear(200.0).ticks(), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert!(Scale::linear(0.0).at(0.0) == 0.0);
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(
            [0.0, 0.02, 1.5, 90.0, 600.0, 9_000.0].map(time),
            ["0", "20 ms", "1.5 s", "90 s", "10 min", "2.5 h"]
        );
        assert_eq!(
            [0.0005, 0.25, 1.0, 12.34, 999.6].map(millis),
            ["500 ns", "250 µs", "1 ms", "12.3 ms", "1 s"]
        );
        assert_eq!(
            [0.0, 8.0, 1234.0, 30_000.0, 2.5e6].map(number),
            ["0", "8", "1234", "30k", "2.5M"]
        );
        assert_eq!(time_ticks(60.0), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert!(time_ticks(0.0).len() == 1);
    }
}
