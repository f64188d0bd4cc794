//! How much a sandbox adds to a start: `start` to ready, beside plain spawn and busy connect of the same program, in
//! turns. As root: `cargo run --release -p knarr-sandbox --example start_latency [N]`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use manifests::ids::{ObjectId, RevisionId, SandboxId};
use manifests::units::{Clock, Timestamp};
use manifests::workload::Workload;
use sandbox::driver::{Driver, Limits, SandboxSpec};
use sandbox::{LocalConfig, LocalDriver};

fn main() {
    sandbox::spawner::main_if_asked();
    let rounds: u32 = std::env::args().nth(1).map_or(300, |n| n.parse().unwrap());
    let app = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .join("../knarr-sandbox-testapp")
        .canonicalize()
        .unwrap();
    let dir = std::env::temp_dir().join(format!("knarr-start-latency-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Both are open in turn: two drivers need two directories.
        let pooled = driver(&dir.join("pooled"), None);
        let direct = driver(&dir.join("direct"), Some(0));
        println!("{}", pooled.describe());
        let mut rows: [(&str, Vec<Duration>); 5] = [
            ("plain spawn, busy connect", Vec::new()),
            ("sandbox from the pool: executed", Vec::new()),
            ("sandbox from the pool: ready", Vec::new()),
            ("sandbox, no pool: executed", Vec::new()),
            ("sandbox, no pool: ready", Vec::new()),
        ];
        for round in 0..rounds {
            rows[0].1.push(plain(&app));
            for (row, driver) in [(1, &pooled), (3, &direct)] {
                let id = format!("r{round}");
                let begun = Instant::now();
                let started = driver.start(spec(&id, &app)).await.unwrap();
                rows[row + 1].1.push(begun.elapsed());
                rows[row].1.push(started.phases.spawned);
                driver.stop(&SandboxId::new(id), Duration::ZERO).await.unwrap();
            }
            // The pool is filled when nothing is asked for.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (name, mut times) in rows {
            times.sort_unstable();
            let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
            println!(
                "{name:34} p50 {:>9.1?}  p90 {:>9.1?}  p99 {:>9.1?}  min {:>9.1?}",
                at(50),
                at(90),
                at(99),
                at(0)
            );
        }
        pooled.shutdown(Duration::ZERO).await;
        direct.shutdown(Duration::ZERO).await;
    });
    std::fs::remove_dir_all(dir).unwrap();
}

fn driver(dir: &Path, pool: Option<usize>) -> Arc<LocalDriver> {
    let clock: Clock = Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap())
    });
    let mut config = LocalConfig::new(dir, clock);
    config.pool = pool.unwrap_or(config.pool);
    LocalDriver::new(config).unwrap()
}

fn plain(app: &Path) -> Duration {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = Instant::now();
    let mut child = Command::new(app)
        .arg("serve")
        .env("PORT", port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {}
    let took = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

fn spec(id: &str, app: &Path) -> SandboxSpec {
    let mut workload = Workload::host(app);
    workload.serving.args = vec!["serve".into()];
    workload.stop_grace = Duration::ZERO;
    SandboxSpec {
        id: SandboxId::new(id),
        revision: RevisionId::new("default", "bench-00001"),
        configuration: ObjectId::new("default", "bench"),
        service: None,
        workload: Arc::new(workload),
        limits: Limits::default(),
        deadline: Duration::from_secs(20),
    }
}
