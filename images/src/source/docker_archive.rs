//! `docker-archive:`: what `docker save` writes, and what the Docker daemon sends.

use std::collections::HashMap;
use std::sync::Arc;

use manifests::reference::Reference;
use serde::Deserialize;

use super::files::Files;
use super::{Answer, Blob, Raw, Source};
use crate::config::ConfigFile;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{CONFIG_LIMIT, Descriptor, MANIFEST_LIMIT, Manifest, OCI_MANIFEST};
use crate::tasks::blocking;

/// An image in the archive, with a manifest made from what is there.
///
/// The archive has none of its own. This one names each layer by the digest of its uncompressed bytes, so that it depends
/// on the image alone, and not on who wrote the archive.
pub(crate) struct DockerArchive {
    files: Arc<Files>,
    manifest: Vec<u8>,
    config: (Digest, String),
    layers: HashMap<Digest, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Finds the image by one of its `RepoTags`; without `tag` the only one.
    pub(crate) fn open(files: Files, tag: Option<&str>) -> Result<Self, ImageError> {
        let place = files.path().display().to_string();
        if !files.contains("manifest.json") {
            return Err(ImageError::invalid(
                &place,
                "it is not what `docker save` writes: manifest.json is missing",
            ));
        }
        let saved: Vec<Saved> = serde_json::from_slice(&files.read("manifest.json", MANIFEST_LIMIT)?)
            .map_err(|error| ImageError::invalid(&place, format!("manifest.json: {error}")))?;
        let saved = pick(saved, tag).map_err(|reason| ImageError::NotFound(format!("{place}: {reason}")))?;

        let config = files.read(&saved.config, CONFIG_LIMIT)?;
        let parsed = ConfigFile::parse(&config).map_err(|reason| ImageError::invalid(&place, reason))?;
        if parsed.diff_ids.len() != saved.layers.len() {
            let (layers, digests) = (saved.layers.len(), parsed.diff_ids.len());
            let reason = format!("manifest.json has {layers} layers, {} has {digests}", saved.config);
            return Err(ImageError::invalid(&place, reason));
        }
        let config_digest = Digest::of(&config);
        let mut layers = HashMap::new();
        let mut descriptors = Vec::new();
        for (diff_id, name) in parsed.diff_ids.iter().zip(saved.layers) {
            let (_, size) = files.open(&name)?;
            descriptors.push(Descriptor::new(
                "application/vnd.oci.image.layer.v1.tar",
                *diff_id,
                size,
            ));
            layers.insert(*diff_id, name);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: Descriptor::new(
                "application/vnd.oci.image.config.v1+json",
                config_digest,
                config.len() as u64,
            ),
            layers: descriptors,
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| ImageError::invalid(&place, error))?;
        Ok(Self {
            files: Arc::new(files),
            manifest,
            config: (config_digest, saved.config),
            layers,
        })
    }
}

fn pick(mut saved: Vec<Saved>, tag: Option<&str>) -> Result<Saved, String> {
    let tags: Vec<&str> = saved
        .iter()
        .flat_map(|image| image.repo_tags.iter().flatten())
        .map(String::as_str)
        .collect();
    let choice = match tags.is_empty() {
        true => "no image in it has a name".to_owned(),
        false => format!("there are {}", tags.join(", ")),
    };
    let count = saved.len();
    let place = match tag {
        Some(tag) => {
            // As Docker reads names: `app` is `docker.io/library/app:latest`.
            let normal = |name: &str| name.parse::<Reference>().ok();
            let wanted = normal(tag);
            let is_it = |name: &String| name == tag || (wanted.is_some() && normal(name) == wanted);
            saved
                .iter()
                .position(|image| image.repo_tags.iter().flatten().any(is_it))
        }
        None => (count == 1).then_some(0),
    };
    match (place, tag) {
        (Some(place), _) => Ok(saved.swap_remove(place)),
        (None, Some(tag)) => Err(format!("no image is named {tag}: {choice}")),
        (None, None) => Err(format!("it has {count} images: say which one by its name; {choice}")),
    }
}

impl Source for DockerArchive {
    fn document<'a>(&'a self, _wanted: Option<&'a Descriptor>) -> Answer<'a, Raw> {
        let bytes = self.manifest.clone();
        Box::pin(async move {
            Ok(Raw {
                bytes,
                media_type: None,
            })
        })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> Answer<'a, Blob> {
        let name = match self.layers.get(&descriptor.digest) {
            Some(name) => name.clone(),
            None => self.config.1.clone(),
        };
        let files = self.files.clone();
        debug_assert!(descriptor.digest == self.config.0 || self.layers.contains_key(&descriptor.digest));
        Box::pin(blocking(move || Ok(Blob::File(files.open(&name)?.0))))
    }

    fn has_blob_digests(&self) -> bool {
        false
    }
}
