//! `knarr check`: every mistake of some manifests at once.

use std::process::ExitCode;

use control::config::{Config, RawConfig};
use control::source::{self, Missing};
use manifests::bundle;

use crate::args::Check;
use crate::out;

/// Prints every problem; exit code 1 when there is one.
pub(crate) fn check(args: &Check) -> anyhow::Result<ExitCode> {
    let inputs = source::read(&args.paths, Missing::Refused)?;
    let runtimes = match &args.config {
        Some(file) => Some(Config::from_raw(RawConfig::read(file)?)?.runtimes.into_keys().collect()),
        None => None,
    };
    let checked = bundle::bundle_for(runtimes.as_ref(), &inputs, None);
    let mut text: String = checked.problems.iter().map(|problem| format!("{problem}\n")).collect();
    if !args.quiet {
        text.extend(checked.warnings.iter().map(|warning| format!("warning: {warning}\n")));
    }
    out::print(text.as_bytes())?;
    let files = inputs.len();
    if checked.problems.is_empty() {
        eprintln!(
            "{files} {} right: {}",
            if files == 1 { "file is" } else { "files are" },
            count(checked.bundle.objects.len(), "object")
        );
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!(
            "{} in {files} {}",
            count(checked.problems.len(), "problem"),
            if files == 1 { "file" } else { "files" }
        );
        Ok(ExitCode::FAILURE)
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}
