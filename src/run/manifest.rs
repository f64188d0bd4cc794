//! The manifest that the flags of `knarr run` describe.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use manifests::knative::IMAGE_SCHEMES;

use super::volumes::{self, Volume};
use crate::args::Run;

/// A service name from an image's: the last part of its path, in the letters that names may have.
pub(super) fn name_from(image: &str) -> anyhow::Result<String> {
    let stem = stem(image).to_ascii_lowercase();
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

/// The last part of a path, without tag, digest and the ending of an archive.
fn stem(image: &str) -> &str {
    let scheme = |text: &&str| IMAGE_SCHEMES.contains(&format!("{text}:").as_str());
    let is_host = image.starts_with("host:");
    let place = match image.split_once(':') {
        Some((before, after)) if scheme(&before) => after,
        _ => image,
    };
    let last = place.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if is_host {
        return last;
    }
    let untagged = last.split(['@', ':']).next().unwrap_or_default();
    untagged.strip_suffix(".tar").unwrap_or(untagged)
}

/// The manifest that the flags describe. Values are written as JSON strings, which are YAML and need no care.
pub(super) fn of(args: &Run, name: &str) -> anyhow::Result<String> {
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

    let volumes = args
        .volume
        .iter()
        .map(|text| text.parse())
        .collect::<Result<Vec<Volume>, _>>()?;
    let mut yaml = volumes::features(&volumes);
    write!(
        yaml,
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  template:\n",
        quoted(name)?,
        quoted(&args.namespace)?
    )?;
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
    if let Some(command) = &args.command {
        writeln!(yaml, "          command: [{}]", quoted(command)?)?;
    }
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
    volumes::write(&volumes, &mut yaml)?;
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
            Command::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_come_from_images() {
        let digest = format!("ghcr.io/ann/api@sha256:{}", "0".repeat(64));
        for (image, name) in [
            ("host:/usr/bin/python3", "python3"),
            ("host:My_App.sh", "my-app-sh"),
            ("nginx", "nginx"),
            ("localhost:5000/shop/cart:v1.2", "cart"),
            (&digest, "api"),
            ("oci:/srv/images/hello:latest", "hello"),
            ("docker-archive:/tmp/web.tar", "web"),
            ("dir:/srv/root/", "root"),
        ] {
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
        let text = of(&args, "app").unwrap();
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
            of(&parsed(&["host:a", "--env", "A"]), "a")
                .unwrap_err()
                .to_string()
                .contains("NAME=VALUE")
        );
    }
}
