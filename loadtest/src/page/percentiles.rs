//! The plots without time: percentiles as HdrHistogram draws them, and where the time of requests went. Pure.

use std::fmt::Write as _;

use super::scale::{self, Scale};
use super::svg::{Plot, escaped, path, unit};
use crate::histogram::Latencies;
use crate::results::Results;
use crate::server_timing::{Phase, Temperature};

/// Colours of lines, in their order.
const LINES: [&str; 6] = ["line-a", "line-b", "line-c", "line-d", "line-e", "line-f"];

/// Latency by percentile; the axis gives each further nine the same room.
pub(super) fn plot(results: &Results) -> String {
    let all = results.latency(|_| true);
    if all.is_empty() {
        return String::new();
    }
    let mut lines: Vec<(String, Latencies)> = vec![("all".to_owned(), all)];
    // More lines than colours say nothing.
    if (2..=3).contains(&results.targets.len()) {
        let targets = results.targets.iter().enumerate();
        lines.extend(targets.map(|(nth, it)| (it.name.clone(), results.latency(|series| series.target == nth))));
    }
    for temperature in [
        Temperature::Warm,
        Temperature::Reserve,
        Temperature::Throttled,
        Temperature::Frozen,
        Temperature::Cold,
    ] {
        let own = results.latency(|series| series.temperature == temperature);
        lines.push((temperature.name().to_owned(), own));
    }
    lines.retain(|(_, latencies)| !latencies.is_empty());
    lines.truncate(LINES.len());
    // The one there is: all of them.
    if lines.len() == 2 && lines[0].1 == lines[1].1 {
        lines.pop();
    }
    let (least, most) = (lines[0].1.min(), lines[0].1.max());
    let floor = |millis: f64| millis.max(0.001);
    let scale = Scale::log(floor(least.as_secs_f64() * 1e3), floor(most.as_secs_f64() * 1e3));
    let nines = nines(lines[0].1.count());
    let mut shapes = String::new();
    let mut legend = Vec::new();
    let mut words = "Latency by percentile.".to_owned();
    for ((name, latencies), class) in lines.iter().zip(LINES) {
        shapes += &path(class, &curve(latencies, nines, scale));
        legend.push((
            format!("{class} line"),
            format!("{name} ({})", scale::number(count(latencies))),
        ));
        let _ = write!(
            words,
            " {name}: p50 {}, p99 {}, largest {}.",
            scale::duration(latencies.quantile(0.5)),
            scale::duration(latencies.quantile(0.99)),
            scale::duration(latencies.max())
        );
    }
    let legend: Vec<_> = legend
        .iter()
        .map(|(class, name)| (class.as_str(), name.as_str()))
        .collect();
    let ticks = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999];
    let ticks = ticks.into_iter().filter(|share| place(*share, nines) <= 1.0);
    let ticks: Vec<_> = ticks.map(|share| (place(share, nines), percent(share))).collect();
    let plot = Plot {
        title: "Latency by percentile",
        legend: &legend,
        words: &words,
        height: "tall",
        scale,
        label: scale::millis,
        whole: false,
    };
    plot.figure(&plot.axes(&ticks, &shapes))
}

#[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
fn count(latencies: &Latencies) -> f64 {
    latencies.count() as f64
}

/// How many nines the requests can tell of: one in a thousand needs a thousand.
fn nines(requests: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
    (requests as f64).log10().clamp(1.0, 6.0)
}

/// Where a share lies on the axis: 0 at the left, and each nine as far as the last.
fn place(share: f64, nines: f64) -> f64 {
    -(1.0 - share).log10() / nines
}

fn percent(share: f64) -> String {
    let digits = format!("{:.4}", share * 100.0);
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if digits.is_empty() {
        "0%".to_owned()
    } else {
        format!("{digits}%")
    }
}

fn curve(latencies: &Latencies, nines: f64, scale: Scale) -> String {
    let mut line = String::new();
    let total = count(latencies);
    let mut below = 0.0;
    let mut last = None;
    for (value, times) in latencies.iter() {
        let x = place(below / total, nines).min(1.0);
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
        let times = times as f64;
        below += times;
        let y = 1.0 - scale.at(value.as_secs_f64() * 1e3);
        let point = format!("{} {}", unit(x), unit(y));
        // Thousands of values share few pixels.
        if last.as_ref() != Some(&point) {
            let _ = write!(line, "{}{point}", if last.is_some() { "L" } else { "M" });
            last = Some(point);
        }
    }
    // The largest value holds to the right edge.
    line + "H1000"
}

/// Where the time of requests went, on average, by what they met.
pub(super) fn phases(results: &Results) -> String {
    let mut rows = Vec::new();
    for temperature in [
        Temperature::Cold,
        Temperature::Frozen,
        Temperature::Throttled,
        Temperature::Reserve,
        Temperature::Warm,
    ] {
        let mean = |phase: Phase| {
            let mut all = Latencies::new();
            let own = results
                .phases
                .iter()
                .filter(|it| (it.temperature, it.phase) == (temperature, phase));
            own.for_each(|it| all.merge(&it.times));
            (phase, all.mean().as_secs_f64() * 1e3, all.count())
        };
        let means: Vec<_> = Phase::ALL.into_iter().map(mean).collect();
        let (total, requests) = means
            .iter()
            .fold((0.0, 0), |(total, most), it| (total + it.1, most.max(it.2)));
        if requests > 0 && total > 0.0 {
            rows.push((temperature, means, total, requests));
        }
    }
    let longest = rows.iter().map(|row| row.2).fold(0.0, f64::max);
    if rows.is_empty() {
        return String::new();
    }
    let mut html = String::new();
    for (temperature, means, total, requests) in rows {
        let mut bar = String::new();
        let mut said = String::new();
        for (phase, millis, _) in means.iter().filter(|it| it.1 > 0.0) {
            let text = format!("{} {}", phase.name(), scale::millis(*millis));
            let _ = write!(
                bar,
                "<i class=\"phase-{}\" style=\"width:{:.2}%\" title=\"{text}\"></i>",
                phase.name(),
                millis / longest * 100.0
            );
            let _ = write!(said, "<span>{text}</span>");
        }
        let _ = write!(
            html,
            "<div class=\"phases\"><b>{}</b> <span class=\"quiet\">{requests} {}, {} on average</span><div \
             class=\"bar\">{bar}</div><div class=\"said\">{said}</div></div>",
            temperature.name(),
            if requests == 1 { "request" } else { "requests" },
            scale::millis(total),
        );
    }
    let mut legend = String::new();
    for phase in Phase::ALL {
        let _ = write!(legend, "<span><i class=\"key phase-{0}\"></i>{0}</span>", phase.name());
    }
    format!(
        "<figure><figcaption><b>{}</b><span class=\"legend\">{legend}</span></figcaption>{html}</figure>\n",
        escaped("Where the time went, by Server-Timing")
    )
}
