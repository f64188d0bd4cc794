//! A running Knarr: every channel and task of every plane, in the order in which they are made. Nothing else wires.
//!
//! ```text
//! files ─▶ control loop ─ Snapshot ─▶ gateway threads ─ LoadReport ─▶ scaling loop ─▶ driver ─▶ sandboxes
//!               ▲                         ▲                              │  │
//!               └──── RevisionStatus ─────┼──────────────────────────────┘  │
//!                                         └──────── EndpointSet ────────────┘
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use activator::Pools;
use autoscaler::cost::Costs;
use autoscaler::evict::Evictions;
use autoscaler::explain::Explain;
use autoscaler::flight::writer::{self, Recorder};
use gateway::Gateway;
use images::{Store, StoreConfig};
use manifests::exchange::EndpointSet;
use manifests::ids::GatewayId;
use manifests::units::{Bytes, Clock};
use sandbox::driver::Driver;
use sandbox::egress::{Cluster, EgressConfig};
use sandbox::{LocalConfig, LocalDriver, SetupError};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answers::Live;
use crate::api::{self, Answers};
use crate::claims::Claims;
use crate::clock;
use crate::config::Config;
use crate::cost;
use crate::datadir::{DataDir, DataDirError};
use crate::desired::Machine;
use crate::expect::expect_starts;
use crate::inside::Services;
use crate::learned;
use crate::metrics;
use crate::pulls::pins;
use crate::pulls::worker::Worker;
use crate::run::{self, Control};
use crate::source::SourceError;
use crate::status::{ServiceStatus, Status};

/// A running Knarr. Call [`Server::stop`] to end it; dropping it kills its sandboxes.
pub struct Server {
    gateway: Gateway,
    driver: Arc<LocalDriver>,
    live: Arc<Live>,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    services: watch::Receiver<u64>,
    drain_timeout: Duration,
    stop: CancellationToken,
    tasks: TaskTracker,
    directory: DataDir,
}

/// Why Knarr does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory is in use or cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A path with manifests cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The manifests are wrong. Every problem, one per line.
    #[error("{0}")]
    Manifests(String),
    /// Sandboxes cannot run here.
    #[error(transparent)]
    Sandboxes(#[from] SetupError),
    /// Images cannot be kept here.
    #[error(transparent)]
    Images(#[from] images::ImageError),
    /// The gateway cannot listen.
    #[error(transparent)]
    Gateway(#[from] gateway::StartError),
    /// Something else that the system refused.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Server {
    /// Starts every plane and serves the manifests of `paths`.
    ///
    /// # Errors
    /// See [`ServeError`]; nothing is left running then. Wrong manifests are an error here, and only a warning once Knarr
    /// runs.
    pub async fn start(config: Config, paths: Vec<PathBuf>) -> Result<Self, ServeError> {
        let io = |context: &str| {
            let context = context.to_owned();
            move |source| ServeError::Io { context, source }
        };
        // What can be wrong is looked at before anything runs: settings, manifests, directory, ports, host.
        let clock: Clock = clock::system();
        let epoch = clock().as_nanos();
        let machine = Machine {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
            budget: config.memory_budget,
        };
        let runtimes = config.runtimes.keys().cloned().collect();
        let mut control = Control::load(paths, config.instances, runtimes, machine, epoch, &clock)?;
        let directory = DataDir::open(&config.data_dir)?;
        let pins = directory.path().join("pins.json");
        let mut pinned = pins::read(&pins).map_err(io(&format!("cannot read {}", pins.display())))?;
        if config.images_as_now {
            pins::forget_local(&mut pinned);
        }
        let first = control.first(pinned);
        let admin = TcpListener::bind(config.admin)
            .await
            .map_err(io(&format!("cannot listen on {}", config.admin)))?;
        let admin_address = admin.local_addr().map_err(io("the admin port"))?;
        let socket = api::bind_socket(&directory.socket()).map_err(io(&format!(
            "cannot make the control socket {}",
            directory.socket().display()
        )))?;
        let metrics = metrics::install();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();

        // The four channels between the planes.
        let (snapshots_to, snapshots) = watch::channel(Arc::new(first));
        let (reports_to, reports) = unbounded_channel();
        let (endpoints_to, endpoints) = unbounded_channel();
        let (statuses_to, statuses) = unbounded_channel();

        // Images.
        let store_config = StoreConfig {
            registry: config.registry,
            quota: config.image_quota,
            ..StoreConfig::default()
        };
        let store = Store::open(&directory.path().join("images"), store_config)?;
        let (words_to, words) = unbounded_channel();
        let worker = Worker::new(
            store.clone(),
            words_to,
            Clock::clone(&clock),
            tasks.clone(),
            stop.clone(),
        );
        let images = run::Images {
            worker,
            words,
            pins,
            written: 0,
        };

        // Sandboxes.
        let published = snapshots.clone();
        let expected = snapshots.clone();
        let services = Services::new(snapshots.clone());
        let driver = LocalDriver::new(LocalConfig {
            egress: EgressConfig {
                default: config.egress,
                cluster: Some(Arc::clone(&services) as Arc<dyn Cluster>),
                ..EgressConfig::default()
            },
            unsafe_no_isolation: config.unsafe_no_isolation,
            memory_budget: Some(config.memory_budget),
            reclaim: config.reclaim_frozen,
            runtimes: config.runtimes,
            seccomp: config
                .seccomp_profiles
                .unwrap_or_else(|| directory.path().join("seccomp")),
            images: Some(store.clone()),
            ..LocalConfig::new(directory.path().join("sandboxes"), Clock::clone(&clock))
        })?;

        // Data plane.
        let limits = activator::Limits {
            queue_requests: config.queue_requests,
            ..activator::Limits::default()
        };
        let name = GatewayId("local".into());
        let pools = Arc::new(Pools::new(
            config.threads,
            limits,
            Clock::clone(&clock),
            name,
            reports_to,
        ));
        let settings = gateway::Config {
            threads: config.threads,
            queue: config.queue_timeout,
            ..gateway::Config::new(config.listen)
        };
        let dial = Arc::new(Dial(Arc::clone(&driver)));
        let gateway = Gateway::start(
            &settings,
            snapshots.clone(),
            Arc::clone(&pools),
            dial,
            Clock::clone(&clock),
            epoch,
        )?;
        services.serve_by(gateway.inlet());
        let addresses = gateway.addresses().to_vec();
        tasks.spawn(apply_endpoints(endpoints, Arc::clone(&pools)));
        tasks.spawn(report_load(Arc::clone(&pools), Clock::clone(&clock), stop.clone()));

        // Scaling.
        let (explain, evictions) = (Explain::default(), Evictions::default());
        let (learned_to, news) = unbounded_channel();
        tasks.spawn(learned::keep(
            directory.learned(),
            news,
            Clock::clone(&clock),
            stop.clone(),
        ));
        let costs = Costs::resume(cost::read(&directory.costs()));
        tasks.spawn(cost::keep(
            directory.costs(),
            costs.clone(),
            Clock::clone(&clock),
            stop.clone(),
        ));
        let inputs = autoscaler::run::Inputs {
            snapshots,
            reports,
            driver: Arc::clone(&driver) as Arc<dyn Driver>,
            clock: Clock::clone(&clock),
            explain: explain.clone(),
            evictions: evictions.clone(),
            costs: costs.clone(),
            learned: learned::read(&directory.learned(), clock()),
            epoch,
            recorder: recorder(&directory, config.flight_recorder, epoch),
        };
        let outputs = autoscaler::run::Outputs {
            endpoints: endpoints_to,
            statuses: statuses_to,
            learned: learned_to,
        };
        tasks.spawn(autoscaler::run::run(inputs, outputs, stop.clone()));

        // Control.
        tasks.spawn(metrics::sum_up(metrics.clone(), stop.clone()));
        let live = Arc::new(Live {
            desired: control.desired(),
            warnings: control.warnings(),
            isolation: driver.isolation_warnings().to_vec(),
            snapshots: published,
            placed: gateway.placed(),
            pools,
            driver: Arc::clone(&driver) as Arc<dyn Driver>,
            local: Arc::clone(&driver),
            explain,
            evictions,
            costs,
            metrics,
            clock,
            started: clock::system()(),
            addresses: addresses.clone(),
        });
        let services = control.services();
        let claims = Claims::new(Arc::clone(&driver));
        tasks.spawn(expect_starts(expected, Arc::clone(&driver), stop.clone()));
        tasks.spawn(run::run(control, statuses, snapshots_to, images, claims, stop.clone()));
        tasks.spawn(api::serve_admin(
            admin,
            Arc::clone(&live) as Arc<dyn Answers>,
            stop.clone(),
        ));
        tasks.spawn(api::serve_socket(
            socket,
            Arc::clone(&live) as Arc<dyn Answers>,
            stop.clone(),
        ));
        tasks.close();
        Ok(Self {
            gateway,
            driver,
            live,
            addresses,
            admin: admin_address,
            services,
            drain_timeout: config.drain_timeout,
            stop,
            tasks,
            directory,
        })
    }

    /// Where the gateway listens.
    pub fn listen(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin port listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What Knarr says of itself.
    pub fn status(&self) -> Status {
        self.live.status()
    }

    /// The services alone; cheaper than the whole [`Self::status`].
    pub fn services(&self) -> Vec<ServiceStatus> {
        self.live.services()
    }

    /// Whenever something about a service has changed; at once the first time.
    pub fn services_changed(&self) -> ServicesChanged {
        let mut changes = self.services.clone();
        changes.mark_changed();
        ServicesChanged(changes)
    }

    /// Why a revision runs as it does.
    ///
    /// # Errors
    /// When `target` names nothing.
    pub fn explain(&self, target: &str, since: Duration, json: bool) -> Result<String, String> {
        self.live.explain(target, since, json)
    }

    /// The host's process numbers of a revision's ready sandboxes, by their names.
    pub async fn processes(&self, namespace: &str, revision: &str) -> Vec<(String, u32)> {
        self.live.processes(namespace, revision).await
    }

    /// What `knarr serve` prints first: each service's URL and how to call it without DNS.
    pub fn greeting(&self) -> String {
        self.live.greeting(self.admin)
    }

    /// Ends: no new connections, requests in flight finish (up to the drain timeout), sandboxes stop, nothing is left.
    pub async fn stop(self) {
        self.gateway.drain(self.drain_timeout).await;
        self.stop.cancel();
        self.driver.shutdown(STOP_GRACE).await;
        self.tasks.wait().await;
        drop(std::fs::remove_file(self.directory.socket()));
    }
}

/// The flight recorder, when it is on. Knarr serves without it where it cannot write.
fn recorder(directory: &DataDir, limit: Option<Bytes>, take: u64) -> Option<Recorder> {
    let settings = writer::Settings {
        directory: directory.flight(),
        limit: limit?.0,
        take,
    };
    let started = Recorder::start(settings);
    let failed = |error: &std::io::Error| {
        let directory = directory.flight();
        tracing::warn!(directory = %directory.display(), %error, "the flight recorder cannot write and stays off");
    };
    started.inspect_err(failed).ok()
}

/// Changes of services, from [`Server::services_changed`].
pub struct ServicesChanged(watch::Receiver<u64>);

impl ServicesChanged {
    /// Waits for the next change; several since the last call are one. False when Knarr ends.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// How the data plane reaches a sandbox: the driver's own way in.
struct Dial(Arc<LocalDriver>);

impl activator::Dial for Dial {
    fn dial(
        &self,
        sandbox: &manifests::ids::SandboxId,
    ) -> activator::BoxFuture<'_, std::io::Result<tokio::net::TcpStream>> {
        self.0.dial(sandbox)
    }
}

/// Scaling's endpoint sets, in order, into the pools. Ends when scaling does.
async fn apply_endpoints(mut endpoints: UnboundedReceiver<EndpointSet>, pools: Arc<Pools>) {
    while let Some(set) = endpoints.recv().await {
        pools.apply(&set);
    }
}

/// One load report a second, as Knative's activator and queue-proxy.
async fn report_load(pools: Arc<Pools>, clock: Clock, stop: CancellationToken) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(second.tick()).await.is_some() {
        pools.publish(clock());
    }
}

/// How long a sandbox has to end by itself when Knarr ends; no request is in flight any more then.
const STOP_GRACE: Duration = Duration::from_secs(5);
