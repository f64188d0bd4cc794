//! `knarr run`: a manifest from flags, written down and served.

mod manifest;
mod volumes;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use control::config::Config;
use manifests::bundle::{self, Input};

use crate::args::Run;
use crate::out;
use crate::serve::{self, OnFailure};

/// Writes the manifest, prints it, and serves it.
pub(crate) fn run(args: Run) -> anyhow::Result<ExitCode> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => manifest::name_from(&args.image)?,
    };
    let manifest = manifest::of(&args, &name)?;
    if args.dry_run {
        out::print(manifest.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    // Who builds an image and runs it again means what was built.
    let config = Config {
        images_as_now: true,
        ..serve::config(args.server)?
    };
    let input = Input {
        name: "manifest".to_owned(),
        text: manifest.clone(),
    };
    let checked = bundle::bundle(&[input], None);
    if !checked.problems.is_empty() {
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        bail!(
            "the flags make this manifest, which cannot be served:\n{manifest}{}",
            problems.join("\n")
        );
    }
    let directory = config.data_dir.join("run");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let file = directory.join(format!("{}.{name}.yaml", args.namespace));
    std::fs::write(&file, &manifest).with_context(|| format!("cannot write {}", file.display()))?;
    println!("# {}\n{manifest}", file.display());
    serve::run(config, vec![file], OnFailure::End)
}
