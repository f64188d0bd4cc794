//! Manifests and indexes: OCI's and Docker's (schema 2), which differ in their media types only.
//!
//! Own types instead of the crate `oci-spec`: the six fields that are read here would cost some twenty crates.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// Largest manifest or index that is read; what registries allow too.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;

/// Largest image configuration that is read.
pub(crate) const CONFIG_LIMIT: u64 = 4 << 20;

/// Most layers of one image. Overlayfs takes 500 lower directories; Docker stops at 127.
pub(crate) const LAYER_LIMIT: usize = 500;

/// Media types of what [`Document::parse`] understands, for a registry's `Accept`.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Points at content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// What it is; may be missing in very old manifests.
    #[serde(default)]
    pub(crate) media_type: String,
    /// Its name.
    pub(crate) digest: Digest,
    /// Length in bytes.
    pub(crate) size: u64,
    /// In an index: whom it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    /// Free text; a layout keeps its tags here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Descriptor {
    /// Without platform and annotations.
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: None,
        }
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name)?.as_str()
    }

    fn is_index(&self) -> bool {
        self.media_type == OCI_INDEX || self.media_type == DOCKER_LIST
    }

    fn is_manifest(&self) -> bool {
        self.media_type == OCI_MANIFEST || self.media_type == DOCKER_MANIFEST || self.media_type.is_empty()
    }
}

/// One image for one platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// Always 2.
    pub(crate) schema_version: u32,
    /// May be left out by OCI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    /// Of the configuration.
    pub(crate) config: Descriptor,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// Images of one name for several platforms.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    /// One per platform, and attestations that no platform runs.
    pub(crate) manifests: Vec<Descriptor>,
}

/// What stands behind a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several to choose from.
    Index(Index),
}

impl Document {
    /// Reads JSON. `media_type` is what the source said, when it said something.
    ///
    /// # Errors
    /// What is wrong with it, in words for the user.
    pub(crate) fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            schema_version: Option<u32>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let kind: Kind = serde_json::from_slice(bytes).map_err(|error| format!("manifest: {error}"))?;
        // Content that is an index by one parser and a manifest by another is how CVE-2021-41190 fooled tools.
        if kind.manifests.is_some() && kind.layers.is_some() {
            return Err("it has both `manifests` and `layers`".to_owned());
        }
        if kind.schema_version == Some(1) {
            return Err("it has Docker's old manifest format, schema 1: push it again with a current tool".to_owned());
        }
        let named = kind.media_type.as_deref().or(media_type).unwrap_or_default();
        let is_index = kind.manifests.is_some();
        if (is_index && (named == OCI_MANIFEST || named == DOCKER_MANIFEST))
            || (!is_index && (named == OCI_INDEX || named == DOCKER_LIST))
        {
            return Err(format!("its content is not what its media type {named} says"));
        }
        let wrong = |error: serde_json::Error| format!("manifest: {error}");
        if is_index {
            return Ok(Self::Index(serde_json::from_slice(bytes).map_err(wrong)?));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(wrong)?;
        if manifest.layers.len() > LAYER_LIMIT {
            return Err(format!(
                "it has {} layers; at most {LAYER_LIMIT} work",
                manifest.layers.len()
            ));
        }
        Ok(Self::Manifest(Box::new(manifest)))
    }
}

impl Index {
    /// The image to run on `platform`: the first that fits exactly, or else by the rules of [`Platform::runs`].
    ///
    /// # Errors
    /// Which platforms there are instead, in words for the user.
    pub(crate) fn choose(&self, platform: &Platform) -> Result<&Descriptor, String> {
        let images = || {
            self.manifests
                .iter()
                .filter(|entry| entry.is_index() || entry.is_manifest())
        };
        let exact = images().find(|entry| entry.platform.as_ref() == Some(platform));
        let fitting = || images().find(|entry| entry.platform.as_ref().is_some_and(|theirs| platform.runs(theirs)));
        // Tools that build for one platform often do not name it.
        let unnamed = || {
            let mut unnamed = images().filter(|entry| entry.platform.is_none());
            unnamed.next().filter(|_| unnamed.next().is_none())
        };
        exact.or_else(fitting).or_else(unnamed).ok_or_else(|| {
            let mut there: Vec<String> = images()
                .filter_map(|entry| entry.platform.as_ref())
                .filter(|theirs| theirs.os != "unknown")
                .map(ToString::to_string)
                .collect();
            there.sort();
            there.dedup();
            match there.is_empty() {
                true => format!("it has no image for {platform}"),
                false => format!("it has no image for {platform}, only for {}", there.join(", ")),
            }
        })
    }
}
