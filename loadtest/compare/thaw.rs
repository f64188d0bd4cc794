//! Requests at frozen services beside warm and cold ones of the same app: what a thaw adds, and what it saves.
//!
//! Each round waits until every service is frozen, then asks each of them twice: the first request thaws, the second is warm.
//! A service at zero is asked beside them. All in turns, so that a busy moment of the machine hits all of them.

mod support;

use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use loadtest::Temperature;
use support::{App, Knarr, Programs, Result, now, quantile};

/// Requests at frozen services beside warm and cold ones; what is measured: README.md beside the script
#[derive(clap::Parser)]
#[command(name = "loadtest/compare/thaw")]
struct Flags {
    /// Rounds, each with every service
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// Services of the workload app
    #[arg(long, value_name = "N", default_value_t = 10)]
    services: usize,
    /// Services of Python and Node each, where installed in /usr/bin; 0 for none
    #[arg(long, value_name = "N", default_value_t = 4)]
    others: usize,
    /// Wait until the memory of the frozen ones is in swap, of which there must be some
    #[arg(long)]
    reclaimed: bool,
    /// Fail when a thaw adds more than this to the workload's warm median
    #[arg(long, value_name = "MS")]
    at_most: Option<f64>,
    #[command(flatten)]
    programs: Programs,
}

fn main() -> ExitCode {
    support::run(measure)
}

/// What was measured of one app.
#[derive(Default)]
struct Times {
    frozen: Vec<Duration>,
    warm: Vec<Duration>,
    cold: Vec<Duration>,
    /// Held by one frozen sandbox, in MiB.
    memory: f64,
}

fn measure(flags: &Flags) -> Result<()> {
    let swap = fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    if flags.reclaimed && !swap {
        return Err("--reclaimed needs swap: a zram device, for example".into());
    }
    let work = tempfile::tempdir()?;
    let apps = support::apps(&flags.programs.workload, work.path(), flags.services, flags.others)?;
    let path = work.path().join("apps.yaml");
    let settings = work.path().join("knarr.toml");
    fs::write(&path, manifest(&apps, flags.rounds))?;
    fs::write(&settings, format!("reclaim-frozen = {}\n", flags.reclaimed))?;
    let frozen: usize = apps.iter().map(|app| app.starts).sum();
    let services = frozen + apps.len() * flags.rounds;
    let config = settings.to_string_lossy();
    let knarr = Knarr::start(
        &flags.programs.knarr,
        &["--config", &config],
        &path,
        work.path(),
        services,
    )?;
    let mut all: Vec<Times> = apps.iter().map(|_| Times::default()).collect();
    for app in &apps {
        for index in 0..app.starts {
            knarr.request(&format!("{}-{index}", app.name), Temperature::Cold)?;
        }
    }
    for round in 0..flags.rounds {
        let standing = until_frozen(&knarr, frozen)?;
        if flags.reclaimed {
            // A second until it begins, and one after the other.
            sleep(Duration::from_secs(3));
        }
        for (app, times) in apps.iter().zip(&mut all) {
            times.memory = if flags.reclaimed {
                held(&knarr.status()?, app)
            } else {
                held(&standing, app)
            };
            for index in 0..app.starts {
                let service = format!("{}-{index}", app.name);
                times.frozen.push(knarr.request(&service, Temperature::Frozen)?.time);
                times.warm.push(knarr.request(&service, Temperature::Warm)?.time);
            }
            let cold = format!("{}-cold-{round}", app.name);
            times.cold.push(knarr.request(&cold, Temperature::Cold)?.time);
        }
    }
    drop(knarr);
    print(&apps, &mut all, flags.reclaimed);
    let added = quantile(&mut all[0].frozen, 0.5) - quantile(&mut all[0].warm, 0.5);
    match flags.at_most {
        Some(limit) if added > limit => {
            Err(format!("a thaw adds {added:.2} ms to the workload's warm median, more than {limit}").into())
        }
        _ => Ok(()),
    }
}

/// Returns the status in which all of them are.
fn until_frozen(knarr: &Knarr, services: usize) -> Result<serde_json::Value> {
    let deadline = now() + Duration::from_secs(60);
    loop {
        let status = knarr.status()?;
        let standing = status["memory"]["evictions"].as_array().map_or(0, Vec::len);
        if standing == services {
            return Ok(status);
        }
        if now() > deadline {
            return Err(format!("{standing} of {services} services are frozen after a minute").into());
        }
        sleep(Duration::from_millis(50));
    }
}

/// The mean of what a frozen sandbox of this app holds, in MiB.
fn held(status: &serde_json::Value, app: &App) -> f64 {
    let evictions = status["memory"]["evictions"].as_array();
    let of = |it: &&serde_json::Value| it["revision"].as_str().is_some_and(|name| name.starts_with(app.name));
    let held: Vec<f64> = evictions
        .into_iter()
        .flatten()
        .filter(of)
        .filter_map(|it| it["memory"].as_f64())
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "few values")]
    let mean = held.iter().sum::<f64>() / held.len().max(1) as f64;
    mean / f64::from(1 << 20)
}

/// Services that are frozen as soon as nobody asks, and one at zero for each round.
fn manifest(apps: &[App], rounds: usize) -> String {
    let frozen = [("knarr.dev/idle", "frozen"), ("knarr.dev/freeze-delay", "0s")];
    let mut objects = vec![support::at_zero(&[])];
    for app in apps {
        let names = (0..app.starts).map(|index| format!("{}-{index}", app.name));
        objects.extend(names.map(|name| support::service(app, &name, &frozen)));
        let names = (0..rounds).map(|round| format!("{}-cold-{round}", app.name));
        objects.extend(names.map(|name| support::service(app, &name, &[])));
    }
    support::manifest(&objects)
}

fn print(apps: &[App], all: &mut [Times], reclaimed: bool) {
    let memory = if reclaimed { "in swap" } else { "resident" };
    println!("milliseconds to the first byte, through the gateway; memory of the frozen ones {memory}");
    println!(
        "{:<9} {:>8} | {:>10} {:>8} | {:>8} {:>8} | {:>9} | {:>8} {:>5} | MiB charged to a frozen one",
        "app", "requests", "frozen p50", "p99", "warm p50", "p99", "added p50", "cold p50", "n"
    );
    for (app, times) in apps.iter().zip(all) {
        let (frozen, warm) = (quantile(&mut times.frozen, 0.5), quantile(&mut times.warm, 0.5));
        println!(
            "{:<9} {:>8} | {:>10.2} {:>8.2} | {:>8.2} {:>8.2} | {:>9.2} | {:>8.2} {:>5} | {:.1}",
            app.name,
            times.frozen.len(),
            frozen,
            quantile(&mut times.frozen, 0.99),
            warm,
            quantile(&mut times.warm, 0.99),
            frozen - warm,
            quantile(&mut times.cold, 0.5),
            times.cold.len(),
            times.memory
        );
    }
}
