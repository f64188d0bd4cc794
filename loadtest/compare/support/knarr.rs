//! A `knarr serve` of the comparison's own, asked by the load generator.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use loadtest::coldstart::Try;
use loadtest::results::Ended;
use loadtest::{Plan, Target, Temperature};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::plain::{free_addr, get};
use super::{Result, now};

/// `knarr serve`; ended on drop.
pub(crate) struct Knarr {
    process: Child,
    addr: SocketAddr,
    admin: SocketAddr,
    runtime: Runtime,
}

/// What came of a request.
pub(crate) struct Answer {
    /// To the first byte, on a connection that stood already.
    pub(crate) time: Duration,
    /// By `Phase::ALL`'s order; `None` where the server names none.
    pub(crate) phases: [Option<Duration>; 5],
}

impl Knarr {
    /// Returns when `services` services are ready, which starts none of them.
    pub(crate) fn start(program: &Path, flags: &[&str], manifest: &Path, work: &Path, services: usize) -> Result<Self> {
        let (addr, admin) = (free_addr()?, free_addr()?);
        let log = work.join("knarr.log");
        let process = Command::new(program)
            .args(["serve", "--listen", &addr.to_string(), "--admin", &admin.to_string()])
            .args(flags)
            .arg("--data-dir")
            .arg(work.join("data"))
            .arg(manifest)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut knarr = Self {
            process,
            addr,
            admin,
            runtime,
        };
        let deadline = now() + Duration::from_secs(60);
        while knarr.ready_services().unwrap_or(0) < services {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = knarr.process.try_wait()? {
                return Err(format!("knarr serve ended with {status}:\n{}", said()).into());
            }
            if now() > deadline {
                return Err(format!("knarr serve has not made all services ready in a minute:\n{}", said()).into());
            }
            sleep(Duration::from_millis(100));
        }
        Ok(knarr)
    }

    /// Where its gateway listens.
    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// One request of the load generator; it must be answered, and meet a service as warm as that.
    pub(crate) fn request(&self, service: &str, wanted: Temperature) -> Result<Answer> {
        let target = Target::new(self.addr, format!("{service}.default.localhost"));
        let results = self.runtime.block_on(loadtest::run(Plan::burst(target, 1), |_| {}))?;
        let tried = Try::of(&results).ok_or("the request was not sent")?;
        let first_byte = match (tried.ended, tried.first_byte) {
            (Ended::Status(200), Some(time)) => time,
            (Ended::Status(status), _) => return Err(format!("{service} answered {status}").into()),
            (Ended::Error(kind), _) => {
                let text = results.errors.get(&kind).map(|failures| failures.first.as_str());
                return Err(format!("{service}: {kind}: {}", text.unwrap_or_default()).into());
            }
        };
        if tried.temperature != wanted {
            return Err(format!("{service} was not {}, but {}", wanted.name(), tried.temperature.name()).into());
        }
        // The generator's own lateness and its connection come first, and count in its figures.
        let before = results.schedule.late.max() + results.connections.connect.max();
        Ok(Answer {
            time: first_byte.saturating_sub(before),
            phases: tried.phases,
        })
    }

    /// The status document.
    pub(crate) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("/v1/status")?)?)
    }

    /// The sum of all metrics of this name, in Prometheus' text, whose labels contain these texts.
    pub(crate) fn metric(&self, name: &str, labels: &[String]) -> Result<f64> {
        let text = self.ask("/metrics")?;
        let ours = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let wanted = ours.filter(|line| labels.iter().all(|label| line.contains(label.as_str())));
        let values = wanted.map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            value.parse::<f64>().map_err(|_| format!("{name} is {value:?}"))
        });
        Ok(values.sum::<std::result::Result<f64, String>>()?)
    }

    /// One number of every revision that has it.
    pub(crate) fn of_revisions(&self, name: &str) -> Result<Vec<(String, f64)>> {
        let text = self.ask("/metrics")?;
        let ours = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let each = ours.filter_map(|line| {
            let revision = line.split("revision=\"").nth(1)?.split('"').next()?;
            Some((revision.to_owned(), line.rsplit(' ').next()?.parse().ok()?))
        });
        Ok(each.collect())
    }

    fn ask(&self, path: &str) -> Result<String> {
        Ok(get(TcpStream::connect(self.admin)?, path)?.1)
    }

    fn ready_services(&self) -> Result<usize> {
        let status = self.status()?;
        let services = status["services"].as_array().ok_or("no services in the status")?;
        let ready = services.iter().filter(|service| service["ready"]["status"] == "True");
        Ok(ready.count())
    }
}

impl Drop for Knarr {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        for _ in 0..200 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
