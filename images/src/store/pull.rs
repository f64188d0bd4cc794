//! From a name to a root: what is there is used, what is missing is fetched, in the order in which it can be verified.

use std::io::Read as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _};
use manifests::units::Bytes;
use manifests::workload::{Image, PullPolicy, RegistryAuth};
use rustix::fs::FlockOperation;

use super::flight;
use super::layer::Wanted;
use super::record::Record;
use super::{Inner, Root, collect};
use crate::config::ConfigFile;
use crate::digest::Digest;
use crate::docker::Daemon;
use crate::error::ImageError;
use crate::manifest::{CONFIG_LIMIT, Descriptor, Document, Manifest};
use crate::progress::Progress;
use crate::source::archive::{self, Local};
use crate::source::daemon::DockerDaemon;
use crate::source::registry::Remote;
use crate::source::{Blob, Source};
use crate::tasks::blocking;

/// How deep indexes may lie in each other.
const INDEX_DEPTH: usize = 3;

/// See [`super::Store::resolve`].
pub(super) async fn resolve(inner: &Arc<Inner>, image: &Image, auth: &[RegistryAuth]) -> Result<Digest, ImageError> {
    match open(inner, image, auth).await? {
        Local::Plain(path) => Ok(Root::plain(path).digest),
        Local::Source(source) => {
            let name = image.to_string();
            let top = source.peek().await?;
            if let Some(record) =
                top.and_then(|top| Record::read(&inner.disk, &name).filter(|record| record.top == top))
            {
                return Ok(record.manifest);
            }
            Ok(find_manifest(inner, source.as_ref(), &name).await?.digest)
        }
    }
}

/// See [`super::Store::ensure`].
pub(super) async fn ensure(
    inner: &Arc<Inner>,
    image: &Image,
    policy: PullPolicy,
    auth: &[RegistryAuth],
    progress: &dyn Progress,
) -> Result<Arc<Root>, ImageError> {
    let name = image.to_string();
    // What is on this machine may have changed, and looking is cheap; a registry is asked when the policy says so.
    // What is pinned cannot change.
    let remote = matches!(image, Image::Registry(_));
    let pinned = matches!(image, Image::Pinned { .. });
    if pinned || policy == PullPolicy::Never || (policy == PullPolicy::IfNotPresent && remote) {
        let there = inner
            .roots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(image)
            .cloned();
        if let Some(root) = there {
            root.used.store(super::now(), Ordering::Relaxed);
            return Ok(root);
        }
        if let Some(root) = recorded(inner, image, Known::Nothing).await? {
            return Ok(root);
        }
        if policy == PullPolicy::Never && !matches!(image, Image::Dir(_)) {
            return Err(ImageError::NotFound(format!(
                "{name} is not in the store, and imagePullPolicy is Never"
            )));
        }
    }
    let source = match open(inner, image, auth).await {
        Ok(Local::Plain(path)) => return Ok(inner.set_ready(image, Root::plain(path))),
        Ok(Local::Source(source)) => source,
        Err(ImageError::NotFound(reason)) if policy == PullPolicy::IfNotPresent => {
            return recorded(inner, image, Known::Nothing)
                .await?
                .ok_or(ImageError::NotFound(reason));
        }
        Err(error) => return Err(error),
    };
    if let Image::Pinned { image: at, digest } = image {
        let now = find_manifest(inner, source.as_ref(), &name).await?.digest.to_string();
        if now != *digest {
            return Err(ImageError::NotFound(format!(
                "{at} is another image by now ({now}), and what the revision was made with ({digest}) is not in the store \
                 any more; make a new revision"
            )));
        }
        return fetch(inner, image, Arc::from(source), progress).await;
    }
    if let Some(top) = source.peek().await?
        && let Some(root) = recorded(inner, image, Known::Top(top)).await?
    {
        return Ok(root);
    }
    match source.config().await {
        Ok(None) => {}
        Ok(Some(config)) => {
            if let Some(root) = recorded(inner, image, Known::Config(config)).await? {
                return Ok(root);
            }
        }
        // The daemon is not running now; what it gave before will do.
        Err(error) if policy == PullPolicy::IfNotPresent => {
            return recorded(inner, image, Known::Nothing).await?.ok_or(error);
        }
        Err(error) => return Err(error),
    }
    fetch(inner, image, Arc::from(source), progress).await
}

/// See [`super::Store::pin`].
pub(super) async fn pin(inner: &Arc<Inner>, image: &Image, root: &Arc<Root>) -> Result<Option<Image>, ImageError> {
    let pinned = image.pinned(root.digest.to_string());
    let (name, inner, root) = (image.to_string(), Arc::clone(inner), Arc::clone(root));
    let image = image.clone();
    blocking(move || {
        let lock = inner.disk.lock(FlockOperation::LockShared)?;
        let Some(record) = Record::read(&inner.disk, &name).filter(|it| it.manifest == root.digest) else {
            return Ok(None);
        };
        let name = pinned.to_string();
        Record { name, ..record }.write(&inner.disk)?;
        drop(lock);
        let mut roots = inner.roots.write().unwrap_or_else(PoisonError::into_inner);
        // Under one name only: who has it beside the store is what tells whether it is used.
        if roots.get(&image).is_some_and(|there| Arc::ptr_eq(there, &root)) {
            roots.remove(&image);
        }
        roots.insert(pinned.clone(), root);
        Ok(Some(pinned))
    })
    .await
}

/// Opens the image where its reference says that it is.
async fn open(inner: &Arc<Inner>, image: &Image, auth: &[RegistryAuth]) -> Result<Local, ImageError> {
    if let Some(local) = archive::open(image).await? {
        return Ok(local);
    }
    // A registry's or a daemon's source is made here.
    let image = match image {
        Image::Pinned { image, .. } => image,
        other => other,
    };
    let source: Box<dyn Source> = match image {
        Image::Registry(reference) => Box::new(Remote(inner.registry.repository(reference, auth)?)),
        Image::DockerDaemon(name) => Box::new(DockerDaemon::new(
            Daemon::from_env()?,
            name,
            &inner.disk.root.join("trash"),
        )),
        _ => {
            return Err(ImageError::NotFound(format!(
                "{image}: not an image that can be fetched"
            )));
        }
    };
    Ok(Local::Source(source))
}

/// What is known of the image that a name shall stand for.
#[derive(Clone, Copy)]
enum Known {
    Nothing,
    /// Digest of its index or manifest.
    Top(Digest),
    /// Digest of its configuration.
    Config(Digest),
}

/// The root from what is on disk: `None` when something is missing, or when the name stands for something else than what is
/// wanted.
async fn recorded(inner: &Arc<Inner>, image: &Image, wanted: Known) -> Result<Option<Arc<Root>>, ImageError> {
    let (name, inner, image) = (image.to_string(), inner.clone(), image.clone());
    blocking(move || {
        let Some(record) = Record::read(&inner.disk, &name) else {
            return Ok(None);
        };
        let right = match wanted {
            Known::Nothing => true,
            Known::Top(top) => record.top == top,
            Known::Config(config) => record.config == config,
        };
        if !right {
            return Ok(None);
        }
        let Some(config) = inner
            .disk
            .read_blob(&record.config)
            .and_then(|bytes| ConfigFile::parse(&bytes).ok())
        else {
            return Ok(None);
        };
        let mut layers = Vec::new();
        for diff_id in &record.diff_ids {
            match inner.find_layer(diff_id)? {
                Some(layer) => layers.push(layer),
                None => return Ok(None),
            }
        }
        Record::touch(&inner.disk, &name, super::now());
        Ok(Some(
            inner.set_ready(&image, Root::new(record.manifest, config.image, layers)),
        ))
    })
    .await
}

/// The manifest for this platform, with what the name itself stood for.
struct Found {
    top: Digest,
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Box<Manifest>,
    /// It was chosen by its platform, or the user chose it by digest.
    by_platform: bool,
}

async fn find_manifest(inner: &Inner, source: &dyn Source, name: &str) -> Result<Found, ImageError> {
    let mut raw = source.document(None).await?;
    let top = Digest::of(&raw.bytes);
    let mut digest = top;
    let mut by_platform = false;
    for _ in 0..INDEX_DEPTH {
        let document = Document::parse(&raw.bytes, raw.media_type.as_deref());
        let index = match document.map_err(|reason| ImageError::invalid(name, reason))? {
            Document::Manifest(manifest) => {
                return Ok(Found {
                    top,
                    digest,
                    bytes: raw.bytes,
                    manifest,
                    by_platform,
                });
            }
            Document::Index(index) => index,
        };
        let entry = index.choose(&inner.config.platform);
        let entry = entry.map_err(|reason| ImageError::NotFound(format!("{name}: {reason}")))?;
        by_platform |= entry.platform.is_some();
        raw = source.document(Some(entry)).await?;
        digest = Digest::of(&raw.bytes);
        if digest != entry.digest || raw.bytes.len() as u64 != entry.size {
            let reason = format!("manifest {} is not what its digest and size say", entry.digest);
            return Err(ImageError::invalid(name, reason));
        }
    }
    Err(ImageError::invalid(
        name,
        format!("more than {INDEX_DEPTH} indexes lie in each other"),
    ))
}

/// Fetches what is missing and records the image.
async fn fetch(
    inner: &Arc<Inner>,
    image: &Image,
    source: Arc<dyn Source>,
    progress: &dyn Progress,
) -> Result<Arc<Root>, ImageError> {
    let name = image.to_string();
    let found = find_manifest(inner, source.as_ref(), &name).await?;
    let config_bytes = small_blob(inner, source.as_ref(), &found.manifest.config, &name).await?;
    let config = ConfigFile::parse(&config_bytes).map_err(|reason| ImageError::invalid(&name, reason))?;
    check(inner, &found, &config, &name)?;

    let sizes: Vec<(Digest, Bytes)> = found
        .manifest
        .layers
        .iter()
        .map(|layer| (layer.digest, Bytes(layer.size)))
        .collect();
    progress.layers(&sizes);
    let compressed = sizes.iter().map(|(_, size)| size.0).fold(0, u64::saturating_add);
    let mut room = collect::Room::for_image(inner, compressed, &config.diff_ids).await?;
    let wanted: Vec<Wanted> = found
        .manifest
        .layers
        .iter()
        .zip(&config.diff_ids)
        .map(|(descriptor, diff_id)| Wanted {
            source: source.clone(),
            descriptor: descriptor.clone(),
            diff_id: *diff_id,
            image: name.clone(),
            budget: room.budget.clone(),
        })
        .collect();

    let layers = loop {
        let all = wanted
            .clone()
            .into_iter()
            .map(|wanted| flight::get(inner, wanted, progress));
        // More at once would only wait for their turns.
        let all = futures_util::stream::iter(all)
            .buffered(inner.config.unpackers.max(1) * 2)
            .try_collect::<Vec<_>>();
        match all.await {
            Ok(layers) => break layers,
            // The disk itself, maybe.
            Err(full @ ImageError::Full { .. }) => match room.more(inner).await? {
                true => {}
                false => return Err(full),
            },
            Err(error) => return Err(error),
        }
    };

    let record = Record {
        name: name.clone(),
        top: found.top,
        manifest: found.digest,
        config: found.manifest.config.digest,
        diff_ids: config.diff_ids.clone(),
    };
    let (store, image) = (inner.clone(), image.clone());
    let root = blocking(move || {
        let inner = store;
        let lock = inner.disk.lock(FlockOperation::LockShared)?;
        inner.disk.write_blob(&record.manifest, &found.bytes)?;
        inner.disk.write_blob(&record.config, &config_bytes)?;
        record.write(&inner.disk)?;
        drop(lock);
        Ok(inner.set_ready(&image, Root::new(record.manifest, config.image, layers)))
    })
    .await?;
    room.settle(inner, root, name).await
}

/// What a manifest and its configuration must agree on.
fn check(inner: &Inner, found: &Found, config: &ConfigFile, name: &str) -> Result<(), ImageError> {
    let (layers, digests) = (found.manifest.layers.len(), config.diff_ids.len());
    if layers != digests {
        let reason = format!("its manifest has {layers} layers, its configuration {digests}");
        return Err(ImageError::invalid(name, reason));
    }
    let ours = &inner.config.platform;
    let unknown = config.platform.os.is_empty() || config.platform.architecture.is_empty();
    if !found.by_platform && !unknown && !ours.runs(&config.platform) {
        return Err(ImageError::NotFound(format!(
            "{name} is for {}, this machine is {ours}",
            config.platform
        )));
    }
    Ok(())
}

/// A configuration: from the store, or from the source.
async fn small_blob(
    inner: &Arc<Inner>,
    source: &dyn Source,
    descriptor: &Descriptor,
    name: &str,
) -> Result<Vec<u8>, ImageError> {
    if descriptor.size > CONFIG_LIMIT {
        let reason = format!(
            "its configuration has {} bytes, at most {CONFIG_LIMIT} are read",
            descriptor.size
        );
        return Err(ImageError::invalid(name, reason));
    }
    let digest = descriptor.digest;
    let store = inner.clone();
    if let Some(bytes) = blocking(move || Ok(store.disk.read_blob(&digest))).await? {
        return Ok(bytes);
    }
    let limit = descriptor.size + 1;
    let bytes = match source.blob(descriptor).await? {
        Blob::File(reader) => {
            blocking(move || {
                let mut bytes = Vec::new();
                let read = reader.take(limit).read_to_end(&mut bytes);
                read.map_err(|error| ImageError::io("cannot read the image's configuration", error))?;
                Ok(bytes)
            })
            .await?
        }
        Blob::Stream(mut stream) => {
            let mut bytes = Vec::new();
            while let Some(chunk) = stream.next().await {
                bytes.extend_from_slice(&chunk?);
                if bytes.len() as u64 > limit {
                    break;
                }
            }
            bytes
        }
    };
    if bytes.len() as u64 != descriptor.size || Digest::of(&bytes) != digest {
        return Err(ImageError::invalid(
            name,
            format!("its configuration is not what {digest} and its size say"),
        ));
    }
    Ok(bytes)
}
