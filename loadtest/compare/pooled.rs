//! Services that have run before and went to zero: a shell with their root waits in the pool. Their requests beside starts
//! from a pool without any gateway, by a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use loadtest::{Phase, Temperature};

use crate::support::plain::plain;
use crate::support::{App, Knarr, Result, now, quantile};
use crate::{Flags, from_pool, pause};

/// What was measured.
#[derive(Default)]
pub(crate) struct Pooled {
    plain: Vec<Duration>,
    /// A start from the pool, without gateway and autoscaler.
    direct: Vec<Duration>,
    cold: Vec<Duration>,
    /// What the answer says of the start in it.
    start: Vec<Duration>,
    /// All of the request but that.
    beyond: Vec<Duration>,
}

/// Wakes each service once a round; every round waits until all are at zero and the pool is full again.
pub(crate) fn measure(knarr: &Knarr, app: &App, flags: &Flags, work: &Path) -> Result<Pooled> {
    let mut starter = Starter::start(flags, work)?;
    let mut pooled = Pooled::default();
    // The first round makes Knarr remember them.
    for round in 0..=flags.rounds {
        if round > 0 {
            until_pooled(knarr, app)?;
        }
        let before = from_pool(knarr, app)?;
        for index in 0..app.starts {
            // The same pause before each: whoever comes right after another finds the cores awake and the caches full.
            pause(flags);
            let spawned = plain(app)?;
            pause(flags);
            let direct = starter.once()?;
            pause(flags);
            let cold = knarr.request(&format!("{}-{index}", app.name), Temperature::Cold)?;
            if round == 0 {
                continue;
            }
            let start = cold.phases[Phase::Start as usize].unwrap_or_default();
            pooled.plain.push(spawned);
            pooled.direct.push(direct);
            pooled.cold.push(cold.time);
            pooled.start.push(start);
            pooled.beyond.push(cold.time.saturating_sub(start));
        }
        let found = from_pool(knarr, app)? - before;
        #[expect(clippy::cast_precision_loss, reason = "at most 64")]
        let wanted = app.starts as f64;
        if round > 0 && found < wanted {
            return Err(format!("only {found} of {wanted} starts found a shell with their root").into());
        }
    }
    Ok(pooled)
}

/// Until none of them runs, there is a shell for each, and no more are being made.
fn until_pooled(knarr: &Knarr, app: &App) -> Result<()> {
    let deadline = now() + Duration::from_secs(60);
    let mut before = None;
    loop {
        let status = knarr.status()?;
        let ours = |revision: &&serde_json::Value| {
            let name = revision["name"].as_str().unwrap_or_default();
            name.starts_with(app.name)
        };
        let runs = |revision: &&serde_json::Value| {
            revision["actualReplicas"] != 0 || revision["startingReplicas"] != 0 || revision["rung"] != "zero"
        };
        let revisions = status["revisions"].as_array().ok_or("no revisions in the status")?;
        let running = revisions.iter().filter(ours).filter(runs).count();
        let shells = knarr.metric("knarr_pool_shells", &["kind=\"rooted\"".to_owned()])?;
        #[expect(clippy::cast_precision_loss, reason = "at most 64")]
        let enough = shells >= app.starts as f64;
        if running == 0 && enough && before == Some(shells) {
            return Ok(());
        }
        before = Some(shells);
        if now() > deadline {
            return Err(format!("{running} services are not at zero after a minute, {shells} shells are ready").into());
        }
        sleep(Duration::from_millis(500));
    }
}

impl Pooled {
    pub(crate) fn print(&mut self, flags: &Flags) {
        let (services, rounds) = (flags.services, flags.rounds);
        println!("{services} services that ran before, at zero, each with a shell in the pool, woken {rounds} times:");
        let (direct, plain) = (quantile(&mut self.direct, 0.5), quantile(&mut self.plain, 0.5));
        for (name, times) in [
            ("plain", &mut self.plain),
            ("start from the pool, no gateway", &mut self.direct),
            ("start from the pool, by Server-Timing", &mut self.start),
            ("request at zero, to the first byte", &mut self.cold),
            ("of it, all but its start", &mut self.beyond),
        ] {
            let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
            println!("{name:<38} p50 {p50:>6.2}  p99 {p99:>6.2}  n {}", times.len());
        }
        let cold = quantile(&mut self.cold, 0.5);
        println!(
            "beyond a start from the pool without a gateway: {:.2} at the median; beyond plain: {:.2}",
            cold - direct,
            cold - plain
        );
    }

    /// The median of what a request takes beyond the start in it.
    pub(crate) fn beyond_ms(&mut self) -> f64 {
        quantile(&mut self.beyond, 0.5)
    }
}

/// `start_latency each`: starts one sandbox of the same server from its pool whenever it is told to.
struct Starter {
    process: Child,
    /// Closed, it ends.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Starter {
    fn start(flags: &Flags, work: &Path) -> Result<Self> {
        let mut process = Command::new(&flags.starter)
            .arg("each")
            .env("TMPDIR", work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().ok_or("no way from the starter")?;
        Ok(Self {
            process,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// From the order to ready.
    fn once(&mut self) -> Result<Duration> {
        self.orders.as_mut().ok_or("the starter has ended")?.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let micros = line.trim().parse().map_err(|_| format!("the starter said {line:?}"))?;
        Ok(Duration::from_micros(micros))
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}
