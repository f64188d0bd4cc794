//! One policy, really: `knarr serve` with real sandboxes, `knarr load replay` on loopback, and what both say afterwards.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use loadtest::results::{Ended, Fate, Request};
use loadtest::simulate::agreement::{Outcome, idle_arrivals};
use loadtest::simulate::{Market, Policy, Settings};
use loadtest::trace::{Function, Trace};
use loadtest::{ErrorKind, Phase, Results, Temperature, Timing};
use manifests::units::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{self, App, Knarr, Result, now};

/// What is to be lived through.
pub(crate) struct Played<'a> {
    pub(crate) knarr: &'a Path,
    pub(crate) workload: &'a Path,
    /// The calls, and the same as a trace.
    pub(crate) list: &'a Path,
    pub(crate) trace: &'a Trace,
    pub(crate) settings: &'a Settings,
    pub(crate) policy: Policy,
    pub(crate) market: &'a Market,
    pub(crate) seed: u64,
    /// A directory of its own.
    pub(crate) place: PathBuf,
}

/// What came of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Lived {
    /// In the order of the functions.
    pub(crate) services: Vec<Service>,
    /// Of all requests that met a frozen sandbox: the median, and the deviation of the logarithm; `None` without any.
    pub(crate) thaws: Option<(Duration, f64)>,
}

/// One of them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) outcome: Outcome,
    /// What a start took on average; `None` without any.
    pub(crate) start: Option<Duration>,
    /// What it held frozen, on average over time; `None` where it never was.
    pub(crate) frozen: Option<Bytes>,
    /// What a warm request took beyond what it asked for: the median.
    pub(crate) overhead: Duration,
}

impl Played<'_> {
    pub(crate) fn play(&self) -> Result<Lived> {
        fs::create_dir_all(&self.place)?;
        let app = support::apps(self.workload, &self.place, 0, 0)?.remove(0);
        let objects = self.objects(&app);
        let manifest = self.place.join("services.yaml");
        fs::write(&manifest, support::manifest(&objects))?;
        let functions = &self.trace.functions;
        let knarr = Knarr::start(self.knarr, &[], &manifest, &self.place, functions.len())?;
        let (requests, results) = (self.place.join("requests.csv"), self.place.join("results.json"));
        let mut replay = self.replay(&knarr, &requests, &results)?;
        let (costs, frozen) = self.watch(&knarr, &mut replay)?;
        let results = Results::from_json(&fs::read(&results)?)?;
        let length = Duration::from_secs(60) * self.trace.minutes.end;
        let end = results.started_ms + u64::try_from(length.as_millis())?;
        let over = costs.iter().find(|cost| cost["atMs"].as_u64() >= Some(end));
        let cost = over.ok_or("knarr cost did not answer after the end of the replay")?;
        let requests = read(&requests, functions)?;
        let services = functions.iter().enumerate().map(|(index, function)| {
            let requests: Vec<Request> = requests.iter().filter(|it| it.target == index).cloned().collect();
            self.service(index, &requests, cost, &knarr)
                .map(|service| Service {
                    frozen: frozen.of(function),
                    ..service
                })
                .map_err(|error| format!("{}: {error}", function.name).into())
        });
        let lived = Lived {
            services: services.collect::<Result<_>>()?,
            thaws: spread(&waits(&requests, |it| it.timing.temperature == Temperature::Frozen)),
        };
        fs::write(self.place.join("lived.json"), serde_json::to_vec(&lived)?)?;
        Ok(lived)
    }

    /// Settings, catalogue and services: the simulator's, as manifests.
    fn objects(&self, app: &App) -> Vec<Value> {
        let catalogue = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "config-instances", "namespace": "knative-serving"},
            "data": self.market.config_map(&self.settings.starts),
        });
        let mut objects = vec![support::at_zero(&[]), catalogue];
        let sla = &self.settings.sla;
        let limit = format!("p{}<{}ms", sla.quantile * 100.0, sla.limit.as_millis());
        let window = match self.policy {
            Policy::KnativeWindow(window) => Some(format!("{}s", window.as_secs())),
            _ => None,
        };
        let annotations: Vec<(&str, &str)> = match &window {
            Some(window) => vec![("autoscaling.knative.dev/window", window)],
            None => vec![("knarr.dev/idle", "auto"), ("knarr.dev/cold-start-sla", &limit)],
        };
        for function in &self.trace.functions {
            let delay = function.start.unwrap_or_default().as_millis();
            let app = App {
                program: app.program.clone(),
                image: None,
                args: vec!["--start-delay".into(), format!("{delay}ms")],
                ..*app
            };
            let mut service = support::service(&app, &function.name, &annotations);
            let pod = &mut service["spec"]["template"]["spec"];
            pod["containerConcurrency"] = self.settings.concurrency.into();
            pod["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "2Gi"}});
            objects.push(service);
        }
        objects
    }

    fn replay(&self, knarr: &Knarr, requests: &Path, results: &Path) -> Result<Child> {
        let port = knarr.addr().port();
        let child = Command::new(self.knarr)
            .args([
                "load",
                "replay",
                "--quiet",
                "--status",
                "none",
                "--timeout",
                "120s",
                "--url",
            ])
            .arg(format!("http://{{function}}.default.localhost:{port}"))
            .arg("--output")
            .arg(requests)
            .arg("--output")
            .arg(results)
            .arg(self.list)
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.place.join("replay.txt"))?)
            .spawn()?;
        Ok(child)
    }

    /// Until the replay is over: what frozen sandboxes hold, and what `knarr cost` says around the end.
    fn watch(&self, knarr: &Knarr, replay: &mut Child) -> Result<(Vec<Value>, Frozen)> {
        let length = Duration::from_secs(60) * self.trace.minutes.end;
        let near = now() + length.saturating_sub(Duration::from_secs(2));
        let (mut costs, mut frozen) = (Vec::new(), Frozen::default());
        let mut looked = now();
        loop {
            if now() - looked >= LOOK {
                looked = now();
                frozen.look(knarr)?;
            }
            let status = replay.try_wait()?;
            if now() >= near || status.is_some() {
                costs.push(self.cost()?);
            }
            if let Some(status) = status {
                return match status.success() {
                    true => Ok((costs, frozen)),
                    false => Err(format!("knarr load replay ended with {status}").into()),
                };
            }
            sleep(Duration::from_millis(200));
        }
    }

    fn cost(&self) -> Result<Value> {
        let output = Command::new(self.knarr)
            .args(["cost", "--output", "json", "--data-dir"])
            .arg(self.place.join("data"))
            .output()?;
        if !output.status.success() {
            return Err(format!("knarr cost: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn service(&self, index: usize, requests: &[Request], cost: &Value, knarr: &Knarr) -> Result<Service> {
        let function = &self.trace.functions[index];
        let calls: Vec<Duration> = self
            .trace
            .invocations(self.trace.minutes.clone(), self.seed)
            .filter(|call| call.function == index)
            .map(|call| call.duration.unwrap_or_default())
            .collect();
        if calls.len() != requests.len() {
            return Err(format!("{} requests of {} calls", requests.len(), calls.len()).into());
        }
        let (idle, late) = idle_arrivals(requests.iter().zip(calls.iter().copied()), self.settings.sla.limit);
        let revisions = cost["revisions"].as_array().ok_or("no revisions in knarr cost")?;
        let today = revisions.iter().find(|it| it["service"] == *function.name);
        let today = &today.ok_or("not in knarr cost")?["today"];
        let money = |what: &str| today[what].as_f64().ok_or("no money in knarr cost");
        let metric = |name: &str| knarr.metric(name, &[label(function)]);
        let (seconds, starts) = (
            metric("knarr_sandbox_start_seconds_sum")?,
            metric("knarr_sandbox_start_seconds_count")?,
        );
        Ok(Service {
            outcome: Outcome {
                arrivals: requests.len() as u64,
                cost: money("actual")?,
                starts: whole(metric("knarr_sandbox_starts_total")?),
                idle,
                late,
            },
            overhead: overhead(requests, &calls),
            frozen: None,
            start: (starts > 0.0).then(|| Duration::from_secs_f64(seconds / starts)),
        })
    }
}

/// What frozen sandboxes held, whenever somebody looked: the sum, and how often, by revision.
#[derive(Default)]
struct Frozen(HashMap<String, (f64, f64)>);

impl Frozen {
    fn look(&mut self, knarr: &Knarr) -> Result<()> {
        for (revision, bytes) in knarr.of_revisions("knarr_revision_frozen_bytes")? {
            if bytes > 0.0 {
                let (sum, count) = self.0.entry(revision).or_default();
                *sum += bytes;
                *count += 1.0;
            }
        }
        Ok(())
    }

    fn of(&self, function: &Function) -> Option<Bytes> {
        let (sum, count) = self.0.get(&revision(function))?;
        Some(Bytes(whole(sum / count)))
    }
}

/// How often.
const LOOK: Duration = Duration::from_secs(2);

/// How long those requests waited for their sandbox.
fn waits(requests: &[Request], wanted: impl Fn(&Request) -> bool) -> Vec<Duration> {
    let wanted = requests.iter().filter(|it| wanted(it));
    let waited = wanted.filter_map(|it| it.timing.phases[Phase::Start as usize]);
    waited.filter(|time| !time.is_zero()).collect()
}

/// Of times that are LogNormal: the median, and the deviation of the logarithm.
fn spread(times: &[Duration]) -> Option<(Duration, f64)> {
    let count = f64::from(u32::try_from(times.len()).ok().filter(|count| *count > 0)?);
    let logarithms: Vec<f64> = times.iter().map(|time| time.as_secs_f64().ln()).collect();
    let mean = logarithms.iter().sum::<f64>() / count;
    let squares: f64 = logarithms.iter().map(|it| (it - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    Some((Duration::from_secs_f64(mean.exp()), deviation))
}

/// What warm requests took beyond what they asked for: the median.
fn overhead(requests: &[Request], calls: &[Duration]) -> Duration {
    let took = requests.iter().zip(calls).filter_map(|(request, asked)| {
        let app = request.timing.phases[Phase::App as usize]?;
        (request.timing.temperature == Temperature::Unknown).then(|| app.saturating_sub(*asked))
    });
    let mut took: Vec<Duration> = took.collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

/// Its one revision.
fn revision(function: &Function) -> String {
    format!("{}-00001", function.name)
}

/// The same in Prometheus' text.
fn label(function: &Function) -> String {
    format!("revision=\"{}\"", revision(function))
}

/// The lines of `knarr load replay -o FILE.csv`, in the order in which they were due.
fn read(path: &Path, functions: &[Function]) -> Result<Vec<Request>> {
    let mut reader = csv::Reader::from_path(path)?;
    let heads = reader.headers()?.clone();
    let column = |name: &str| heads.iter().position(|head| head == name).ok_or("a column is missing");
    let [due, target, status, error, latency, first_byte] =
        ["due_ms", "target", "status", "error", "latency_ms", "first_byte_ms"].map(column);
    let temperature = column("temperature");
    let phases = Phase::ALL.map(|phase| column(&format!("{}_ms", phase.name())));
    let mut requests = Vec::new();
    for row in reader.records() {
        let row = row?;
        let text =
            |column: std::result::Result<usize, &'static str>| Ok::<_, &str>(row.get(column?).unwrap_or_default());
        let time = |column| {
            let text = text(column)?;
            Ok::<_, Box<dyn std::error::Error>>(match text {
                "" => None,
                text => Some(Duration::try_from_secs_f64(text.parse::<f64>()? / 1e3)?),
            })
        };
        let name = text(target)?;
        let fate = match (text(status)?, text(error)?) {
            ("", "never sent") => Fate::NeverSent,
            ("", "aborted") => Fate::Aborted,
            ("", _) => Fate::Ended(Ended::Error(ErrorKind::Closed)),
            (status, _) => Fate::Ended(Ended::Status(status.parse()?)),
        };
        let name_of = text(temperature)?;
        let mut timing = Timing {
            temperature: [Temperature::Cold, Temperature::Frozen]
                .into_iter()
                .find(|it| it.name() == name_of)
                .unwrap_or_default(),
            ..Timing::default()
        };
        for (phase, column) in timing.phases.iter_mut().zip(phases) {
            *phase = time(column)?;
        }
        requests.push(Request {
            stage: 0,
            target: functions
                .iter()
                .position(|it| it.name == name)
                .ok_or("an unknown target")?,
            due: time(due)?.unwrap_or_default(),
            fate,
            latency: time(latency)?.unwrap_or_default(),
            first_byte: time(first_byte)?,
            timing,
        });
    }
    Ok(requests)
}

/// A count that Prometheus' text has as a number.
fn whole(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts and bytes, not negative"
    )]
    let whole = value.round() as u64;
    whole
}
