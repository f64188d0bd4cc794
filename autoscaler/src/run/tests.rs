//! The shell over the fake driver, under paused time: whole lives through channels.

use std::time::Duration;

use manifests::exchange::{LoadKind, RevisionLoad, Rung};
use manifests::ids::{GatewayId, Generation};
use manifests::revision::{ColdStartSla, IdlePolicy, Revision};
use manifests::units::{Concurrency, ContainerConcurrency, Millicores, Replicas, Rps, Timestamp};
use sandbox::driver::ExitStatus;
use sandbox::fake::{Behaviour, FakeDriver, Start, What};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::*;
use crate::testing::revision;

struct Bench {
    driver: FakeDriver,
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: UnboundedSender<LoadReport>,
    endpoints: UnboundedReceiver<EndpointSet>,
    statuses: UnboundedReceiver<RevisionStatus>,
    explain: Explain,
    evictions: crate::evict::Evictions,
    stop: CancellationToken,
    loop_ended: tokio::task::JoinHandle<()>,
    counter: u64,
    last: Option<EndpointSet>,
}

impl Bench {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of this test is tokio's, which is paused"
    )]
    fn new() -> Self {
        let driver = FakeDriver::new();
        let (snapshots, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let (reports, report) = unbounded_channel();
        let (endpoints_in, endpoints) = unbounded_channel();
        let (statuses_in, statuses) = unbounded_channel();
        let (explain, stop, born) = (Explain::default(), CancellationToken::new(), Instant::now());
        let evictions = crate::evict::Evictions::default();
        let inputs = Inputs {
            snapshots: snapshot,
            reports: report,
            driver: Arc::new(driver.clone()),
            clock: Arc::new(move || Timestamp::from_millis(1_000_000_000).plus(born.elapsed())),
            evictions: evictions.clone(),
            explain: explain.clone(),
            epoch: 7,
            costs: Costs::default(),
            learned: HashMap::new(),
            recorder: None,
        };
        let outputs = Outputs {
            endpoints: endpoints_in,
            statuses: statuses_in,
            learned: unbounded_channel().0,
        };
        let loop_ended = tokio::spawn(run(inputs, outputs, stop.clone()));
        Self {
            driver,
            snapshots,
            reports,
            endpoints,
            statuses,
            explain,
            evictions,
            stop,
            loop_ended,
            counter: 0,
            last: None,
        }
    }

    fn deploy(&self, revisions: &[Revision]) {
        let mut snapshot = Snapshot {
            generation: self.snapshots.borrow().generation.next(),
            ..Snapshot::default()
        };
        snapshot.revisions = revisions.iter().map(|r| (r.id.clone(), Arc::new(r.clone()))).collect();
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    fn starts_take(&self, after: Duration) {
        self.driver.set_default(Behaviour {
            starts: Start::ready_after(after).into(),
            ..Behaviour::default()
        });
    }

    /// One report of one gateway about one revision.
    fn report(&mut self, id: &RevisionId, kind: LoadKind, in_flight: u32, waiting: u32, draining: &[(SandboxId, u32)]) {
        self.counter += 1;
        let load = f64::from(in_flight);
        let entry = RevisionLoad {
            revision: id.clone(),
            kind,
            concurrency: Concurrency(load),
            rps: Rps(load),
            work: Default::default(),
            in_flight,
            waiting,
            acked: self.last.as_ref().map(|set| set.generation).unwrap_or_default(),
            draining: draining
                .iter()
                .map(|(sandbox, in_flight)| manifests::exchange::Draining {
                    sandbox: sandbox.clone(),
                    in_flight: *in_flight,
                    connections: *in_flight,
                    answered: true,
                })
                .collect(),
            ejected: Vec::new(),
        };
        let generation = Generation {
            epoch: 1,
            counter: self.counter,
        };
        let report = LoadReport {
            gateway: GatewayId("g".into()),
            generation,
            revisions: vec![entry],
        };
        self.reports.send(report).unwrap();
    }

    /// A second passes in which the gateway has nothing in flight.
    async fn idle(&mut self, seconds: u64) {
        for _ in 0..seconds {
            sleep(Duration::from_secs(1)).await;
            self.counter += 1;
            let generation = Generation {
                epoch: 1,
                counter: self.counter,
            };
            self.reports
                .send(LoadReport {
                    gateway: GatewayId("g".into()),
                    generation,
                    revisions: Vec::new(),
                })
                .unwrap();
        }
    }

    /// The newest endpoint set.
    fn set(&mut self) -> EndpointSet {
        while let Ok(set) = self.endpoints.try_recv() {
            assert!(self.last.as_ref().is_none_or(|last| last.generation < set.generation));
            self.last = Some(set);
        }
        self.last.clone().unwrap()
    }

    fn status(&mut self) -> RevisionStatus {
        std::iter::from_fn(|| self.statuses.try_recv().ok()).last().unwrap()
    }
}

async fn millis(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn from_deployed_to_idle_to_woken_to_removed() {
    let mut bench = Bench::new();
    let hello = revision("default", "hello-00001");
    bench.deploy(std::slice::from_ref(&hello));
    millis(20).await;
    let set = bench.set();
    assert_eq!(
        (set.endpoints.len(), set.rung, set.generation.epoch),
        (1, Rung::Full, 7)
    );
    assert_eq!(set.endpoints[0].start, Duration::from_millis(10));
    assert_eq!((bench.status().actual, bench.driver.list().len()), (Replicas(1), 1));

    bench.idle(59).await;
    assert_eq!(bench.driver.list().len(), 1, "inside the stable window");
    bench.idle(6).await;
    assert!(bench.set().endpoints.is_empty());
    assert_eq!((bench.driver.list().len(), bench.status().rung), (0, Rung::Zero));

    bench.report(&hello.id, LoadKind::Wake, 1, 1, &[]);
    millis(11).await;
    assert_eq!(bench.set().endpoints.len(), 1, "no tick in between");

    bench.deploy(&[]);
    bench.idle(4).await;
    assert!(bench.set().endpoints.is_empty());
    assert!(bench.driver.list().is_empty());
    bench.stop.cancel();
    bench.loop_ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_burst_a_crash_and_a_drain() {
    let mut bench = Bench::new();
    let mut one = revision("default", "one-00001");
    one.container_concurrency = ContainerConcurrency(1);
    one.scaling.initial_scale = Replicas(0);
    one.scaling.max_scale = Some(Replicas(8));
    one.scaling.metric = manifests::revision::Metric::Concurrency {
        target: Concurrency(0.7),
        total: Concurrency(1.0),
    };
    bench.deploy(std::slice::from_ref(&one));
    millis(50).await;
    assert!(bench.driver.calls().is_empty());

    bench.report(&one.id, LoadKind::Wake, 200, 200, &[]);
    millis(30).await;
    let set = bench.set();
    assert_eq!(set.endpoints.len(), 8);
    assert_eq!(bench.driver.starts(&one.id), 8);

    let killed = set.endpoints[3].sandbox.clone();
    assert!(bench.driver.kill(&killed, ExitStatus::Signal(9)));
    millis(1).await;
    assert_eq!(bench.set().endpoints.len(), 7, "out of the set at once");
    millis(15).await;
    let set = bench.set();
    assert!(set.endpoints.len() == 8 && set.endpoints.iter().all(|endpoint| endpoint.sandbox != killed));

    // Removed: a sandbox with a request in flight outlives the others.
    let busy = set.endpoints[0].sandbox.clone();
    bench.deploy(&[]);
    millis(5).await;
    assert!(bench.set().endpoints.is_empty());
    assert_eq!(bench.driver.list().len(), 8, "nobody has acknowledged");
    bench.report(&one.id, LoadKind::Sandboxes, 1, 0, &[(busy.clone(), 1)]);
    millis(5).await;
    assert_eq!(bench.driver.list(), std::slice::from_ref(&busy));
    bench.report(&one.id, LoadKind::Sandboxes, 0, 0, &[(busy, 0)]);
    millis(5).await;
    assert!(bench.driver.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_one_is_thawed_by_the_wake_up_call() {
    let mut bench = Bench::new();
    bench.starts_take(Duration::from_millis(20));
    let mut frozen = revision("default", "frozen-00001");
    let delay = Some(Duration::from_secs(2));
    frozen.idle = IdlePolicy::Frozen { delay };
    bench.deploy(std::slice::from_ref(&frozen));
    bench.idle(10).await;
    let set = bench.set();
    assert_eq!((set.endpoints.len(), set.rung), (0, Rung::Frozen));
    let [sandbox] = &bench.driver.list()[..] else {
        panic!("one sandbox")
    };
    assert_eq!(bench.driver.is_frozen(sandbox), Some(true));
    assert_eq!(bench.evictions.order(Timestamp::EPOCH).len(), 1);
    bench.report(&frozen.id, LoadKind::Wake, 1, 1, &[]);
    millis(1).await;
    assert_eq!(bench.driver.is_frozen(sandbox), Some(false));
    let set = bench.set();
    assert_eq!((set.endpoints.len(), set.rung), (1, Rung::Full));
    assert_eq!(bench.driver.starts(&frozen.id), 1);
    assert_eq!(bench.evictions.order(Timestamp::EPOCH).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_starter_with_an_sla_is_throttled_and_upgraded_in_place() {
    let mut bench = Bench::new();
    bench.driver.set_freezer(false);
    bench.starts_take(Duration::from_secs(2));
    let mut slow = revision("default", "slow-00001");
    slow.idle = IdlePolicy::Auto;
    slow.planning.sla = ColdStartSla {
        quantile: 0.99,
        limit: Duration::from_millis(500),
    };
    bench.deploy(std::slice::from_ref(&slow));
    bench.idle(80).await;
    let set = bench.set();
    assert_eq!((set.endpoints.len(), set.rung), (1, Rung::Throttled));
    let sandbox = set.endpoints[0].sandbox.clone();
    assert_eq!(bench.driver.limits(&sandbox).unwrap().cpu, Some(Millicores(50)));

    bench.report(&slow.id, LoadKind::Wake, 1, 0, &[]);
    millis(1).await;
    assert_eq!(bench.driver.limits(&sandbox).unwrap().cpu, None);
    assert_eq!(bench.set().rung, Rung::Full);
    let last = bench.driver.calls().pop().unwrap();
    assert!(
        last.id == sandbox && matches!(last.what, What::SetLimits { .. }),
        "{last:?}"
    );

    let records = bench.explain.for_revision(&slow.id, Timestamp::EPOCH);
    let planned = records.iter().find_map(|record| record.plan.as_ref()).unwrap();
    assert_eq!(planned.rung, Rung::Throttled);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_start_leaves_nothing() {
    let mut bench = Bench::new();
    bench.starts_take(Duration::from_secs(5));
    bench.deploy(&[revision("default", "hello-00001")]);
    millis(100).await;
    bench.deploy(&[]);
    bench.idle(10).await;
    assert_eq!(
        (bench.driver.list().len(), bench.driver.calls().len()),
        (0, 1),
        "started, and dropped"
    );
}
