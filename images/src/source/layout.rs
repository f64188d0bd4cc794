//! `oci:` and `oci-archive:`: an OCI image layout, as a directory or in a tar file.

use std::sync::Arc;

use serde::Deserialize;

use super::files::Files;
use super::{Answer, Blob, Raw, Source};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT};
use crate::tasks::blocking;

/// An image in a layout.
pub(crate) struct Layout {
    files: Arc<Files>,
    top: Top,
}

/// What the reference stands for.
enum Top {
    /// An entry of `index.json`.
    Entry(Descriptor),
    /// All of `index.json`: one image for several platforms.
    Whole(Vec<u8>),
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

impl Layout {
    /// Finds the image in the layout's `index.json`.
    pub(crate) fn open(files: Files, tag: Option<&str>) -> Result<Self, ImageError> {
        let place = files.path().display().to_string();
        if !files.contains("oci-layout") {
            let what = "it is not an OCI image layout: the file oci-layout is missing";
            return Err(match files.path().exists() {
                true => ImageError::invalid(&place, what),
                false => ImageError::NotFound(format!("{place} does not exist")),
            });
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let version: Version = serde_json::from_slice(&files.read("oci-layout", 4096)?)
            .map_err(|error| ImageError::invalid(&place, format!("oci-layout: {error}")))?;
        if !version.image_layout_version.starts_with("1.") {
            let version = version.image_layout_version;
            return Err(ImageError::invalid(
                &place,
                format!("oci-layout: version {version} is not known, 1.0.0 is"),
            ));
        }
        let bytes = files.read("index.json", MANIFEST_LIMIT)?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::invalid(&place, format!("index.json: {error}")))?;
        let entry = pick(&index, tag).map_err(|reason| ImageError::NotFound(format!("{place}: {reason}")))?;
        let top = entry.map_or(Top::Whole(bytes), Top::Entry);
        Ok(Self {
            files: Arc::new(files),
            top,
        })
    }
}

/// The entry of that tag; without a tag the only one, or `None` when all entries together are one image.
fn pick(index: &Index, tag: Option<&str>) -> Result<Option<Descriptor>, String> {
    let names = |entry: &Descriptor| {
        let short = entry.annotation(REF_NAME).map(ToOwned::to_owned);
        let long = entry.annotation(CONTAINERD_NAME).map(ToOwned::to_owned);
        [short, long].into_iter().flatten().collect::<Vec<_>>()
    };
    let mut all: Vec<String> = index.manifests.iter().flat_map(names).collect();
    all.sort();
    all.dedup();
    let choice = match all.is_empty() {
        true => "no image in it has a name".to_owned(),
        false => format!("there are {}", all.join(", ")),
    };
    match (tag, index.manifests.as_slice()) {
        (Some(tag), entries) => {
            let named = entries.iter().find(|entry| names(entry).iter().any(|name| name == tag));
            named
                .cloned()
                .map(Some)
                .ok_or_else(|| format!("no image is named {tag}: {choice}"))
        }
        (None, []) => Err("the layout is empty".to_owned()),
        (None, [only]) => Ok(Some(only.clone())),
        (None, several) if all.len() <= 1 && several.iter().all(|entry| entry.platform.is_some()) => Ok(None),
        (None, several) => Err(format!(
            "it has {} images: say which one by its tag; {choice}",
            several.len()
        )),
    }
}

fn blob_name(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}

impl Source for Layout {
    fn document<'a>(&'a self, wanted: Option<&'a Descriptor>) -> Answer<'a, Raw> {
        let entry = match (wanted, &self.top) {
            (Some(entry), _) | (None, Top::Entry(entry)) => entry.clone(),
            (None, Top::Whole(bytes)) => {
                let raw = Raw {
                    bytes: bytes.clone(),
                    media_type: None,
                };
                return Box::pin(async { Ok(raw) });
            }
        };
        let files = self.files.clone();
        Box::pin(blocking(move || {
            let bytes = files.read(&blob_name(&entry), MANIFEST_LIMIT)?;
            if Digest::of(&bytes) != entry.digest {
                let name = blob_name(&entry);
                return Err(ImageError::invalid(
                    files.path().display(),
                    format!("{name} does not have the digest in its name"),
                ));
            }
            let media_type = Some(entry.media_type).filter(|name| !name.is_empty());
            Ok(Raw { bytes, media_type })
        }))
    }

    fn peek(&self) -> Answer<'_, Option<Digest>> {
        let digest = match &self.top {
            Top::Entry(entry) => entry.digest,
            Top::Whole(bytes) => Digest::of(bytes),
        };
        Box::pin(async move { Ok(Some(digest)) })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> Answer<'a, Blob> {
        let name = blob_name(descriptor);
        let files = self.files.clone();
        Box::pin(blocking(move || Ok(Blob::File(files.open(&name)?.0))))
    }
}
