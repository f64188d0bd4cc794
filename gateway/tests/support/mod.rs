//! What the tests share: a gateway on loopback, apps it dials, and a client that says exactly what it is told.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "test support")]

pub mod app;
pub mod client;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use activator::{BoxFuture, Dial, Limits, Pool, Pools};
use gateway::{Config, Gateway};
use manifests::exchange::{Endpoint, EndpointSet, HostRoute, LoadReport, RouteTarget, Rung, Snapshot};
use manifests::ids::{GatewayId, Generation, ObjectId, RevisionId, SandboxId};
use manifests::revision::*;
use manifests::units::*;
use manifests::workload::*;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// A gateway, with the control and scaling sides in the test's hands.
pub struct World {
    pub gateway: Gateway,
    pub pools: Arc<Pools>,
    pub dial: Arc<TestDial>,
    pub reports: mpsc::UnboundedReceiver<LoadReport>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    snapshot: Snapshot,
    counter: u64,
}

impl World {
    pub fn new() -> Self {
        Self::with(2, Limits::default(), |_| {})
    }

    pub fn with(threads: usize, limits: Limits, change: impl FnOnce(&mut Config)) -> Self {
        let clock = wall_clock();
        let (sender, reports) = mpsc::unbounded_channel();
        let pools = Arc::new(Pools::new(
            threads,
            limits,
            Arc::clone(&clock),
            GatewayId("gw".into()),
            sender,
        ));
        let (snapshots, receiver) = watch::channel(Arc::new(Snapshot::default()));
        let dial = Arc::new(TestDial::default());
        let mut config = Config::new(vec![(Ipv4Addr::LOCALHOST, 0).into()]);
        config.threads = threads;
        change(&mut config);
        let gateway = Gateway::start(&config, receiver, Arc::clone(&pools), dial.clone(), clock, 7).unwrap();
        Self {
            gateway,
            pools,
            dial,
            reports,
            snapshots,
            snapshot: Snapshot::default(),
            counter: 0,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.addresses()[0]
    }

    /// One revision that gets all of host `NAME.test`, and waits until the gateway routes to it.
    pub async fn deploy(&mut self, revision: Revision) -> Arc<Pool> {
        let host = format!("{}.test", revision.id.name());
        self.deploy_at(&host, vec![(revision, 100)], &[]).await
    }

    /// Several revisions behind one host; returns the first one's pool.
    pub async fn deploy_at(&mut self, host: &str, shares: Vec<(Revision, u8)>, tags: &[(&str, &str)]) -> Arc<Pool> {
        let first = shares[0].0.id.clone();
        let targets = shares
            .iter()
            .map(|(revision, percent)| RouteTarget {
                revision: revision.id.clone(),
                percent: Percent::new(*percent).unwrap(),
            })
            .collect();
        for (revision, _) in shares {
            self.snapshot.revisions.insert(revision.id.clone(), Arc::new(revision));
        }
        let by_tag_header = tags
            .iter()
            .map(|&(tag, name)| (tag.into(), RevisionId::new("default", name)))
            .collect();
        let route = HostRoute {
            route: ObjectId::new("default", "route"),
            tag: None,
            targets,
            by_tag_header,
        };
        self.snapshot.hosts.insert(host.into(), Arc::new(route));
        self.publish().await;
        self.pools.get(&first).unwrap()
    }

    /// Publishes what was changed, and waits until requests see it.
    async fn publish(&mut self) {
        self.counter += 1;
        self.snapshot.generation = Generation {
            epoch: 1,
            counter: self.counter,
        };
        // A host that only this snapshot has: when it routes, everything in the snapshot does.
        let marker = format!("marker-{}.test", self.counter);
        let nothing = HostRoute {
            route: ObjectId::new("default", "m"),
            tag: None,
            targets: vec![],
            by_tag_header: BTreeMap::new(),
        };
        self.snapshot.hosts.insert(marker.as_str().into(), Arc::new(nothing));
        self.snapshots.send_replace(Arc::new(self.snapshot.clone()));
        while client::get(self.address(), &marker, "/").await.status == 404 {
            tokio::task::yield_now().await;
        }
    }

    /// Sets a revision's ready sandboxes; each must have been named to `dial`.
    pub fn serve(&mut self, name: &str, rung: Rung, sandboxes: &[&str]) {
        self.counter += 1;
        let endpoints = sandboxes
            .iter()
            .map(|&id| Endpoint {
                sandbox: SandboxId::new(id),
                start: Duration::from_millis(5),
                weight: 0,
            })
            .collect();
        let set = EndpointSet {
            revision: RevisionId::new("default", name),
            generation: Generation {
                epoch: 1,
                counter: self.counter,
            },
            rung,
            endpoints,
            trouble: None,
            refuses: false,
        };
        assert!(self.pools.apply(&set));
    }

    /// Deploys a revision with one sandbox, whose app is at `address`.
    pub async fn run(&mut self, revision: Revision, address: SocketAddr) -> Arc<Pool> {
        let name = revision.id.name().to_owned();
        let pool = self.deploy(revision).await;
        self.dial.at(&format!("{name}-0"), address);
        self.serve(&name, Rung::Full, &[&format!("{name}-0")]);
        pool
    }
}

/// Dials the app that the test says is in a sandbox.
#[derive(Default)]
pub struct TestDial {
    apps: Mutex<HashMap<SandboxId, SocketAddr>>,
    dials: Mutex<HashMap<SandboxId, usize>>,
}

impl TestDial {
    pub fn at(&self, sandbox: &str, app: SocketAddr) {
        self.apps.lock().unwrap().insert(SandboxId::new(sandbox), app);
    }

    pub fn gone(&self, sandbox: &str) {
        self.apps.lock().unwrap().remove(&SandboxId::new(sandbox));
    }

    /// How often this sandbox was dialled.
    pub fn dials(&self, sandbox: &str) -> usize {
        self.dials
            .lock()
            .unwrap()
            .get(&SandboxId::new(sandbox))
            .copied()
            .unwrap_or_default()
    }
}

impl Dial for TestDial {
    fn dial(&self, sandbox: &SandboxId) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        *self.dials.lock().unwrap().entry(sandbox.clone()).or_default() += 1;
        let app = self.apps.lock().unwrap().get(sandbox).copied();
        Box::pin(async move {
            match app {
                Some(app) => TcpStream::connect(app).await,
                None => Err(std::io::ErrorKind::NotFound.into()),
            }
        })
    }
}

/// Never goes backwards: starts at the wall clock and follows the monotonic one.
#[allow(clippy::disallowed_methods, reason = "the shell of the tests")]
pub fn wall_clock() -> Clock {
    let (epoch, start) = (
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
        std::time::Instant::now(),
    );
    Arc::new(move || Timestamp::from_nanos(u64::try_from((epoch + start.elapsed()).as_nanos()).unwrap()))
}

/// A revision without limits on anything but a minute for each request.
pub fn revision(name: &str, concurrency: u32) -> Revision {
    Revision {
        container_concurrency: ContainerConcurrency(concurrency),
        timeouts: Timeouts {
            request: Duration::from_secs(60),
            response_start: None,
            idle: None,
        },
        ..Revision::new(RevisionId::new("default", name), Workload::host("/bin/true"))
    }
}

pub fn h2c(mut revision: Revision) -> Revision {
    Arc::make_mut(&mut revision.workload).protocol = Protocol::H2c;
    revision
}

pub fn timeouts(mut revision: Revision, request: u64, response_start: Option<u64>, idle: Option<u64>) -> Revision {
    revision.timeouts = Timeouts {
        request: Duration::from_millis(request),
        response_start: response_start.map(Duration::from_millis),
        idle: idle.map(Duration::from_millis),
    };
    revision
}
