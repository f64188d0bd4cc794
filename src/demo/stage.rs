//! The running Knarr behind the demo, and the few things that every scene does with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use control::config::{Config, RawConfig};
use control::server::Server;
use control::status::{RevisionStatus, Status};
use loadtest::{Plan, Report, Target};

use super::Outcome;
use super::screen::Screen;

/// A Knarr on loopback with a data directory of its own.
pub(crate) struct Stage {
    pub(crate) screen: Screen,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    outcomes: Vec<Outcome>,
    /// Removed when the stage closes.
    _directory: tempfile::TempDir,
}

impl Stage {
    /// Starts Knarr with these manifests (name and text) and waits until every service of them is ready.
    pub(crate) async fn open(mut screen: Screen, files: &[(&str, &str)], settings: RawConfig) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("knarr-demo-").tempdir()?;
        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests)?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for (name, text) in files {
            let path = manifests.join(name);
            std::fs::write(&path, text)?;
            paths.push(path);
        }
        let config = Config::from_raw(RawConfig {
            listen: vec!["127.0.0.1:0".to_owned()],
            admin: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(directory.path().join("data")),
            ..settings
        })?;
        screen.moving("starting Knarr");
        let server = Server::start(config, paths).await?;
        let address = *server.listen().first().context("no listener")?;
        screen.line(format!(
            "Knarr {} listens on http://{address}",
            env!("CARGO_PKG_VERSION")
        ));
        for warning in server.status().warnings {
            screen.line(format!("warning: {warning}"));
        }
        let mut stage = Self {
            screen,
            server,
            address,
            outcomes: Vec::new(),
            _directory: directory,
        };
        let all_ready = |status: &Status| status.services.iter().all(|service| service.ready.status == "True");
        let ready = stage
            .wait_until(
                "waiting for every service to be ready",
                Duration::from_secs(30),
                all_ready,
            )
            .await;
        if ready.is_none() {
            let status = stage.server.status();
            let unready = status.services.iter().find(|service| service.ready.status != "True");
            bail!("not ready: {unready:?}");
        }
        Ok(stage)
    }

    /// Stops Knarr; what held and what did not.
    pub(crate) async fn close(self) -> Vec<Outcome> {
        self.server.stop().await;
        self.outcomes
    }

    /// Records a claim with what was seen.
    pub(crate) fn claim(&mut self, scene: &'static str, claim: &str, seen: String, held: bool) {
        self.screen
            .line(format!("{} {claim}: {seen}", if held { "✔" } else { "✘" }));
        self.outcomes.push(Outcome {
            scene,
            claim: claim.to_owned(),
            seen,
            held,
        });
    }

    /// `GET path` of a service of namespace `default`.
    pub(crate) fn target(&self, service: &str, path: &str) -> Target {
        Target::new(self.address, format!("{service}.default.localhost")).path(path)
    }

    /// Sends a plan; the moving line shows how it goes.
    pub(crate) async fn load(&mut self, what: &str, plan: Plan) -> anyhow::Result<Report> {
        self.screen.moving(what);
        Ok(loadtest::run(plan, |_| {}).await?.report())
    }

    /// The revision `name` of namespace `default`.
    pub(crate) fn revision(&self, name: &str) -> anyhow::Result<RevisionStatus> {
        let status = self.server.status();
        status
            .revisions
            .into_iter()
            .find(|it| it.name == name)
            .with_context(|| format!("no revision {name}"))
    }

    /// Looks at the status until it is as wanted; how long that took, or `None` after `patience`.
    #[expect(clippy::disallowed_methods, reason = "a shell: it watches a running server")]
    pub(crate) async fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Option<Duration> {
        let began = Instant::now();
        loop {
            let status = self.server.status();
            if wanted(&status) {
                return Some(began.elapsed());
            }
            if began.elapsed() > patience {
                return None;
            }
            self.screen
                .moving(format!("{what} ({:.0} s)", began.elapsed().as_secs_f64()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
