//! `--volume`: what a sandbox of `knarr run` sees beside its image.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use anyhow::{Context as _, bail};

/// One `--volume`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Volume {
    source: Source,
    path: String,
    read_only: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    /// `/path`: empty, and gone with the sandbox.
    Empty,
    /// `/of/host:/path`.
    Host(String),
    /// `name:/path`: kept under the data directory.
    Claim(String),
}

impl FromStr for Volume {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (rest, read_only) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (source, path) = match rest.split_once(':') {
            None => (Source::Empty, rest),
            Some((host, path)) if host.starts_with('/') => (Source::Host(host.to_owned()), path),
            Some((name, path)) => (Source::Claim(name.to_owned()), path),
        };
        if !path.starts_with('/') || path.contains(':') || matches!(&source, Source::Claim(name) if name.is_empty()) {
            bail!(
                "--volume \"{text}\": write /path for an empty one, NAME:/path for one that is kept, or \
                 /of/host:/path, each with :ro at the end to forbid writing"
            );
        }
        Ok(Self {
            source,
            path: path.to_owned(),
            read_only,
        })
    }
}

/// The ConfigMap that allows these volumes, where Knative's defaults do not.
pub(super) fn features(volumes: &[Volume]) -> String {
    let needed = volumes.iter().flat_map(|volume| match volume.source {
        Source::Empty => &[][..],
        Source::Host(_) => &["kubernetes.podspec-volumes-hostpath"],
        Source::Claim(_) => &[
            "kubernetes.podspec-persistent-volume-claim",
            "kubernetes.podspec-persistent-volume-write",
        ],
    });
    let needed: BTreeSet<&str> = needed.copied().collect();
    if needed.is_empty() {
        return String::new();
    }
    let mut yaml =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-features\n  namespace: knative-serving\ndata:\n"
            .to_owned();
    for flag in needed {
        yaml += &format!("  {flag}: enabled\n");
    }
    yaml + "---\n"
}

/// The mounts of the container, then the volumes of the pod: the last parts of a manifest.
pub(super) fn write(volumes: &[Volume], yaml: &mut String) -> anyhow::Result<()> {
    if volumes.is_empty() {
        return Ok(());
    }
    let quoted = |text: &str| serde_json::to_string(text).context("not text");
    *yaml += "          volumeMounts:\n";
    for (nth, volume) in volumes.iter().enumerate() {
        let path = quoted(&volume.path)?;
        writeln!(
            yaml,
            "            - name: volume-{nth}\n              mountPath: {path}"
        )?;
        if volume.read_only {
            *yaml += "              readOnly: true\n";
        }
    }
    *yaml += "      volumes:\n";
    for (nth, volume) in volumes.iter().enumerate() {
        let source = match &volume.source {
            Source::Empty => "emptyDir: {}".to_owned(),
            Source::Host(path) => format!("hostPath:\n            path: {}", quoted(path)?),
            Source::Claim(name) => format!("persistentVolumeClaim:\n            claimName: {}", quoted(name)?),
        };
        writeln!(yaml, "        - name: volume-{nth}\n          {source}")?;
    }
    Ok(())
}

/// As it is written on the command line.
impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Empty => {}
            Source::Host(from) | Source::Claim(from) => write!(f, "{from}:")?,
        }
        write!(f, "{}{}", self.path, if self.read_only { ":ro" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_they_are_written() {
        for text in ["/cache", "/srv/www:/www:ro", "data:/var/lib/db", "data:/d:ro"] {
            assert_eq!(text.parse::<Volume>().unwrap().to_string(), text);
        }
        for text in ["", "cache", "a:b", ":/x", "/a:/b:/c", "data:", "/a:rw:ro"] {
            let error = text.parse::<Volume>().unwrap_err().to_string();
            assert!(error.contains(&format!("--volume \"{text}\": write")), "{error}");
        }
    }

    #[test]
    fn what_knative_forbids_by_default_is_allowed_beside() {
        let volumes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Volume>>();
        assert_eq!(features(&volumes(&["/a"])), "");
        let both = features(&volumes(&["/a:/b", "c:/d", "e:/f"]));
        assert_eq!(both.matches("enabled").count(), 3, "{both}");
        let mut yaml = String::new();
        write(&volumes(&["/srv:/www:ro", "c:/d"]), &mut yaml).unwrap();
        assert_eq!(yaml.matches("name: volume-0").count(), 2, "{yaml}");
        assert_eq!(yaml.matches("readOnly: true").count(), 1, "{yaml}");
    }
}
