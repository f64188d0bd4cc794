//! A request at zero, phase by phase; then the same request warm.

use std::time::Duration;

use http::HeaderValue;
use loadtest::{Arrivals, Phase, Plan, StatusClass, Temperature};
use manifests::units::Rps;

use super::stage::Stage;

const SCENE: &str = "cold start";

pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    stage.screen.heading(
        "1. Cold start",
        "nothing runs; one request starts a sandbox and waits for it",
    );
    let mut target = stage.target("hello", "/");
    target.headers.insert("x-knarr-timing", HeaderValue::from_static("1"));
    let before = stage.revision("hello-00001")?;
    let report = stage.load("one request at zero", Plan::burst(target, 1)).await?;

    let cold = report
        .classes
        .iter()
        .find(|it| it.temperature == Temperature::Cold && it.status == StatusClass::SUCCESS);
    let phases = cold.map(|class| {
        let phase = |(label, phase): (&str, Phase)| {
            let latencies = class.phases.get(&phase)?;
            Some(format!("{label} {:.2} ms", millis(latencies.max())))
        };
        [
            ("routed", Phase::Route),
            ("queued", Phase::Queue),
            ("sandbox started", Phase::Start),
            ("connected", Phase::Connect),
            ("first byte", Phase::App),
        ]
        .into_iter()
        .filter_map(phase)
        .collect::<Vec<_>>()
        .join(" · ")
    });
    stage.screen.line(phases.clone().unwrap_or_default());
    let total = millis(report.latency.max());
    let held = before.actual_replicas == 0 && report.count(200) == 1 && cold.is_some();
    stage.claim(
        SCENE,
        "a request at zero is answered by a sandbox that it started",
        format!("200 after {total:.2} ms"),
        held,
    );

    let plan = Plan::new(
        stage.target("hello", "/"),
        Arrivals::Poisson(Rps(500.0)),
        Duration::from_secs(2),
    );
    let warm = stage.load("500 requests per second for 2 s", plan).await?;
    let seen = format!(
        "{} requests, p50 {:.2} ms, p99 {:.2} ms",
        warm.count(200),
        millis(warm.latency.quantile(0.5)),
        millis(warm.latency.quantile(0.99))
    );
    let held = warm.failed() == 0 && warm.count(200) > 0;
    stage.claim(SCENE, "warm requests are all answered", seen, held);
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
