//! Many at once at zero: n sandboxes from the queue's length, at once, and none when it is over.

use std::time::Duration;

use loadtest::Plan;

use super::screen::bar;
use super::stage::Stage;

const SCENE: &str = "burst";
const REVISION: &str = "one-at-a-time-00001";
const MOST: u32 = 8;

pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    stage.screen.heading(
        "2. Burst",
        "40 requests of 300 ms at zero, containerConcurrency 1, max-scale 8",
    );
    let load = tokio::spawn(loadtest::run(
        Plan::burst(stage.target("one-at-a-time", "/overlap?ms=300"), 40),
        |_| {},
    ));
    let mut most = 0;
    while !load.is_finished() {
        let now = stage.revision(REVISION)?;
        most = most.max(now.actual_replicas);
        stage.screen.moving(format!(
            "replicas {} {}  waiting {:>2}  in flight {:>2}",
            bar(now.actual_replicas, MOST),
            now.actual_replicas,
            now.waiting,
            now.in_flight
        ));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let report = load.await??.report();
    stage.claim(
        SCENE,
        "all 40 are answered",
        format!("{} × 200", report.count(200)),
        report.count(200) == 40,
    );
    stage.claim(
        SCENE,
        "the queue starts 8 replicas",
        format!("{most} at most"),
        most == MOST,
    );

    let idle = stage
        .wait_until(
            "idle: back to zero after the 6 s window and the 1 s grace",
            Duration::from_secs(30),
            |status| {
                status
                    .revisions
                    .iter()
                    .any(|it| it.name == REVISION && it.actual_replicas == 0 && it.starting_replicas == 0)
            },
        )
        .await;
    let seen = idle.map_or("still running after 30 s".to_owned(), |time| {
        format!("zero after {:.1} s", time.as_secs_f64())
    });
    stage.claim(SCENE, "idle goes back to zero", seen, idle.is_some());
    Ok(())
}
