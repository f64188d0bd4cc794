//! 90 % to one revision, 10 % to the other; each under its own tag, too.

use loadtest::{Arrivals, Plan};
use manifests::units::Rps;
use std::time::Duration;

use super::stage::Stage;

const SCENE: &str = "split";

pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    stage
        .screen
        .heading("3. Split", "90 % stable, 10 % candidate; tags reach each alone");
    let (stable, candidate) = ("stable-one", "candidate-one");
    let counts = |stage: &Stage| {
        anyhow::Ok((
            stage.revision(stable)?.requests.total,
            stage.revision(candidate)?.requests.total,
        ))
    };
    let before = counts(stage)?;
    let plan = Plan::new(
        stage.target("split", "/"),
        Arrivals::Constant(Rps(1_000.0)),
        Duration::from_secs(2),
    );
    let report = stage.load("1,000 requests per second for 2 s", plan).await?;
    let after = counts(stage)?;
    let (first, second) = (after.0 - before.0, after.1 - before.1);
    let total = first + second;
    let share = second as f64 / total.max(1) as f64;
    // Five standard deviations of a binomial around 10 %.
    let tolerance = 5.0 * (0.1 * 0.9 / total.max(1) as f64).sqrt();
    let held = report.failed() == 0 && report.count(200) == total && (share - 0.1).abs() <= tolerance;
    let seen = format!("{first} and {second} of {total}: {:.1} %", share * 100.0);
    stage.claim(SCENE, "a tenth goes to the candidate", seen, held);

    for (tag, index) in [("stable", 0), ("candidate", 1)] {
        let before = counts(stage)?;
        let report = stage
            .load(
                "one tag alone",
                Plan::burst(stage.target(&format!("{tag}-split"), "/"), 20),
            )
            .await?;
        let after = counts(stage)?;
        let got = [after.0 - before.0, after.1 - before.1];
        let held = report.count(200) == 20 && got[index] == 20 && got[1 - index] == 0;
        stage.claim(
            SCENE,
            &format!("tag {tag} reaches its revision only"),
            format!("{} of 20", got[index]),
            held,
        );
    }
    Ok(())
}
