//! PURE  Where to stand while nobody asks: for each age of the idle time the rung that is cheapest from there on.
//!
//! This is ski rental with several states and a hazard that was learned (Irani, Shukla and Gupta, 2003). Backwards from the
//! longest gap, with `h` the chance that the gap ends in a bin of length `d`:
//!
//! ```text
//! value(bin, at) = min over to:  move(at, to) + price(to) d (1 - h/2) + h (wake(to) + late(to) x price of being late)
//!                                + (1 - h) value(bin + 1, to)
//! ```
//!
//! It holds every known rule as a special case: keep alive and then zero, a reserve and then zero, zero and a start just
//! before a timer fires, never below full. Same input, same ladder; any input, some ladder.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gaps::{BINS, bin, edge};
use super::hazard::Hazard;
use super::menu::{MOST_OFFERS, Menu};

/// From this age on, stand there.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Time since the last request ended.
    pub age: Duration,
    /// Index into the menu.
    pub offer: usize,
}

/// Where to stand by age, and what that is expected to come to until the next request.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Ladder {
    /// In order of age; the first is where to be now. A step upwards stands as much earlier as its start takes.
    pub steps: Vec<Step>,
    /// Money, the wake-up included and lateness left out.
    pub cost: f64,
    /// Probability that the next request is late.
    pub late: f64,
}

/// The best ladder from `age` on, standing on offer `at`. `late` says for each offer how likely a request that meets it is
/// late, `price_of_late` what that is worth.
pub fn ladder(menu: &Menu, late: &[f64], hazard: &Hazard, price_of_late: f64, at: usize, age: Duration) -> Ladder {
    // A size of its own for each count lets the compiler unroll what is done 162 times.
    let solve = match menu.offers.len().min(late.len()) {
        0 => return Ladder::default(),
        1 => solve::<1>,
        2 => solve::<2>,
        3 => solve::<3>,
        4 => solve::<4>,
        5 => solve::<5>,
        6 => solve::<6>,
        7 => solve::<7>,
        _ => solve::<MOST_OFFERS>,
    };
    solve(menu, late, hazard, price_of_late, at, age)
}

/// With the first `N` offers.
fn solve<const N: usize>(
    menu: &Menu,
    late: &[f64],
    hazard: &Hazard,
    price_of_late: f64,
    at: usize,
    age: Duration,
) -> Ladder {
    let choices = Choices::<N>::of(menu, late, price_of_late);
    // Longer than the longest: until the chance of the last bin has come true.
    let last_length = edge(BINS) - edge(BINS - 1);
    let beyond = last_length / hazard.at(BINS - 1).max(LEAST_TAIL);
    let for_ever = std::array::from_fn(|offer| choices.price[offer] * beyond + choices.met[offer]);
    let (mut value, _) = choices.cheapest(&for_ever);
    let mut table = [[0_u8; N]; BINS];
    for (bin, row) in table.iter_mut().enumerate().skip(bin(age)).rev() {
        let (length, chance) = (edge(bin + 1) - edge(bin), hazard.at(bin));
        let (idle, left) = (length * (1.0 - chance / 2.0), 1.0 - chance);
        let staying = std::array::from_fn(|offer| {
            choices.price[offer] * idle + chance * choices.met[offer] + left * value[offer]
        });
        (value, *row) = choices.cheapest(&staying);
    }
    choices.walk(menu, late, hazard, &table, at.min(N - 1), age)
}

/// What there is to choose from, fit to be added up.
struct Choices<const N: usize> {
    price: [f64; N],
    /// Money and lateness when a request comes.
    met: [f64; N],
    moves: [[f64; N]; N],
}

impl<const N: usize> Choices<N> {
    fn of(menu: &Menu, late: &[f64], price_of_late: f64) -> Self {
        let offer = |index: usize| &menu.offers[index];
        let way = |from: usize, to: usize| {
            let money = menu.moves.get(from).and_then(|row| row.get(to)).copied();
            match money {
                _ if from == to => 0.0,
                Some(money) if !money.is_nan() => money.max(0.0),
                _ => f64::INFINITY,
            }
        };
        Self {
            price: std::array::from_fn(|index| cost(offer(index).price)),
            met: std::array::from_fn(|index| cost(offer(index).wake) + cost(price_of_late * probability(late[index]))),
            moves: std::array::from_fn(|from| std::array::from_fn(|to| way(from, to))),
        }
    }

    /// For each offer what the cheapest way on comes to, and where it leads; ties stay where they are.
    fn cheapest(&self, value: &[f64; N]) -> ([f64; N], [u8; N]) {
        let (mut best, mut chosen) = (*value, [0; N]);
        for from in 0..N {
            let mut to = from;
            for (other, value) in value.iter().enumerate() {
                let through = self.moves[from][other] + value;
                if through < best[from] {
                    (best[from], to) = (through, other);
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "below MOST_OFFERS")]
            let to = to as u8;
            chosen[from] = to;
        }
        (best, chosen)
    }

    /// Forwards through the table: the steps, and what they come to.
    fn walk(
        &self,
        menu: &Menu,
        late: &[f64],
        hazard: &Hazard,
        table: &[[u8; N]; BINS],
        mut at: usize,
        age: Duration,
    ) -> Ladder {
        let mut ladder = Ladder::default();
        let mut left = 1.0;
        for (bin, row) in table.iter().enumerate().skip(bin(age)) {
            let to = usize::from(row[at]);
            if ladder.steps.is_empty() {
                ladder.steps.push(Step { age, offer: to });
            } else if to != at {
                let lead = if to > at {
                    seconds(menu.offers[to].lead)
                } else {
                    Duration::ZERO
                };
                let earliest = ladder.steps.last().map_or(age, |step| step.age);
                let age = Duration::from_secs_f64(edge(bin)).saturating_sub(lead).max(earliest);
                // One that would be left in the instant in which it is reached is never reached.
                ladder.steps.pop_if(|step| step.age == age);
                ladder.steps.push(Step { age, offer: to });
            }
            let (length, chance) = (edge(bin + 1) - edge(bin), hazard.at(bin));
            let wake = cost(menu.offers[to].wake);
            ladder.cost += left * (self.moves[at][to] + self.price[to] * length * (1.0 - chance / 2.0) + chance * wake);
            ladder.late += left * chance * probability(late[to]);
            left *= 1.0 - chance;
            at = to;
        }
        ladder.late = ladder.late.clamp(0.0, 1.0);
        ladder
    }
}

fn probability(value: f64) -> f64 {
    if value.is_nan() { 1.0 } else { value.clamp(0.0, 1.0) }
}

/// Nothing costs less than nothing, and what is not a number is beyond price.
fn cost(money: f64) -> f64 {
    if money.is_nan() {
        DEAREST
    } else {
        money.clamp(0.0, DEAREST)
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

/// Beyond the last bin at least this share of those who are left comes in each length of it.
const LEAST_TAIL: f64 = 0.01;

/// Stands in for what is not finite, and can still be added up.
const DEAREST: f64 = 1e30;

#[cfg(test)]
mod tests;
