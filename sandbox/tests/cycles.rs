//! Lives of sandboxes in any order: started, used, frozen, thawed, stopped, dropped, crashed, with whatever crashes under
//! them. Whoever does what to whom comes from a seed; what must be true in any order is checked on the way, and at the end
//! the host is as it was. One test: it compares the whole process.
//!
//! ```text
//! KNARR_CYCLES=5000 KNARR_SEED=7 cargo test -p knarr-sandbox --test cycles -- --nocapture
//! ```

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Bytes;
use manifests::workload::{Check, Container, Image, Mount, Probe, Volume, VolumeSource, Workload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sandbox::driver::{Driver, DriverError, Event, ExitStatus, Limits, StartError};
use sandbox::exec::{ExecError, ExecSpec};
use sandbox::test_support::HostSnapshot;
use sandbox::{LocalConfig, LocalDriver};
use support::{TESTAPP, children, get, kill, spawners, spec, workload};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The end of all waiting: long enough for the most loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// Who does something at the same time.
const WORKERS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn any_order_of_lives_and_crashes_leaves_the_host_as_it_was() {
    if !support::is_root() {
        return;
    }
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (cycles, seed) = (number("KNARR_CYCLES", 300), number("KNARR_SEED", 1));
    println!("{cycles} cycles with seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let image = support::image::oci(dir.path());
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let before = HostSnapshot::of(&[&data]);
    let config = LocalConfig {
        pool: 3,
        pool_services: 4,
        ..support::image::config(&data)
    };
    let driver = LocalDriver::new(config).unwrap();
    let world = Arc::new(World::new(Arc::clone(&driver), image));
    let recorder = tokio::spawn(record(Arc::clone(&world)));

    // What the first ones make once is not a leak.
    rounds(&world, WORKERS * 4, seed ^ 0xffff).await;
    let settled = settle(&driver, &data, &before).await;
    rounds(&world, cycles, seed).await;
    let after = settle(&driver, &data, &before).await;
    println!("{}", world.said());
    let said = format!("held at first {settled:#?}, afterwards {after:#?}");
    println!("{said}");
    // Each shell has its share; what leaks does so with every life.
    let more = |now: usize, then: usize| now.saturating_sub(then);
    let shells = more(after.shells, settled.shells);
    assert!(
        more(Held::all(&after.spawner), Held::all(&settled.spawner)) <= 8 * shells + 16
            && more(Held::all(&after.own), Held::all(&settled.own)) <= 12 * shells + 16,
        "descriptors leak: {said}"
    );
    world.check_books().await;

    driver.shutdown(Duration::from_secs(1)).await;
    recorder.abort();
    drop((world, driver));
    for dir in ["sandboxes", "commands"] {
        let left: Vec<_> = fs::read_dir(data.join(dir)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    before.assert_same_within(BOUND);
}

/// What all workers share.
struct World {
    driver: Arc<LocalDriver>,
    image: Option<Image>,
    next: AtomicU32,
    /// What became of what was tried, counted.
    outcomes: Mutex<BTreeMap<String, u32>>,
    /// What was done to each sandbox, for whoever must find out what went wrong.
    diary: Mutex<BTreeMap<SandboxId, Vec<String>>>,
    /// How often each sandbox was returned by a start, and how often its end was told.
    books: Mutex<BTreeMap<SandboxId, (u32, u32)>>,
}

impl World {
    fn new(driver: Arc<LocalDriver>, image: Option<Image>) -> Self {
        Self {
            driver,
            image,
            next: AtomicU32::new(0),
            outcomes: Mutex::default(),
            diary: Mutex::default(),
            books: Mutex::default(),
        }
    }

    fn count(&self, what: impl Into<String>) {
        *self.outcomes.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    fn note(&self, id: &SandboxId, what: impl Into<String>) {
        self.diary
            .lock()
            .unwrap()
            .entry(id.clone())
            .or_default()
            .push(what.into());
    }

    /// What is known of a sandbox that is stuck.
    async fn stuck(&self, id: &SandboxId) -> String {
        let diary = self.diary.lock().unwrap().get(id).cloned().unwrap_or_default();
        let details = self.driver.inspect(id).await;
        let processes = spawners(std::process::id()).into_iter().flat_map(processes_of);
        format!("{diary:?}\n{details:#?}\n{:#?}", processes.collect::<Vec<_>>())
    }

    fn said(&self) -> String {
        let outcomes = self.outcomes.lock().unwrap();
        let lines = outcomes.iter().map(|(what, count)| format!("{count:6} {what}\n"));
        lines.collect()
    }

    /// Every start that returned a sandbox has had its one end.
    async fn check_books(&self) {
        let odd = || {
            let books = self.books.lock().unwrap();
            let odd = books.iter().filter(|(_, (starts, ends))| starts != ends);
            odd.map(|(id, counts)| (id.clone(), *counts)).collect::<Vec<_>>()
        };
        for _ in 0..500 {
            if odd().is_empty() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("started and ended: {:?}", odd());
    }
}

async fn record(world: Arc<World>) {
    let mut events = world.driver.events();
    loop {
        match events.recv().await.unwrap() {
            Event::Exited { id, .. } => world.books.lock().unwrap().entry(id).or_default().1 += 1,
            Event::Unhealthy { id, why, .. } => panic!("{id}: {why}"),
            Event::Readiness { .. } | Event::Reclaimed { .. } => {}
        }
    }
}

/// Descriptors that are held while nothing runs, by what they are: of the spawner, and of this process.
#[derive(Debug)]
struct Held {
    shells: usize,
    spawner: BTreeMap<String, usize>,
    own: BTreeMap<String, usize>,
}

impl Held {
    fn now(shells: usize, spawner: i32) -> Self {
        let of = |pid: &str| {
            let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
                let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
                let kind = target.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
                *kinds.entry(kind.to_owned()).or_default() += 1;
            }
            kinds
        };
        Self {
            shells,
            spawner: of(&spawner.to_string()),
            own: of("self"),
        }
    }

    fn all(kinds: &BTreeMap<String, usize>) -> usize {
        kinds.values().sum()
    }
}

/// Waits until the driver is at rest: no sandbox, its pool full, and nobody else under its spawner.
async fn settle(driver: &LocalDriver, data: &Path, before: &HostSnapshot) -> Held {
    let mut waited = Duration::ZERO;
    loop {
        let pool = driver.pool();
        let shells = pool.generic + pool.rooted;
        let spawner = spawners(std::process::id());
        let under: Vec<String> = spawner.iter().flat_map(|spawner| processes_of(*spawner)).collect();
        let volumes = fs::read_dir(data.join("sandboxes")).map_or(0, Iterator::count);
        let cgroups = cgroups(before);
        let at_rest = spawner.len() == 1 && pool.generic == 3 && under.len() == shells && cgroups == shells;
        if at_rest && volumes == 0 && driver.list().is_empty() {
            // What waits to take a frozen one's memory back holds it for a second.
            sleep(Duration::from_secs(2)).await;
            return Held::now(shells, spawner[0]);
        }
        assert!(
            waited < BOUND,
            "not at rest: {pool:?}, spawners {spawner:?}, {} under them, {cgroups} cgroups, {volumes} volumes, {:?}:\n{under:#?}",
            under.len(),
            driver.list()
        );
        sleep(Duration::from_millis(50)).await;
        waited += Duration::from_millis(50);
    }
}

/// The children of a process, zombies too.
fn processes_of(parent: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: String = lists.collect();
    let name = |pid: &str| {
        let waits = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let stat = stat.split(' ').take(3).collect::<Vec<_>>().join(" ");
        format!("{stat} ({waits}) {}", String::from_utf8_lossy(&line).replace('\0', " "))
    };
    all.split_whitespace().map(name).collect()
}

/// How many cgroups of shells there are; each counts once, whatever trees it is in.
fn cgroups(before: &HostSnapshot) -> usize {
    let added = before.added();
    let cgroups = added.iter().filter(|it| it.starts_with("cgroup: "));
    let shells = cgroups.filter_map(|it| it.rsplit_once('/')).map(|(_, name)| name);
    shells
        .filter(|name| name.starts_with("shell-"))
        .collect::<BTreeSet<_>>()
        .len()
}

/// So many lives by all workers together, while others crash things.
async fn rounds(world: &Arc<World>, cycles: u64, seed: u64) {
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let share = cycles / WORKERS + u64::from(worker < cycles % WORKERS);
        let (world, mut random) = (Arc::clone(world), StdRng::seed_from_u64(seed.wrapping_mul(31) + worker));
        workers.spawn(async move {
            for cycle in 0..share {
                let name = format!("life-{worker}-{cycle}");
                let lived = live(&world, &mut random);
                if timeout(BOUND * 3, lived).await.is_err() {
                    panic!("{name} with seed {seed} hangs");
                }
            }
        });
    }
    let crashing = tokio::spawn(crash(Arc::clone(world), StdRng::seed_from_u64(seed)));
    while let Some(worker) = workers.join_next().await {
        if let Err(error) = worker {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    crashing.abort();
    match crashing.await {
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => {}
    }
}

/// Kills what is under the sandboxes, whatever it is doing: shells, and now and then the spawner.
async fn crash(world: Arc<World>, mut random: StdRng) {
    loop {
        sleep(Duration::from_millis(random.random_range(20..200))).await;
        let Some(spawner) = spawners(std::process::id()).into_iter().next() else {
            continue;
        };
        if random.random_range(0..12) == 0 {
            kill(spawner);
            world.count("the spawner was killed");
            continue;
        }
        let shells = children("knarr-spawner", spawner);
        if !shells.is_empty() {
            kill(shells[random.random_range(0..shells.len())]);
            world.count("a shell was killed");
        }
    }
}

/// One sandbox from its start to its end.
async fn live(world: &Arc<World>, random: &mut StdRng) {
    let id = SandboxId::new(format!("life-{}", world.next.fetch_add(1, Ordering::Relaxed)));
    let (kind, app) = app_of(world, random);
    let mut wanted = spec(id.as_str(), app);
    wanted.deadline = BOUND;
    wanted.limits.memory = (random.random_range(0..3) == 0).then_some(Bytes(128 << 20));
    let patience = match random.random_range(0..4) {
        0 => Duration::from_micros(random.random_range(0..8_000)),
        1 if kind == "slow" => Duration::from_millis(random.random_range(0..100)),
        _ => BOUND,
    };
    let driver = &*world.driver;
    world.note(&id, format!("start {kind} for {patience:?}"));
    let started = timeout(patience, driver.start(wanted)).await;
    match &started {
        Ok(Ok(_)) => {
            world.books.lock().unwrap().entry(id.clone()).or_default().0 += 1;
            world.count(format!("start {kind}: ready"));
        }
        Ok(Err(StartError::Exited(exit))) => {
            let own = kind == "crasher" && exit.status == ExitStatus::Code(3);
            let killed = exit.status == ExitStatus::Signal(9);
            assert!(own || killed, "{id}, {kind}: {exit:?}");
            world.count(format!("start {kind}: ended with {}", exit.status));
        }
        // Three spawners in a row.
        Ok(Err(StartError::Driver(DriverError::Io { context, .. }))) if context.contains("spawner died") => {
            world.count(format!("start {kind}: the spawner died"));
        }
        Ok(Err(error)) => panic!("{id}, {kind}: {error:?}"),
        Err(_) => world.count(format!("start {kind}: dropped")),
    }
    if matches!(started, Ok(Ok(_))) {
        for _ in 0..random.random_range(0..5) {
            use_it(world, &id, random).await;
        }
    }
    end_it(world, &id, random).await;
    // Whatever it was: the name is free, and nothing answers to it.
    assert_eq!(driver.stop(&id, Duration::ZERO).await.unwrap(), None, "{id}");
    assert!(!driver.list().contains(&id), "{id} is listed after its end");
    assert!(driver.dial(&id).await.is_err(), "{id} can be dialled after its end");
}

fn app_of(world: &World, random: &mut StdRng) -> (&'static str, Workload) {
    let mut app = workload(TESTAPP, &["serve"]);
    let of_image = |image: &Image| {
        let mut app = workload("/", &["serve"]);
        app.serving.image = image.clone();
        app.serving.command = vec![support::image::TESTAPP.into()];
        app
    };
    match (random.random_range(0..10), &world.image) {
        (0 | 1, Some(image)) => ("image", of_image(image)),
        (2, image) => {
            let mut app = image.as_ref().map_or(app, of_image);
            with_volume(&mut app);
            ("volume", app)
        }
        (3, _) => {
            with_volume(&mut app);
            let shell = |name: &str, script: &str| {
                let mut container = Container::new(name, Image::Host("/bin/sh".into()));
                container.args = vec!["-c".into(), script.into()];
                container.mounts = app.serving.mounts.clone();
                container
            };
            app.init = vec![shell("before", "echo before > /volume/before")];
            app.sidecars = vec![shell("beside", "test -e /volume/before && exec sleep 86394")];
            ("pod", app)
        }
        (4, _) => ("crasher", workload(TESTAPP, &["crash"])),
        (5, _) => ("slow", workload(TESTAPP, &["serve", "--after", "50"])),
        (6, _) => {
            let command = [TESTAPP, "ask", "/"].map(str::to_owned).to_vec();
            let probe = Probe::aggressive(Check::Exec { command });
            app.serving.probes.readiness = Some(probe);
            ("asked", app)
        }
        _ => ("host", app),
    }
}

fn with_volume(app: &mut Workload) {
    let source = VolumeSource::Empty {
        memory: false,
        size: None,
    };
    let name: Arc<str> = "volume".into();
    app.serving.mounts.push(Mount {
        volume: Arc::clone(&name),
        path: "/volume".into(),
        sub_path: None,
        read_only: false,
    });
    app.volumes.push(Volume { name, source });
}

/// Something is asked of one that was ready; it, or what is under it, may be killed at any moment.
async fn use_it(world: &World, id: &SandboxId, random: &mut StdRng) {
    let driver = &*world.driver;
    let gone = |error: &DriverError| matches!(error, DriverError::NotFound(_));
    let what = random.random_range(0..9);
    world.note(id, format!("use {what}"));
    match what {
        0 | 1 => match driver.freeze(id).await {
            Ok(_) => world.count("frozen"),
            Err(DriverError::CannotFreeze(why)) => panic!("{id}: {why}"),
            Err(error) => assert!(gone(&error), "{id}: {error:?}"),
        },
        2 => match driver.thaw(id).await {
            Ok(()) => world.count("thawed"),
            Err(error) => assert!(gone(&error), "{id}: {error:?}"),
        },
        3 => {
            let limits = Limits {
                memory: Some(Bytes(random.random_range(64..512) << 20)),
                pids: Some(random.random_range(64..128)),
                ..Limits::default()
            };
            match driver.set_limits(id, limits).await {
                Ok(()) => world.count("limited"),
                Err(error) => assert!(gone(&error), "{id}: {error:?}"),
            }
        }
        4 | 5 => {
            // To its end.
            let command = ExecSpec::new(["sh", "-c", "echo said; exit 3"]);
            match driver.exec(id, command).await {
                Ok(running) => {
                    let ran = running.ran(100).await;
                    let well = ran.status == ExitStatus::Code(3) && ran.output == b"said\n";
                    assert!(well || ran.status == ExitStatus::Signal(9), "{id}: {ran:?}");
                    world.count(if well {
                        "command: ran"
                    } else {
                        "command: killed with it"
                    });
                }
                Err(error) => refused(world, id, &error),
            }
        }
        6 => {
            // Given up, on its way or while it runs.
            let command = ExecSpec::new(["sh", "-c", "sleep 86393 & sleep 86392"]);
            let patience = Duration::from_micros(random.random_range(0..10_000));
            match timeout(patience, driver.exec(id, command)).await {
                Ok(Ok(running)) => {
                    sleep(Duration::from_micros(random.random_range(0..2_000))).await;
                    drop(running);
                    world.count("command: dropped while it ran");
                }
                Ok(Err(error)) => refused(world, id, &error),
                Err(_) => world.count("command: dropped on its way"),
            }
        }
        _ => {
            let frozen = driver.stats(id).await.is_ok_and(|stats| stats.frozen);
            match timeout(
                Duration::from_millis(if frozen { 20 } else { 10_000 }),
                get(driver, id.as_str(), "/"),
            )
            .await
            {
                Ok(Ok(answer)) => assert_eq!(answer, id.as_str(), "another sandbox answers"),
                Ok(Err(_)) => world.count("request: failed"),
                Err(_) => assert!(frozen, "{id} does not answer"),
            }
        }
    }
}

fn refused(world: &World, id: &SandboxId, error: &ExecError) {
    match error {
        ExecError::Driver(DriverError::NotFound(_)) => world.count("command: it was gone"),
        ExecError::Refused(why) if why.contains("frozen") => world.count("command: it was frozen"),
        // The spawner's child that was to bear it was killed.
        ExecError::Driver(DriverError::Io { source, .. }) if source.kind() == std::io::ErrorKind::Interrupted => {
            world.count("command: killed before it was born");
        }
        error => panic!("{id}: {error:?}"),
    }
}

async fn end_it(world: &World, id: &SandboxId, random: &mut StdRng) {
    let driver = &*world.driver;
    let what = random.random_range(0..6);
    world.note(id, format!("end {what}"));
    match what {
        0 => {
            // The app crashes; the stop that follows may come before or after.
            if let Ok(stats) = driver.stats(id).await
                && let Some(pid) = stats.main_pid
            {
                kill(i32::try_from(pid).unwrap());
                world.count("end: the app was killed");
            }
        }
        1 => {
            let patience = Duration::from_micros(random.random_range(0..3_000));
            drop(timeout(patience, driver.stop(id, Duration::from_secs(5))).await);
            world.count("end: a stop was dropped");
        }
        2 => {
            let (one, two) = tokio::join!(driver.stop(id, Duration::from_secs(5)), driver.stop(id, Duration::ZERO));
            assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
            world.count("end: stopped twice");
        }
        3 => {
            // On its way to frozen.
            let (frozen, stopped) = tokio::join!(driver.freeze(id), driver.stop(id, Duration::from_secs(5)));
            assert!(stopped.is_ok(), "{frozen:?} {stopped:?}");
            world.count("end: stopped while it froze");
        }
        _ => {}
    }
    let grace = if random.random_range(0..2) == 0 {
        Duration::ZERO
    } else {
        Duration::from_secs(10)
    };
    world.note(id, format!("stop within {grace:?}"));
    match timeout(BOUND, driver.stop(id, grace)).await {
        Ok(Ok(_)) => drop(world.diary.lock().unwrap().remove(id)),
        Ok(Err(error)) => panic!("stop of {id}: {error:?}"),
        Err(_) => panic!("stop of {id} does not return: {}", world.stuck(id).await),
    }
}
