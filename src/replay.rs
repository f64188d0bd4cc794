//! `knarr replay`: decides again what a recording says was decided, and shows what another policy would have done.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use control::replay::{Nobody, Replayed, replay};
use manifests::units::Timestamp;
use serde_json::json;

use crate::args::{Output, Replay};
use crate::ask::directory;
use crate::out;

/// Replays and says how it went; exit code 1 when anything differs.
pub(crate) fn run(args: Replay) -> anyhow::Result<ExitCode> {
    let path = match args.path {
        Some(path) => path,
        None => directory(args.data)?,
    };
    let replayed = replay(&path, &mut Nobody).context("cannot replay")?;
    let text = match args.output {
        Output::Table => words(&replayed),
        Output::Json => json_of(&replayed)?,
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

fn json_of(replayed: &Replayed) -> anyhow::Result<String> {
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
