//! Requests at frozen services beside warm and cold ones of the same app: what a thaw adds, and what it saves.
//!
//! Each round waits until every service is frozen, then asks each of them twice: the first request thaws, the second is warm.
//! A service at zero is asked beside them. All in turns, so that a busy moment of the machine hits all of them.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use loadtest::Temperature;
use support::{App, Knarr, Result, apps, now, quantile};

const USAGE: &str = "\
Usage: loadtest/compare/thaw [FLAGS]

  --rounds N        rounds, each with every service [default: 10]
  --services N      services of each app [default: 10]
  --others N        services of Python and Node, where installed in /usr/bin; 0 for none [default: 4]
  --reclaimed       wait until the memory of the frozen ones is in swap, of which there must be some
  --at-most MS      fail when a thaw adds more than this to the workload's warm median
  --knarr PATH, --workload PATH   the programs [given by the script]
";

fn main() -> ExitCode {
    match Flags::parse(std::env::args().skip(1)).and_then(|flags| flags.map_or(Ok(()), |flags| measure(&flags))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Flags {
    rounds: usize,
    services: usize,
    others: usize,
    reclaimed: bool,
    at_most: Option<f64>,
    knarr: PathBuf,
    workload: PathBuf,
}

impl Flags {
    /// `None` when help was wanted.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut flags = Self {
            rounds: 10,
            services: 10,
            others: 4,
            reclaimed: false,
            at_most: None,
            knarr: PathBuf::new(),
            workload: PathBuf::new(),
        };
        while let Some(name) = args.next() {
            match name.as_str() {
                "-h" | "--help" => {
                    print!("{USAGE}");
                    return Ok(None);
                }
                "--reclaimed" => {
                    flags.reclaimed = true;
                    continue;
                }
                _ => {}
            }
            let value = args
                .next()
                .ok_or_else(|| format!("{name} needs a value, or is no flag; see --help"))?;
            let wrong = || format!("{name} is {value:?}, but must be a number");
            match name.as_str() {
                "--rounds" => flags.rounds = value.parse().map_err(|_| wrong())?,
                "--services" => flags.services = value.parse().map_err(|_| wrong())?,
                "--others" => flags.others = value.parse().map_err(|_| wrong())?,
                "--at-most" => flags.at_most = Some(value.parse().map_err(|_| wrong())?),
                "--knarr" => flags.knarr = value.into(),
                "--workload" => flags.workload = value.into(),
                _ => return Err(format!("unknown flag {name}; see --help").into()),
            }
        }
        let swap = fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
        if flags.reclaimed && !swap {
            return Err("--reclaimed needs swap: a zram device, for example".into());
        }
        Ok(Some(flags))
    }
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
    let work = tempfile::tempdir()?;
    let apps = apps(&flags.workload, work.path(), flags.services, flags.others)?;
    let manifest = work.path().join("apps.yaml");
    let settings = work.path().join("knarr.toml");
    fs::write(&manifest, manifests(&apps, flags.rounds)?)?;
    fs::write(&settings, format!("reclaim-frozen = {}\n", flags.reclaimed))?;
    let frozen: usize = apps.iter().map(|app| app.starts).sum();
    let services = frozen + apps.len() * flags.rounds;
    let config = settings.to_string_lossy();
    let knarr = Knarr::start(&flags.knarr, &["--config", &config], &manifest, work.path(), services)?;
    let mut all: Vec<Times> = apps.iter().map(|_| Times::default()).collect();
    for app in &apps {
        for index in 0..app.starts {
            knarr.request(&format!("{}-{index}", app.name))?;
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
                times.frozen.push(asked(&knarr, &service, Temperature::Frozen)?);
                times.warm.push(asked(&knarr, &service, Temperature::Warm)?);
            }
            let cold = format!("{}-cold-{round}", app.name);
            times.cold.push(asked(&knarr, &cold, Temperature::Cold)?);
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

fn asked(knarr: &Knarr, service: &str, wanted: Temperature) -> Result<Duration> {
    let (time, timing) = knarr.request(service)?;
    if timing.temperature == wanted {
        Ok(time)
    } else {
        Err(format!("{service} was not {}, but {}", wanted.name(), timing.temperature.name()).into())
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
fn manifests(apps: &[App], rounds: usize) -> Result<String> {
    let mut yaml =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-autoscaler\n  namespace: knative-serving\n\
        data:\n  allow-zero-initial-scale: \"true\"\n"
            .to_owned();
    for app in apps {
        let frozen = (0..app.starts).map(|index| (format!("{}-{index}", app.name), true));
        let cold = (0..rounds).map(|round| (format!("{}-cold-{round}", app.name), false));
        // JSON is YAML.
        let (image, args) = (app.image(), serde_json::to_string(&app.args)?);
        for (name, frozen) in frozen.chain(cold) {
            let idle = if frozen {
                "        knarr.dev/idle: frozen\n        knarr.dev/freeze-delay: 0s\n"
            } else {
                ""
            };
            write!(
                yaml,
                "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  template:\n    \
                 metadata:\n      annotations:\n        autoscaling.knative.dev/initial-scale: \"0\"\n        \
                 knarr.dev/server-timing: enabled\n{idle}    spec:\n      containers:\n        - image: {image}\n          \
                 args: {args}\n",
            )?;
        }
    }
    Ok(yaml)
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
