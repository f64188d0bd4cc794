//! What the audience sees: headings, lines, and one line that moves while something happens.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A terminal, or a plain pipe that gets only the lines that stay.
pub(crate) struct Screen {
    live: bool,
    spinner: Option<ProgressBar>,
}

impl Screen {
    pub(crate) fn new(plain: bool) -> Self {
        Self {
            live: !plain && std::io::stdout().is_terminal(),
            spinner: None,
        }
    }

    /// Whether the moving line is seen.
    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// A new scene.
    pub(crate) fn heading(&mut self, title: &str, what: &str) {
        self.settle();
        if self.live {
            println!("\n\x1b[1m{title}\x1b[0m  {what}")
        } else {
            println!("\n{title}  {what}")
        }
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        self.settle();
        println!("  {}", text.as_ref());
    }

    /// The line that moves; nothing on a pipe.
    pub(crate) fn moving(&mut self, text: impl Into<String>) {
        if !self.live {
            return;
        }
        let spinner = self.spinner.get_or_insert_with(|| {
            let style =
                ProgressStyle::with_template("  {spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = ProgressBar::new_spinner().with_style(style);
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        spinner.set_message(text.into());
    }

    fn settle(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

/// A bar of `value` out of `most`, for counts side by side.
pub(crate) fn bar(value: u32, most: u32) -> String {
    let filled = usize::try_from(value.min(most)).unwrap_or_default();
    let empty = usize::try_from(most).unwrap_or_default() - filled;
    "█".repeat(filled) + &"·".repeat(empty)
}
