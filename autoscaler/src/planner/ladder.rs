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
    let count = menu.offers.len().min(MOST_OFFERS).min(late.len());
    if count == 0 {
        return Ladder::default();
    }
    let (at, from) = (at.min(count - 1), bin(age));
    let mut price = [0.0; MOST_OFFERS];
    let mut met = [0.0; MOST_OFFERS];
    for (offer, late) in late.iter().enumerate().take(count) {
        price[offer] = cost(menu.offers[offer].price);
        met[offer] = cost(menu.offers[offer].wake) + cost(price_of_late * probability(*late));
    }
    let mut moves = [[f64::INFINITY; MOST_OFFERS]; MOST_OFFERS];
    for (from, row) in menu.moves.iter().enumerate().take(count) {
        for (to, money) in row.iter().enumerate().take(count) {
            moves[from][to] = if money.is_nan() { f64::INFINITY } else { money.max(0.0) };
        }
    }
    (0..count).for_each(|offer| moves[offer][offer] = 0.0);
    // Longer than the longest: until the chance of the last bin has come true.
    let last_length = edge(BINS) - edge(BINS - 1);
    let beyond = last_length / hazard.at(BINS - 1).max(LEAST_TAIL);
    let mut value = [f64::INFINITY; MOST_OFFERS];
    for offer in 0..count {
        value[offer] = price[offer] * beyond + met[offer];
    }
    value = cheapest(&moves, &value, count, |_, _| ());
    let mut choice = [[0_u8; MOST_OFFERS]; BINS];
    for bin in (from..BINS).rev() {
        let length = edge(bin + 1) - edge(bin);
        let chance = hazard.at(bin);
        let mut staying = [f64::INFINITY; MOST_OFFERS];
        for offer in 0..count {
            staying[offer] =
                price[offer] * length * (1.0 - chance / 2.0) + chance * met[offer] + (1.0 - chance) * value[offer];
        }
        value = cheapest(&moves, &staying, count, |from, to| choice[bin][from] = to);
    }
    walk(menu, late, hazard, &choice, &moves, at, age)
}

/// For each offer the cheapest way on; ties stay where they are.
fn cheapest(
    moves: &[[f64; MOST_OFFERS]; MOST_OFFERS],
    value: &[f64; MOST_OFFERS],
    count: usize,
    mut chosen: impl FnMut(usize, u8),
) -> [f64; MOST_OFFERS] {
    let mut best = [f64::INFINITY; MOST_OFFERS];
    for from in 0..count {
        let mut to = from;
        best[from] = value[from];
        for other in 0..count {
            let through = moves[from][other] + value[other];
            if through < best[from] {
                (best[from], to) = (through, other);
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "below MOST_OFFERS")]
        chosen(from, to as u8);
    }
    best
}

/// Forwards along the choices: the steps, and what they come to.
fn walk(
    menu: &Menu,
    late: &[f64],
    hazard: &Hazard,
    choice: &[[u8; MOST_OFFERS]; BINS],
    moves: &[[f64; MOST_OFFERS]; MOST_OFFERS],
    at: usize,
    age: Duration,
) -> Ladder {
    let mut ladder = Ladder::default();
    let (mut at, mut left) = (at, 1.0);
    for (bin, choice) in choice.iter().enumerate().skip(bin(age)) {
        let to = usize::from(choice[at]);
        let start = Duration::from_secs_f64(edge(bin)).max(age);
        if ladder.steps.is_empty() {
            ladder.steps.push(Step { age, offer: to });
        } else if to != at {
            let lead = if to > at {
                seconds(menu.offers[to].lead)
            } else {
                Duration::ZERO
            };
            let earliest = ladder.steps.last().map_or(age, |step| step.age);
            let age = start.saturating_sub(lead).max(earliest);
            // One that would be left in the instant in which it is reached is never reached.
            ladder.steps.pop_if(|step| step.age == age);
            ladder.steps.push(Step { age, offer: to });
        }
        let (length, chance) = (edge(bin + 1) - edge(bin), hazard.at(bin));
        let offer = &menu.offers[to];
        ladder.cost +=
            left * (moves[at][to] + cost(offer.price) * length * (1.0 - chance / 2.0) + chance * cost(offer.wake));
        ladder.late += left * chance * probability(late[to]);
        left *= 1.0 - chance;
        at = to;
    }
    ladder.late = ladder.late.clamp(0.0, 1.0);
    ladder
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
