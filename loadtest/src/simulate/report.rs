//! Tables of what came out, as text. PURE.

use std::fmt::Write as _;

use super::evaluate::{Check, Demand, Evaluation};
use super::summary::Summary;

/// The table of some rows; costs also as shares of Knative's where that is among them.
pub fn rows(rows: &[Summary]) -> String {
    let mut text = String::new();
    let mut markets: Vec<&str> = rows.iter().map(|row| row.market.as_str()).collect();
    markets.dedup();
    for market in markets {
        let here: Vec<&Summary> = rows.iter().filter(|row| row.market == market).collect();
        let knative = here.iter().find(|row| row.policy == "knative").map(|row| row.idle_cost);
        let cells = here.iter().map(|row| {
            let of = knative.map_or("-".into(), |knative| percent(row.idle_cost / knative, 1));
            vec![
                row.policy.clone(),
                format!("{:.2}", row.idle_cost),
                of,
                format!("{:.2}", row.cost),
                percent(row.violations, 3),
                percent(row.mean_violations, 2),
                percent(row.cold, 2),
                percent(row.late, 3),
                seconds(row.added[0]),
                seconds(row.added[1]),
                seconds(row.added[2]),
                format!("{:.2}", row.churn),
                format!("{:.0}", row.unanswered),
                format!("{}/{}", row.broken.len(), row.large),
            ]
        });
        let engine = here.first().map_or("", |row| row.engine.text());
        let currency = here.first().map_or("", |row| row.currency.as_str());
        let _ = writeln!(text, "market {market}, {currency}: {engine}");
        text += &aligned(&HEADS, &cells.collect::<Vec<_>>());
        text.push('\n');
    }
    text
}

/// Everything of an evaluation: rows, demands, functions that break their SLA.
pub fn evaluation(evaluation: &Evaluation) -> String {
    let (tuned, reported) = evaluation.functions;
    let mut text = format!(
        "{}: {reported} functions, none of the {tuned} that anything was tuned on; seeds {} to {}\n\n",
        evaluation.trace,
        evaluation.seeds.start,
        evaluation.seeds.end - 1
    );
    text += &rows(&evaluation.rows);
    text += "the planner (auto), and what is demanded\n";
    text += &checks(&evaluation.checks);
    for row in evaluation
        .rows
        .iter()
        .filter(|row| row.policy == "auto" && !row.broken.is_empty())
    {
        let _ = writeln!(
            text,
            "\nmarket {}: functions that break their SLA for certain",
            row.market
        );
        let cells = row.broken.iter().map(|broken| {
            vec![
                broken.function.chars().take(12).collect(),
                broken.seed.to_string(),
                broken.idle.to_string(),
                broken.violations.to_string(),
                percent(broken.bound, 2),
            ]
        });
        text += &aligned(
            &["FUNCTION", "SEED", "IDLE", "LATE", "AT LEAST"],
            &cells.collect::<Vec<_>>(),
        );
    }
    text
}

fn checks(checks: &[Check]) -> String {
    let cells = checks.iter().map(|check| {
        let interval = check.interval.map_or(String::new(), |(low, high)| {
            format!("{} to {}", percent(low, 2), percent(high, 2))
        });
        let (demand, verdict) = match (check.demand, check.holds()) {
            (Some(Demand::AtMost(limit)), Some(holds)) => (format!("at most {}", percent(limit, 1)), holds),
            (Some(Demand::MoreThan(limit)), Some(holds)) => (format!("more than {}", percent(limit, 1)), holds),
            _ => (String::new(), true),
        };
        let verdict = match (check.demand, verdict) {
            (None, _) => "",
            (_, true) => "holds",
            (_, false) => "DOES NOT HOLD",
        };
        vec![
            check.market.clone(),
            check.what.clone(),
            percent(check.measured, 2),
            interval,
            demand,
            verdict.into(),
        ]
    });
    aligned(
        &["MARKET", "WHAT", "MEASURED", "95 %", "DEMANDED", ""],
        &cells.collect::<Vec<_>>(),
    )
}

/// Columns under their heads; all but the first to the right.
pub fn aligned(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let numeric = |column: usize| {
        let digits = |row: &Vec<String>| {
            row.get(column)
                .is_none_or(|cell| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
        };
        column > 0 && rows.iter().all(digits)
    };
    let right: Vec<bool> = (0..heads.len()).map(numeric).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).zip(&right).map(|((cell, width), right)| {
            if *right {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heads.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// As people read it.
pub fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$}%", share * 100.0)
}

fn seconds(seconds: f64) -> String {
    if seconds == 0.0 {
        "0".into()
    } else {
        format!("{seconds:.1}s")
    }
}

const HEADS: [&str; 14] = [
    "POLICY",
    "IDLE COST",
    "OF KNATIVE",
    "COST",
    "LATE",
    "MEAN LATE",
    "COLD",
    "ALL LATE",
    "P50",
    "P99",
    "P99.9",
    "STARTS/1000",
    "LOST",
    "BROKEN",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [
            vec!["a".to_owned(), "1.5%".to_owned(), "yes".to_owned()],
            vec!["longer".to_owned(), "12.5%".to_owned(), String::new()],
        ];
        let want = "NAME    SHARE  \na        1.5%  yes\nlonger  12.5%\n".replace("SHARE  \n", "SHARE\n");
        assert_eq!(aligned(&["NAME", "SHARE", ""], &rows), want);
    }

    #[test]
    fn verdicts_are_said() {
        let check = |measured, demand| Check {
            market: "equal".into(),
            what: "x".into(),
            measured,
            interval: Some((0.1, 0.2)),
            demand,
        };
        let text = checks(&[
            check(0.15, Some(Demand::AtMost(0.2))),
            check(0.25, Some(Demand::AtMost(0.2))),
            check(0.25, Some(Demand::MoreThan(0.2))),
            check(0.25, None),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("at most 20.0%    holds"), "{text}");
        assert!(
            lines[2].ends_with("DOES NOT HOLD") && lines[3].ends_with("holds"),
            "{text}"
        );
        assert!(lines[4].ends_with("10.00% to 20.00%"), "{text}");
    }
}
