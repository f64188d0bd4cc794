//! Cold starts through Knarr's gateway beside plain starts of the same program: what the sandbox and the way there add.
//!
//! Plain: vfork, exec, connect in a busy loop, request, first byte. Through Knarr: a service at zero, the request out to
//! the first byte back. Both in turns, so that a busy moment of the machine hits both. Started by `compare/coldstart`.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use loadtest::{Phase, Temperature};
use support::plain::plain;
use support::{App, Knarr, Programs, Result, quantile};

mod pooled;

/// Cold starts through Knarr beside plain starts of the same programs; what is measured: README.md beside the script
#[derive(clap::Parser)]
#[command(name = "loadtest/compare/coldstart")]
struct Flags {
    /// Cold starts of the workload app, and of the image
    #[arg(long, value_name = "N", default_value_t = 200)]
    starts: usize,
    /// Cold starts of Python and Node, where installed in /usr/bin; 0 for none
    #[arg(long, value_name = "N", default_value_t = 20)]
    others: usize,
    /// Services of the image that have run before, and have a shell in the pool; at most 64; 0 for none
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=64))]
    services: u16,
    /// How often each of them is woken
    #[arg(long, value_name = "N", default_value_t = 4)]
    rounds: usize,
    /// Before each of these requests, and of what they are compared with
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pause: u64,
    /// Fail when Knarr adds more than this to the workload's median
    #[arg(long, value_name = "MS")]
    at_most: Option<f64>,
    /// Fail when a request at zero takes more than this beyond a start from the pool, at the median
    #[arg(long, value_name = "MS")]
    at_most_way: Option<f64>,
    #[command(flatten)]
    programs: Programs,
    /// The image [given by the script, as what follows]
    #[arg(long)]
    image: String,
    /// The server in it, as a program of this machine
    #[arg(long, value_name = "PATH", value_parser = support::program)]
    server: PathBuf,
    /// The example `start_latency`, which starts sandboxes without a gateway
    #[arg(long, value_name = "PATH", value_parser = support::program)]
    starter: PathBuf,
}

fn main() -> ExitCode {
    support::run(measure)
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
    /// How many of them found a shell with their root.
    pooled: f64,
}

fn measure(flags: &Flags) -> Result<()> {
    let work = tempfile::tempdir()?;
    let mut apps = support::apps(&flags.programs.workload, work.path(), flags.starts, flags.others)?;
    let image = |name, starts| App {
        name,
        program: flags.server.clone(),
        image: Some(flags.image.clone()),
        args: Vec::new(),
        starts,
    };
    apps.push(image("image", flags.starts));
    let again = image("pooled", flags.services.into());
    let mut objects = vec![support::at_zero(&[("scale-to-zero-grace-period", "1s")])];
    for app in &apps {
        // The last service of each app is for warming up: page cache, and Knarr's first sight of the program.
        let names = (0..=app.starts).map(|index| format!("{}-{index}", app.name));
        objects.extend(names.map(|name| support::service(app, &name, &[])));
    }
    let soon = [("autoscaling.knative.dev/window", "6s")];
    let names = (0..again.starts).map(|index| format!("{}-{index}", again.name));
    objects.extend(names.map(|name| support::service(&again, &name, &soon)));
    let manifest = work.path().join("apps.yaml");
    fs::write(&manifest, support::manifest(&objects))?;
    let knarr = Knarr::start(&flags.programs.knarr, &[], &manifest, work.path(), objects.len() - 1)?;
    let mut all = Vec::new();
    for app in &apps {
        all.push(first_starts(&knarr, app)?);
    }
    print(&apps, &mut all);
    let mut pooled = match again.starts {
        0 => None,
        _ => Some(pooled::measure(&knarr, &again, flags, work.path())?),
    };
    drop(knarr);
    if let Some(pooled) = &mut pooled {
        pooled.print(flags);
    }
    let added = added_ms(&mut all[0]);
    if let Some(limit) = flags.at_most.filter(|limit| added > *limit) {
        return Err(format!("Knarr adds {added:.2} ms to the workload's median, more than {limit}").into());
    }
    let way = pooled.map_or(0.0, |mut pooled| pooled.beyond_ms());
    if let Some(limit) = flags.at_most_way.filter(|limit| way > *limit) {
        let text = format!(
            "a request at zero takes {way:.2} ms beyond a start from the pool at the median, more than {limit}"
        );
        return Err(text.into());
    }
    Ok(())
}

/// The first start of each service.
fn first_starts(knarr: &Knarr, app: &App) -> Result<Times> {
    knarr.request(&format!("{}-{}", app.name, app.starts), Temperature::Cold)?;
    plain(app)?;
    let mut times = Times::default();
    let before = from_pool(knarr, app)?;
    for index in 0..app.starts {
        times.plain.push(plain(app)?);
        let service = format!("{}-{index}", app.name);
        let cold = knarr.request(&service, Temperature::Cold)?;
        let start = cold.phases[Phase::Start as usize].unwrap_or_default();
        times.way.push(cold.time.saturating_sub(start));
        times.cold.push(cold.time);
        times.warm.push(knarr.request(&service, Temperature::Warm)?.time);
        for (all, one) in times.phases.iter_mut().zip(cold.phases) {
            all.extend(one);
        }
    }
    times.pooled = from_pool(knarr, app)? - before;
    Ok(times)
}

/// Starts of the app's services that found a shell with their root.
fn from_pool(knarr: &Knarr, app: &App) -> Result<f64> {
    let labels = [format!("revision=\"{}-", app.name), "result=\"rooted\"".to_owned()];
    knarr.metric("knarr_pool_starts_total", &labels)
}

fn print(apps: &[App], all: &mut [Times]) {
    println!("milliseconds to the first byte; plain = vfork, exec, busy connect of the same program in the same run");
    println!("first starts of services that never ran:");
    println!(
        "{:<9} {:>6} {:>9} | {:>9} {:>9} | {:>9} {:>9} | {:>9} | {:>9} | {:>8} | of it, by Server-Timing, p50",
        "app", "starts", "from pool", "plain p50", "p99", "Knarr p50", "p99", "added p50", "no start", "warm p50"
    );
    for (app, times) in apps.iter().zip(all) {
        let phases = Phase::ALL
            .iter()
            .zip(&mut times.phases)
            .filter(|(_, times)| !times.is_empty());
        let pooled = times.pooled;
        let phases: Vec<_> = phases
            .map(|(phase, times)| format!("{} {:.2}", phase.name(), quantile(times, 0.5)))
            .collect();
        println!(
            "{:<9} {:>6} {:>9} | {:>9.2} {:>9.2} | {:>9.2} {:>9.2} | {:>9.2} | {:>9.2} | {:>8.2} | {}",
            app.name,
            app.starts,
            pooled,
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

/// Long enough for what the last request left to be done.
fn pause(flags: &Flags) {
    sleep(Duration::from_millis(flags.pause));
}
