//! `knarr serve`: from flags to a running server, and back out.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::config::{Config, RawConfig, RawQueue};
use control::server::Server;
use control::status::Ready;
use control::tell::tell;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Serve, ServerFlags};
use crate::out;

/// Serves manifests until Ctrl-C or SIGTERM.
pub(crate) fn serve(args: Serve) -> anyhow::Result<ExitCode> {
    run(config(args.server)?, args.paths, OnFailure::ServeOn)
}

/// The settings that flags and `--config` make together.
pub(crate) fn config(flags: ServerFlags) -> anyhow::Result<Config> {
    let file = flags
        .config
        .as_deref()
        .map(RawConfig::read)
        .transpose()?
        .unwrap_or_default();
    let flags = RawConfig {
        listen: flags.listen,
        admin: flags.admin,
        data_dir: flags.data.data_dir,
        threads: flags.threads,
        drain_timeout: None,
        queue: RawQueue::default(),
        instances: flags.instances,
        former_specs: None,
        former_frozen: None,
        memory_budget: flags.memory_budget,
        image_quota: None,
        flight_recorder: flags.flight_recorder,
        reclaim_frozen: None,
        runtimes: Vec::new(),
        seccomp_profiles: None,
        insecure_registries: flags.insecure_registry,
        registry_certs: None,
        egress: flags.egress,
        unsafe_no_isolation: flags.unsafe_no_isolation,
    };
    Ok(Config::from_raw(flags.over(file))?)
}

/// What becomes of Knarr when a service has never been ready and cannot be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// Its manifest may be mended meanwhile.
    ServeOn,
    /// There is nothing else to serve: exit code 1.
    End,
}

/// Serves `paths` until a signal comes; a second signal ends at once.
pub(crate) fn run(config: Config, paths: Vec<PathBuf>, on_failure: OnFailure) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let server = Server::start(config, paths).await?;
        out::print(format!("{}\n", server.greeting()).as_bytes())?;
        let code = tokio::select! {
            _ = interrupt.recv() => ExitCode::SUCCESS,
            _ = terminate.recv() => ExitCode::SUCCESS,
            () = tell_readiness(&server, on_failure) => ExitCode::FAILURE,
        };
        if code == ExitCode::SUCCESS {
            tell(format_args!("finishing requests in flight; once more to end at once"));
        }
        tokio::select! {
            () = server.stop() => Ok(code),
            _ = interrupt.recv() => Ok(ExitCode::FAILURE),
            _ = terminate.recv() => Ok(ExitCode::FAILURE),
        }
    })
}

/// Prints whenever a service becomes ready, or stops being so, and why. Returns when one never was and is to end all.
async fn tell_readiness(server: &Server, on_failure: OnFailure) {
    let mut told: BTreeMap<(String, String), Ready> = BTreeMap::new();
    let mut changes = server.services_changed();
    while changes.next().await {
        let now: BTreeMap<_, _> = server
            .services()
            .into_iter()
            .map(|it| ((it.namespace, it.name), (it.ready, it.latest_ready)))
            .collect();
        told.retain(|id, _| now.contains_key(id));
        for (id, (ready, latest)) in now {
            if told.get(&id) == Some(&ready) {
                continue;
            }
            let (namespace, name) = &id;
            match ready.status.as_str() {
                "True" => tell(format_args!("{namespace}/{name} is ready: {latest}")),
                "False" => {
                    tell(format_args!(
                        "{namespace}/{name} is not ready: {}: {}",
                        ready.reason, ready.message
                    ));
                    if on_failure == OnFailure::End && latest.is_empty() {
                        return;
                    }
                }
                _ => {}
            }
            told.insert(id, ready);
        }
        // Changes come in bursts.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    std::future::pending().await
}

/// The runtime of everything that is not per request: two threads are plenty.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("knarr-control")
        .enable_all()
        .build()
}

/// `RUST_LOG` decides what is logged, `TARGET=LEVEL` separated by commas; warnings by default.
fn log_to_stderr() {
    let asked = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| text.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(Level::WARN));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .compact();
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}
