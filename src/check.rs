//! `knarr check`: every mistake of some manifests at once.

use std::process::ExitCode;

use control::source::{self, Missing};
use manifests::bundle;

use crate::args::Check;

/// Prints every problem; exit code 1 when there is one.
pub(crate) fn check(args: &Check) -> anyhow::Result<ExitCode> {
    let inputs = source::read(&args.paths, Missing::Refused)?;
    let checked = bundle::bundle(&inputs, None);
    for problem in &checked.problems {
        println!("{problem}");
    }
    if !args.quiet {
        for warning in &checked.warnings {
            println!("warning: {warning}");
        }
    }
    let files = inputs.len();
    if checked.problems.is_empty() {
        eprintln!(
            "{files} {} right: {} objects",
            if files == 1 { "file is" } else { "files are" },
            checked.bundle.objects.len()
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
