//! An image's configuration: what its author wants to be run, and which layers make its file system.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// What the image says about the process that is to run in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ImageConfig {
    /// Program and first arguments; may be empty.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program when there is no entry point.
    pub cmd: Vec<String>,
    /// `NAME=VALUE`, in the image's order.
    pub env: Vec<String>,
    /// Absolute; empty means `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty means root.
    pub user: String,
    /// A name (`SIGTERM`) or a number.
    pub stop_signal: Option<String>,
    /// `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// Directories that the author wants to be volumes.
    pub volumes: Vec<String>,
    /// Free text.
    pub labels: BTreeMap<String, String>,
}

/// The whole configuration blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConfigFile {
    /// Whom it is built for; empty words where it does not say.
    pub(crate) platform: Platform,
    /// Of the uncompressed layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// What to run.
    pub(crate) image: ImageConfig,
}

impl ConfigFile {
    /// Reads JSON.
    ///
    /// # Errors
    /// What is wrong with it, in words for the user.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| format!("configuration: {error}"))?;
        if !raw.rootfs.kind.is_empty() && raw.rootfs.kind != "layers" {
            return Err(format!(
                "configuration: rootfs.type is {:?}, want \"layers\"",
                raw.rootfs.kind
            ));
        }
        let keys = |map: serde_json::Map<String, serde_json::Value>| map.into_iter().map(|(key, _)| key).collect();
        Ok(Self {
            platform: Platform {
                os: raw.os,
                architecture: raw.architecture,
                variant: raw.variant.filter(|variant| !variant.is_empty()),
            },
            diff_ids: raw.rootfs.diff_ids,
            image: ImageConfig {
                entrypoint: raw.config.entrypoint,
                cmd: raw.config.cmd,
                env: raw.config.env,
                working_dir: raw.config.working_dir,
                user: raw.config.user,
                stop_signal: raw.config.stop_signal.filter(|signal| !signal.is_empty()),
                exposed_ports: keys(raw.config.exposed_ports),
                volumes: keys(raw.config.volumes),
                labels: raw.config.labels,
            },
        })
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: RawConfig,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct RawConfig {
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    user: String,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: serde_json::Map<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    volumes: serde_json::Map<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

/// Docker, written in Go, writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
