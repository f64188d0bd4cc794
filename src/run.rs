//! `knarr run`: a manifest from flags, written down and served.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use manifests::bundle::{self, Input};

use crate::args::Run;
use crate::out;
use crate::serve::{self, OnFailure};

/// Writes the manifest, prints it, and serves it.
pub(crate) fn run(args: Run) -> anyhow::Result<ExitCode> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_from(&args.image)?,
    };
    let manifest = manifest(&args, &name)?;
    if args.dry_run {
        out::print(manifest.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = serve::config(args.server)?;
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

/// A service name from a program's: its file name, in the letters that names may have.
fn name_from(image: &str) -> anyhow::Result<String> {
    let program = image.strip_prefix("host:").unwrap_or(image);
    let stem = Path::new(program)
        .file_name()
        .map(|name| name.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    match name.chars().next() {
        Some(first) if first.is_ascii_alphabetic() && name.len() <= 63 => Ok(name.to_owned()),
        _ => bail!("cannot make a service name of \"{image}\"; give one with --name"),
    }
}

/// The manifest that the flags describe. Values are written as JSON strings, which are YAML and need no care.
fn manifest(args: &Run, name: &str) -> anyhow::Result<String> {
    let quoted = |text: &str| serde_json::to_string(text).context("not text");
    let mut annotations = Vec::new();
    let scale = [("min-scale", args.min_scale), ("max-scale", args.max_scale)];
    for (key, value) in scale.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        annotations.push(format!("autoscaling.knative.dev/{key}: \"{value}\""));
    }
    if let Some(sla) = &args.cold_start_sla {
        annotations.push("knarr.dev/idle: auto".to_owned());
        annotations.push(format!("knarr.dev/cold-start-sla: {}", quoted(sla)?));
    }

    let mut yaml = format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  template:\n",
        quoted(name)?,
        quoted(&args.namespace)?
    );
    if !annotations.is_empty() {
        yaml += "    metadata:\n      annotations:\n";
        for annotation in &annotations {
            writeln!(yaml, "        {annotation}")?;
        }
    }
    yaml += "    spec:\n";
    if let Some(concurrency) = args.concurrency {
        writeln!(yaml, "      containerConcurrency: {concurrency}")?;
    }
    writeln!(yaml, "      containers:\n        - image: {}", quoted(&args.image)?)?;
    if !args.args.is_empty() {
        let list = args.args.iter().map(|arg| quoted(arg)).collect::<Result<Vec<_>, _>>()?;
        writeln!(yaml, "          args: [{}]", list.join(", "))?;
    }
    writeln!(yaml, "          ports:\n            - containerPort: {}", args.port)?;
    if !args.env.is_empty() {
        yaml += "          env:\n";
        for pair in &args.env {
            let Some((key, value)) = pair.split_once('=') else {
                bail!("--env \"{pair}\" has no value; write NAME=VALUE");
            };
            writeln!(
                yaml,
                "            - name: {}\n              value: {}",
                quoted(key)?,
                quoted(value)?
            )?;
        }
    }
    let limits = [("cpu", &args.cpu), ("memory", &args.memory)];
    let limits = limits
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        .collect::<Vec<_>>();
    if !limits.is_empty() {
        yaml += "          resources:\n            limits:\n";
        for (key, value) in limits {
            writeln!(yaml, "              {key}: {}", quoted(value)?)?;
        }
    }
    Ok(yaml)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(words: &[&str]) -> Run {
        let words = ["knarr", "run"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_come_from_programs() {
        for (image, name) in [("host:/usr/bin/python3", "python3"), ("host:My_App.sh", "my-app-sh")] {
            assert_eq!(name_from(image).unwrap(), name);
        }
        assert!(name_from("host:/opt/7z").unwrap_err().to_string().contains("--name"));
    }

    #[test]
    fn every_flag_reaches_the_manifest_whatever_it_holds() {
        let args = parsed(&[
            "host:/bin/app",
            "--port",
            "9000",
            "--env",
            "A=\"x: y\" # z",
            "--min-scale",
            "1",
            "--concurrency",
            "2",
            "--cold-start-sla",
            "p99<500ms",
            "--cpu",
            "500m",
            "--",
            "-v",
            "it's",
        ]);
        let text = manifest(&args, "app").unwrap();
        for wanted in [
            "min-scale: \"1\"",
            "knarr.dev/idle: auto",
            "cold-start-sla: \"p99<500ms\"",
            "containerConcurrency: 2",
            "args: [\"-v\", \"it's\"]",
            "containerPort: 9000",
            r#"value: "\"x: y\" # z""#,
            "cpu: \"500m\"",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(
            manifest(&parsed(&["host:a", "--env", "A"]), "a")
                .unwrap_err()
                .to_string()
                .contains("NAME=VALUE")
        );
    }
}
