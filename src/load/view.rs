//! A run of load as it goes, on a terminal: redrawn in place, gone at the end.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use loadtest::{Latencies, Progress, Scenario};

use crate::terminal;

/// The view of one run; nothing when standard error is no terminal.
pub(crate) struct View {
    words: Words,
    live: bool,
    /// Lines that were drawn last.
    drawn: usize,
    last: Duration,
}

/// What is said, apart from where.
struct Words {
    title: String,
    /// One after the other, each with what runs beside it.
    stages: Vec<(String, Duration)>,
    /// Which of the scenario's run beside the one before.
    beside: Vec<bool>,
    /// Whether nothing comes at a rate.
    closed_loop: bool,
    /// The last second.
    recent: VecDeque<Progress>,
}

/// From one drawing to the next.
const PAUSE: Duration = Duration::from_millis(200);
/// What "now" means for rates and percentiles.
const WINDOW: Duration = Duration::from_secs(1);

impl View {
    pub(crate) fn new(scenario: &Scenario, quiet: bool) -> Self {
        let mut stages: Vec<(String, Duration)> = Vec::new();
        for stage in &scenario.stages {
            match stages.last_mut() {
                Some((words, _)) if stage.beside => *words += &format!(", {stage}"),
                _ => stages.push((stage.to_string(), stage.longest())),
            }
        }
        Self {
            words: Words {
                title: scenario.name.clone(),
                stages,
                beside: scenario.stages.iter().map(|stage| stage.beside).collect(),
                closed_loop: scenario.is_closed_loop(),
                recent: VecDeque::new(),
            },
            live: !quiet && std::io::stderr().is_terminal(),
            drawn: 0,
            last: Duration::ZERO,
        }
    }

    /// How the run stands now.
    pub(crate) fn show(&mut self, progress: &Progress) {
        if !self.live {
            return;
        }
        self.words.take(progress.clone());
        if progress.elapsed < self.last + PAUSE {
            return;
        }
        self.last = progress.elapsed;
        let width = terminal::size().map_or(80, |size| usize::from(size.columns));
        let lines = self.words.lines();
        let mut text = self.back();
        for line in &lines {
            text += &line.chars().take(width.saturating_sub(1)).collect::<String>();
            text += "\x1b[K\n";
        }
        self.drawn = lines.len();
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// To the first line that was drawn.
    fn back(&self) -> String {
        if self.drawn == 0 {
            String::new()
        } else {
            format!("\x1b[{}A\r", self.drawn)
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.drawn > 0 {
            let _ = std::io::stderr().lock().write_all((self.back() + "\x1b[J").as_bytes());
        }
    }
}

impl Words {
    fn take(&mut self, progress: Progress) {
        while let Some(first) = self.recent.front()
            && first.elapsed + WINDOW < progress.elapsed
        {
            self.recent.pop_front();
        }
        self.recent.push_back(progress);
    }

    fn lines(&self) -> Vec<String> {
        let (Some(first), Some(now)) = (self.recent.front(), self.recent.back()) else {
            return Vec::new();
        };
        let whole: Duration = self.stages.iter().map(|(_, length)| *length).sum();
        let nth = self.beside.iter().take(now.stage).filter(|beside| !**beside).count();
        let stage = match self.stages.get(nth) {
            Some((words, _)) if self.stages.len() > 1 => {
                format!("stage {} of {}: {words}", nth + 1, self.stages.len())
            }
            Some((words, _)) => words.clone(),
            None => "waiting for the last answers".to_owned(),
        };
        let seconds = now.elapsed.saturating_sub(first.elapsed).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
        let per_second = |before: u64, after: u64| {
            if seconds > 0.0 {
                after.saturating_sub(before) as f64 / seconds
            } else {
                0.0
            }
        };
        let answers = |progress: &Progress| progress.statuses.values().sum::<u64>();
        let achieved = per_second(answers(first), answers(now));
        let rate = if self.closed_loop {
            format!("closed loop (no rate is asked for), {achieved:.1}/s achieved")
        } else {
            format!(
                "{:.1}/s asked, {achieved:.1}/s achieved",
                per_second(first.due, now.due)
            )
        };
        let mut recent = Latencies::new();
        // The first one's are of before the window.
        self.recent.iter().skip(1).for_each(|it| recent.merge(&it.recent));
        let statuses: Vec<String> = now
            .statuses
            .iter()
            .map(|(code, count)| format!("{code}: {count}"))
            .collect();
        let mut lines = vec![
            self.title.clone(),
            stage,
            format!(
                "{:<10} {} of {}  {}  {} left",
                "time",
                clock(now.elapsed),
                clock(whole),
                bar(now.elapsed, whole),
                clock(whole.saturating_sub(now.elapsed))
            ),
            format!("{:<10} {rate}", "rate"),
            format!(
                "{:<10} {} in flight, {} in line, {} never sent",
                "requests", now.in_flight, now.waiting, now.never_sent
            ),
            format!("{:<10} {}", "latency", percentiles(&recent)),
            format!("{:<10} {}   failed: {}", "answers", statuses.join("   "), now.failed),
        ];
        if let Some(knarr) = &now.knarr {
            lines.push(format!(
                "{:<10} {} replicas, {} starting, rung {}, {} in the queue",
                "knarr", knarr.replicas, knarr.starting, knarr.rung, knarr.queue
            ));
        }
        lines.push("Ctrl-C ends, with the results so far".to_owned());
        lines
    }
}

fn percentiles(latencies: &Latencies) -> String {
    if latencies.count() == 0 {
        return "no answers in the last second".to_owned();
    }
    let millis = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    let of = |share| millis(latencies.quantile(share));
    format!(
        "p50 {}   p90 {}   p99 {}   max {}",
        of(0.5),
        of(0.9),
        of(0.99),
        millis(latencies.max())
    )
}

/// How far it is.
fn bar(elapsed: Duration, whole: Duration) -> String {
    const CELLS: u32 = 24;
    let filled = (0..CELLS).filter(|nth| whole * (nth + 1) <= elapsed * CELLS).count();
    "█".repeat(filled) + &"·".repeat(24 - filled)
}

fn clock(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        seconds => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use loadtest::KnarrState;

    use super::*;

    fn words(closed_loop: bool) -> Words {
        Words {
            title: "http://app/".to_owned(),
            stages: vec![("constant 100/s for 90s".to_owned(), Duration::from_secs(90))],
            beside: vec![false],
            closed_loop,
            recent: VecDeque::new(),
        }
    }

    fn progress(millis: u64, due: u64, answered: u64) -> Progress {
        let mut recent = Latencies::new();
        recent.record(Duration::from_millis(millis / 100));
        Progress {
            elapsed: Duration::from_millis(millis),
            due,
            statuses: BTreeMap::from([(200, answered)]),
            recent,
            in_flight: 3,
            failed: 1,
            knarr: Some(KnarrState {
                replicas: 2,
                rung: "full".to_owned(),
                ..KnarrState::default()
            }),
            ..Progress::default()
        }
    }

    #[test]
    fn says_what_the_last_second_was_like() {
        let mut words = words(false);
        for (millis, due, answered) in [(100, 10, 9), (1_000, 100, 90), (1_500, 150, 130), (2_000, 200, 170)] {
            words.take(progress(millis, due, answered));
        }
        assert_eq!(
            words.lines(),
            [
                "http://app/",
                "constant 100/s for 90s",
                "time       2.0s of 1m30s  ························  1m28s left",
                "rate       100.0/s asked, 80.0/s achieved",
                "requests   3 in flight, 0 in line, 0 never sent",
                "latency    p50 15.01 ms   p90 20.00 ms   p99 20.00 ms   max 20.00 ms",
                "answers    200: 170   failed: 1",
                "knarr      2 replicas, 0 starting, rung full, 0 in the queue",
                "Ctrl-C ends, with the results so far",
            ]
        );
    }

    #[test]
    fn a_closed_loop_is_called_one() {
        let mut words = words(true);
        words.take(progress(100, 10, 9));
        assert!(
            words.lines()[3].starts_with("rate       closed loop"),
            "{:?}",
            words.lines()
        );
    }
}
