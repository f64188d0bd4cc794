//! The local driver as a fixture of the conformance suite.

use std::fs;
use std::time::Duration;

use manifests::workload::{Check, Probe, Probes, Workload};
use sandbox::conformance::{App, Command, Fixture};
use sandbox::{LocalConfig, LocalDriver};

use super::{kill, workload};

/// A new driver for each check; `testapp` is where the app is, `limits` whether this host enforces any.
pub fn fixture(config: &LocalConfig, testapp: &str, limits: bool) -> impl Fn() -> Fixture {
    let (config, testapp) = (config.clone(), testapp.to_owned());
    // An argument of all apps of this fixture and of no others, which the app ignores.
    let tag = format!("of:{}", config.data_dir.display());
    move || {
        let (testapp, mark, victims, tag) = (testapp.clone(), tag.clone(), tag.clone(), tag.clone());
        Fixture {
            driver: LocalDriver::new(config.clone()).unwrap(),
            workload: Box::new(move |app| {
                let mut workload = workload_of(app, &testapp);
                workload.serving.args.push(mark.clone().into());
                workload
            }),
            command: Box::new(|command| command_of(command).map(str::to_owned).to_vec()),
            // It may just have been stopped, and then there is none.
            kill: Box::new(move |id| {
                let victims = processes_with(&[id.as_str(), &victims]);
                victims.into_iter().for_each(|(pid, _)| kill(pid));
            }),
            leftovers: Box::new(move || processes_with(&[&tag]).into_iter().map(|(_, line)| line).collect()),
            event_capacity: None,
            limits,
        }
    }
}

fn command_of(command: Command) -> [&'static str; 3] {
    match command {
        Command::Copy => ["sh", "-c", "cat; echo done >&2; exit 3"],
        Command::Forever => ["/bin/sh", "-c", "echo here $HOSTNAME; while :; do sleep 1; done"],
        Command::Missing => ["no-such-program", "", ""],
    }
}

fn workload_of(app: App, testapp: &str) -> Workload {
    match app {
        App::Quick => workload(testapp, &["serve"]),
        App::Slow => workload(testapp, &["serve", "--after", "2000"]),
        App::Never => workload(testapp, &["never"]),
        App::Crasher => workload(testapp, &["crash"]),
        App::Stubborn => workload(testapp, &["serve", "--stubborn"]),
        App::Chatty => workload(testapp, &["serve", "--say", "100"]),
        App::Mayfly => workload(testapp, &["serve", "--for", "300", "7"]),
        App::Moody => probed(testapp, &["serve", "--sick", "300", "700"], |probes, sick| {
            probes.readiness = Some(sick)
        }),
        App::Hung => probed(testapp, &["serve", "--sick", "300", "100000"], |probes, sick| {
            probes.liveness = Some(sick)
        }),
        App::Watched => probed(testapp, &["serve"], |probes, sick| {
            let timeout = Duration::from_millis(500);
            probes.liveness = Some(Probe { timeout, ..sick });
        }),
        App::Sleeper => probed(testapp, &["serve", "--sick", "0", "100000"], |probes, sick| {
            probes.startup = Some(sick)
        }),
        App::Missing => workload("/nowhere/app", &[]),
    }
}

/// With a probe that fails while the app is sick.
fn probed(testapp: &str, args: &[&str], set: fn(&mut Probes, Probe)) -> Workload {
    let mut workload = workload(testapp, args);
    let check = Check::Http {
        tls: false,
        port: workload.port,
        path: "/sick".into(),
        headers: Vec::new(),
    };
    let sick = Probe {
        period: Some(Duration::from_millis(50)),
        timeout: Duration::from_secs(1),
        ..Probe::aggressive(check)
    };
    set(&mut workload.serving.probes, sick);
    workload
}

/// The processes of this host that have each of these as an argument.
fn processes_with(arguments: &[&str]) -> Vec<(i32, String)> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    numbers
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let found = arguments.iter().all(|wanted| line.split('\0').any(|a| a == *wanted));
            found.then(|| (pid, line.replace('\0', " ")))
        })
        .collect()
}
