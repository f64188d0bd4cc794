//! `knarr demo`: Knarr on loopback with real sandboxes and real HTTP, shown scene by scene; ends with what held and what
//! did not.

mod apps;
mod burst;
mod cold_start;
mod crash;
mod promise;
mod screen;
mod split;
mod stage;

use std::process::ExitCode;

use clap::ValueEnum;
use control::config::RawConfig;

use crate::args::Demo;
use crate::serve;
use crate::table::table;

use self::screen::Screen;
use self::stage::Stage;

/// A part of the demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scene {
    /// From zero, with its phases, then warm.
    ColdStart,
    /// 0 to n from the queue, and back to 0.
    Burst,
    /// 90 % and 10 % of the requests, and tags.
    Split,
    /// Sandboxes killed while requests run and wait.
    Crash,
    /// The cheapest way to idle that keeps the cold-start SLA.
    Promise,
}

/// One thing that the demo claims, and whether it held.
pub(crate) struct Outcome {
    scene: &'static str,
    claim: String,
    seen: String,
    held: bool,
}

/// The examples that the scenes play.
const EXAMPLES: (&str, &str) = ("demo.yaml", include_str!("../../manifests/examples/demo/demo.yaml"));

/// Runs the scenes; the exit code says whether everything held.
pub(crate) fn demo(args: Demo) -> anyhow::Result<ExitCode> {
    if let Some(count) = args.apps {
        return apps::demo(&args, usize::from(count));
    }
    let scenes = if args.only.is_empty() {
        Scene::value_variants().to_vec()
    } else {
        args.only
    };
    let outcomes = serve::runtime()?.block_on(async {
        let mut stage = Stage::open(Screen::new(args.plain), &[EXAMPLES], RawConfig::default()).await?;
        for service in stage.server.status().services {
            stage.screen.line(format!("{}  {}", service.url, service.latest_ready));
        }
        let played = play(&mut stage, &scenes).await;
        let outcomes = stage.close().await;
        played.map(|()| outcomes)
    })?;
    Ok(verdict(&outcomes))
}

/// Prints what held and what did not.
fn verdict(outcomes: &[Outcome]) -> ExitCode {
    let rows = outcomes.iter().map(|it| {
        let verdict = if it.held { "held" } else { "DID NOT HOLD" };
        vec![
            it.scene.to_owned(),
            it.claim.clone(),
            it.seen.clone(),
            verdict.to_owned(),
        ]
    });
    println!(
        "\n{}",
        table(&["SCENE", "CLAIM", "SEEN", "VERDICT"], &rows.collect::<Vec<_>>())
    );
    if outcomes.iter().all(|it| it.held) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn play(stage: &mut Stage, scenes: &[Scene]) -> anyhow::Result<()> {
    for scene in scenes {
        match scene {
            Scene::ColdStart => cold_start::play(stage).await?,
            Scene::Burst => burst::play(stage).await?,
            Scene::Split => split::play(stage).await?,
            Scene::Crash => crash::play(stage).await?,
            Scene::Promise => promise::play(stage).await?,
        }
    }
    Ok(())
}
