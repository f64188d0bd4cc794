//! A trace as load: its calls at a chosen speed, each function at its service, each request asking the workload app to take
//! as long (and hold as much memory) as the call did. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Function, Invocation, MINUTE, Trace};
use crate::arrivals::{Arrival, Arrivals, Given};
use crate::data::Data;
use crate::scenario::{Scenario, Stage};
use crate::target::Target;

/// How to replay a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct Replay {
    /// These minutes of the trace.
    pub minutes: Range<u32>,
    /// So many times as fast; durations of calls stay what they are, so more of them run at once.
    pub speed: f64,
    /// Of everything that is made up.
    pub seed: u64,
    /// Which service stands for which function.
    pub services: Services,
    /// How calls are imitated.
    pub work: Work,
    /// Whether each request holds its function's memory while it runs. The trace tells what an app had, not what a call
    /// took: right for one call at a time, too much for many.
    pub memory: bool,
}

/// Beyond what is needed, for starts and stalls.
const SPARE_CONNECTIONS: usize = 64;

/// Which service stands for which function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Services {
    /// A service for each: `{function}` in this URL becomes its [`Function::service`].
    Each(String),
    /// So many services, function after function: `{n}` in this URL becomes 0 and so on.
    Modulo(String, usize),
}

/// How the workload app imitates a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Work {
    /// It waits as long.
    #[default]
    Sleep,
    /// It burns CPU as long.
    Cpu,
    /// It answers at once; for servers that know nothing of this.
    None,
}

impl Function {
    /// A name that a service may have (RFC 1035): a hash is shortened to 12 digits behind `f-`; what a name may not hold
    /// becomes `-`.
    pub fn service(&self) -> String {
        let is_hash = self.name.len() >= 32 && self.name.chars().all(|c| c.is_ascii_hexdigit());
        if is_hash {
            return format!("f-{}", self.name[..12].to_ascii_lowercase());
        }
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let name: String = self.name.chars().map(safe).collect();
        let name = name.trim_matches('-');
        let name = if name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name.to_owned()
        } else {
            format!("f-{name}")
        };
        name.chars()
            .take(63)
            .collect::<String>()
            .trim_end_matches('-')
            .to_owned()
    }
}

impl Replay {
    /// How long the replay takes.
    pub fn duration(&self) -> Duration {
        let minutes = self.minutes.end.saturating_sub(self.minutes.start);
        (MINUTE * minutes).div_f64(self.speed)
    }

    /// The scenario; in words, why there is none.
    ///
    /// # Errors
    /// When the speed, the minutes or the URLs are wrong, or two functions would share a service by accident.
    pub fn scenario(&self, trace: Trace) -> Result<Scenario, String> {
        if !(self.speed > 0.0 && self.speed.is_finite()) {
            return Err(format!("the speed is {}, but must be more than 0", self.speed));
        }
        let there = &trace.minutes;
        if self.minutes.is_empty() || self.minutes.start < there.start || self.minutes.end > there.end {
            return Err(format!(
                "minutes {} to {} are not in the trace, which has {} to {}",
                self.minutes.start, self.minutes.end, there.start, there.end
            ));
        }
        let names = self.services.names(&trace)?;
        let mut targets: Vec<Target> = Vec::new();
        for name in &names.all {
            let mut target = Target::from_url(&self.services.url(name))?;
            target.name.clone_from(name);
            target.connections = SPARE_CONNECTIONS;
            target.path = self.path().to_owned();
            target.data = (self.work != Work::None).then(|| Data::columns_only(["ms", "mb"]));
            targets.push(target);
        }
        for (function, target) in trace.functions.iter().zip(names.of.iter()) {
            targets[*target].connections += self.connections(&trace, function);
        }
        let name = format!("{} at {} times its speed", trace.name, self.speed);
        let (replay, trace) = (self.clone(), Arc::new(trace));
        let given = Given::new(move || {
            let (replay, trace, of) = (replay.clone(), Arc::clone(&trace), names.of.clone());
            replay.minutes.clone().flat_map(move |minute| {
                let calls = trace.minute(minute, replay.seed).into_iter();
                calls.map(|call| replay.arrival(&trace, &of, call)).collect::<Vec<_>>()
            })
        });
        let stage = Stage::new("replay", Arrivals::Given(given), self.duration());
        Ok(Scenario {
            seed: self.seed,
            ..Scenario::new(name, targets, vec![stage])
        })
    }

    /// Three times as many as its calls need in their busiest minute, when nothing is added to how long they take.
    fn connections(&self, trace: &Trace, function: &Function) -> usize {
        let mean = function.mean_duration().unwrap_or_default().as_secs_f64();
        let busiest = self
            .minutes
            .clone()
            .map(|minute| trace.total(function, &(minute..minute + 1)));
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded"
        )]
        let needed = (busiest.max().unwrap_or(0) as f64 / 60.0 * self.speed * mean * 3.0).min(4096.0) as usize;
        needed
    }

    fn path(&self) -> &'static str {
        match (self.work, self.memory) {
            (Work::None, _) => "/",
            (Work::Sleep, false) => "/sleep?ms={{ms}}",
            (Work::Sleep, true) => "/mem?mb={{mb}}&ms={{ms}}",
            (Work::Cpu, _) => "/cpu?ms={{ms}}",
        }
    }

    fn arrival(&self, trace: &Trace, of: &[usize], call: Invocation) -> Arrival {
        let since = call.at.saturating_sub(MINUTE * self.minutes.start);
        let values = (self.work != Work::None).then(|| {
            let millis = call.duration.unwrap_or_default().as_millis();
            // What the trace calls a megabyte is taken as what the workload app does.
            let megabytes = trace.functions[call.function]
                .memory
                .map_or(0, |memory| memory.0 / 1_000_000);
            [millis.to_string(), megabytes.to_string()].into()
        });
        Arrival {
            due: since.div_f64(self.speed),
            target: Some(of[call.function]),
            values,
        }
    }
}

/// The services' names, and which of them each function has.
struct Names {
    all: Vec<String>,
    of: Arc<[usize]>,
}

impl Services {
    fn names(&self, trace: &Trace) -> Result<Names, String> {
        match self {
            Self::Modulo(_, 0) => Err("the number of services must be at least 1".to_owned()),
            Self::Modulo(url, count) => {
                if *count > 1 && !url.contains("{n}") {
                    return Err(format!("{url:?} has no {{n}}, which tells one service from the next"));
                }
                let used = (*count).min(trace.functions.len());
                Ok(Names {
                    all: (0..used).map(|nth| nth.to_string()).collect(),
                    of: (0..trace.functions.len()).map(|nth| nth % used).collect(),
                })
            }
            Self::Each(url) => {
                if trace.functions.len() > 1 && !url.contains("{function}") {
                    return Err(format!(
                        "{url:?} has no {{function}}, which tells one service from the next"
                    ));
                }
                let all: Vec<String> = trace.functions.iter().map(Function::service).collect();
                let mut seen = BTreeMap::new();
                for (function, name) in trace.functions.iter().zip(&all) {
                    if let Some(other) = seen.insert(name, &function.name) {
                        return Err(format!(
                            "{other} and {} would both be the service {name}",
                            function.name
                        ));
                    }
                }
                let of = (0..all.len()).collect();
                Ok(Names { all, of })
            }
        }
    }

    fn url(&self, name: &str) -> String {
        match self {
            Self::Each(url) => url.replace("{function}", name),
            Self::Modulo(url, _) => url.replace("{n}", name),
        }
    }
}

#[cfg(test)]
mod tests {
    use manifests::units::Bytes;

    use super::super::{Calls, Durations, Trigger};
    use super::*;

    fn function(name: &str, calls: u32) -> Function {
        Function {
            name: name.to_owned(),
            app: String::new(),
            trigger: Trigger::Http,
            calls: Calls::PerMinute(vec![calls; 4]),
            durations: Durations::new(vec![(0.0, 30.0), (1.0, 30.0)]),
            memory: Some(Bytes(20_000_000)),
            start: None,
        }
    }

    fn trace(names: &[&str]) -> Trace {
        Trace {
            name: "t".to_owned(),
            minutes: 10..14,
            functions: names.iter().map(|name| function(name, 6)).collect(),
        }
    }

    fn replay(services: Services) -> Replay {
        Replay {
            minutes: 11..13,
            speed: 60.0,
            seed: 1,
            services,
            work: Work::Sleep,
            memory: false,
        }
    }

    fn each() -> Services {
        Services::Each("http://{function}.default.localhost:8080".to_owned())
    }

    fn arrivals(scenario: &Scenario) -> Vec<Arrival> {
        let crate::scenario::Load::Open(arrivals) = &scenario.stages[0].load else {
            panic!("an open loop");
        };
        arrivals.arrivals(Duration::from_secs(60), 0).collect()
    }

    #[test]
    fn minutes_become_seconds_and_functions_services() {
        let hash = "7f6b84c358db195e7b238bf9e69bb3245d874489fc8c39c83c4ebd8e04f906ac";
        let scenario = replay(each()).scenario(trace(&["Shop API", hash])).expect("replays");
        assert_eq!(replay(each()).duration(), Duration::from_secs(2));
        let urls: Vec<_> = scenario.targets.iter().map(Target::url).collect();
        assert_eq!(
            urls,
            [
                "http://shop-api.default.localhost:8080/sleep?ms={{ms}}",
                "http://f-7f6b84c358db.default.localhost:8080/sleep?ms={{ms}}"
            ]
        );
        let all = arrivals(&scenario);
        assert_eq!(all.len(), 24);
        assert!(all.windows(2).all(|pair| pair[0].due <= pair[1].due));
        assert!(all.last().expect("some").due < Duration::from_secs(2));
        let first = all[0].values.as_deref().expect("values");
        assert_eq!(first, ["30".to_owned(), "20".to_owned()]);
        assert_eq!(all.iter().filter(|it| it.target == Some(1)).count(), 12);
    }

    #[test]
    fn functions_share_services_when_told_to() {
        let services = Services::Modulo("http://svc-{n}/".to_owned(), 2);
        let with_memory = Replay {
            memory: true,
            ..replay(services)
        };
        let scenario = with_memory.scenario(trace(&["a", "b", "c"])).expect("replays");
        let urls: Vec<_> = scenario.targets.iter().map(Target::url).collect();
        assert_eq!(
            urls,
            [
                "http://svc-0/mem?mb={{mb}}&ms={{ms}}",
                "http://svc-1/mem?mb={{mb}}&ms={{ms}}"
            ]
        );
        assert_eq!(arrivals(&scenario).iter().filter(|it| it.target == Some(0)).count(), 24);
    }

    #[test]
    fn what_cannot_be_replayed_is_said() {
        let error = |replay: Replay, names: &[&str]| replay.scenario(trace(names)).expect_err("cannot replay");
        let of = |services: Services| replay(services);
        assert!(
            error(
                Replay {
                    speed: 0.0,
                    ..of(each())
                },
                &["a"]
            )
            .contains("more than 0")
        );
        assert!(
            error(
                Replay {
                    minutes: 9..11,
                    ..of(each())
                },
                &["a"]
            )
            .contains("which has 10 to 14")
        );
        assert!(error(of(Services::Each("http://a/".to_owned())), &["a", "b"]).contains("no {function}"));
        assert!(error(of(each()), &["a b", "a-b"]).contains("would both be the service a-b"));
        assert!(error(of(Services::Modulo("http://a/".to_owned(), 2)), &["a"]).contains("no {n}"));
    }
}
