//! The picture of a run: one HTML file that needs nothing else, readable on a screen of any size, on paper, in the dark, and
//! by who cannot see it. Pure.
//!
//! ```text
//! results ─▶ columns: the timeline, at most 120 ─▶ panels, percentiles: one figure each ─▶ the page
//!                                                      svg, scale: shapes, axes, labels
//! ```

mod columns;
mod panels;
mod percentiles;
mod scale;
mod servers;
mod svg;

use std::fmt::Write as _;
use std::time::Duration;

use self::columns::Columns;
use self::svg::escaped;
use crate::histogram::Latencies;
use crate::record::TOLERANCE;
use crate::report::{Class, Report};
use crate::results::Results;
use crate::server_timing::Temperature;

const STYLE: &str = include_str!("style.css");

impl Results {
    /// The picture of the run as one HTML file; `title` stands above it.
    pub fn html(&self, title: &str) -> String {
        let report = self.report();
        // More could not be told apart on a screen; rates need longer stretches, or they show chance.
        let (columns, coarse) = (Columns::of(self, 120), Columns::of(self, 60));
        let parts = [
            panels::heat(self, &columns),
            panels::woken(self, &columns),
            panels::rates(self, &coarse),
            panels::standing(self, &columns),
            servers::plots(self, &columns),
            format!(
                "<div class=\"pair\">{}{}</div>",
                percentiles::plot(self),
                percentiles::phases(self)
            ),
            figures(&report),
            generator(self, &report),
            numbers(&columns),
        ];
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>{title}\
             </title><style>{STYLE}</style></head>\n<body><main>{header}{summary}{parts}<footer>{tool}, results format \
             {format}</footer></main></body></html>\n",
            title = escaped(title),
            header = header(self, title),
            summary = summary(self, &report),
            parts = parts.concat(),
            tool = escaped(&self.tool),
            format = self.format,
        )
    }
}

fn header(results: &Results, title: &str) -> String {
    let targets: Vec<_> = results
        .targets
        .iter()
        .map(|it| format!("{} ({})", it.url, it.protocol))
        .collect();
    let began = Duration::from_millis(results.started_ms);
    let began = match std::time::UNIX_EPOCH
        .checked_add(began)
        .filter(|_| results.started_ms > 0)
    {
        Some(at) => format!(", began {}", humantime::format_rfc3339_seconds(at)),
        None => String::new(),
    };
    let shown = if targets.len() > 3 { 1 } else { targets.len() };
    let more = targets.len() - shown;
    let mut targets: String = targets
        .iter()
        .take(shown)
        .map(|it| format!("<code>{}</code> ", escaped(it)))
        .collect();
    if more > 0 {
        let _ = write!(targets, "and {more} more targets");
    }
    let asked = match results.asked.as_str() {
        asked if asked == title => String::new(),
        asked => format!("<p>{}</p>", escaped(asked)),
    };
    format!(
        "<header><h1>{}</h1>{asked}<p class=\"quiet\">{targets}<br>{} loop, seed {}, {}{began}</p></header>\n",
        escaped(title),
        match (
            results.closed_loop,
            results.stages.iter().any(|stage| !stage.closed_loop)
        ) {
            (false, _) => "open",
            (true, false) => "closed",
            (true, true) => "open and closed",
        },
        results.seed,
        scale::time(results.elapsed.as_secs_f64()),
    )
}

/// What everybody wants to know first: did it hold, how fast, how many, how cold, and can it be believed.
fn summary(results: &Results, report: &Report) -> String {
    let mut html = String::new();
    for verdict in &report.verdicts {
        let (class, word) = if verdict.held {
            ("held", "held")
        } else {
            ("broken", "broken")
        };
        let of = [&verdict.stage, &verdict.target].into_iter().flatten();
        let of: String = of.map(|name| format!("{name}: ")).collect();
        let _ = write!(
            html,
            "<li class=\"{class}\"><b>{word}</b> {}{} <span class=\"quiet\">was {}</span></li>",
            escaped(&of),
            escaped(&verdict.threshold),
            escaped(&verdict.seen)
        );
    }
    for warning in report.warnings() {
        let _ = write!(html, "<li class=\"warning\"><b>warning</b> {}</li>", escaped(&warning));
    }
    if !html.is_empty() {
        html = format!("<ul class=\"verdicts\">{html}</ul>\n");
    }
    let mut tiles = Vec::new();
    let quantile = |latencies: &Latencies, share| scale::duration(latencies.quantile(share));
    tiles.push((
        "median",
        quantile(&report.latency, 0.5),
        format!("of {} requests", report.latency.count()),
    ));
    tiles.push((
        "p99",
        quantile(&report.latency, 0.99),
        format!("largest {}", scale::duration(report.latency.max())),
    ));
    let asked = report
        .asked_rate
        .map_or(String::new(), |rate| format!("{}/s asked for", scale::number(rate.0)));
    tiles.push((
        "answered",
        format!("{}/s", scale::number(report.achieved_rate.0)),
        asked,
    ));
    let bad = results.count(|series| !series.ended.is_good());
    let kinds = report
        .errors
        .iter()
        .map(|(kind, failures)| format!("{kind}: {}", failures.count));
    let statuses = report.statuses.iter().filter(|(status, _)| **status >= 400);
    let kinds: Vec<_> = kinds
        .chain(statuses.map(|(status, count)| format!("{status}: {count}")))
        .collect();
    let kinds = if kinds.is_empty() {
        "of any kind".to_owned()
    } else {
        kinds.join(", ")
    };
    tiles.push(("errors", bad.to_string(), kinds));
    let cold = results.latency(|series| series.temperature == Temperature::Cold);
    if !cold.is_empty() {
        let said = match cold.count() {
            1 => format!("after {}", quantile(&cold, 1.0)),
            _ => format!("median {}, p99 {}", quantile(&cold, 0.5), quantile(&cold, 0.99)),
        };
        tiles.push(("met it cold", cold.count().to_string(), said));
    }
    let rows = results.timeline.rows().iter();
    let replicas = rows
        .map(|row| row.servers.iter().map(|seen| seen.replicas).sum::<u32>())
        .max();
    if let Some(most) = replicas.filter(|most| *most > 0) {
        tiles.push(("replicas", most.to_string(), "at the most".to_owned()));
    }
    html += "<dl class=\"tiles\">";
    for (name, value, more) in tiles {
        let class = if name == "errors" && bad > 0 {
            " class=\"bad\""
        } else {
            ""
        };
        let _ = write!(
            html,
            "<div{class}><dt>{name}</dt><dd>{value}</dd><dd class=\"quiet\">{}</dd></div>",
            escaped(&more)
        );
    }
    html + "</dl>\n"
}

const HEADS: [&str; 8] = ["", "count", "min", "p50", "p90", "p99", "p99.9", "max"];

fn table(caption: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = format!("<div class=\"scroll\"><table><caption>{caption}</caption><thead><tr>");
    for head in heads {
        let _ = write!(html, "<th scope=\"col\">{head}</th>");
    }
    html += "</tr></thead><tbody>";
    for row in rows {
        let mut cells = row.iter();
        let first = cells.next().map_or("", String::as_str);
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escaped(first));
        for cell in cells {
            let _ = write!(html, "<td>{}</td>", escaped(cell));
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>\n"
}

fn row(name: &str, latencies: &Latencies) -> Vec<String> {
    let quantiles = [0.5, 0.9, 0.99, 0.999].map(|share| latencies.quantile(share));
    let values = [latencies.min()].into_iter().chain(quantiles).chain([latencies.max()]);
    let cells = [name.to_owned(), latencies.count().to_string()];
    cells.into_iter().chain(values.map(scale::duration)).collect()
}

/// The same table as in the terminal.
fn figures(report: &Report) -> String {
    let mut rows = vec![
        row("all", &report.latency),
        row("to the first byte", &report.first_byte),
    ];
    for class in &report.classes {
        let name = match class.temperature {
            Temperature::Unknown => class.status.to_string(),
            temperature => format!("{} {}", class.status, temperature.name()),
        };
        rows.push(row(&name, &class.latency));
    }
    let mut shown = Vec::new();
    // What a warm request waits for is in the picture; here is what the others wait for.
    let woken = |class: &&Class| !matches!(class.temperature, Temperature::Unknown | Temperature::Warm);
    for class in report.classes.iter().filter(woken) {
        if !shown.contains(&class.temperature) {
            shown.push(class.temperature);
            let phases = class.phases.iter();
            rows.extend(
                phases.map(|(phase, times)| row(&format!("{}: {}", class.temperature.name(), phase.name()), times)),
            );
        }
    }
    rows.extend(
        report
            .stages
            .iter()
            .map(|part| row(&format!("stage {}", part.name), &part.latency)),
    );
    let (targets, more) = report.busiest_targets();
    rows.extend(
        targets
            .iter()
            .map(|part| row(&format!("target {}", part.name), &part.latency)),
    );
    if more > 0 {
        rows.push(vec![format!("and {more} more targets")]);
    }
    table("Latency from the due time", &HEADS, &rows)
}

/// How far the generator itself is in the figures.
fn generator(results: &Results, report: &Report) -> String {
    let mut rows = vec![row("late", &report.schedule.late)];
    let (timer, late) = &report.timer;
    if !late.is_empty() {
        rows.push(row(&format!("of it the timer ({timer})"), late));
    }
    if report.schedule.line.max() > Duration::ZERO {
        rows.push(row("in line for a connection", &report.schedule.line));
    }
    let connections = &results.connections;
    for (name, times) in [
        ("resolving names", &connections.dns),
        ("connecting", &connections.connect),
        ("TLS handshake", &connections.tls),
    ] {
        if !times.is_empty() {
            rows.push(row(name, times));
        }
    }
    let mut said = format!(
        "{} of {} requests were issued more than {} after they were due; {} were never sent.",
        report.schedule.missed,
        report.due,
        scale::duration(TOLERANCE),
        report.schedule.never_sent
    );
    if connections.opened > 0 {
        let _ = write!(
            said,
            " {} connections were opened, {} requests went over one that stood already.",
            connections.opened, connections.reused
        );
    }
    table("The generator's own share", &HEADS, &rows) + &format!("<p class=\"quiet\">{said}</p>\n")
}

/// The pictures as numbers.
fn numbers(columns: &Columns) -> String {
    let rows: Vec<_> = columns
        .columns
        .iter()
        .map(|column| {
            let all = column.all();
            let millis = |share| columns::quantile(&all, share).map_or("-".to_owned(), scale::millis);
            let sum = |of: fn(&crate::results::Observed) -> u64| match column.servers.len() {
                0 => "-".to_owned(),
                _ => column.servers.values().map(of).sum::<u64>().to_string(),
            };
            vec![
                scale::time(column.start),
                column.due.to_string(),
                column.answered.to_string(),
                column.failed.to_string(),
                millis(0.5),
                millis(0.99),
                column.in_flight.to_string(),
                column.woken.values().sum::<u64>().to_string(),
                sum(|seen| seen.replicas.into()),
                sum(|seen| seen.queue),
            ]
        })
        .collect();
    let heads = [
        "from",
        "due",
        "answered",
        "failed",
        "p50",
        "p99",
        "in flight",
        "woken",
        "replicas",
        "queue",
    ];
    format!(
        "<details><summary>The pictures as numbers</summary>{}</details>\n",
        table("Stretches of time", &heads, &rows)
    )
}

#[cfg(test)]
mod tests;
