//! What is seen of many apps at once: a cell each, and what their wake-ups took. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use loadtest::Temperature;

use super::kinds::Kind;

/// Cells in a row.
const WIDTH: usize = 60;

/// Where an app stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cell {
    /// Nothing runs.
    Zero,
    /// Being started.
    Starting,
    /// In memory, without CPU.
    Frozen,
    /// Runs.
    Running,
}

impl Cell {
    pub(super) const ALL: [Self; 4] = [Self::Zero, Self::Starting, Self::Frozen, Self::Running];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Starting => "starting",
            Self::Frozen => "frozen",
            Self::Running => "running",
        }
    }

    const fn sign(self) -> char {
        match self {
            Self::Zero => '·',
            Self::Starting => '+',
            Self::Frozen => '*',
            Self::Running => '█',
        }
    }

    /// ANSI colour, for terminals.
    const fn colour(self) -> &'static str {
        match self {
            Self::Zero => "2",
            Self::Starting => "33",
            Self::Frozen => "36",
            Self::Running => "32",
        }
    }
}

/// Rows of cells, coloured.
pub(super) fn rows(cells: &[Cell]) -> String {
    let mut text = String::new();
    for row in cells.chunks(WIDTH) {
        text.push('\n');
        text.push_str("  ");
        for run in row.chunk_by(|a, b| a == b) {
            text.push_str("\x1b[");
            text.push_str(run[0].colour());
            text.push('m');
            text.extend(run.iter().map(|cell| cell.sign()));
            text.push_str("\x1b[0m");
        }
    }
    text
}

/// How many stand where: `zero 3, running 1`.
pub(super) fn counts(cells: &[Cell]) -> String {
    let count = |wanted: Cell| cells.iter().filter(|cell| **cell == wanted).count();
    let counted = Cell::ALL.map(|cell| (cell, count(cell)));
    let told: Vec<String> = counted
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(cell, count)| format!("{} {count}", cell.name()))
        .collect();
    told.join(", ")
}

/// Every wake-up, by what it met and by the kind of app.
#[derive(Default)]
pub(super) struct Wakes {
    took: BTreeMap<(Kind, Temperature), Vec<Duration>>,
    pub(super) failed: u64,
    /// The status or error of the first that failed.
    pub(super) first_failure: Option<String>,
}

impl Wakes {
    pub(super) fn add(&mut self, kind: Kind, met: Temperature, took: Duration) {
        let all = self.took.entry((kind, met)).or_default();
        // Kept sorted: quantiles are asked for five times a second.
        let place = all.partition_point(|other| *other <= took);
        all.insert(place, took);
    }

    pub(super) fn answered(&self) -> usize {
        self.took.values().map(Vec::len).sum()
    }

    /// One row for each kind of app and temperature: kind, met, count, p50, p99.
    pub(super) fn table(&self) -> Vec<Vec<String>> {
        let row = |((kind, met), all): (&(Kind, Temperature), &Vec<Duration>)| {
            vec![
                kind.name().to_owned(),
                met.name().to_owned(),
                all.len().to_string(),
                millis(quantile(all, 50)),
                millis(quantile(all, 99)),
            ]
        };
        self.took.iter().map(row).collect()
    }

    /// The same without the kinds, in one line.
    pub(super) fn line(&self) -> String {
        let mut by: BTreeMap<Temperature, Vec<Duration>> = BTreeMap::new();
        for ((_, met), took) in &self.took {
            by.entry(*met).or_default().extend(took);
        }
        let told = by.iter_mut().map(|(met, all)| {
            all.sort_unstable();
            let (p50, p99) = (millis(quantile(all, 50)), millis(quantile(all, 99)));
            format!("{} {} (p50 {p50}, p99 {p99} ms)", all.len(), met.name())
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// Of sorted durations, the nearest rank.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_fill_rows_and_are_counted() {
        let mut cells = vec![Cell::Zero; WIDTH + 1];
        cells[1] = Cell::Running;
        assert_eq!(rows(&cells).lines().count(), 3, "an empty line and two rows");
        assert_eq!(counts(&cells), format!("zero {WIDTH}, running 1"));
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut wakes = Wakes::default();
        for ms in (1..=100).rev() {
            wakes.add(Kind::Ours, Temperature::Cold, Duration::from_millis(ms));
        }
        assert_eq!(wakes.table(), [["ours", "cold", "100", "50.00", "99.00"]]);
        assert_eq!(wakes.line(), "100 cold (p50 50.00, p99 99.00 ms)");
        assert_eq!(quantile(&[], 99), Duration::ZERO);
        assert_eq!(quantile(&[Duration::from_secs(1)], 1), Duration::from_secs(1));
    }
}
