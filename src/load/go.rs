//! Runs a scenario before the user's eyes: with the live view, until its end or Ctrl-C.

use std::net::{IpAddr, ToSocketAddrs as _};

use anyhow::Context as _;
use loadtest::{Address, Knarr, Results, Scenario, Target, Watch, run_scenario};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::view::View;

/// Runs it; what ran is returned also when the user ended it.
pub(crate) fn go(scenario: Scenario, quiet: bool) -> anyhow::Result<Results> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let mut view = View::new(&scenario, quiet);
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        Ok(run_scenario(scenario, move |progress| view.show(progress), stop).await?)
    })
}

/// Where a Knarr is asked how it stands: what the user says (`none` for nowhere), else the admin port that Knarr has by
/// default, when a target is on this machine and a Knarr there serves it.
pub(crate) fn knarr(said: Option<&str>, targets: &[Target]) -> anyhow::Result<Option<Knarr>> {
    let knarr = |admin: &str| Knarr {
        admin: admin.to_owned(),
        services: Vec::new(),
    };
    let look = |knarr: &Knarr| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        let looked = runtime.block_on(Watch::new(knarr, targets).look());
        looked.map_err(anyhow::Error::msg)
    };
    match said {
        Some("none") => Ok(None),
        Some(admin) => {
            let knarr = knarr(admin);
            look(&knarr).context("cannot ask Knarr how it stands (--status)")?;
            Ok(Some(knarr))
        }
        None if targets.iter().any(is_local) => {
            let knarr = knarr(DEFAULT_ADMIN);
            let serves = look(&knarr).is_ok_and(|looked| looked.matched);
            Ok(serves.then_some(knarr))
        }
        None => Ok(None),
    }
}

const DEFAULT_ADMIN: &str = "127.0.0.1:9090";

fn is_local(target: &Target) -> bool {
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    match &target.address {
        Address::Socket(addr) => is_loopback(addr.ip()),
        Address::Name { host, port } => {
            let found = (host.as_str(), *port).to_socket_addrs();
            found.is_ok_and(|mut all| all.any(|addr| is_loopback(addr.ip())))
        }
    }
}
