//! The local driver keeps the contract of every driver.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use manifests::revision::{Image, Workload};
use sandbox::conformance::{self, App, Fixture};
use sandbox::driver::Driver;
use sandbox::{LocalConfig, LocalDriver};
use support::{TESTAPP, workload};

fn app(app: App) -> Workload {
    match app {
        App::Quick => workload(TESTAPP, &["serve"]),
        App::Slow => workload(TESTAPP, &["serve", "--after", "2000"]),
        App::Never => workload(TESTAPP, &["never"]),
        App::Crasher => workload(TESTAPP, &["crash"]),
        App::Stubborn => workload(TESTAPP, &["serve", "--stubborn"]),
        App::Chatty => workload(TESTAPP, &["serve", "--say", "100"]),
        App::Mayfly => workload(TESTAPP, &["serve", "--for", "300", "7"]),
        App::Missing => Workload {
            image: Image::Host(PathBuf::from("/nowhere/app")),
            ..workload(TESTAPP, &[])
        },
    }
}

fn fixture(config: &LocalConfig, limits: bool) -> impl Fn() -> Fixture {
    let config = config.clone();
    move || {
        let local = LocalDriver::new(config.clone()).unwrap();
        let driver: Arc<dyn Driver> = local;
        Fixture {
            driver,
            workload: Box::new(app),
            kill: Box::new(|id| {
                let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|e| {
                    let pid: i32 = e.file_name().to_str()?.parse().ok()?;
                    let line = std::fs::read_to_string(e.path().join("cmdline")).ok()?;
                    line.trim_end_matches('\0').ends_with(&format!("\0{id}")).then_some(pid)
                });
                // It may just have been stopped.
                found.into_iter().for_each(support::kill);
            }),
            leftovers: Box::new(Vec::new),
            event_capacity: None,
            limits,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_keeps_the_contract() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    conformance::run(fixture(&support::config(dir.path()), true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_processes_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig {
        unsafe_no_isolation: true,
        ..support::config(dir.path())
    };
    conformance::run(fixture(&config, false)).await;
}
