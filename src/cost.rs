//! `knarr cost`: what every revision costs, beside Knative's defaults and an instance that never goes.

use control::cost::{CostReport, RevisionCost};
use control::status::Spent;

use crate::args::{Cost, Output};
use crate::ask::{answer, directory};
use crate::out;
use crate::table::table;

/// Prints it.
pub(crate) async fn cost(args: Cost) -> anyhow::Result<()> {
    let mut report: CostReport = answer(&directory(args.data)?, "/v1/cost").await?;
    if let Some(namespace) = &args.namespace {
        report.revisions.retain(|it| it.namespace == *namespace);
        report.gone = Spent::default();
        report.total = report
            .revisions
            .iter()
            .map(|it| it.today)
            .fold(Spent::default(), Spent::plus);
    }
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Table => words(&report),
    };
    out::print(text.as_bytes())
}

fn words(report: &CostReport) -> String {
    let row = |names: [&str; 3], now: f64, spent: &Spent| {
        let mut row = names.map(str::to_owned).to_vec();
        row.extend([now, spent.actual, spent.idle, spent.knative, spent.always_on].map(money));
        row.push(saved(spent.actual, spent.knative));
        row
    };
    let mut rows: Vec<Vec<String>> = report
        .revisions
        .iter()
        .map(|it| row([&it.namespace, &it.revision, &it.rung], it.price_per_hour, &it.today))
        .collect();
    if report.gone != Spent::default() {
        rows.push(row(["", "(gone)", ""], 0.0, &report.gone));
    }
    let now = report.revisions.iter().fold(0.0, |sum, it| sum + it.price_per_hour);
    rows.push(row(["", "total", ""], now, &report.total));
    let heads = [
        "NAMESPACE",
        "REVISION",
        "RUNG",
        "NOW/H",
        "TODAY",
        "OF IT IDLE",
        "KNATIVE",
        "ALWAYS ON",
        "SAVED",
    ];
    let mut text = table(&heads, &rows);
    let currency = if report.currency.is_empty() {
        String::new()
    } else {
        format!(" Prices in {}.", report.currency)
    };
    text += &format!(
        "\nToday since 00:00 UTC. KNATIVE: the same requests by Knative's rule. ALWAYS ON: at least one full replica all the \
         time. SAVED: against KNATIVE.{currency}\n"
    );
    for hint in report.revisions.iter().filter_map(hint) {
        text += &format!("\n{hint}\n");
    }
    text
}

/// What min-scale costs, and what to write instead.
fn hint(revision: &RevisionCost) -> Option<String> {
    let min_scale = revision.min_scale.as_ref()?;
    let name = format!("{}/{}", revision.namespace, revision.revision);
    let replicas = match min_scale.replicas {
        1 => "one replica".to_owned(),
        more => format!("{more} replicas"),
    };
    let rung = min_scale.cheaper.as_deref()?;
    if min_scale.today <= 0.0 || min_scale.cheaper_today >= min_scale.today {
        return None;
    }
    Some(format!(
        "{name}: min-scale keeps {replicas} while nobody asks, {} today on full instances.\n  \
         With knarr.dev/min-scale-as: {rung} it is {}: {} less.",
        money(min_scale.today),
        money(min_scale.cheaper_today),
        saved(min_scale.cheaper_today, min_scale.today)
    ))
}

fn money(money: f64) -> String {
    format!("{money:.4}")
}

/// As a share of what it would have been.
fn saved(actual: f64, instead: f64) -> String {
    if instead <= 0.0 {
        return "-".to_owned();
    }
    format!("{:.0}%", 100.0 * (1.0 - actual / instead))
}

#[cfg(test)]
mod tests {
    use control::cost::MinScaleCost;

    use super::*;

    #[test]
    fn a_total_and_what_min_scale_costs() {
        let spent = |actual, knative| Spent {
            actual,
            knative,
            always_on: 24.0,
            ..Spent::default()
        };
        let report = CostReport {
            revisions: vec![RevisionCost {
                namespace: "default".into(),
                revision: "a-00001".into(),
                rung: "full".into(),
                price_per_hour: 2.0,
                today: spent(10.0, 20.0),
                min_scale: Some(MinScaleCost {
                    replicas: 2,
                    today: 8.0,
                    cheaper: Some("frozen".into()),
                    cheaper_today: 0.8,
                }),
                ..RevisionCost::default()
            }],
            gone: spent(1.0, 1.0),
            total: spent(11.0, 21.0),
            ..CostReport::default()
        };
        let text = words(&report);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            [
                "default", "a-00001", "full", "2.0000", "10.0000", "0.0000", "20.0000", "24.0000", "50%"
            ]
        );
        assert_eq!(
            lines[3],
            ["total", "2.0000", "11.0000", "0.0000", "21.0000", "24.0000", "48%"]
        );
        assert!(
            text.contains("min-scale keeps 2 replicas while nobody asks, 8.0000 today"),
            "{text}"
        );
        assert!(
            text.contains("knarr.dev/min-scale-as: frozen it is 0.8000: 90% less"),
            "{text}"
        );
    }
}
