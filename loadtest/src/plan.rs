//! The short form of a scenario: one stage against one target, for tests and demos.

use std::time::Duration;

use crate::arrivals::{Abort, Arrivals};
use crate::scenario::{Scenario, Stage};
use crate::target::Target;

/// One run of load against one target. [`Plan::new`] has the defaults; the fields may be changed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to, and what.
    pub target: Target,
    /// When.
    pub arrivals: Arrivals,
    /// How long requests come; answers may come later. A burst needs none.
    pub duration: Duration,
    /// At most this many connections, hence requests under way. Default 512; each costs a descriptor and about 30 KiB.
    pub max_connections: usize,
    /// At most this many due requests wait for a connection; more are never sent, and reported. Default 100,000, which
    /// cost 4 MiB.
    pub max_waiting: usize,
    /// From the due time to the end of the answer. Default 30 s.
    pub timeout: Duration,
    /// Whether a connection serves more than one request. Default yes.
    pub keep_alive: bool,
    /// Clients that lose patience. Default none.
    pub abort: Option<Abort>,
    /// Of arrivals and aborts. Default 1.
    pub seed: u64,
}

/// Why a plan cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not a rate.
    #[error("the rate is {0} requests per second, but must be more than 0 and finite")]
    Rate(f64),
    /// Not a share.
    #[error("the share of aborts is {0}, but must be 0 to 1")]
    AbortShare(f64),
    /// Nothing to send over.
    #[error("the connection limit is 0, but must be at least 1")]
    NoConnections,
    /// A target cannot be asked: what is to be sent, or the way there.
    #[error("{name}: {text}")]
    Target {
        /// Which one.
        name: String,
        /// What is wrong.
        text: String,
    },
    /// Something else of it.
    #[error("{0}")]
    Scenario(String),
    /// The generator's own thread failed.
    #[error("cannot generate load: {0}")]
    Generator(#[source] std::io::Error),
}

impl Plan {
    /// A plan with the defaults of the fields' descriptions.
    pub fn new(target: Target, arrivals: Arrivals, duration: Duration) -> Self {
        Self {
            target,
            arrivals,
            duration,
            max_connections: 512,
            max_waiting: 100_000,
            timeout: Duration::from_secs(30),
            keep_alive: true,
            abort: None,
            seed: 1,
        }
    }

    /// `count` requests at once, each on a connection of its own.
    pub fn burst(target: Target, count: u64) -> Self {
        let max_connections = usize::try_from(count).unwrap_or(usize::MAX).max(1);
        Self {
            max_connections,
            ..Self::new(target, Arrivals::Burst(count), Duration::ZERO)
        }
    }

    /// The same as a scenario of one stage.
    pub(crate) fn scenario(&self) -> Scenario {
        let target = Target {
            connections: self.max_connections,
            keep_alive: self.keep_alive,
            ..self.target.clone()
        };
        let stage = Stage::new("all", self.arrivals.clone(), self.duration);
        Scenario {
            threads: Some(1),
            max_waiting: self.max_waiting,
            timeout: self.timeout,
            abort: self.abort,
            seed: self.seed,
            connect_first: false,
            ..Scenario::new("plan", vec![target], vec![stage])
        }
    }
}

#[cfg(test)]
mod tests {
    use manifests::units::Rps;

    use super::*;
    use crate::template::Template;

    fn plan() -> Plan {
        Plan::burst(Target::new(([127, 0, 0, 1], 80).into(), "app"), 1)
    }

    #[test]
    fn what_cannot_run_is_said_before_it_runs() {
        let error = |plan: Plan| {
            let scenario = plan.scenario();
            let checked = scenario.check().map_err(|error| error.to_string());
            let made = checked.and_then(|()| Template::new(&scenario.targets[0]).map(drop));
            made.expect_err("cannot run")
        };
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                error(Plan {
                    arrivals: Arrivals::Poisson(Rps(rate)),
                    ..plan()
                })
                .contains("more than 0 and finite")
            );
        }
        let abort = |share| {
            Some(Abort {
                share,
                after: Duration::ZERO,
            })
        };
        assert!(
            error(Plan {
                abort: abort(1.5),
                ..plan()
            })
            .contains("is 1.5, but must be 0 to 1")
        );
        assert!(
            error(Plan {
                abort: abort(f64::NAN),
                ..plan()
            })
            .contains("0 to 1")
        );
        assert!(
            error(Plan {
                max_connections: 0,
                ..plan()
            })
            .contains("at least 1")
        );
        for path in ["", "index", "/a b", "http://other/"] {
            assert!(
                error(Plan {
                    target: plan().target.path(path),
                    ..plan()
                })
                .contains("must start with /"),
                "{path:?}"
            );
        }
        for host in ["", "a\nb"] {
            let target = Target {
                host: host.to_owned(),
                ..plan().target
            };
            assert!(error(Plan { target, ..plan() }).contains("Host header"), "{host:?}");
        }
        assert!(plan().scenario().check().is_ok());
    }
}
