//! Scenarios as TOML: read into [`Scenario`] and thresholds, every mistake with its line, its field and what would be right.
//!
//! `docs/load-testing.md` describes every field.

mod stage;
mod target;
mod toml_tree;

use std::path::Path;

use crate::scenario::{Knarr, Scenario};
use crate::thresholds::Threshold;
use toml_tree::{Field, Source, Table};

pub(crate) use toml_tree::nearest;

/// A scenario, and what its run must have been like.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What to run.
    pub scenario: Scenario,
    /// What must hold.
    pub thresholds: Vec<Threshold>,
}

/// Reads a scenario. `name` is what errors call the file; files that it names are relative to `directory`.
///
/// # Errors
/// The first mistake: `FILE:LINE: FIELD: what is wrong and what would be right`.
pub fn read(text: &str, name: &str, directory: &Path) -> Result<Planned, String> {
    let source = Source::new(text, name);
    let mut top = source.parse(&[
        "name",
        "seed",
        "threads",
        "timeout",
        "max_waiting",
        "status",
        "services",
        "thresholds",
        "target",
        "stage",
    ])?;
    let mut thresholds = Vec::new();
    let mut targets = Vec::new();
    for field in top.list("target", "at least one [[target]] with a url")? {
        let (target, own) = target::read(field, targets.len(), directory)?;
        targets.push(target);
        thresholds.extend(own);
    }
    let mut stages = Vec::new();
    for (nth, field) in (1..).zip(top.list("stage", "at least one [[stage]]")?) {
        let (stage, own) = stage::read(field, nth, stages.len(), &targets)?;
        stages.extend(stage);
        thresholds.extend(own);
    }
    let title = top.text("name")?.unwrap_or_else(|| {
        let path = Path::new(name);
        path.file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    });
    let mut scenario = Scenario::new(title, targets, stages);
    if let Some(seed) = top.take("seed") {
        scenario.seed = seed.whole(0, "a whole number")?;
    }
    if let Some(threads) = top.take("threads") {
        scenario.threads = Some(threads.count(1, "a whole number, at least 1")?);
    }
    if let Some(waiting) = top.take("max_waiting") {
        scenario.max_waiting = waiting.count(0, "a whole number")?;
    }
    if let Some(timeout) = top.take("timeout") {
        scenario.timeout = timeout.duration()?;
    }
    let services = match top.take("services") {
        Some(field) => field.texts("a list of services, as in [\"hello\", \"shop/cart\"]")?,
        None => Vec::new(),
    };
    scenario.knarr = top.text("status")?.map(|admin| Knarr { admin, services });
    thresholds.extend(read_thresholds(&mut top, None, None)?);
    for (threshold, place) in &thresholds {
        if threshold.needs_knarr() && scenario.knarr.is_none() {
            return Err(place.wrong(&format!(
                "{:?} needs a Knarr to ask: give its admin port as `status = \"127.0.0.1:9090\"`",
                threshold.to_string()
            )));
        }
    }
    scenario.check().map_err(|error| format!("{name}: {error}"))?;
    Ok(Planned {
        scenario,
        thresholds: thresholds.into_iter().map(|(threshold, _)| threshold).collect(),
    })
}

/// A threshold, and where it stands.
type Placed<'a> = (Threshold, toml_tree::Place<'a>);

fn read_thresholds<'a>(
    table: &mut Table<'a>,
    stage: Option<usize>,
    target: Option<usize>,
) -> Result<Vec<Placed<'a>>, String> {
    let Some(field) = table.take("thresholds") else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for field in field.list("a list of thresholds, as in [\"p99 < 300ms\", \"errors == 0\"]")? {
        let place = field.place.clone();
        let text = field.text("a threshold, as in \"p99 < 300ms\"")?;
        let mut threshold: Threshold = text.parse().map_err(|error: String| place.wrong(&error))?;
        if (stage.is_some() || target.is_some()) && threshold.is_of_the_whole_run() {
            return Err(place.wrong(&format!(
                "{text:?} is about the generator, which has one schedule for all: put it into the `thresholds` at the top"
            )));
        }
        (threshold.stage, threshold.target) = (stage, target);
        all.push((threshold, place));
    }
    Ok(all)
}

/// One of these words.
fn one_of<T: Copy>(field: Field<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let place = field.place.clone();
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let must = format!("one of {}", names.join(", "));
    let text = field.text(&must)?;
    let known = words.iter().find(|(name, _)| *name == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let near = nearest(&text, &names).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        place.wrong(&format!("is {text:?}, but must be {must}{near}"))
    })
}

#[cfg(test)]
mod tests;
