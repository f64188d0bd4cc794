//! The local driver keeps the contract of every driver.

#![allow(clippy::unwrap_used)]

mod support;

use sandbox::LocalConfig;
use sandbox::conformance;
use support::TESTAPP;
use support::contract::fixture;

#[tokio::test(flavor = "multi_thread")]
async fn root_keeps_the_contract() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    conformance::run(fixture(&support::config(dir.path()), TESTAPP, true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_processes_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig {
        unsafe_no_isolation: true,
        ..support::config(dir.path())
    };
    conformance::run(fixture(&config, TESTAPP, false)).await;
}
