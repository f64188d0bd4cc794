//! `image`, `imagePullPolicy` and `imagePullSecrets`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::downward::Pod;
use super::sources::{Keys, Kind};
use super::{Fault, Faults};
use crate::knative::image::names_no_registry;
use crate::reference::Reference;
use crate::resources::{Base64, Container};
use crate::workload::{Image, PullPolicy, RegistryAuth};

/// Reads what may stand in `image:`. A relative path is refused: where a manifest was read from is no part of it.
///
/// # Errors
/// What would be right.
pub fn parse_image(text: &str) -> Result<Image, String> {
    let local = names_no_registry(text) || text == "host:";
    match text.split_once(':') {
        Some(("host", program)) if local => host(program),
        Some(("oci", rest)) if local => at_path(rest, "oci").map(|(path, tag)| Image::Oci { path, tag }),
        Some(("oci-archive", rest)) if local => {
            at_path(rest, "oci-archive").map(|(path, tag)| Image::OciArchive { path, tag })
        }
        Some(("docker-archive", rest)) if local => {
            at_path(rest, "docker-archive").map(|(path, tag)| Image::DockerArchive { path, tag })
        }
        Some(("docker-daemon", name)) if local => daemon(name),
        Some(("dir", rest)) if local => absolute(rest, "dir").map(Image::Dir),
        _ => text
            .parse()
            .map(Image::Registry)
            .map_err(|_| "write an image as docker run takes it, or host:/path/to/program".to_owned()),
    }
}

/// Reads `image`.
pub(super) fn image(text: &str, path: &str, faults: &mut Faults) -> Option<Image> {
    match parse_image(text) {
        Ok(image) => Some(image),
        Err(hint) => {
            faults.push(Fault::new(path, format!("invalid value: {text}"), hint));
            None
        }
    }
}

/// `host:/path` or `host:NAME`; a name stays relative and is looked for when the sandbox starts.
fn host(program: &str) -> Result<Image, String> {
    let is_path = program.starts_with('/') && !program.ends_with('/');
    let is_name = !program.contains('/') && !matches!(program, "" | "." | "..");
    if (is_path || is_name) && !program.contains('\0') {
        Ok(Image::Host(PathBuf::from(program)))
    } else {
        Err("write host:/path/to/program, or host:NAME for a program on the PATH".to_owned())
    }
}

/// `PATH[:TAG]`, split at the first colon, as skopeo does.
fn at_path(rest: &str, scheme: &str) -> Result<(PathBuf, Option<String>), String> {
    match rest.split_once(':') {
        Some((_, "")) => Err(format!(
            "write the image's name after {scheme}:PATH:, or leave the colon out"
        )),
        Some((path, tag)) => Ok((absolute(path, scheme)?, Some(tag.to_owned()))),
        None => Ok((absolute(rest, scheme)?, None)),
    }
}

fn absolute(path: &str, scheme: &str) -> Result<PathBuf, String> {
    if !Path::new(path).is_absolute() || path.contains('\0') {
        return Err(format!("write an absolute path: {scheme}:/path/to/image"));
    }
    Ok(PathBuf::from(path))
}

/// A name as `docker images` shows it, or an image's id.
fn daemon(name: &str) -> Result<Image, String> {
    let is_id = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let known = name.strip_prefix("sha256:").is_some_and(is_id) || name.parse::<Reference>().is_ok();
    if known {
        Ok(Image::DockerDaemon(name.to_owned()))
    } else {
        Err("write docker-daemon:NAME:TAG as docker images shows it, or docker-daemon:sha256:ID".to_owned())
    }
}

/// Kubernetes' default: what has no version in its name, or `latest`, is looked for again.
pub(super) fn pull_policy(container: &Container, image: &Image, path: &str, faults: &mut Faults) -> PullPolicy {
    let moves = |tag: &Option<String>| tag.as_deref().is_none_or(|tag| tag == "latest");
    match container.image_pull_policy.as_str() {
        "Always" => PullPolicy::Always,
        "Never" => PullPolicy::Never,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        "" => {
            let again = match image {
                Image::Host(_) | Image::Pinned { .. } => false,
                Image::Registry(reference) => reference.digest.is_none() && moves(&reference.tag),
                Image::Oci { tag, .. } | Image::OciArchive { tag, .. } => moves(tag),
                Image::DockerArchive { tag: None, .. } | Image::Dir(_) => true,
                Image::DockerArchive { tag: Some(name), .. } | Image::DockerDaemon(name) => {
                    let reference = name.parse::<Reference>();
                    reference.is_ok_and(|it| it.digest.is_none() && moves(&it.tag))
                }
            };
            if again {
                PullPolicy::Always
            } else {
                PullPolicy::IfNotPresent
            }
        }
        other => {
            let message = format!("invalid value: {other}");
            let hint = "write Always, IfNotPresent or Never";
            faults.push(Fault::new(format!("{path}.imagePullPolicy"), message, hint));
            PullPolicy::default()
        }
    }
}

/// The logins of `imagePullSecrets`, in their order.
pub(super) fn registry_auth(pod: &Pod<'_>, faults: &mut Faults) -> Vec<RegistryAuth> {
    let mut auth = Vec::new();
    for (nth, secret) in pod.spec.image_pull_secrets.iter().enumerate() {
        let found = match pod.sources.find(Kind::Secret, pod.namespace(), &secret.name) {
            Ok(keys) => {
                logins(keys).map_err(|message| (message, "write it as kubectl create secret docker-registry does"))
            }
            Err(message) => Err((message, "add it")),
        };
        match found {
            Ok(logins) => auth.extend(logins),
            Err((message, hint)) => {
                faults.push(Fault::new(format!("spec.imagePullSecrets[{nth}]"), message, hint));
            }
        }
    }
    auth
}

/// What a Secret of one of the two types says (Kubernetes: credentialprovider).
fn logins(keys: &Keys) -> Result<Vec<RegistryAuth>, String> {
    let (key, nested) = match keys.kind.as_str() {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", true),
        "kubernetes.io/dockercfg" => (".dockercfg", false),
        other => {
            return Err(format!(
                "is a Secret of type {other:?}, not kubernetes.io/dockerconfigjson"
            ));
        }
    };
    let text = keys.data.get(key).ok_or_else(|| format!("has no key {key:?}"))?;
    let config: Value = serde_json::from_slice(text).map_err(|_| format!("{key} is not JSON"))?;
    let entries = if nested { config.get("auths") } else { Some(&config) };
    let entries = entries
        .and_then(Value::as_object)
        .ok_or_else(|| format!("{key} has no registries in it"))?;
    entries.iter().map(|(registry, entry)| login(registry, entry)).collect()
}

fn login(registry: &str, entry: &Value) -> Result<RegistryAuth, String> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let both = match text("auth") {
        Some(auth) => {
            let decoded = Base64(auth.to_owned())
                .decode()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let split = decoded.as_deref().and_then(|it| it.split_once(':'));
            split.map(|(user, password)| (user.to_owned(), password.trim_end_matches('\0').to_owned()))
        }
        None => text("username")
            .zip(text("password"))
            .map(|(user, password)| (user.to_owned(), password.to_owned())),
    };
    let (username, password) = both.ok_or_else(|| format!("has no user and password for {registry}"))?;
    Ok(RegistryAuth {
        registry: registry.to_owned(),
        username,
        password,
    })
}

#[cfg(test)]
mod tests;
