//! The local driver keeps the contract of every driver.

#![allow(clippy::unwrap_used)]

mod support;

use sandbox::conformance;
use sandbox::{Freezing, LocalConfig};
use support::TESTAPP;
use support::contract::{Source, fixture};

fn host(roots: bool) -> Source {
    Source::Host(TESTAPP.to_owned(), roots)
}

#[tokio::test(flavor = "multi_thread")]
async fn root_keeps_the_contract() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    conformance::run(fixture(&support::config(dir.path()), host(true), true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_keep_the_contract() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = support::image::oci(dir.path()) else {
        return;
    };
    let config = support::image::config(&dir.path().join("data"));
    conformance::run(fixture(&config, Source::Image(image, None), true)).await;
}

/// Each way to freeze, also where a better one works.
#[tokio::test(flavor = "multi_thread")]
async fn every_freezer_keeps_the_contract() {
    if !support::is_root() {
        return;
    }
    for freezing in [Freezing::CgroupV1, Freezing::Signals] {
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig {
            freezing: Some(freezing),
            ..support::config(dir.path())
        };
        let make = fixture(&config, host(true), true);
        let found = make().driver.freezer();
        if found.is_none() {
            eprintln!("skipped: no {} here", freezing.as_str());
            continue;
        }
        assert_eq!(found, Some(freezing.as_str()));
        conformance::run(make).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_processes_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig {
        unsafe_no_isolation: true,
        ..support::config(dir.path())
    };
    conformance::run(fixture(&config, host(false), false)).await;
}
