//! `knarr top`: what sandboxes use, once or live.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use control::top::{SandboxUse, Top as Look};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{SortBy, Top};
use crate::ask::{answer, directory};
use crate::out;
use crate::table::table;
use crate::terminal;

/// Prints one table, or goes on until Ctrl-C.
pub(crate) async fn top(args: Top) -> anyhow::Result<()> {
    let directory = directory(args.data)?;
    let look = || answer::<Look>(&directory, "/v1/top");
    let mut before = look().await?;
    let live = !args.once && !args.json && std::io::stdout().is_terminal();
    let mut screen = None;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // The first table of a live one need not wait for the whole interval.
    let mut pause = if live { args.interval.min(FIRST) } else { args.interval };
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        pause = args.interval;
        let now = look().await?;
        let mut rows = rates(&before, &now);
        rows.retain(|row| {
            args.namespace
                .as_ref()
                .is_none_or(|wanted| *wanted == row.known.namespace)
        });
        sort(&mut rows, args.sort);
        if args.json {
            return out::print((serde_json::to_string_pretty(&rows)? + "\n").as_bytes());
        }
        if !live {
            return out::print(as_table(&rows).as_bytes());
        }
        screen.get_or_insert_with(Screen::open).draw(&now, &rows);
        before = now;
    }
}

/// One sandbox, with what two looks make of its totals.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(flatten)]
    known: SandboxUse,
    /// Percent of one core.
    cpu_percent: f64,
    /// Answered by its revision, all its sandboxes together.
    revision_requests_per_second: f64,
}

fn rates(before: &Look, now: &Look) -> Vec<Row> {
    let seconds = Duration::from_micros(now.at_us.saturating_sub(before.at_us)).as_secs_f64();
    let old: HashMap<(&str, &str), &SandboxUse> = before
        .sandboxes
        .iter()
        .map(|it| ((it.namespace.as_str(), it.sandbox.as_str()), it))
        .collect();
    let per_second = |now: u64, before: u64| {
        let more = Duration::from_micros(now.saturating_sub(before)).as_secs_f64() * 1e6;
        if seconds > 0.0 { more / seconds } else { 0.0 }
    };
    let row = |it: &SandboxUse| {
        // One that was not there has used all of it since.
        let first = SandboxUse {
            revision_requests: it.revision_requests,
            ..SandboxUse::default()
        };
        let old = old
            .get(&(it.namespace.as_str(), it.sandbox.as_str()))
            .copied()
            .unwrap_or(&first);
        Row {
            known: it.clone(),
            cpu_percent: per_second(it.cpu_us, old.cpu_us) / 1e4,
            revision_requests_per_second: per_second(it.revision_requests, old.revision_requests),
        }
    };
    now.sandboxes.iter().map(row).collect()
}

fn sort(rows: &mut [Row], by: SortBy) {
    // Two equal ones keep the order of their names.
    rows.sort_by(|a, b| (&a.known.namespace, &a.known.sandbox).cmp(&(&b.known.namespace, &b.known.sandbox)));
    match by {
        SortBy::Cpu => rows.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent)),
        SortBy::Memory => rows.sort_by_key(|row| Reverse(row.known.memory)),
        SortBy::Requests => rows.sort_by(|a, b| {
            let rate = |row: &Row| row.revision_requests_per_second;
            b.known
                .in_flight
                .cmp(&a.known.in_flight)
                .then(rate(b).total_cmp(&rate(a)))
        }),
        SortBy::Age => rows.sort_by_key(|row| Reverse(row.known.age_ms)),
        SortBy::Name => {}
    }
}

fn as_table(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let heads = [
        "NAMESPACE",
        "SERVICE",
        "REVISION",
        "SANDBOX",
        "CPU",
        "CPU LIMIT",
        "MEMORY",
        "LIMIT",
        "PROCS",
        "IN FLIGHT",
        "REQ/S",
        "RUNG",
        "EVICTED",
        "AGE",
    ];
    table(&heads, &cells)
}

fn cells(row: &Row) -> Vec<String> {
    let it = &row.known;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        it.namespace.clone(),
        it.service.clone(),
        it.revision.clone(),
        it.sandbox.clone(),
        format!("{:.1}%", row.cpu_percent),
        or_none(it.cpu_limit_millis.map(|limit| format!("{limit}m"))),
        bytes(it.memory),
        or_none(it.memory_limit.map(bytes)),
        or_none(it.pids.map(|pids| pids.to_string())),
        it.in_flight.to_string(),
        format!("{:.1}", row.revision_requests_per_second),
        it.rung.clone(),
        or_none(it.evicted.map(|place| place.to_string())),
        age(it.age_ms),
    ]
}

/// As `12.3Mi`: binary, three digits or a little more.
fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    for (unit, bits) in UNITS {
        let whole = bytes >> bits;
        if whole >= 100 {
            return format!("{whole}{unit}");
        }
        if whole > 0 {
            let tenths = ((bytes & ((1 << bits) - 1)) * 10) >> bits;
            return format!("{whole}.{tenths}{unit}");
        }
    }
    bytes.to_string()
}

/// As kubectl prints ages: `42s`, `7m`, `3h`, `12d`.
fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A screen of its own, given back at the end.
struct Screen;

impl Screen {
    fn open() -> Self {
        // The other screen, and no cursor.
        let _ = out::print(b"\x1b[?1049h\x1b[?25l");
        Self
    }

    fn draw(&self, look: &Look, rows: &[Row]) {
        let size = terminal::size().unwrap_or_default();
        let (height, width) = (usize::from(size.rows), usize::from(size.columns));
        let all: f64 = rows.iter().map(|row| row.cpu_percent).sum();
        let mut lines = vec![format!(
            "{} sandboxes   CPU {:.1}% of {}%   memory {} of {}   Ctrl-C ends",
            rows.len(),
            all,
            u64::from(look.cores) * 100,
            bytes(look.memory_used),
            bytes(look.memory_budget)
        )];
        lines.extend(as_table(rows).lines().map(str::to_owned));
        if lines.len() > height {
            let left_out = lines.len() - height.saturating_sub(1);
            lines.truncate(height.saturating_sub(1));
            lines.push(format!("... and {left_out} more"));
        }
        let mut text = "\x1b[H".to_owned();
        for (number, line) in lines.iter().enumerate() {
            let line: String = line.chars().take(width).collect();
            // The head of the table stands out.
            let (on, off) = if number == 1 { ("\x1b[7m", "\x1b[0m") } else { ("", "") };
            let end = if number + 1 == lines.len() { "" } else { "\r\n" };
            let _ = write!(text, "{on}{line}{off}\x1b[K{end}");
        }
        text += "\x1b[J";
        let _ = out::print(text.as_bytes());
        let _ = std::io::Write::flush(&mut std::io::stdout());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = out::print(b"\x1b[?25h\x1b[?1049l");
        let _ = std::io::Write::flush(&mut std::io::stdout());
    }
}

const FIRST: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, cpu_us: u64, memory: u64, requests: u64) -> SandboxUse {
        SandboxUse {
            sandbox: name.to_owned(),
            cpu_us,
            memory,
            revision_requests: requests,
            ..SandboxUse::default()
        }
    }

    #[test]
    fn two_looks_make_rates_and_an_order() {
        let look = |at_us, sandboxes| Look {
            at_us,
            sandboxes,
            ..Look::default()
        };
        let before = look(1_000_000, vec![one("a", 100, 1, 10), one("gone", 0, 0, 0)]);
        let now = look(3_000_000, vec![one("a", 1_000_100, 1, 50), one("b", 3_000_000, 2, 7)]);
        let mut rows = rates(&before, &now);
        let of = |row: &Row| {
            (
                row.known.sandbox.clone(),
                row.cpu_percent,
                row.revision_requests_per_second,
            )
        };
        assert_eq!(of(&rows[0]), ("a".to_owned(), 50.0, 20.0));
        assert_eq!(of(&rows[1]), ("b".to_owned(), 150.0, 0.0));
        for (by, first) in [
            (SortBy::Cpu, "b"),
            (SortBy::Memory, "b"),
            (SortBy::Requests, "a"),
            (SortBy::Name, "a"),
        ] {
            sort(&mut rows, by);
            assert_eq!(rows[0].known.sandbox, first, "{by:?}");
        }
        // Looked at twice at once: nothing to divide by.
        assert_eq!(rates(&now, &now)[0].cpu_percent, 0.0);
    }

    #[test]
    fn sizes_and_ages_are_short() {
        for (n, wanted) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0Ki"),
            (150 << 20, "150Mi"),
            (1_610_612_736, "1.5Gi"),
        ] {
            assert_eq!(bytes(n), wanted);
        }
        for (ms, wanted) in [
            (999, "0s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
            (200_000_000, "2d"),
        ] {
            assert_eq!(age(ms), wanted);
        }
    }
}
