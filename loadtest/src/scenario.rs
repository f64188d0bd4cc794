//! A whole run: which targets, which stages one after the other, and the bounds. Checked before anything is sent.

use std::fmt;
use std::time::Duration;

use crate::arrivals::{Abort, Arrivals};
use crate::knarr::Condition;
use crate::plan::PlanError;
use crate::report::short;
use crate::target::Target;

/// What to send, where, when. [`Scenario::new`] has the defaults of the fields' descriptions.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What reports call it.
    pub name: String,
    /// At least one.
    pub targets: Vec<Target>,
    /// One after the other; at least one.
    pub stages: Vec<Stage>,
    /// Threads of the generator, each with its share of the schedule and its own connections. Default: one for each
    /// 25,000 requests per second that are asked for, at most one per core.
    pub threads: Option<usize>,
    /// At most this many due requests wait for a connection to one target; more are never sent, and reported. Default
    /// 100,000, which cost about 6 MiB.
    pub max_waiting: usize,
    /// From the due time to the end of the answer. Default 30 s.
    pub timeout: Duration,
    /// Clients that lose patience. Default none.
    pub abort: Option<Abort>,
    /// Of arrivals, aborts and the choice of targets. Default 1.
    pub seed: u64,
    /// Where a Knarr server says how it is: the address of its admin port, `127.0.0.1:9090`. Replicas, rung and queue are
    /// then part of the timeline, and stages may end by them.
    pub knarr: Option<Knarr>,
    /// Whether to make one connection to each target first, and to fail when one cannot be made. No request is sent on it.
    /// Default yes.
    pub connect_first: bool,
    /// Whether to keep what came of each single request, in [`Results::requests`](crate::Results::requests): some 150
    /// bytes for each. Default no.
    pub each: bool,
}

/// Which Knarr to ask, and about what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Knarr {
    /// `HOST:PORT` of its admin port.
    pub admin: String,
    /// Only these services, as `NAME` or `NAMESPACE/NAME`; empty: those whose URL has the host of a target, or all of them
    /// when none has.
    pub services: Vec<String>,
}

/// A part of a run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What reports call it.
    pub name: String,
    /// What comes.
    pub load: Load,
    /// How long.
    pub length: Length,
    /// The share of each target in this stage, in the order of the targets; empty: the targets' own weights.
    pub weights: Vec<f64>,
    /// Whether it runs beside the stage before it, begins and ends with that, instead of after it. Only a closed loop can.
    pub beside: bool,
}

/// Who decides when the next request comes.
#[derive(Clone, Debug)]
pub enum Load {
    /// The schedule: users who do not wait for each other. Latency counts from the due time.
    Open(Arrivals),
    /// The answers: this many clients at once, each of whom asks again when it has its answer. A slow server is then asked
    /// less, and what that hides (coordinated omission) is not in any latency, which counts from the moment of sending.
    Closed {
        /// Clients at once.
        concurrency: usize,
    },
}

/// When a stage ends.
#[derive(Clone, PartialEq, Debug)]
pub enum Length {
    /// After this time.
    For(Duration),
    /// When a Knarr server is as wanted.
    Until {
        /// How.
        condition: Condition,
        /// After this time in any case; the run then says that the condition did not come.
        at_most: Duration,
    },
}

/// A request rate above that gets one more thread of the generator.
const RATE_PER_THREAD: f64 = 25_000.0;

impl Scenario {
    /// Stages over targets, with the defaults.
    pub fn new(name: impl Into<String>, targets: Vec<Target>, stages: Vec<Stage>) -> Self {
        Self {
            name: name.into(),
            targets,
            stages,
            threads: None,
            max_waiting: 100_000,
            timeout: Duration::from_secs(30),
            abort: None,
            seed: 1,
            knarr: None,
            connect_first: true,
            each: false,
        }
    }

    /// Whether any stage is a closed loop.
    pub fn has_closed_loop(&self) -> bool {
        self.stages
            .iter()
            .any(|stage| matches!(stage.load, Load::Closed { .. }))
    }

    /// Whether every stage is one.
    pub fn is_closed_loop(&self) -> bool {
        self.stages
            .iter()
            .all(|stage| matches!(stage.load, Load::Closed { .. }))
    }

    /// What is asked for, in words: `poisson 200/s for 10s, seed 1`.
    pub fn asked(&self) -> String {
        let mut words: Vec<String> = self.stages.iter().map(ToString::to_string).collect();
        if self.stages.iter().any(Stage::is_random) {
            words.push(format!("seed {}", self.seed));
        }
        if let Some(Abort { share, after }) = self.abort {
            words.push(format!("{}% aborted after {}", share * 100.0, short(after)));
        }
        words.join(", ")
    }

    /// How many threads generate: what is asked for, or what the highest rate needs on a machine with `cores`.
    pub(crate) fn thread_count(&self, cores: usize) -> usize {
        let rate = self.stages.iter().fold(0.0_f64, |rate, stage| match &stage.load {
            Load::Open(arrivals) => rate.max(arrivals.peak_rate()),
            Load::Closed { .. } => rate,
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded by the cores"
        )]
        let needed = (rate / RATE_PER_THREAD).ceil().clamp(1.0, 1024.0) as usize;
        let threads = self.threads.unwrap_or(needed.min(cores));
        // Each has connections of its own.
        let fewest = self.targets.iter().map(|target| target.connections).min().unwrap_or(1);
        threads.clamp(1, fewest.max(1))
    }

    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), PlanError> {
        if self.threads == Some(0) {
            return Err(PlanError::Scenario(
                "the number of threads must be at least 1".to_owned(),
            ));
        }
        if let Some(Abort { share, .. }) = self.abort
            && !(0.0..=1.0).contains(&share)
        {
            return Err(PlanError::AbortShare(share));
        }
        if self.targets.is_empty() || self.stages.is_empty() {
            return Err(PlanError::Scenario("there must be a target and a stage".to_owned()));
        }
        for target in &self.targets {
            if target.connections == 0 {
                return Err(PlanError::NoConnections);
            }
            if target.streams == 0 {
                return Err(PlanError::Scenario(
                    "the limit of streams is 0, but must be at least 1".to_owned(),
                ));
            }
        }
        for stage in &self.stages {
            stage.check(self)?;
        }
        if self.stages[0].beside {
            return Err(PlanError::Scenario("the first stage runs beside none".to_owned()));
        }
        Ok(())
    }
}

impl Stage {
    /// A stage of an open loop that lasts for `duration`.
    pub fn new(name: impl Into<String>, arrivals: Arrivals, duration: Duration) -> Self {
        Self {
            name: name.into(),
            load: Load::Open(arrivals),
            length: Length::For(duration),
            weights: Vec::new(),
            beside: false,
        }
    }

    /// A stage of a closed loop.
    pub fn closed(name: impl Into<String>, concurrency: usize, duration: Duration) -> Self {
        Self {
            load: Load::Closed { concurrency },
            ..Self::new(name, Arrivals::Silence, duration)
        }
    }

    /// A closed loop beside this stage, for as long as this lasts: clients who wait for their answers, among users who
    /// come by the schedule. Each has its own latencies.
    pub fn with_clients(&self, concurrency: usize) -> Self {
        Self {
            name: format!("{}, closed loop", self.name),
            load: Load::Closed { concurrency },
            beside: true,
            ..self.clone()
        }
    }

    /// How long it lasts at most.
    pub fn longest(&self) -> Duration {
        match self.length {
            Length::For(duration) => duration,
            Length::Until { at_most, .. } => at_most,
        }
    }

    fn is_random(&self) -> bool {
        matches!(&self.load, Load::Open(arrivals) if arrivals.is_random())
    }

    /// The weights that count in it.
    pub(crate) fn weights<'a>(&'a self, targets: impl Iterator<Item = f64> + 'a) -> Vec<f64> {
        if self.weights.is_empty() {
            targets.collect()
        } else {
            self.weights.clone()
        }
    }

    fn check(&self, scenario: &Scenario) -> Result<(), PlanError> {
        let wrong = |text: String| PlanError::Scenario(format!("stage {:?}: {text}", self.name));
        match &self.load {
            Load::Open(arrivals) => arrivals.check().map_err(wrong)?,
            Load::Closed { concurrency: 0 } => return Err(wrong("the concurrency must be at least 1".to_owned())),
            Load::Closed { .. } => {}
        }
        if self.beside && !matches!(self.load, Load::Closed { .. }) {
            return Err(wrong("only a closed loop can run beside another stage".to_owned()));
        }
        let weights = self.weights(scenario.targets.iter().map(|target| target.weight));
        if weights.len() != scenario.targets.len() {
            return Err(wrong("there must be a weight for every target".to_owned()));
        }
        if weights.iter().any(|weight| !(*weight >= 0.0 && weight.is_finite())) || weights.iter().sum::<f64>() <= 0.0 {
            return Err(wrong(
                "weights must be at least 0 and one of them more than 0".to_owned(),
            ));
        }
        if matches!(self.length, Length::Until { .. }) && scenario.knarr.is_none() {
            return Err(wrong(
                "it ends by what a Knarr server says, but none is named".to_owned(),
            ));
        }
        Ok(())
    }
}

/// As in `poisson 200/s for 10s` or `closed loop of 50 for 30s`.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.load {
            Load::Open(arrivals) => arrivals.fmt(f)?,
            Load::Closed { concurrency } if self.beside => {
                return write!(f, "beside it a closed loop of {concurrency}");
            }
            Load::Closed { concurrency } => write!(f, "closed loop of {concurrency}")?,
        }
        match &self.length {
            Length::For(duration) if duration.is_zero() => Ok(()),
            Length::For(duration) => write!(f, " for {}s", duration.as_secs_f64()),
            Length::Until { condition, at_most } => {
                write!(f, " until {condition}, at most {}s", at_most.as_secs_f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use manifests::units::Rps;

    use super::*;

    fn scenario(arrivals: Arrivals) -> Scenario {
        let target = Target::new(([127, 0, 0, 1], 80).into(), "app");
        Scenario::new(
            "x",
            vec![target],
            vec![Stage::new("all", arrivals, Duration::from_secs(1))],
        )
    }

    #[test]
    fn threads_follow_the_rate_unless_they_are_named() {
        for (rate, cores, named, threads) in [
            (100.0, 8, None, 1),
            (25_000.0, 8, None, 1),
            (25_001.0, 8, None, 2),
            (90_000.0, 2, None, 2),
            (1.0, 2, Some(4), 4),
        ] {
            let scenario = Scenario {
                threads: named,
                ..scenario(Arrivals::Constant(Rps(rate)))
            };
            assert_eq!(scenario.thread_count(cores), threads, "{rate}");
        }
        let mut few = scenario(Arrivals::Silence);
        (few.threads, few.targets[0].connections) = (Some(4), 2);
        assert_eq!(few.thread_count(8), 2, "each needs a connection");
    }

    #[test]
    fn what_cannot_run_is_said() {
        let error = |change: fn(&mut Scenario)| {
            let mut scenario = scenario(Arrivals::Constant(Rps(1.0)));
            change(&mut scenario);
            scenario.check().expect_err("cannot run").to_string()
        };
        for (change, words) in [
            ((|it| it.stages.clear()) as fn(&mut Scenario), "a target and a stage"),
            (|it| it.threads = Some(0), "at least 1"),
            (|it| it.targets[0].connections = 0, "connection limit is 0"),
            (|it| it.targets[0].streams = 0, "limit of streams is 0"),
            (|it| it.stages[0].weights = vec![1.0, 1.0], "a weight for every target"),
            (|it| it.targets[0].weight = 0.0, "one of them more than 0"),
            (
                |it| it.stages[0].load = Load::Closed { concurrency: 0 },
                "concurrency must be at least 1",
            ),
            (|it| it.stages[0].beside = true, "only a closed loop can run beside"),
            (
                |it| it.stages = vec![it.stages[0].with_clients(1)],
                "the first stage runs beside none",
            ),
            (
                |it| {
                    it.stages[0].length = Length::Until {
                        condition: "replicas == 0".parse().expect("one"),
                        at_most: Duration::from_secs(1),
                    };
                },
                "none is named",
            ),
        ] {
            let error = error(change);
            assert!(error.contains(words), "{error}");
        }
    }
}
