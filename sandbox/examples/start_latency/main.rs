//! How much a sandbox adds to a start: `start` to ready, beside plain spawn and busy connect of the same static server,
//! and beside container runtimes with the same seven namespaces where they are installed; in turns.
//!
//! As root: `cargo run --release -p knarr-sandbox --example start_latency [rounds N | burst N | alive N | each]`. `each` is
//! for a measuring program: it starts one from the pool for each line that it reads, and answers with the microseconds.

#![allow(unsafe_code, clippy::unwrap_used, clippy::disallowed_methods)]

mod image;
mod peers;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::units::{Bytes, Clock, Timestamp};
use manifests::workload::{Image, Workload};
use peers::{MASKED, Runtime, plain};
use sandbox::driver::{Driver, Limits, SandboxSpec};
use sandbox::{LocalConfig, LocalDriver};

fn main() {
    images::worker::main_if_asked();
    sandbox::spawner::main_if_asked();
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "rounds".to_owned());
    let count: Option<u32> = args.next().map(|n| n.parse().unwrap());
    let dir = std::env::temp_dir().join(format!("knarr-start-latency-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let server = image::server(&dir);
    let layout = image::oci_layout(&dir, &server);
    let bench = Bench {
        dir: dir.clone(),
        server,
        layout,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match what.as_str() {
            "rounds" => bench.rounds(count.unwrap_or(200)).await,
            "burst" => bench.burst(count.unwrap_or(50) as usize).await,
            "alive" => bench.alive(count.unwrap_or(1000)).await,
            "each" => bench.each().await,
            other => panic!("{other}: rounds, burst, alive or each"),
        }
    });
    fs::remove_dir_all(dir).unwrap();
}

struct Bench {
    dir: PathBuf,
    server: PathBuf,
    layout: PathBuf,
}

impl Bench {
    async fn rounds(&self, rounds: u32) {
        // All are open in turn: each driver needs a directory.
        let pooled = self.driver("pooled", |_| {});
        let direct = self.driver("direct", |config| (config.pool, config.pool_services) = (0, 0));
        println!("{}", pooled.describe());
        for warning in pooled.isolation_warnings() {
            println!("  {warning}");
        }
        let bundle = image::bundle(&self.dir, &self.server);
        let hybrid = Path::new(MASKED).exists();
        let runtimes: Vec<Runtime> = [("crun", hybrid), ("runc", false)]
            .into_iter()
            .filter_map(|(name, masked)| {
                let runtime = Runtime::start(name, bundle.clone(), masked);
                match &runtime {
                    Some(_) if masked => println!("{name}: with {MASKED} hidden from it, or it would not run here"),
                    Some(_) => {}
                    None => println!("{name}: not installed, or does not run here"),
                }
                runtime
            })
            .collect();
        let mut rows = vec![
            Row::new("plain spawn, busy connect"),
            Row::new("image, shell with its root: executed"),
            Row::new("image, shell with its root: ready"),
            Row::new("image, no pool: executed"),
            Row::new("image, no pool: ready"),
        ];
        rows.extend(
            runtimes
                .iter()
                .map(|runtime| Row::new(format!("{} run -d", runtime.name))),
        );
        // The image is fetched, its users are looked up, and the first shell with its root is made.
        for driver in [&pooled, &direct] {
            Self::start(driver, self.spec("warm", 0)).await;
            driver.stop(&SandboxId::new("warm"), Duration::ZERO).await.unwrap();
        }
        for round in 0..rounds {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (took, mut child) = plain(&self.server);
            child.kill().unwrap();
            child.wait().unwrap();
            rows[0].add(took);
            for (row, driver) in [(1, &pooled), (3, &direct)] {
                let id = format!("r{round}");
                let (executed, ready) = Self::start(driver, self.spec(&id, 0)).await;
                rows[row].add(executed);
                rows[row + 1].add(ready);
                driver.stop(&SandboxId::new(id), Duration::ZERO).await.unwrap();
            }
            if round % 4 == 0 {
                for (runtime, row) in runtimes.iter().zip(&mut rows[5..]) {
                    row.add(runtime.once(&format!("knarr-bench-{round}")).unwrap());
                }
            }
        }
        let floor = rows[0].at(500);
        for row in &mut rows {
            row.print(floor);
        }
        println!("pool: {:?}", pooled.pool());
        pooled.shutdown(Duration::ZERO).await;
        direct.shutdown(Duration::ZERO).await;
    }

    /// One from the pool whenever somebody says so.
    async fn each(&self) {
        let driver = self.driver("each", |_| {});
        let mut warm = true;
        for (n, line) in std::iter::once(Ok(String::new()))
            .chain(std::io::stdin().lines())
            .enumerate()
        {
            line.unwrap();
            let id = format!("e{n}");
            // As the services of whoever asks: without limits.
            let spec = SandboxSpec {
                limits: Limits::default(),
                ..self.spec(&id, 0)
            };
            let (_, ready) = Self::start(&driver, spec).await;
            driver.stop(&SandboxId::new(id), Duration::ZERO).await.unwrap();
            // The first one fetches the image and makes the pool remember it.
            if !std::mem::take(&mut warm) {
                println!("{}", ready.as_micros());
            }
        }
        driver.shutdown(Duration::ZERO).await;
    }

    /// Services at zero, all wanted at once; beside as many plain spawns from one process.
    async fn burst(&self, services: usize) {
        let driver = self.driver("burst", |config| config.pool_services = services.max(64));
        let mut rows = [
            Row::new("plain spawns: last connected"),
            Row::new("sandboxes: last ready"),
        ];
        for round in 0..12 {
            let spec = |n: usize| self.spec(&format!("b{round}-{n}"), n);
            let begun = Instant::now();
            let spawning = (0..services).map(|_| {
                let server = self.server.clone();
                tokio::task::spawn_blocking(move || plain(&server).1)
            });
            let spawning: Vec<_> = spawning.collect();
            let mut children = Vec::new();
            for one in spawning {
                children.push(one.await.unwrap());
            }
            let plain_took = begun.elapsed();
            for mut child in children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            let begun = Instant::now();
            let starting: Vec<_> = (0..services)
                .map(|n| {
                    let (driver, spec) = (Arc::clone(&driver), spec(n));
                    tokio::spawn(async move { driver.start(spec).await.map(drop) })
                })
                .collect();
            for one in starting {
                one.await.unwrap().unwrap();
            }
            let took = begun.elapsed();
            let before = driver.pool();
            for n in 0..services {
                driver.stop(&spec(n).id, Duration::ZERO).await.unwrap();
            }
            // The first rounds fill the pool.
            if round >= 2 {
                rows[0].add(plain_took);
                rows[1].add(took);
            }
            while driver.pool().rooted < services {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            println!("round {round}: plain {plain_took:.1?}, sandboxes {took:.1?}, {before:?}");
        }
        let floor = rows[0].at(500);
        rows.iter_mut().for_each(|row| row.print(floor));
        driver.shutdown(Duration::ZERO).await;
    }

    /// What as many sandboxes cost in memory, beside as many plain processes.
    async fn alive(&self, count: u32) {
        let before = available();
        let children: Vec<_> = (0..count).map(|_| plain(&self.server).1).collect();
        let plain_cost = before.saturating_sub(available());
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let driver = self.driver("alive", |config| (config.pool, config.pool_services) = (0, 0));
        Self::start(&driver, self.spec("warm", 0)).await;
        driver.stop(&SandboxId::new("warm"), Duration::ZERO).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = available();
        let begun = Instant::now();
        for n in 0..count {
            Self::start(&driver, self.spec(&format!("a{n}"), 0)).await;
        }
        let took = begun.elapsed();
        let cost = before.saturating_sub(available());
        assert_eq!(driver.list().len(), count as usize);
        let each = |bytes: u64| bytes / u64::from(count) / 1024;
        println!(
            "{count} sandboxes alive after {took:.1?}: {} KiB each; a plain process {} KiB; beyond the app {} KiB",
            each(cost),
            each(plain_cost),
            each(cost.saturating_sub(plain_cost)),
        );
        driver.shutdown(Duration::ZERO).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = available();
        let shells = self.driver("shells", |config| config.pool = 200);
        while shells.pool().generic < 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        println!(
            "a prepared shell: {} KiB",
            before.saturating_sub(available()) / 200 / 1024
        );
        shells.shutdown(Duration::ZERO).await;
    }

    fn driver(&self, name: &str, change: impl FnOnce(&mut LocalConfig)) -> Arc<LocalDriver> {
        let clock: Clock = Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap())
        });
        let mut config = LocalConfig::new(self.dir.join(name), clock);
        change(&mut config);
        LocalDriver::new(config).unwrap()
    }

    /// Executed and ready, each from the call.
    async fn start(driver: &Arc<LocalDriver>, spec: SandboxSpec) -> (Duration, Duration) {
        let begun = Instant::now();
        let started = driver.start(spec).await.unwrap();
        (started.phases.spawned, begun.elapsed())
    }

    fn spec(&self, id: &str, service: usize) -> SandboxSpec {
        let mut workload = Workload::new(Image::Oci {
            path: self.layout.clone(),
            tag: None,
        });
        workload.stop_grace = Duration::ZERO;
        SandboxSpec {
            id: SandboxId::new(id),
            revision: RevisionId::new("default", format!("bench-{service:05}")),
            configuration: ObjectId::new("default", "bench"),
            service: None,
            workload: Arc::new(workload),
            limits: Limits {
                memory: Some(Bytes(256 << 20)),
                pids: Some(100),
                ..Limits::default()
            },
            deadline: Duration::from_secs(60),
        }
    }
}

fn available() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

struct Row {
    name: String,
    times: Vec<Duration>,
}

impl Row {
    fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            times: Vec::new(),
        }
    }

    fn add(&mut self, took: Duration) {
        self.times.push(took);
    }

    /// The time that `permille` of all stay below.
    fn at(&mut self, permille: usize) -> Duration {
        self.times.sort_unstable();
        self.times[(self.times.len() * permille / 1000).min(self.times.len() - 1)]
    }

    fn print(&mut self, floor: Duration) {
        let (p50, p90, p99, min) = (self.at(500), self.at(900), self.at(990), self.at(0));
        println!(
            "{:38} p50 {p50:>9.1?}  p90 {p90:>9.1?}  p99 {p99:>9.1?}  min {min:>9.1?}  x floor {:>5.1}  n {}",
            self.name,
            p50.as_secs_f64() / floor.as_secs_f64(),
            self.times.len(),
        );
    }
}
