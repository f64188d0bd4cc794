//! Cold starts through Knarr's gateway beside plain starts of the same program: what the sandbox and the way there add.
//!
//! Plain: vfork, exec, connect in a busy loop, request, first byte. Through Knarr: a service at zero, the request out to
//! the first byte back. Both in turns, so that a busy moment of the machine hits both. Started by `compare/coldstart`.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use loadtest::{Phase, Temperature, Timing};
use support::{App, Knarr, Result, apps, free_addr, get, now, quantile};

const USAGE: &str = "\
Usage: loadtest/compare/coldstart [FLAGS]

  --starts N        cold starts of the workload app [default: 200]
  --others N        cold starts of Python and Node, where installed in /usr/bin; 0 for none [default: 20]
  --at-most MS      fail when Knarr adds more than this to the workload's median
  --at-most-way MS  fail when all but the start takes more than this at the median of the image
  --knarr PATH, --workload PATH   the programs [given by the script]
  --image IMAGE, --server PATH    an image, and the server in it as a program of this machine [given by the script]
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
    starts: usize,
    others: usize,
    at_most: Option<f64>,
    at_most_way: Option<f64>,
    knarr: PathBuf,
    workload: PathBuf,
    image: String,
    server: PathBuf,
}

impl Flags {
    /// `None` when help was wanted.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut flags = Self {
            starts: 200,
            others: 20,
            at_most: None,
            at_most_way: None,
            knarr: PathBuf::new(),
            workload: PathBuf::new(),
            image: String::new(),
            server: PathBuf::new(),
        };
        while let Some(name) = args.next() {
            if matches!(name.as_str(), "-h" | "--help") {
                print!("{USAGE}");
                return Ok(None);
            }
            let value = args
                .next()
                .ok_or_else(|| format!("{name} needs a value, or is no flag; see --help"))?;
            let wrong = || format!("{name} is {value:?}, but must be a number");
            match name.as_str() {
                "--starts" => flags.starts = value.parse().map_err(|_| wrong())?,
                "--others" => flags.others = value.parse().map_err(|_| wrong())?,
                "--at-most" => flags.at_most = Some(value.parse().map_err(|_| wrong())?),
                "--at-most-way" => flags.at_most_way = Some(value.parse().map_err(|_| wrong())?),
                "--image" => flags.image = value,
                "--server" => flags.server = value.into(),
                "--knarr" => flags.knarr = value.into(),
                "--workload" => flags.workload = value.into(),
                _ => return Err(format!("unknown flag {name}; see --help").into()),
            }
        }
        for (name, path) in [
            ("--knarr", &flags.knarr),
            ("--workload", &flags.workload),
            ("--server", &flags.server),
        ] {
            if !path.is_file() {
                return Err(format!("{name} must name a program, and {path:?} is none").into());
            }
        }
        Ok(Some(flags))
    }
}

/// What was measured of one app.
#[derive(Default)]
struct Times {
    plain: Vec<Duration>,
    cold: Vec<Duration>,
    warm: Vec<Duration>,
    /// What of `cold` was not the start of the sandbox.
    way: Vec<Duration>,
    phases: [Vec<Duration>; 5],
}

fn measure(flags: &Flags) -> Result<()> {
    let work = tempfile::tempdir()?;
    let mut apps = apps(&flags.workload, work.path(), flags.starts, flags.others)?;
    apps.push(App {
        name: "image",
        program: flags.server.clone(),
        image: Some(flags.image.clone()),
        args: Vec::new(),
        starts: flags.starts,
    });
    let manifest = work.path().join("apps.yaml");
    fs::write(&manifest, manifests(&apps)?)?;
    let services = apps.iter().map(|app| app.starts + 1).sum();
    let knarr = Knarr::start(&flags.knarr, &[], &manifest, work.path(), services)?;
    let mut all = Vec::new();
    for app in &apps {
        // The last service of each app is for warming up: page cache, and Knarr's first sight of the program.
        cold(&knarr, app, app.starts)?;
        plain(app)?;
        let mut times = Times::default();
        for index in 0..app.starts {
            times.plain.push(plain(app)?);
            let (took, timing) = cold(&knarr, app, index)?;
            let start = timing.phases[Phase::Start as usize].unwrap_or_default();
            times.way.push(took.saturating_sub(start));
            times.cold.push(took);
            times.warm.push(knarr.request(&format!("{}-{index}", app.name))?.0);
            for (all, one) in times.phases.iter_mut().zip(timing.phases) {
                all.extend(one);
            }
        }
        all.push(times);
    }
    drop(knarr);
    print(&apps, &mut all);
    let added = added_ms(&mut all[0]);
    if let Some(limit) = flags.at_most.filter(|limit| added > *limit) {
        return Err(format!("Knarr adds {added:.2} ms to the workload's median, more than {limit}").into());
    }
    let way = all.last_mut().map_or(0.0, |times| quantile(&mut times.way, 0.5));
    if let Some(limit) = flags.at_most_way.filter(|limit| way > *limit) {
        return Err(format!("all but the start takes {way:.2} ms at the image's median, more than {limit}").into());
    }
    Ok(())
}

/// Services at zero from their creation (Knative: `initial-scale` 0 needs the cluster's leave), one per start.
fn manifests(apps: &[App]) -> Result<String> {
    let mut yaml =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-autoscaler\n  namespace: knative-serving\n\
        data:\n  allow-zero-initial-scale: \"true\"\n"
            .to_owned();
    for app in apps {
        // JSON is YAML.
        let (image, args) = (app.image(), serde_json::to_string(&app.args)?);
        for index in 0..=app.starts {
            write!(
                yaml,
                "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}-{index}\nspec:\n  template:\n    \
                 metadata:\n      annotations:\n        autoscaling.knative.dev/initial-scale: \"0\"\n        \
                 knarr.dev/server-timing: enabled\n    spec:\n      containers:\n        - image: {image}\n          \
                 args: {args}\n",
                name = app.name
            )?;
        }
    }
    Ok(yaml)
}

fn print(apps: &[App], all: &mut [Times]) {
    println!("milliseconds to the first byte; plain = vfork, exec, busy connect of the same program in the same run");
    println!(
        "{:<9} {:>6} | {:>9} {:>9} | {:>9} {:>9} | {:>9} | {:>9} | {:>8} | of it, by Server-Timing, p50",
        "app", "starts", "plain p50", "p99", "Knarr p50", "p99", "added p50", "no start", "warm p50"
    );
    for (app, times) in apps.iter().zip(all) {
        let phases = Phase::ALL
            .iter()
            .zip(&mut times.phases)
            .filter(|(_, times)| !times.is_empty());
        let phases: Vec<_> = phases
            .map(|(phase, times)| format!("{} {:.2}", phase.name(), quantile(times, 0.5)))
            .collect();
        println!(
            "{:<9} {:>6} | {:>9.2} {:>9.2} | {:>9.2} {:>9.2} | {:>9.2} | {:>9.2} | {:>8.2} | {}",
            app.name,
            app.starts,
            quantile(&mut times.plain, 0.5),
            quantile(&mut times.plain, 0.99),
            quantile(&mut times.cold, 0.5),
            quantile(&mut times.cold, 0.99),
            added_ms(times),
            quantile(&mut times.way, 0.5),
            quantile(&mut times.warm, 0.5),
            phases.join(", ")
        );
    }
}

fn added_ms(times: &mut Times) -> f64 {
    quantile(&mut times.cold, 0.5) - quantile(&mut times.plain, 0.5)
}

/// A request that must find its service at zero.
fn cold(knarr: &Knarr, app: &App, index: usize) -> Result<(Duration, Timing)> {
    let (time, timing) = knarr.request(&format!("{}-{index}", app.name))?;
    match timing.temperature {
        Temperature::Cold => Ok((time, timing)),
        other => Err(format!("{}-{index} was not cold, but {}", app.name, other.name()).into()),
    }
}

/// A plain start; std spawns by `posix_spawn`, which is vfork and exec.
fn plain(app: &App) -> Result<Duration> {
    let addr = free_addr()?;
    let mut command = Command::new(&app.program);
    command
        .args(&app.args)
        .env("PORT", addr.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = now();
    let mut process = command.spawn()?;
    let answer = connect(addr, start + Duration::from_secs(30)).and_then(|stream| get(stream, "localhost", "/"));
    process.kill()?;
    process.wait()?;
    Ok(answer?.ok()?.first_byte - start)
}

/// As often as it can, until somebody listens.
fn connect(addr: SocketAddr, deadline: Instant) -> Result<TcpStream> {
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => return Ok(stream),
            Err(error) if now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
}
