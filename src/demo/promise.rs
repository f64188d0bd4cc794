//! The promise: when idle, the ladder that costs least while requests come within the cold-start SLA.

use std::time::Duration;

use loadtest::Plan;

use super::stage::Stage;

const SCENE: &str = "promise";

/// Where an app that starts in milliseconds may idle: a frozen sandbox of few MiB costs hardly more than none.
const CHEAP: [&str; 2] = ["zero", "frozen"];

pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    stage.screen.heading(
        "5. The promise",
        "cold-start-sla p99<500ms: one service starts in milliseconds, one takes two seconds",
    );
    let (fast, slow) = ("prompt-00001", "sluggish-00001");
    let settled = stage
        .wait_until(
            "idle: until the planner has chosen a rung for both",
            Duration::from_secs(60),
            |status| {
                let rung = |name: &str| {
                    status
                        .revisions
                        .iter()
                        .find(|it| it.name == name)
                        .map(|it| it.rung.clone())
                };
                let cheap = |name: &str| rung(name).is_some_and(|it| CHEAP.contains(&it.as_str()));
                cheap(fast) && rung(slow).as_deref() == Some("frozen")
            },
        )
        .await;
    for (name, wanted) in [(fast, &CHEAP[..]), (slow, &["frozen"][..])] {
        let now = stage.revision(name)?;
        let seen = format!("{} at {:.4} per hour", now.rung, now.price_per_hour);
        stage.claim(
            SCENE,
            &format!("{name} idles at {}", wanted.join(" or ")),
            seen,
            settled.is_some() && wanted.contains(&now.rung.as_str()),
        );
        let explained = stage
            .server
            .explain(name, Duration::from_secs(60), false)
            .unwrap_or_else(|why| why);
        for line in explained.trim_end().rsplit("\n\n").next().unwrap_or_default().lines() {
            stage.screen.line(format!("  {line}"));
        }
    }
    for service in ["prompt", "sluggish"] {
        let report = stage
            .load(
                "a request at the idle service",
                Plan::burst(stage.target(service, "/"), 1),
            )
            .await?;
        let took = report.latency.max();
        let held = report.count(200) == 1 && took < Duration::from_millis(500);
        let seen = format!("{:.1} ms", took.as_secs_f64() * 1e3);
        stage.claim(
            SCENE,
            &format!("a request at idle {service} is answered within 500 ms"),
            seen,
            held,
        );
    }
    Ok(())
}
