//! A part of a trace that is small enough to be lived through: some functions of mixed rates, some minutes, faster. Pure.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use super::{Function, Invocation, MINUTE, Trace};

/// What to take.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slice {
    /// So many functions, as many of each rate.
    pub functions: usize,
    /// So many minutes on end.
    pub minutes: u32,
    /// So many times as fast; durations of calls stay what they are.
    pub speed: f64,
    /// Of what is drawn: the same number takes the same.
    pub seed: u64,
    /// No function with fewer calls in these minutes.
    pub least: usize,
    /// None with more per second, after it was made faster.
    pub rate: f64,
    /// None with a longer call.
    pub longest: Duration,
}

/// What was taken.
#[derive(Clone, PartialEq, Debug)]
pub struct Taken {
    /// Which minutes.
    pub minutes: Range<u32>,
    /// Its functions, those with the fewest calls first.
    pub trace: Trace,
    /// Its calls, in order of time, which counts from the first of the minutes.
    pub calls: Vec<Invocation>,
}

impl Slice {
    /// Takes it: the minutes begin where the seed says; functions are put in order of their calls in them, in as many
    /// equal parts as are wanted, and from each part the seed draws one.
    ///
    /// # Errors
    /// In words, when the trace has too few minutes or functions for it.
    pub fn of(&self, trace: &Trace) -> Result<Taken, String> {
        let there = trace.minutes.end.saturating_sub(trace.minutes.start);
        if self.functions == 0 || self.minutes == 0 || self.minutes > there {
            return Err(format!(
                "{} functions and {} minutes cannot be taken of a trace of {} functions and {there} minutes",
                self.functions,
                self.minutes,
                trace.functions.len()
            ));
        }
        if !(self.speed > 0.0 && self.speed.is_finite()) {
            return Err(format!("the speed is {}, but must be more than 0", self.speed));
        }
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let begin = trace.minutes.start + draws.random_range(0..=there - self.minutes);
        let minutes = begin..begin + self.minutes;
        let mut fit: Vec<(usize, usize)> = (0..trace.functions.len())
            .map(|index| (index, self.calls(trace, index, &minutes)))
            .filter(|(_, calls)| self.fits(calls))
            .map(|(index, calls)| (calls.len(), index))
            .collect();
        fit.sort_unstable();
        if fit.len() < self.functions {
            return Err(format!(
                "only {} functions have {} or more calls in minutes {} to {}, at most {}/s after that, and none longer than \
                 {:?}; {} are wanted",
                fit.len(),
                self.least,
                minutes.start,
                minutes.end,
                self.rate,
                self.longest,
                self.functions
            ));
        }
        let parts = (0..self.functions).map(|part| {
            let of = |part: usize| part * fit.len() / self.functions;
            let drawn = fit[of(part)..of(part + 1)].iter().map(|(_, index)| *index);
            drawn.min_by_key(|index| draw(&trace.functions[*index], self.seed))
        });
        let chosen: Vec<usize> = parts.flatten().collect();
        let mut calls: Vec<Invocation> = chosen
            .iter()
            .enumerate()
            .flat_map(|(place, index)| {
                let calls = self.calls(trace, *index, &minutes);
                calls.into_iter().map(move |call| Invocation {
                    function: place,
                    ..call
                })
            })
            .collect();
        calls.sort_by_key(|call| (call.at, call.function));
        Ok(Taken {
            minutes,
            trace: Trace {
                name: trace.name.clone(),
                minutes: trace.minutes.clone(),
                functions: chosen.iter().map(|index| trace.functions[*index].clone()).collect(),
            },
            calls,
        })
    }

    /// How long it takes.
    pub fn duration(&self) -> Duration {
        (MINUTE * self.minutes).div_f64(self.speed)
    }

    /// Of one function, from the first of the minutes on, made faster.
    fn calls(&self, trace: &Trace, index: usize, minutes: &Range<u32>) -> Vec<Invocation> {
        let all = minutes
            .clone()
            .flat_map(|minute| trace.minute_of(index, minute, self.seed));
        let faster = all.map(|call| Invocation {
            at: (call.at - MINUTE * minutes.start).div_f64(self.speed),
            ..call
        });
        faster.collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 calls are out of reach")]
    fn fits(&self, calls: &[Invocation]) -> bool {
        let rate = calls.len() as f64 / self.duration().as_secs_f64();
        let short = |call: &Invocation| call.duration.is_none_or(|it| it <= self.longest);
        calls.len() >= self.least && rate <= self.rate && calls.iter().all(short)
    }
}

fn draw(function: &Function, seed: u64) -> u64 {
    function.draws(seed, CHOICE).random()
}

/// A minute that no trace has.
const CHOICE: u32 = u32::MAX - 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Call, Calls, Durations, Trigger};

    fn slice() -> Slice {
        Slice {
            functions: 3,
            minutes: 10,
            speed: 2.0,
            seed: 1,
            least: 2,
            rate: 1.0,
            longest: Duration::from_secs(5),
        }
    }

    /// Functions f0 to f29 with n + 1 calls a minute; f30 has 1,000, f31 calls of ten seconds, f32 none.
    fn trace() -> Trace {
        let function = |n: u32| Function {
            name: format!("f{n}"),
            app: String::new(),
            trigger: Trigger::Http,
            calls: Calls::PerMinute(vec![
                match n {
                    30 => 1_000,
                    32 => 0,
                    n => n + 1,
                };
                60
            ]),
            durations: Durations::new(vec![(0.0, 10.0), (1.0, if n == 31 { 1e4 } else { 20.0 })]),
            memory: None,
            start: None,
        };
        Trace {
            name: "t".into(),
            minutes: 100..160,
            functions: (0..33).map(function).collect(),
        }
    }

    #[test]
    fn one_of_each_rate_is_drawn_by_the_seed() {
        let taken = slice().of(&trace()).expect("there are enough");
        assert!(taken.minutes.start >= 100 && taken.minutes.end <= 160 && taken.minutes.len() == 10);
        let ranks: Vec<usize> = taken
            .trace
            .functions
            .iter()
            .map(|it| it.name[1..].parse().unwrap())
            .collect();
        for (part, rank) in ranks.iter().enumerate() {
            assert!((part * 10..(part + 1) * 10).contains(rank), "{ranks:?}");
        }
        for (place, rank) in ranks.iter().enumerate() {
            let calls = taken.calls.iter().filter(|call| call.function == place);
            assert_eq!(calls.count(), (rank + 1) * 10);
        }
        assert!(taken.calls.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(taken.calls.last().is_some_and(|call| call.at < slice().duration()));
        assert_eq!(slice().duration(), Duration::from_secs(300));
        assert_eq!(slice().of(&trace()).as_ref(), Ok(&taken));
        let others = (2..12).map(|seed| Slice { seed, ..slice() }.of(&trace()).expect("enough"));
        let (minutes, functions): (Vec<_>, Vec<_>) = others.map(|it| (it.minutes, it.trace.functions)).unzip();
        assert!(
            minutes.iter().any(|it| *it != taken.minutes) && functions.iter().any(|it| *it != taken.trace.functions)
        );
    }

    #[test]
    fn times_that_the_trace_names_are_made_faster_and_nothing_else() {
        let mut one = trace();
        let second = |at| Duration::from_secs(at);
        one.functions.truncate(1);
        let call = |at| Call {
            at: second(at),
            duration: Some(second(1)),
        };
        one.functions[0].calls = Calls::Times(vec![call(6_030), call(6_090)]);
        one.minutes = 100..110;
        let taken = Slice {
            functions: 1,
            ..slice()
        }
        .of(&one)
        .expect("takes");
        let seen: Vec<_> = taken.calls.iter().map(|it| (it.at, it.duration)).collect();
        assert_eq!(seen, [(second(15), Some(second(1))), (second(45), Some(second(1)))]);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error = |slice: Slice| slice.of(&trace()).expect_err("too much");
        for (wrong, words) in [
            (Slice { minutes: 61, ..slice() }, "33 functions and 60 minutes"),
            (
                Slice {
                    functions: 0,
                    ..slice()
                },
                "0 functions",
            ),
            (
                Slice {
                    functions: 31,
                    ..slice()
                },
                "only 30 functions have 2 or more calls",
            ),
            (Slice { speed: 0.0, ..slice() }, "must be more than 0"),
        ] {
            assert!(error(wrong).contains(words), "{}", error(wrong));
        }
    }
}
