//! What a Knarr server says of itself while it is under load: replicas, rung, queue; and stages that end by it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task;

use crate::scenario::Knarr;
use crate::target::Target;

/// How a Knarr server stood at one moment, the services that are looked at taken together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnarrState {
    /// Replicas that are ready.
    pub replicas: u64,
    /// Replicas that are being started.
    pub starting: u64,
    /// Requests in flight, waiting ones included.
    pub in_flight: u64,
    /// Requests that wait for a replica.
    pub queue: u64,
    /// The highest rung that any revision stands on: `zero`, `frozen`, `throttled`, `reserve` or `full`.
    pub rung: String,
}

/// What a Knarr server is to be like: `replicas == 0` (none being started either), `queue < 10`, `rung == frozen`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    of: Of,
    is: Is,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Is {
    Number(Comparison, u64),
    Rung(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Replicas,
    InFlight,
    Queue,
    Rung,
}

/// How two numbers are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Comparison {
    Less,
    AtMost,
    Equal,
    Unequal,
    AtLeast,
    More,
}

/// Lowest first.
const RUNGS: [&str; 5] = ["zero", "frozen", "throttled", "reserve", "full"];

impl Comparison {
    /// All of them with their signs; longer ones first, so that none hides another.
    pub(crate) const ALL: [(&str, Self); 6] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("==", Self::Equal),
        ("!=", Self::Unequal),
        ("<", Self::Less),
        (">", Self::More),
    ];

    /// Splits `left < right`.
    pub(crate) fn split(text: &str) -> Option<(&str, Self, &str)> {
        let (at, sign, comparison) = Self::ALL
            .iter()
            .filter_map(|(sign, comparison)| text.find(sign).map(|at| (at, *sign, *comparison)))
            .min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())))?;
        Some((text[..at].trim(), comparison, text[at + sign.len()..].trim()))
    }

    pub(crate) fn holds<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Equal => left == right,
            Self::Unequal => left != right,
            Self::AtLeast => left >= right,
            Self::More => left > right,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Self::ALL.iter().find(|(_, comparison)| comparison == self);
        f.write_str(sign.map_or("", |(sign, _)| sign))
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no condition; it compares replicas, queue or in_flight with a number (\"replicas == 0\"), \
                 or rung with {} (\"rung == frozen\")",
                RUNGS.join(", ")
            )
        };
        let (of, comparison, value) = Comparison::split(text).ok_or_else(wrong)?;
        let of = match of {
            "replicas" => Of::Replicas,
            "in_flight" => Of::InFlight,
            "queue" => Of::Queue,
            "rung" if comparison == Comparison::Equal && RUNGS.contains(&value) => {
                return Ok(Self {
                    of: Of::Rung,
                    is: Is::Rung(value.to_owned()),
                });
            }
            _ => return Err(wrong()),
        };
        let value = value.parse().map_err(|_| wrong())?;
        if comparison == Comparison::Less && value == 0 {
            return Err(format!("{text:?} can never be: nothing is less than 0"));
        }
        Ok(Self {
            of,
            is: Is::Number(comparison, value),
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            Of::Replicas => "replicas",
            Of::InFlight => "in_flight",
            Of::Queue => "queue",
            Of::Rung => "rung",
        };
        match &self.is {
            Is::Number(comparison, value) => write!(f, "{of} {comparison} {value}"),
            Is::Rung(rung) => write!(f, "{of} == {rung}"),
        }
    }
}

impl Condition {
    /// Whether it is so.
    pub fn holds(&self, state: &KnarrState) -> bool {
        let number = match self.of {
            Of::Replicas => state.replicas + state.starting,
            Of::InFlight => state.in_flight,
            Of::Queue | Of::Rung => state.queue,
        };
        match &self.is {
            Is::Number(comparison, value) => comparison.holds(number, *value),
            Is::Rung(rung) => state.rung == *rung,
        }
    }
}

/// What is read of `GET /v1/status`.
#[derive(Debug, Deserialize)]
struct Status {
    services: Vec<Service>,
    revisions: Vec<Revision>,
}

#[derive(Debug, Deserialize)]
struct Service {
    namespace: String,
    name: String,
    url: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    namespace: String,
    service: String,
    actual_replicas: u64,
    starting_replicas: u64,
    rung: String,
    in_flight: u64,
    waiting: u64,
}

/// How it stood, once with all services together, and by target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Looked {
    /// All together.
    pub all: KnarrState,
    /// By index of the target, those that have services there.
    pub by_target: Vec<(usize, KnarrState)>,
    /// Whether any service is a target's; otherwise all of them stand under the first target.
    pub matched: bool,
}

/// Asks a Knarr server again and again, over one connection as long as that lasts.
pub struct Watch {
    admin: String,
    services: Vec<String>,
    /// By target.
    hosts: Vec<String>,
    sender: Option<http1::SendRequest<Empty<Bytes>>>,
}

/// An answer is a few KiB per service.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

impl Watch {
    /// Of the services behind these targets. Needs a runtime for local tasks.
    pub fn new(knarr: &Knarr, targets: &[Target]) -> Self {
        let admin = knarr.admin.strip_prefix("http://").unwrap_or(&knarr.admin);
        Self {
            admin: admin.trim_end_matches('/').to_owned(),
            services: knarr.services.clone(),
            hosts: targets.iter().map(|target| without_port(&target.host)).collect(),
            sender: None,
        }
    }

    /// How it stands now; in words, why nobody knows.
    ///
    /// # Errors
    /// When there is no answer, or it is not a Knarr's.
    pub async fn look(&mut self) -> Result<Looked, String> {
        let looked = tokio::time::timeout(PATIENCE, self.status()).await;
        let status = looked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if status.is_err() {
            self.sender = None;
        }
        let status = status.map_err(|error| format!("http://{}/v1/status: {error}", self.admin))?;
        Ok(self.sum(&status))
    }

    async fn status(&mut self) -> Result<Status, String> {
        let text = |error: hyper::Error| error.to_string();
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(&self.admin)
                    .await
                    .map_err(|error| error.to_string())?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
                task::spawn_local(async move { drop(connection.await) });
                sender
            }
        };
        let request = Request::get("/v1/status").header(header::HOST, &self.admin);
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        sender.ready().await.map_err(text)?;
        let answer = sender.send_request(request).await.map_err(text)?;
        if answer.status() != http::StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        self.sender = Some(sender);
        serde_json::from_slice(&body).map_err(|error| format!("not the status of a Knarr: {error}"))
    }

    /// Services that are named belong to the first target; else each target has those with its host, or the first has all
    /// when none has any.
    fn sum(&self, status: &Status) -> Looked {
        let named = |service: &Service| {
            let full = format!("{}/{}", service.namespace, service.name);
            self.services.iter().any(|name| *name == service.name || *name == full)
        };
        let target_of = |service: &Service| {
            let authority = service.url.split("://").nth(1).unwrap_or_default();
            let host = without_port(authority.split('/').next().unwrap_or_default());
            self.hosts.iter().position(|known| *known == host)
        };
        let by_name = !self.services.is_empty();
        let mut targets: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for service in &status.services {
            let target = if by_name {
                named(service).then_some(0)
            } else {
                target_of(service)
            };
            if let Some(target) = target {
                targets.insert((&service.namespace, &service.name), target);
            }
        }
        let everybody = targets.is_empty() && !by_name;
        let mut looked = Looked {
            matched: !targets.is_empty(),
            ..Looked::default()
        };
        for revision in &status.revisions {
            let known = targets.get(&(revision.namespace.as_str(), revision.service.as_str()));
            let Some(target) = known.copied().or(everybody.then_some(0)) else {
                continue;
            };
            looked.all.add(revision);
            match looked.by_target.iter_mut().find(|(index, _)| *index == target) {
                Some((_, state)) => state.add(revision),
                None => {
                    let mut state = KnarrState::default();
                    state.add(revision);
                    looked.by_target.push((target, state));
                }
            }
        }
        looked
    }
}

impl KnarrState {
    fn add(&mut self, revision: &Revision) {
        self.replicas += revision.actual_replicas;
        self.starting += revision.starting_replicas;
        self.in_flight += revision.in_flight;
        self.queue += revision.waiting;
        let place = |rung: &str| RUNGS.iter().position(|known| *known == rung);
        if place(&revision.rung) >= place(&self.rung) {
            self.rung.clone_from(&revision.rung);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

fn without_port(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_judged() {
        let state = KnarrState {
            replicas: 2,
            starting: 1,
            in_flight: 12,
            queue: 2,
            rung: "full".to_owned(),
        };
        for (text, holds) in [
            ("replicas == 3", true),
            ("replicas==0", false),
            ("replicas >= 4", false),
            ("queue<3", true),
            ("in_flight != 12", false),
            ("rung == full", true),
            ("rung == zero", false),
        ] {
            let condition: Condition = text.parse().expect(text);
            assert_eq!(condition.holds(&state), holds, "{text}");
            assert_eq!(condition.to_string().parse(), Ok(condition), "{text}");
        }
        for text in [
            "replicas",
            "replicas = 0",
            "pods == 0",
            "replicas == -1",
            "rung == half",
            "rung < full",
            "queue < 0",
        ] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_services_behind_the_targets_are_taken_together() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "services": [
                {"namespace": "default", "name": "a", "url": "http://a.default.localhost:8080"},
                {"namespace": "default", "name": "b", "url": "http://b.default.localhost:8080"},
            ],
            "revisions": [
                {"namespace": "default", "service": "a", "actualReplicas": 2, "startingReplicas": 1,
                 "rung": "full", "inFlight": 5, "waiting": 4, "name": "a-00002"},
                {"namespace": "default", "service": "a", "actualReplicas": 0, "startingReplicas": 0,
                 "rung": "zero", "inFlight": 0, "waiting": 0},
                {"namespace": "default", "service": "b", "actualReplicas": 7, "startingReplicas": 0,
                 "rung": "throttled", "inFlight": 1, "waiting": 0},
            ],
        }))
        .expect("a status");
        let watch = |services: &[&str], host: &str| {
            let knarr = Knarr {
                admin: "http://127.0.0.1:9090/".to_owned(),
                services: services.iter().map(|name| (*name).to_owned()).collect(),
            };
            let watch = Watch::new(&knarr, &[Target::new(([127, 0, 0, 1], 80).into(), host)]);
            assert_eq!(watch.admin, "127.0.0.1:9090");
            watch.sum(&status)
        };
        let a = watch(&[], "A.default.localhost");
        let all = &a.all;
        assert_eq!(
            (all.replicas, all.starting, all.queue, all.in_flight, all.rung.as_str()),
            (2, 1, 4, 5, "full")
        );
        assert_eq!((a.by_target, a.matched), (vec![(0, a.all.clone())], true));
        let b = watch(&["default/b"], "a.default.localhost").all;
        assert_eq!((b.replicas, b.rung.as_str()), (7, "throttled"));
        assert_eq!(watch(&[], "elsewhere").all.replicas, 9, "nobody's host: all of them");
        assert_eq!(watch(&["c"], "elsewhere"), Looked::default());
    }
}
