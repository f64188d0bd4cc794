//! When requests are due: settled by a seed before anything is sent. Pure.
//!
//! A rate that changes and gaps that scatter are kept apart. Gaps are drawn with mean 1 in a time in which the rate is
//! always 1; the inverse of the cumulated rate brings them to the clock. With exponential gaps that is an exact Poisson
//! process of changing rate (time change), with even ones the n-th request comes when n requests are due.

use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use manifests::units::Rps;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// How requests come.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// One every `1 / rate`, the first at once.
    Constant(Rps),
    /// As independent users come: gaps drawn from an exponential distribution with mean `1 / rate`.
    Poisson(Rps),
    /// This many at once, at the start.
    Burst(u64),
    /// This many at once, again and again, the first at the start.
    Bursts {
        /// How many at once.
        count: u64,
        /// From one burst to the next; more than zero.
        every: Duration,
    },
    /// A rate that changes, gaps that scatter.
    Shaped {
        /// Requests per second over time.
        rate: Rate,
        /// How regularly they come.
        gaps: Gaps,
    },
    /// None.
    Silence,
    /// Given one by one: a trace, for instance.
    Given(Given),
}

/// A rate over the time of a stage.
#[derive(Clone, PartialEq, Debug)]
pub enum Rate {
    /// Always the same.
    Constant(Rps),
    /// From one to the other, in a straight line over the stage.
    Ramp {
        /// At the start.
        from: Rps,
        /// At the end.
        to: Rps,
    },
    /// One after the other, each for an equal part of the stage.
    Steps(Vec<Rps>),
    /// A sine around a mean, at the mean and rising at the start.
    Sine {
        /// The mean.
        mean: Rps,
        /// At most that much more and less; at most the mean.
        swing: Rps,
        /// From peak to peak.
        period: Duration,
    },
}

/// How regularly requests come: the distribution of the gaps between them, scaled to the rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Gaps {
    /// All the same.
    Even,
    /// Exponential, as of many independent users: a Poisson process.
    Exponential,
    /// Pareto: clusters and long silences. The variance is infinite up to a shape of 2.
    Pareto {
        /// More than 1; smaller is heavier.
        shape: f64,
    },
    /// Log-normal: clusters and silences, with a finite variance of `exp(sigma²) - 1` times the mean's square.
    Lognormal {
        /// Of the underlying normal distribution; more than 0, larger is heavier.
        sigma: f64,
    },
}

/// A source of arrivals that somebody else makes: called once per thread of the generator, each of which takes its share
/// of the same sequence.
#[derive(Clone)]
pub struct Given(Arc<dyn Fn() -> Box<dyn Iterator<Item = Arrival> + Send> + Send + Sync>);

/// One request to come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arrival {
    /// Since the start of its stage; never less than the one before.
    pub due: Duration,
    /// Index of the target; `None` draws by the weights.
    pub target: Option<usize>,
    /// Values of the target's columns, in their order; `None` takes the next row of its data.
    pub values: Option<Box<[String]>>,
}

/// A client that loses patience.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Abort {
    /// The share of requests that may be aborted, 0 to 1, drawn per request.
    pub share: f64,
    /// How long after it was sent a request is aborted, if no whole answer has come.
    pub after: Duration,
}

impl Given {
    /// `source` must give the same sequence each time, ordered by `due`.
    pub fn new<I>(source: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: Iterator<Item = Arrival> + Send + 'static,
    {
        Self(Arc::new(move || Box::new(source())))
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given(..)")
    }
}

impl Arrivals {
    /// When requests are due, since the start and before `duration` (which a single burst has no use for). The same seed
    /// gives the same times, on every machine and in every later version.
    pub fn due_times(&self, duration: Duration, seed: u64) -> Box<dyn Iterator<Item = Duration> + Send> {
        Box::new(self.arrivals(duration, seed).map(|arrival| arrival.due))
    }

    /// The same as whole arrivals.
    pub(crate) fn arrivals(&self, duration: Duration, seed: u64) -> Box<dyn Iterator<Item = Arrival> + Send> {
        let at = |due| Arrival {
            due,
            ..Arrival::default()
        };
        match self.clone() {
            Self::Constant(rate) => Box::new(shaped(Rate::Constant(rate), Gaps::Even, duration, seed).map(at)),
            Self::Poisson(rate) => Box::new(shaped(Rate::Constant(rate), Gaps::Exponential, duration, seed).map(at)),
            Self::Shaped { rate, gaps } => Box::new(shaped(rate, gaps, duration, seed).map(at)),
            Self::Burst(count) => Box::new((0..count).map(move |_| at(Duration::ZERO))),
            Self::Bursts { count, every } => {
                let starts = std::iter::successors(Some(Duration::ZERO), move |at| at.checked_add(every));
                let starts = starts.take_while(move |start| *start < duration);
                Box::new(starts.flat_map(move |start| (0..count).map(move |_| at(start))))
            }
            Self::Silence => Box::new(std::iter::empty()),
            Self::Given(given) => Box::new((given.0)().take_while(move |arrival| arrival.due < duration)),
        }
    }

    /// The mean rate over `duration`; `None` where nobody can say, or nothing has a duration.
    pub fn mean_rate(&self, duration: Duration) -> Option<Rps> {
        let seconds = duration.as_secs_f64();
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => Some(*rate),
            Self::Shaped { rate, .. } => Some(Rps(rate.cumulated(seconds, seconds) / seconds)),
            #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
            Self::Bursts { count, every } => Some(Rps(*count as f64 / every.as_secs_f64())),
            Self::Silence => Some(Rps(0.0)),
            Self::Burst(_) | Self::Given(_) => None,
        }
    }

    /// The highest rate that is asked for at any time; a burst's is not one.
    pub(crate) fn peak_rate(&self) -> f64 {
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => rate.0,
            Self::Shaped { rate, .. } => rate.peak(),
            Self::Burst(_) | Self::Bursts { .. } | Self::Silence | Self::Given(_) => 0.0,
        }
    }

    /// Whether the seed has a say in it.
    pub(crate) fn is_random(&self) -> bool {
        match self {
            Self::Poisson(_) => true,
            Self::Shaped { gaps, .. } => *gaps != Gaps::Even,
            _ => false,
        }
    }

    /// What is wrong with it, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => Rate::Constant(*rate).check(),
            Self::Shaped { rate, gaps } => rate.check().and_then(|()| gaps.check()),
            Self::Bursts { every, .. } if every.is_zero() => Err("bursts must be more than 0s apart".to_owned()),
            Self::Bursts { .. } | Self::Burst(_) | Self::Silence | Self::Given(_) => Ok(()),
        }
    }
}

/// As in `ramp from 10/s to 200/s, poisson`.
impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(Rps(rate)) => write!(f, "constant {rate}/s"),
            Self::Poisson(Rps(rate)) => write!(f, "poisson {rate}/s"),
            Self::Burst(count) => write!(f, "burst of {count}"),
            Self::Bursts { count, every } => write!(f, "burst of {count} every {}s", every.as_secs_f64()),
            Self::Silence => f.write_str("silence"),
            Self::Given(_) => f.write_str("as given"),
            Self::Shaped { rate, gaps } => {
                match rate {
                    Rate::Constant(Rps(rate)) => write!(f, "constant {rate}/s")?,
                    Rate::Ramp { from, to } => write!(f, "ramp from {}/s to {}/s", from.0, to.0)?,
                    Rate::Steps(rates) => {
                        let rates: Vec<_> = rates.iter().map(|rate| format!("{}/s", rate.0)).collect();
                        write!(f, "steps of {}", rates.join(", "))?;
                    }
                    Rate::Sine { mean, swing, period } => {
                        write!(f, "sine {}/s ± {}/s every {}s", mean.0, swing.0, period.as_secs_f64())?;
                    }
                }
                match gaps {
                    Gaps::Even => Ok(()),
                    Gaps::Exponential => f.write_str(", poisson"),
                    Gaps::Pareto { shape } => write!(f, ", pareto gaps of shape {shape}"),
                    Gaps::Lognormal { sigma } => write!(f, ", lognormal gaps of sigma {sigma}"),
                }
            }
        }
    }
}

impl Rate {
    /// Requests due before `time`, both of a stage of `length`; seconds.
    fn cumulated(&self, time: f64, length: f64) -> f64 {
        match self {
            Self::Constant(Rps(rate)) => rate * time,
            Self::Ramp { from, to } => from.0 * time + (to.0 - from.0) / (2.0 * length) * time * time,
            Self::Steps(rates) => {
                let part = part(length, rates.len());
                let mut start = 0.0;
                let mut due = 0.0;
                for Rps(rate) in rates {
                    due += rate * (time - start).clamp(0.0, part);
                    start += part;
                }
                due
            }
            Self::Sine { mean, swing, period } => {
                let period = period.as_secs_f64();
                mean.0 * time + swing.0 * period / TAU * (1.0 - (TAU * time / period).cos())
            }
        }
    }

    /// When `due` requests are due: the inverse of [`Rate::cumulated`]. Infinite when never.
    fn time_of(&self, due: f64, length: f64) -> f64 {
        match self {
            Self::Constant(Rps(rate)) => due / rate,
            Self::Ramp { from, to } => {
                let bend = (to.0 - from.0) / (2.0 * length);
                let under_root = from.0 * from.0 + 4.0 * bend * due;
                if due == 0.0 {
                    0.0
                } else if under_root < 0.0 {
                    f64::INFINITY
                } else {
                    // The form that does not cancel for a small bend.
                    2.0 * due / (from.0 + under_root.sqrt())
                }
            }
            Self::Steps(rates) => {
                let part = part(length, rates.len());
                let mut start = 0.0;
                let mut left = due;
                for Rps(rate) in rates {
                    if left < rate * part {
                        return start + left / rate;
                    }
                    left -= rate * part;
                    start += part;
                }
                f64::INFINITY
            }
            Self::Sine { mean, swing, period } => {
                let period = period.as_secs_f64();
                // The wave never takes back more than that many requests.
                let most = swing.0 * period * 2.0 / TAU;
                let (mut low, mut high) = (((due - most) / mean.0).max(0.0), due / mean.0);
                // Halving: each step gives one bit, and f64 has 53.
                for _ in 0..60 {
                    let middle = f64::midpoint(low, high);
                    if self.cumulated(middle, length) < due {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                high
            }
        }
    }

    fn peak(&self) -> f64 {
        match self {
            Self::Constant(rate) => rate.0,
            Self::Ramp { from, to } => from.0.max(to.0),
            Self::Steps(rates) => rates.iter().fold(0.0, |peak, rate| rate.0.max(peak)),
            Self::Sine { mean, swing, .. } => mean.0 + swing.0,
        }
    }

    fn check(&self) -> Result<(), String> {
        let sane = |Rps(rate): Rps, least: &str, ok: bool| {
            let message = || format!("the rate is {rate} requests per second, but must be {least} 0 and finite");
            (ok && rate.is_finite()).then_some(()).ok_or_else(message)
        };
        let at_least_zero = |rate: Rps| sane(rate, "at least", rate.0 >= 0.0);
        let more_than_zero = |rate: Rps| sane(rate, "more than", rate.0 > 0.0);
        match self {
            Self::Constant(rate) => more_than_zero(*rate),
            Self::Ramp { from, to } => {
                at_least_zero(*from)?;
                at_least_zero(*to)?;
                more_than_zero(Rps(self.peak()))
            }
            Self::Steps(rates) => {
                rates.iter().try_for_each(|rate| at_least_zero(*rate))?;
                more_than_zero(Rps(self.peak()))
            }
            Self::Sine { mean, swing, period } => {
                more_than_zero(*mean)?;
                if !(0.0..=mean.0).contains(&swing.0) {
                    return Err(format!(
                        "the swing is {} requests per second, but must be from 0 to the mean rate, {}",
                        swing.0, mean.0
                    ));
                }
                (!period.is_zero())
                    .then_some(())
                    .ok_or_else(|| "the period must be more than 0s".to_owned())
            }
        }
    }
}

impl Gaps {
    /// One gap; their mean is 1.
    fn draw(self, draws: &mut Xoshiro256PlusPlus) -> f64 {
        // `1 - u` lies in (0, 1]: its logarithm is finite.
        match self {
            Self::Even => 1.0,
            Self::Exponential => -(1.0 - draws.random::<f64>()).ln(),
            Self::Pareto { shape } => (shape - 1.0) / shape * (1.0 - draws.random::<f64>()).powf(-1.0 / shape),
            Self::Lognormal { sigma } => {
                let radius = (-2.0 * (1.0 - draws.random::<f64>()).ln()).sqrt();
                let normal = radius * (TAU * draws.random::<f64>()).cos();
                (sigma * normal - sigma * sigma / 2.0).exp()
            }
        }
    }

    fn check(self) -> Result<(), String> {
        match self {
            Self::Even | Self::Exponential => Ok(()),
            Self::Pareto { shape } if shape > 1.0 && shape.is_finite() => Ok(()),
            Self::Pareto { shape } => Err(format!(
                "the shape of Pareto gaps is {shape}, but must be more than 1: otherwise they have no mean"
            )),
            Self::Lognormal { sigma } if sigma > 0.0 && sigma <= 5.0 => Ok(()),
            Self::Lognormal { sigma } => Err(format!(
                "the sigma of log-normal gaps is {sigma}, but must be more than 0 and at most 5"
            )),
        }
    }
}

fn shaped(rate: Rate, gaps: Gaps, duration: Duration, seed: u64) -> impl Iterator<Item = Duration> + Send {
    let mut draws = Xoshiro256PlusPlus::seed_from_u64(seed);
    let length = duration.as_secs_f64();
    let mut due = 0.0;
    let mut index = 0_u64;
    std::iter::from_fn(move || {
        if gaps == Gaps::Even {
            // Counted, not summed: no drift.
            #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
            let count = index as f64;
            due = count;
            index += 1;
        } else {
            due += gaps.draw(&mut draws);
        }
        let at = Duration::try_from_secs_f64(rate.time_of(due, length)).unwrap_or(Duration::MAX);
        (at < duration).then_some(at)
    })
}

#[expect(clippy::cast_precision_loss, reason = "few steps")]
fn part(length: f64, count: usize) -> f64 {
    length / count as f64
}

#[cfg(test)]
mod tests;
