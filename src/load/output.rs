//! Where results go: standard output as a table or JSON, and files by the end of their names.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use loadtest::Results;

use crate::out;

/// What every command that has results takes.
#[derive(Debug, Args)]
pub(crate) struct Outputs {
    /// Print the results as JSON instead of the table
    #[arg(long)]
    json: bool,
    /// Write the results to FILE: .html (one page with pictures), .json, .hgrm (HdrHistogram's percentiles, to plot), or
    /// .csv (a line for each request of a run; they are kept in memory until its end); may be repeated
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,
}

#[derive(Clone, Copy)]
enum Format {
    Html,
    Json,
    Hgrm,
    Csv,
}

impl Outputs {
    /// Whether everything can be written, as far as that can be known: to be asked before a long run.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for path in &self.output {
            format(path)?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(directory) = directory
                && !directory.is_dir()
            {
                bail!(
                    "cannot write {}: {} is no directory",
                    path.display(),
                    directory.display()
                );
            }
        }
        Ok(())
    }

    /// Writes the files, then prints.
    pub(crate) fn write(&self, results: &Results) -> anyhow::Result<()> {
        self.write_files(results)?;
        let text = if self.json {
            results.to_json()?
        } else {
            results.report().to_string()
        };
        out::print(text.as_bytes())
    }

    /// Whether every single request is wanted.
    pub(crate) fn wants_each(&self) -> bool {
        self.output.iter().any(|path| matches!(format(path), Ok(Format::Csv)))
    }

    /// Whether JSON is wanted on standard output.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Writes the files only.
    pub(crate) fn write_files(&self, results: &Results) -> anyhow::Result<()> {
        for path in &self.output {
            let text = match format(path)? {
                Format::Html => results.html(&results.asked).into(),
                Format::Json => results.to_json()?.into(),
                Format::Hgrm => results.latency(|_| true).hgrm().into(),
                Format::Csv if results.requests.is_empty() => bail!(
                    "cannot write {}: these results have no single requests; give the run itself -o FILE.csv",
                    path.display()
                ),
                Format::Csv => results.to_csv()?,
            };
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn format(path: &Path) -> anyhow::Result<Format> {
    match path.extension().and_then(|end| end.to_str()) {
        Some("html") => Ok(Format::Html),
        Some("json") => Ok(Format::Json),
        Some("hgrm") => Ok(Format::Hgrm),
        Some("csv") => Ok(Format::Csv),
        _ => bail!(
            "cannot tell from the name {} what to write: it must end in .html, .json, .hgrm or .csv",
            path.display()
        ),
    }
}

/// Results that an earlier run wrote; `-` is standard input.
pub(crate) fn read(path: &Path) -> anyhow::Result<Results> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    Results::from_json(&text).with_context(|| format!("cannot read {}", path.display()))
}
