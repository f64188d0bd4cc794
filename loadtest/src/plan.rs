//! What to send, where, how often: checked before anything is sent.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, request};
use manifests::units::Rps;

use crate::arrivals::{Abort, Arrivals};
use crate::report::short;
use crate::results::{Endpoint, Results, Stage};

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

/// Where requests go and what they say.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whom to connect to.
    pub addr: SocketAddr,
    /// The `Host` header: which app behind the address.
    pub host: String,
    /// Path and query, starting with `/`.
    pub path: String,
    /// GET unless changed.
    pub method: Method,
    /// Beyond `Host` and what the body needs.
    pub headers: HeaderMap,
    /// The same for every request.
    pub body: Bytes,
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
    /// Not a host.
    #[error("the host {0:?} cannot stand in a Host header")]
    Host(String),
    /// Not a path.
    #[error("the path {0:?} is not one: it must start with / and hold no spaces")]
    Path(String),
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

    /// A document without results, which says what was asked.
    pub(crate) fn results(&self) -> Results {
        let (asked_rate, end) = match self.arrivals {
            Arrivals::Constant(rate) | Arrivals::Poisson(rate) => (Some(rate), self.duration),
            Arrivals::Burst(_) => (None, Duration::ZERO),
        };
        let asked = self.asked();
        let stage = Stage {
            name: "all".to_owned(),
            start: Duration::ZERO,
            end,
            arrivals: asked.clone(),
            asked_rate,
        };
        let target = Endpoint {
            name: self.target.host.clone(),
            url: format!("http://{}{}", self.target.addr, self.target.path),
            protocol: "h1".to_owned(),
        };
        let mut results = Results::new(asked, self.seed, vec![stage], vec![target]);
        results.clock.timer = "timerfd".to_owned();
        results
    }

    fn asked(&self) -> String {
        let seconds = self.duration.as_secs_f64();
        let arrivals = match self.arrivals {
            Arrivals::Constant(Rps(rate)) => format!("constant {rate}/s for {seconds}s"),
            Arrivals::Poisson(Rps(rate)) => format!("poisson {rate}/s for {seconds}s, seed {}", self.seed),
            Arrivals::Burst(count) => format!("burst of {count}"),
        };
        match self.abort {
            Some(abort) => format!(
                "{arrivals}, {}% aborted after {}",
                abort.share * 100.0,
                short(abort.after)
            ),
            None => arrivals,
        }
    }

    /// The request that every arrival sends.
    pub(crate) fn check(&self) -> Result<Template, PlanError> {
        if let Arrivals::Constant(Rps(rate)) | Arrivals::Poisson(Rps(rate)) = self.arrivals
            && !(rate > 0.0 && rate.is_finite())
        {
            return Err(PlanError::Rate(rate));
        }
        if let Some(Abort { share, .. }) = self.abort
            && !(0.0..=1.0).contains(&share)
        {
            return Err(PlanError::AbortShare(share));
        }
        if self.max_connections == 0 {
            return Err(PlanError::NoConnections);
        }
        self.target.template(self.keep_alive)
    }
}

impl Target {
    /// GET `/` of `host` at `addr`.
    pub fn new(addr: SocketAddr, host: impl Into<String>) -> Self {
        Self {
            addr,
            host: host.into(),
            path: "/".to_owned(),
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Another path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    fn template(&self, keep_alive: bool) -> Result<Template, PlanError> {
        let uri: Option<Uri> = self.path.parse().ok().filter(|_| self.path.starts_with('/'));
        let uri = uri.ok_or_else(|| PlanError::Path(self.path.clone()))?;
        let host = HeaderValue::try_from(&self.host).ok().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| PlanError::Host(self.host.clone()))?;
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::HOST, host);
        if !keep_alive {
            request
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(Template {
            head: request.into_parts().0,
            body: self.body.clone(),
        })
    }
}

/// A request, ready to be copied.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) head: request::Parts,
    pub(crate) body: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::burst(Target::new(([127, 0, 0, 1], 80).into(), "app"), 1)
    }

    #[test]
    fn what_cannot_run_is_said_before_it_runs() {
        let error = |plan: Plan| plan.check().expect_err("cannot run").to_string();
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
        assert!(plan().check().is_ok());
    }
}
