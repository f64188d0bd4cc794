//! Sandboxes killed under load: exactly the requests that ran in them fail.

use std::time::Duration;

use loadtest::Plan;
use rustix::process::{Pid, Signal, kill_process};

use super::stage::Stage;

const SCENE: &str = "crash";
const REVISION: &str = "fragile-00001";
const REPLICAS: u64 = 4;
const REQUESTS: u64 = 16;

pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    stage.screen.heading(
        "4. Crash",
        "16 requests at 4 replicas that take one each; all 4 sandboxes are killed",
    );
    let mut target = stage.target("fragile", "/sleep?ms=1500");
    // Never sent twice: a POST that breaks off has failed.
    target.method = http::Method::POST;
    let load = tokio::spawn(loadtest::run(Plan::burst(target, REQUESTS), |_| {}));
    let running = stage
        .wait_until("until 4 run and 12 wait", Duration::from_secs(20), |status| {
            let revision = status.revisions.iter().find(|it| it.name == REVISION);
            revision.is_some_and(|it| it.in_flight == REQUESTS && it.waiting == REQUESTS - REPLICAS)
        })
        .await;
    // Handed to a sandbox is not yet sent: give the four a moment to reach their apps.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sandboxes = stage.server.processes("default", REVISION).await;
    let mut killed = Vec::new();
    for (name, pid) in sandboxes {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
            killed.push(name);
        }
    }
    stage.screen.line(format!(
        "killed {} sandboxes with SIGKILL: {}",
        killed.len(),
        killed.join(", ")
    ));
    stage.screen.moving("the other 12 wait for new sandboxes");
    let report = load.await??.report();
    let (answered, failed) = (report.count(200), report.count(502));
    stage.claim(
        SCENE,
        "those already sent get 502",
        format!("{failed} × 502 of {} killed", killed.len()),
        running.is_some() && failed == REPLICAS && killed.len() as u64 == REPLICAS,
    );
    let others = REQUESTS - REPLICAS;
    stage.claim(
        SCENE,
        "all others get 200",
        format!("{answered} × 200 of {others}"),
        answered == others,
    );
    Ok(())
}
