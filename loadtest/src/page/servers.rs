//! How the server stood over time, where it says so: replicas, queue, rungs. Pure.

use std::fmt::Write as _;

use super::columns::Columns;
use super::scale::{self, Scale};
use super::svg::{Plot, block, escaped, path, steps};
use crate::results::{Observed, Results};

/// Replicas, queue and rung, as the server told them.
pub(super) fn plots(results: &Results, columns: &Columns) -> String {
    let told: Vec<usize> = (0..results.targets.len())
        .filter(|target| columns.columns.iter().any(|column| column.servers.contains_key(target)))
        .collect();
    if told.is_empty() {
        return String::new();
    }
    // Between two looks it stands as it was last seen.
    let mut last: Vec<Option<_>> = vec![None; told.len()];
    let mut states: Vec<Vec<Option<&Observed>>> = Vec::new();
    for column in &columns.columns {
        for (last, target) in last.iter_mut().zip(&told) {
            *last = column.servers.get(target).or(*last);
        }
        states.push(last.clone());
    }
    let sum = |states: &[Option<&Observed>], of: fn(&Observed) -> u64| -> u64 {
        states.iter().flatten().map(|seen| of(seen)).sum()
    };
    let most = |of: fn(&Observed) -> u64| states.iter().map(|it| sum(it, of)).max().unwrap_or(0);
    let (replicas, queue) = (most(|it| it.replicas.into()), most(|it| it.queue));
    let starting = |it: &Observed| u64::from(it.replicas + it.starting);
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let scale = Scale::linear(most(starting).max(1) as f64);
    let mut shapes = String::new();
    for (class, of) in [
        ("starting", starting as fn(&Observed) -> u64),
        ("replicas", |it| it.replicas.into()),
    ] {
        let mut area = String::new();
        for ((_, left, right), states) in columns.placed().zip(&states) {
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let top = scale.at(sum(states, of) as f64);
            if top > 0.0 {
                block(&mut area, (left, right), (0.0, top));
            }
        }
        shapes += &path(class, &area);
    }
    let words = format!("Replicas: at most {replicas} ready. Requests that waited for one: at most {queue}.");
    let plot = Plot {
        title: "Replicas",
        legend: &[("replicas", "ready"), ("starting", "being started")],
        words: &words,
        height: "low",
        scale,
        label: scale::number,
        whole: true,
    };
    let mut html = plot.over_time(results, columns, &shapes, false);
    if queue > 0 {
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
        let scale = Scale::linear(queue as f64);
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
        let line = steps(columns, states.iter(), |it| {
            Some(scale.at(sum(it, |seen| seen.queue) as f64))
        });
        let plot = Plot {
            title: "Queue in front of them",
            legend: &[("queue line", "waiting for a replica")],
            words: &words,
            height: "low",
            scale,
            label: scale::number,
            whole: true,
        };
        html += &plot.over_time(results, columns, &path("queue", &line), false);
    }
    html + &rungs(results, columns, &told, &states)
}

/// More would be a page of their own.
const MOST_BANDS: usize = 16;

/// A band for each target: where it stood.
fn rungs(results: &Results, columns: &Columns, told: &[usize], states: &[Vec<Option<&Observed>>]) -> String {
    const RUNGS: [&str; 5] = ["zero", "frozen", "throttled", "reserve", "full"];
    let mut bands = String::new();
    for (nth, target) in told.iter().enumerate().take(MOST_BANDS) {
        let mut shapes = String::new();
        for rung in RUNGS {
            let mut band = String::new();
            for ((_, left, right), states) in columns.placed().zip(states) {
                if states[nth].is_some_and(|seen| seen.rung == rung) {
                    block(&mut band, (left, right), (0.0, 1.0));
                }
            }
            shapes += &path(&format!("rung-{rung}"), &band);
        }
        let name = escaped(&results.targets[*target].name);
        let _ = write!(
            bands,
            "<div class=\"plot band\"><div class=\"y\"><span title=\"{name}\">{name}</span></div><svg role=\"img\" \
             aria-label=\"Rung of {name} over time\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\">{shapes}</svg></div>"
        );
    }
    if told.len() > MOST_BANDS {
        let _ = write!(
            bands,
            "<p class=\"quiet\">and {} more targets</p>",
            told.len() - MOST_BANDS
        );
    }
    let used = |rung: &str| states.iter().flatten().flatten().any(|seen| seen.rung == rung);
    let mut legend = String::new();
    for rung in RUNGS.iter().filter(|rung| used(rung)) {
        let _ = write!(legend, "<span><i class=\"key rung-{rung}\"></i>{rung}</span>");
    }
    format!("<figure><figcaption><b>Rung</b><span class=\"legend\">{legend}</span></figcaption>{bands}</figure>\n")
}
