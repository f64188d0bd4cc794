//! `knarr replay`: decides again what a recording says was decided, and shows what another policy would have done.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use control::happened::Happened;
use control::replay::{Replayed, replay};
use control::whatif::{self, Outcome, Policy};
use manifests::units::Timestamp;
use serde_json::json;

use crate::args::{Output, Replay};
use crate::ask::directory;
use crate::out;
use crate::table::table;

/// Replays and says how it went; exit code 1 when anything differs.
pub(crate) fn run(args: Replay) -> anyhow::Result<ExitCode> {
    let path = match args.path {
        Some(path) => path,
        None => directory(args.data)?,
    };
    let catalogue = args.catalogue.as_deref().map(whatif::catalogue).transpose();
    let catalogue = catalogue.map_err(anyhow::Error::msg)?;
    let mut happened = Happened::default();
    let replayed = replay(&path, &mut happened).context("cannot replay")?;
    happened.close();
    let asked = catalogue.is_some() || !args.policy.is_empty();
    let mut outcomes = Vec::new();
    if asked && replayed.difference.is_none() {
        let instances = catalogue.map_or_else(|| Arc::clone(&happened.instances), Arc::new);
        let mut really = Outcome::of("really".into(), true, &happened);
        if args.catalogue.is_some() {
            (really.cost, really.idle_cost) = (None, None);
        }
        outcomes.push(really);
        let policies = std::iter::once(Policy::AsRecorded).chain(args.policy);
        outcomes.extend(policies.map(|policy| whatif::simulate(&happened, policy, &instances)));
    }
    let text = match args.output {
        Output::Table => words(&replayed) + &comparison(&outcomes),
        Output::Json => json_of(&replayed, &outcomes)?,
    };
    out::print(text.as_bytes())?;
    Ok(if replayed.difference.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn words(replayed: &Replayed) -> String {
    let Replayed {
        summary,
        torn,
        difference,
    } = replayed;
    let mut text = String::new();
    if let (Some(from), Some(to)) = (summary.from, summary.to) {
        text += &format!(
            "{} to {}, {}\n",
            at(from),
            at(to),
            count(summary.takes, "start of Knarr", "starts of Knarr")
        );
    }
    for file in torn {
        text += &format!("{} is torn at its end: its Knarr was killed\n", file.display());
    }
    if summary.missing > 0 {
        text += &format!(
            "{} events were never written: the disk did not keep up\n",
            summary.missing
        );
    }
    let all = format!(
        "{}, {}",
        count(summary.events, "event", "events"),
        count(summary.decisions, "decision", "decisions")
    );
    match difference {
        None => text + &format!("{all}, all equal\n"),
        Some(difference) => text + &format!("{all}, then one that is not equal:\n{difference}\n"),
    }
}

/// What happened beside what would have.
fn comparison(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .map(|it| {
            let counts = [it.requests, it.starts, it.refused, it.idle_arrivals, it.violations];
            let mut row = vec![it.policy.clone()];
            row.extend(counts.map(|count| count.to_string()));
            row.extend(
                [it.cost, it.idle_cost]
                    .map(|money| money.map_or_else(|| "-".to_owned(), |money| format!("{money:.4}"))),
            );
            row
        })
        .collect();
    let heads = [
        "POLICY",
        "REQUESTS",
        "STARTS",
        "503S",
        "IDLE ARRIVALS",
        "LATE",
        "COST",
        "OF IT IDLE",
    ];
    format!(
        "\n{}\nAll but the first are simulated: the same requests to the second, starts as long as the recording's, every revision \
         there from the beginning. LATE: idle arrivals that waited for longer than their revision's limit.\n",
        table(&heads, &rows)
    )
}

fn json_of(replayed: &Replayed, outcomes: &[Outcome]) -> anyhow::Result<String> {
    let Replayed {
        summary,
        torn,
        difference,
    } = replayed;
    let value = json!({
        "equal": difference.is_none(),
        "starts": summary.takes,
        "events": summary.events,
        "decisions": summary.decisions,
        "orders": summary.orders,
        "missing": summary.missing,
        "from": summary.from.map(|it| at(it).to_string()),
        "to": summary.to.map(|it| at(it).to_string()),
        "torn": torn,
        "policies": outcomes,
        "difference": difference.as_ref().map(|it| json!({
            "event": it.event,
            "at": at(it.at).to_string(),
            "what": it.what,
            "recorded": it.recorded,
            "replayed": it.replayed,
        })),
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn at(at: Timestamp) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(at.as_nanos()))
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
