//! The plots over time: latency, what was woken, rates, who waited, and how the server stood. Pure.

use std::fmt::Write as _;

use super::columns::{Column, Columns, quantile};
use super::scale::{self, Scale};
use super::svg::{Plot, block, escaped, path, steps};
use crate::histogram::Sparse;
use crate::results::Results;
use crate::server_timing::Temperature;

/// Shades of the heat map.
const LEVELS: usize = 8;
/// Rows of the heat map.
const BINS: usize = 42;

/// What a column says when it is pointed at.
pub(super) fn said_of(column: &Column, columns: &Columns) -> String {
    let mut text = format!(
        "{} to {}: {} due, {} answered",
        scale::time(column.start),
        scale::time(column.start + columns.width),
        column.due,
        column.answered
    );
    if column.failed > 0 {
        let _ = write!(text, ", {} failed", column.failed);
    }
    let all = column.all();
    if let (Some(p50), Some(p99)) = (quantile(&all, 0.5), quantile(&all, 0.99)) {
        let _ = write!(text, "; p50 {}, p99 {}", scale::millis(p50), scale::millis(p99));
    }
    for (temperature, count) in &column.woken {
        let _ = write!(text, "; {count} {}", temperature.name());
    }
    let servers = || column.servers.values();
    if servers().next().is_some() {
        let replicas: u32 = servers().map(|seen| seen.replicas).sum();
        let queue: u64 = servers().map(|seen| seen.queue).sum();
        let _ = write!(text, "; {replicas} replicas, {queue} queued");
    }
    escaped(&text)
}

/// Latency by the time at which requests were due: how many took how long, on a logarithmic axis.
pub(super) fn heat(results: &Results, columns: &Columns) -> String {
    let edges = columns.columns.iter().flat_map(|column| {
        let all = column.all();
        [quantile(&all, 0.0), quantile(&all, 1.0)]
    });
    let edges: Vec<f64> = edges.flatten().collect();
    let (least, most) = edges
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), it| (least.min(*it), most.max(*it)));
    if edges.is_empty() {
        return String::new();
    }
    let scale = Scale::log(least.max(0.001), most.max(0.001));
    let mut shapes = String::new();
    let mut bad_any = false;
    let good: Vec<_> = columns
        .columns
        .iter()
        .map(|column| binned(&column.good, scale))
        .collect();
    let bad: Vec<_> = columns
        .columns
        .iter()
        .map(|column| binned(&column.bad, scale))
        .collect();
    let largest = good.iter().chain(&bad).flatten().copied().max().unwrap_or(1);
    for (counts, class) in [(&good, "h"), (&bad, "e")] {
        for level in 1..=LEVELS {
            let mut cells = String::new();
            for bin in 0..BINS {
                let bottom_top = (share(bin), share(bin + 1));
                let mut open: Option<(f64, f64)> = None;
                for ((_, left, right), counts) in columns.placed().zip(counts) {
                    let wanted = shade(counts[bin], largest) == level;
                    open = match (open, wanted) {
                        (Some((from, _)), true) => Some((from, right)),
                        (None, true) => Some((left, right)),
                        (Some(edges), false) => {
                            block(&mut cells, edges, bottom_top);
                            None
                        }
                        (None, false) => None,
                    };
                }
                if let Some(edges) = open {
                    block(&mut cells, edges, bottom_top);
                }
            }
            bad_any |= class == "e" && !cells.is_empty();
            shapes += &path(&format!("{class}{level}"), &cells);
        }
    }
    for (class, at) in [("p99", 0.99), ("p50", 0.5)] {
        let line = steps(columns, columns.columns.iter(), |column| {
            quantile(&column.all(), at).map(|millis| scale.at(millis))
        });
        shapes += &path("halo", &line);
        shapes += &path(class, &line);
    }
    let latency = results.latency(|_| true);
    let words = format!(
        "Latency over time on a logarithmic axis. Over the whole run the median is {}, the 99th percentile {}, the largest {}.",
        scale::duration(latency.quantile(0.5)),
        scale::duration(latency.quantile(0.99)),
        scale::duration(latency.max())
    );
    let mut legend = vec![
        ("h3 ramp", "few"),
        ("h8 ramp", "many requests"),
        ("p50 line", "p50"),
        ("p99 line", "p99, or the largest"),
    ];
    if bad_any {
        legend.push(("e6", "failed"));
    }
    let plot = Plot {
        title: "Latency, by when the request was due",
        legend: &legend,
        words: &words,
        height: "tall",
        scale,
        label: scale::millis,
        whole: false,
    };
    plot.over_time(results, columns, &shapes, true)
}

#[expect(clippy::cast_precision_loss, reason = "a few")]
fn share(bin: usize) -> f64 {
    bin as f64 / BINS as f64
}

fn binned(sparse: &Sparse, scale: Scale) -> [u64; BINS] {
    let mut bins = [0; BINS];
    for (nanos, count) in sparse.iter() {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 42"
        )]
        let bin = (scale.at(nanos as f64 / 1e6) * BINS as f64) as usize;
        bins[bin.min(BINS - 1)] += count;
    }
    bins
}

/// Which shade a count has: by its logarithm, so that the one slow request in a thousand is seen; 0 is none.
fn shade(count: u64, largest: u64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 8"
    )]
    match count {
        0 => 0,
        // A lone request must be seen as well.
        _ if largest <= 2 => 5,
        _ => 1 + ((count as f64).ln() / (largest as f64).ln() * (LEVELS - 1) as f64).round() as usize,
    }
}

/// How many requests met something else than a warm sandbox, and when.
pub(super) fn woken(results: &Results, columns: &Columns) -> String {
    const KINDS: [Temperature; 4] = [
        Temperature::Cold,
        Temperature::Frozen,
        Temperature::Throttled,
        Temperature::Reserve,
    ];
    let count = |column: &Column, kinds: &[Temperature]| -> u64 {
        kinds.iter().filter_map(|kind| column.woken.get(kind)).sum()
    };
    let most = columns
        .columns
        .iter()
        .map(|column| count(column, &KINDS))
        .max()
        .unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
    let height = |count: u64| Scale::linear(most as f64).at(count as f64);
    let mut shapes = String::new();
    let mut legend = Vec::new();
    let mut words = "Requests that met no warm sandbox:".to_owned();
    for (nth, kind) in KINDS.iter().enumerate() {
        let total: u64 = columns.columns.iter().map(|column| count(column, &[*kind])).sum();
        if total == 0 {
            continue;
        }
        let mut bars = String::new();
        for (column, left, right) in columns.placed() {
            // Stacked; and wide enough to be seen.
            let (below, with) = (count(column, &KINDS[..nth]), count(column, &KINDS[..=nth]));
            if with > below {
                block(
                    &mut bars,
                    (left, right.max(left + 0.004)),
                    (height(below), height(with)),
                );
            }
        }
        shapes += &path(kind.name(), &bars);
        legend.push((kind.name(), format!("{} ({total})", kind.name())));
        let _ = write!(words, " {total} {}.", kind.name());
    }
    let legend: Vec<_> = legend.iter().map(|(class, name)| (*class, name.as_str())).collect();
    let plot = Plot {
        title: "Woken by a request",
        legend: &legend,
        words: &words,
        height: "flat",
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
        scale: Scale::linear(most as f64),
        label: scale::number,
        whole: true,
    };
    plot.over_time(results, columns, &shapes, false)
}

/// What was asked of the target, and what it did.
pub(super) fn rates(results: &Results, columns: &Columns) -> String {
    let rate = |count: fn(&Column) -> u64| -> Vec<f64> {
        columns
            .columns
            .iter()
            .map(|column| columns.rate(count(column)))
            .collect()
    };
    let (due, answered, failed) = (rate(|it| it.due), rate(|it| it.answered), rate(|it| it.failed));
    let mut all: Vec<f64> = due.iter().chain(&answered).copied().filter(|it| *it > 0.0).collect();
    all.sort_by(f64::total_cmp);
    let Some(&most) = all.last() else {
        return String::new();
    };
    // One burst must not press everything else flat.
    let usual = all[(all.len() - 1) * 19 / 20];
    let cut = all.len() >= 20 && most > 6.0 * usual;
    let scale = Scale::linear(if cut { usual * 2.0 } else { most });
    let mut area = String::new();
    let mut failures = String::new();
    for ((_, left, right), (answered, failed)) in columns.placed().zip(answered.iter().zip(&failed)) {
        if *answered > 0.0 {
            block(&mut area, (left, right), (0.0, scale.at(*answered)));
        }
        if *failed > 0.0 {
            block(&mut failures, (left, right), (0.0, scale.at(*failed).max(0.02)));
        }
    }
    let line = steps(columns, due.iter(), |rate| Some(scale.at(*rate)));
    let shapes = path("answered", &area) + &path("failed", &failures) + &path("asked", &line);
    let report = results.report();
    let asked = report
        .asked_rate
        .map_or("no rate".to_owned(), |rate| format!("{}/s", scale::number(rate.0)));
    let words = format!(
        "Requests per second: {asked} asked for, {}/s answered on average, {} failed.",
        scale::number(report.achieved_rate.0),
        report.failed()
    );
    let mut legend = vec![("asked line", "due"), ("answered", "answered")];
    if failed.iter().any(|it| *it > 0.0) {
        legend.push(("failed", "failed"));
    }
    let peak = format!("peaks up to {}/s are cut", scale::number(most));
    if cut {
        legend.push(("none", &peak));
    }
    let plot = Plot {
        title: "Requests per second",
        legend: &legend,
        words: &words,
        height: "",
        scale,
        label: scale::number,
        whole: false,
    };
    plot.over_time(results, columns, &shapes, false)
}

/// How many were under way, and how many stood in the generator's own line.
pub(super) fn standing(results: &Results, columns: &Columns) -> String {
    let most = |of: fn(&Column) -> u64| columns.columns.iter().map(of).max().unwrap_or(0);
    let (in_flight, waiting) = (most(|it| it.in_flight), most(|it| it.waiting));
    #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
    let scale = Scale::linear(in_flight.max(waiting).max(1) as f64);
    let mut shapes = String::new();
    for (class, of) in [
        ("flight", (|it| it.in_flight) as fn(&Column) -> u64),
        ("line-up", |it| it.waiting),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
        let line = steps(columns, columns.columns.iter(), |column| {
            Some(scale.at(of(column) as f64))
        });
        shapes += &path(class, &line);
    }
    let words = format!(
        "Requests under way: at most {in_flight} at the end of a stretch. Due and not yet sent: at most {waiting}."
    );
    let mut legend = vec![("flight line", "in flight")];
    if waiting > 0 {
        legend.push(("line-up line", "due, not yet sent"));
    }
    let plot = Plot {
        title: "Under way",
        legend: &legend,
        words: &words,
        height: "low",
        scale,
        label: scale::number,
        whole: true,
    };
    plot.over_time(results, columns, &shapes, false)
}
