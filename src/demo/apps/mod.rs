//! `knarr demo --apps N`: many real apps within a memory budget, woken at random, watched live.

mod grid;
mod kinds;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use control::config::RawConfig;
use control::status::{RevisionStatus, Status};
use loadtest::{Plan, StatusClass, Target};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::screen::Screen;
use super::stage::Stage;
use crate::args::Demo;
use crate::serve;
use crate::table::table;

use self::grid::{Cell, Wakes};
use self::kinds::Kind;

const SCENE: &str = "apps";

/// Deploys the apps, wakes them, and says what it took; the exit code says whether everything held.
pub(crate) fn demo(args: &Demo, count: usize) -> anyhow::Result<ExitCode> {
    let here = Kind::here();
    let apps: Vec<Kind> = (0..count).map(|nth| here[nth % here.len()]).collect();
    let manifest = kinds::manifest(&apps);
    let settings = RawConfig {
        memory_budget: Some(args.memory_budget.clone()),
        ..RawConfig::default()
    };
    let outcomes = serve::runtime()?.block_on(async {
        let mut stage = Stage::open(Screen::new(args.plain), &[("apps.yaml", &manifest)], settings).await?;
        let played = play(&mut stage, &apps, args).await;
        let outcomes = stage.close().await;
        played.map(|()| outcomes)
    })?;
    Ok(super::verdict(&outcomes))
}

async fn play(stage: &mut Stage, apps: &[Kind], args: &Demo) -> anyhow::Result<()> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    apps.iter().for_each(|kind| *kinds.entry(kind.name()).or_default() += 1);
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    stage.screen.heading(
        "Apps",
        &format!(
            "{} within {}: {}; {} wake-ups a second for {}, a few apps getting most of them",
            apps.len(),
            args.memory_budget,
            kinds.join(", "),
            args.rate,
            humantime::format_duration(args.time),
        ),
    );
    let mut watched = Watched::default();
    let wakes = wake(stage, apps, args, &mut watched).await?;

    stage
        .screen
        .line(format!("at the end: {}", grid::counts(&watched.cells)));
    let rows = wakes.table();
    let told = table(&["APP", "MET", "WAKE-UPS", "P50 MS", "P99 MS"], &rows);
    told.lines().for_each(|line| stage.screen.line(line));
    stage.screen.line(format!(
        "memory of sandboxes at most {} of {}; Knarr itself {}",
        mib(watched.peak),
        mib(watched.budget),
        mib(own_memory()),
    ));
    let seen = match &wakes.first_failure {
        None => format!("{} × 200", wakes.answered()),
        Some(first) => format!("{} × 200, {} not, the first: {first}", wakes.answered(), wakes.failed),
    };
    stage.claim(
        SCENE,
        "every wake-up is answered",
        seen,
        wakes.failed == 0 && wakes.answered() > 0,
    );
    let seen = format!("{} at most", mib(watched.peak));
    let claim = format!("the sandboxes stay within {}", mib(watched.budget));
    stage.claim(SCENE, &claim, seen, watched.peak <= watched.budget);
    Ok(())
}

/// What was seen while it ran.
#[derive(Default)]
struct Watched {
    cells: Vec<Cell>,
    used: u64,
    peak: u64,
    budget: u64,
}

/// Wakes apps until the time is over; every answer is waited for.
#[expect(clippy::disallowed_methods, reason = "a shell: it watches a running server")]
async fn wake(stage: &mut Stage, apps: &[Kind], args: &Demo, watched: &mut Watched) -> anyhow::Result<Wakes> {
    let mut random = StdRng::seed_from_u64(args.seed);
    let popularity = Popularity::new(apps.len());
    let began = Instant::now();
    let mut due = Duration::ZERO;
    let mut under_way = JoinSet::new();
    let mut wakes = Wakes::default();
    let mut looks = interval(Duration::from_millis(200));
    let mut told = Duration::ZERO;
    loop {
        let over = began.elapsed() >= args.time;
        if over && under_way.is_empty() {
            watch(stage, apps, watched)?;
            return Ok(wakes);
        }
        tokio::select! {
            () = tokio::time::sleep_until((began + due).into()), if !over => {
                // Poisson: gaps are exponential.
                due += Duration::from_secs_f64(-random.random::<f64>().max(f64::MIN_POSITIVE).ln() / args.rate);
                let nth = popularity.pick(&mut random);
                let target = stage.target(&kinds::name(nth, apps[nth]), "/");
                under_way.spawn(one(target, apps[nth]));
            }
            Some(done) = under_way.join_next() => match done? {
                Ok((kind, met, took)) => wakes.add(kind, met, took),
                Err(why) => {
                    wakes.failed += 1;
                    wakes.first_failure.get_or_insert(why);
                }
            },
            _ = looks.tick() => {
                watch(stage, apps, watched)?;
                let state = format!(
                    "{:>3.0} s  {}  memory {} of {}  {}",
                    began.elapsed().as_secs_f64(),
                    grid::counts(&watched.cells),
                    mib(watched.used),
                    mib(watched.budget),
                    wakes.line(),
                );
                if stage.screen.is_live() {
                    stage.screen.moving(state + &grid::rows(&watched.cells));
                } else if began.elapsed() >= told {
                    told += Duration::from_secs(10);
                    stage.screen.line(state);
                }
            }
        }
    }
}

/// One request: which app, what it met, how long its answer took; or what went wrong.
async fn one(target: Target, kind: Kind) -> Result<(Kind, loadtest::Temperature, Duration), String> {
    let results = loadtest::run(Plan::burst(target, 1), |_| {}).await;
    let report = results.map_err(|error| error.to_string())?.report();
    let answered = report.classes.iter().find(|class| class.status == StatusClass::SUCCESS);
    match answered {
        Some(class) => Ok((kind, class.temperature, class.latency.max())),
        None => Err(match (report.statuses.keys().next(), report.errors.keys().next()) {
            (Some(status), _) => status.to_string(),
            (None, Some(error)) => format!("{error:?}"),
            (None, None) => "no answer".to_owned(),
        }),
    }
}

/// Looks where every app stands, and at the memory.
fn watch(stage: &Stage, apps: &[Kind], watched: &mut Watched) -> anyhow::Result<()> {
    let status: Status = stage.server.status();
    let memory = &status.memory;
    watched.used = memory.used;
    watched.peak = watched.peak.max(memory.used);
    watched.budget = memory.budget;
    let by_service: BTreeMap<&str, &RevisionStatus> =
        status.revisions.iter().map(|it| (it.service.as_str(), it)).collect();
    watched.cells.clear();
    for (nth, kind) in apps.iter().enumerate() {
        let name = kinds::name(nth, *kind);
        let Some(revision) = by_service.get(name.as_str()) else {
            bail!("{name} has no revision");
        };
        watched.cells.push(cell(revision));
    }
    Ok(())
}

fn cell(revision: &RevisionStatus) -> Cell {
    match revision.rung.as_str() {
        "frozen" => Cell::Frozen,
        _ if revision.actual_replicas > 0 => Cell::Running,
        _ if revision.starting_replicas > 0 => Cell::Starting,
        _ => Cell::Zero,
    }
}

/// Zipf's law with exponent 1: the nth most popular gets a share of 1/n, as in traces of real functions.
struct Popularity {
    sums: Vec<f64>,
}

impl Popularity {
    fn new(apps: usize) -> Self {
        let mut sum = 0.0;
        let mut rank = 0.0;
        let sums = (0..apps).map(|_| {
            rank += 1.0;
            sum += 1.0 / rank;
            sum
        });
        Self { sums: sums.collect() }
    }

    fn pick(&self, random: &mut StdRng) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let wanted = random.random::<f64>() * total;
        self.sums.partition_point(|sum| *sum < wanted).min(self.sums.len() - 1)
    }
}

/// What this process has in memory, in bytes.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_picked_most_and_every_one_sometimes() {
        let popularity = Popularity::new(10);
        let mut random = StdRng::seed_from_u64(1);
        let mut picked = [0; 10];
        for _ in 0..10_000 {
            picked[popularity.pick(&mut random)] += 1;
        }
        assert!(
            picked[0] > picked[9] * 5 && picked.iter().all(|count| *count > 100),
            "{picked:?}"
        );
    }
}
