//! `knarr images`: the image store of a data directory, whether a Knarr runs on it or not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use control::config::{self, RawConfig};
use control::status::Status;
use control::{client, pulls::pins};
use images::{Digest, ImageInfo, Progress, Stage, Store, StoreConfig};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use manifests::convert::parse_image;
use manifests::units::Bytes;
use manifests::workload::{Image, PullPolicy};

use crate::args::{Images, ImagesCommand, ImagesPlace, Output};
use crate::out;
use crate::table::table;

/// Does what was asked for; exit code 1 when any of it failed.
pub(crate) fn images(args: Images) -> anyhow::Result<ExitCode> {
    let (data_dir, store) = open(args.place)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args.command.unwrap_or(ImagesCommand::List { output: Output::Table }) {
            ImagesCommand::List { output } => list(&store, &users(&data_dir).await, output),
            ImagesCommand::Pull { images } => pull(&store, &images).await,
            ImagesCommand::Rm { images, force } => {
                let users = if force { BTreeMap::new() } else { users(&data_dir).await };
                remove(&store, &images, &users)
            }
            ImagesCommand::Prune { all } => prune(&store, all.then_some(&users(&data_dir).await)),
        }
    })
}

fn open(place: ImagesPlace) -> anyhow::Result<(PathBuf, Store)> {
    let file = place
        .config
        .as_deref()
        .map(RawConfig::read)
        .transpose()?
        .unwrap_or_default();
    let insecure = if place.insecure_registry.is_empty() {
        file.insecure_registries
    } else {
        place.insecure_registry
    };
    let settings = StoreConfig {
        registry: config::registry(insecure, file.registry_certs)?,
        ..StoreConfig::default()
    };
    let data_dir = place
        .data_dir
        .or(file.data_dir)
        .map_or_else(config::default_data_dir, Ok)?;
    // The directory above is the server's to make, with its own mode; a store alone is as private.
    std::fs::create_dir_all(&data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
    let store = Store::open(&data_dir.join("images"), settings)?;
    Ok((data_dir, store))
}

/// Who uses which image: revisions of the Knarr that runs, else what the last one pinned.
async fn users(data_dir: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut json = Vec::new();
    let asked = client::get(data_dir, "/v1/status", |piece| {
        json.extend_from_slice(piece);
        Ok(())
    });
    if asked.await.is_ok()
        && let Ok(status) = serde_json::from_slice::<Status>(&json)
    {
        for revision in status.revisions {
            for image in revision.images {
                users
                    .entry(image)
                    .or_default()
                    .insert(format!("{}/{}", revision.namespace, revision.name));
            }
        }
        return users;
    }
    for saved in pins::read(&data_dir.join("pins.json")).unwrap_or_default() {
        for (image, digest) in saved.images {
            let by = format!(
                "{}/{} (stopped)",
                saved.template.namespace, saved.template.configuration
            );
            users.entry(format!("{image}@{digest}")).or_default().insert(by);
        }
    }
    users
}

fn list(store: &Store, users: &BTreeMap<String, BTreeSet<String>>, output: Output) -> anyhow::Result<ExitCode> {
    let used_by = |name: &str| -> Vec<String> { users.get(name).into_iter().flatten().cloned().collect() };
    let images = store.list()?;
    let text = match output {
        Output::Table => {
            let row = |it: &ImageInfo| {
                let size = if it.complete {
                    megabytes(it.size)
                } else {
                    "incomplete".to_owned()
                };
                vec![
                    short_name(&it.name),
                    it.digest.to_string(),
                    size,
                    used_by(&it.name).join(", "),
                ]
            };
            table(
                &["IMAGE", "DIGEST", "SIZE", "USED BY"],
                &images.iter().map(row).collect::<Vec<_>>(),
            )
        }
        Output::Json => {
            let object = |it: &ImageInfo| {
                serde_json::json!({
                    "name": it.name, "digest": it.digest.to_string(), "size": it.size.0, "layers": it.layers,
                    "complete": it.complete, "usedBy": used_by(&it.name),
                })
            };
            serde_json::to_string_pretty(&images.iter().map(object).collect::<Vec<_>>())? + "\n"
        }
    };
    out::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A pinned name is long, and its digest is mostly that of the next column.
fn short_name(name: &str) -> String {
    match name.split_once("@sha256:") {
        Some((tag, digest)) => format!("{tag}@{}", digest.get(..12).unwrap_or(digest)),
        None => name.to_owned(),
    }
}

async fn pull(store: &Store, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    for name in names {
        let pulled = async {
            let image = image_called(name)?;
            let bars = Bars::new(&image);
            let result = store.ensure(&image, PullPolicy::Always, &[], &bars).await;
            bars.clear();
            Ok::<_, anyhow::Error>((result?, image))
        };
        match pulled.await {
            Ok((root, image)) => {
                out::print(format!("{image}  {}  {}\n", root.digest, megabytes(root.disk())).as_bytes())?
            }
            Err(error) => {
                failed = true;
                eprintln!("error: {name}: {error:#}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn remove(store: &Store, names: &[String], users: &BTreeMap<String, BTreeSet<String>>) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    for name in names {
        let found = find(&store.list()?, name);
        if found.is_empty() {
            failed = true;
            eprintln!("error: {name} is not in the store; `knarr images` lists what is");
        }
        for image in found {
            if let Some(by) = users.get(&image) {
                failed = true;
                let by: Vec<&str> = by.iter().map(String::as_str).collect();
                eprintln!(
                    "error: {image} is used by {}; --force removes it all the same",
                    by.join(", ")
                );
                continue;
            }
            let removed = store.remove(&image)?;
            out::print(format!("removed {image}, {} freed\n", megabytes(removed.freed)).as_bytes())?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Names in the store that a user's word stands for: itself, a tag with what is pinned of it, a digest.
fn find(images: &[ImageInfo], word: &str) -> Vec<String> {
    let full = image_called(word).map(|image| image.to_string()).unwrap_or_default();
    let fits = |it: &&ImageInfo| {
        let pinned = it.name.split_once('@').is_some_and(|(tag, _)| tag == full);
        it.name == word || it.name == full || pinned || it.digest.to_string() == word || short_name(&it.name) == word
    };
    images.iter().filter(fits).map(|it| it.name.clone()).collect()
}

/// `used` is who uses what, when images that nobody uses shall go too.
fn prune(store: &Store, used: Option<&BTreeMap<String, BTreeSet<String>>>) -> anyhow::Result<ExitCode> {
    let mut freed = 0;
    for image in used.map(|_| store.list()).transpose()?.unwrap_or_default() {
        if !used.is_some_and(|used| used.contains_key(&image.name)) {
            freed += store.remove(&image.name)?.freed.0;
            out::print(format!("removed {}\n", image.name).as_bytes())?;
        }
    }
    freed += store.prune(false)?.freed.0;
    out::print(format!("{} freed\n", megabytes(Bytes(freed))).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// As in a manifest, but a path may be relative.
fn image_called(text: &str) -> anyhow::Result<Image> {
    let absolute = match text.split_once(':') {
        Some((scheme @ ("oci" | "oci-archive" | "docker-archive" | "dir"), path)) if path.starts_with('.') => {
            let here = std::env::current_dir().context("cannot tell the current directory")?;
            format!("{scheme}:{}", here.join(path.trim_start_matches("./")).display())
        }
        _ => text.to_owned(),
    };
    match parse_image(&absolute) {
        Ok(Image::Host(_)) => anyhow::bail!("a program of this machine is no image"),
        Ok(image) => Ok(image),
        Err(hint) => anyhow::bail!("not an image; {hint}"),
    }
}

fn megabytes(bytes: Bytes) -> String {
    format!("{:.1} MB", bytes.0 as f64 / 1e6)
}

/// A bar for each layer on a terminal, else a line when each is done.
struct Bars {
    image: String,
    live: Option<MultiProgress>,
    layers: Mutex<HashMap<Digest, Layer>>,
}

struct Layer {
    bar: ProgressBar,
    done: bool,
}

impl Bars {
    fn new(image: &Image) -> Self {
        Self {
            image: image.to_string(),
            live: std::io::stderr().is_terminal().then(MultiProgress::new),
            layers: Mutex::default(),
        }
    }

    fn clear(&self) {
        if let Some(live) = &self.live {
            let _ = live.clear();
        }
    }
}

impl Progress for Bars {
    fn layers(&self, layers: &[(Digest, Bytes)]) {
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes:>10}/{total_bytes:<10} {msg}");
        let style = style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let mut known = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for (digest, size) in layers {
            let bar = match &self.live {
                Some(live) => live.add(ProgressBar::new(size.0)),
                None => ProgressBar::hidden(),
            };
            bar.set_style(style.clone());
            bar.set_prefix(digest.hex().get(..12).unwrap_or_default().to_owned());
            bar.set_message("waiting");
            known.insert(*digest, Layer { bar, done: false });
        }
        if self.live.is_none() {
            let total = layers.iter().map(|(_, size)| size.0).sum();
            let s = if layers.len() == 1 { "" } else { "s" };
            eprintln!("{}: {} layer{s}, {}", self.image, layers.len(), megabytes(Bytes(total)));
        }
    }

    fn stage(&self, digest: &Digest, stage: Stage) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(layer) = layers.get_mut(digest) else { return };
        let word = match stage {
            Stage::Waiting => "waiting",
            Stage::Downloading { done, .. } => {
                layer.bar.set_position(done.0);
                "downloading"
            }
            Stage::Unpacking => "unpacking",
            Stage::Verifying => "verifying",
            Stage::Done => "done",
            Stage::Present => "present",
        };
        let ends = matches!(stage, Stage::Done | Stage::Present);
        if ends {
            layer.bar.set_position(layer.bar.length().unwrap_or_default());
        }
        layer.bar.set_message(word);
        if ends && !std::mem::replace(&mut layer.done, true) {
            layer.bar.finish();
            if self.live.is_none() {
                eprintln!("{}: {word}", digest.hex().get(..12).unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_find_images_by_tag_digest_and_short_name() {
        let digest = Digest::of(b"a");
        let info = |name: String| ImageInfo {
            name,
            digest,
            size: Bytes(1),
            layers: 1,
            used: std::time::UNIX_EPOCH,
            complete: true,
            in_use: false,
        };
        let pinned = format!("docker.io/library/nginx:1@{digest}");
        let all = [
            info(pinned.clone()),
            info("docker.io/library/nginx:1".into()),
            info("oci:/x".into()),
        ];
        assert_eq!(
            find(&all, "nginx:1"),
            [pinned.clone(), "docker.io/library/nginx:1".to_owned()]
        );
        assert_eq!(find(&all, &short_name(&pinned)), [pinned]);
        assert_eq!(find(&all, &digest.to_string()).len(), 3);
        assert_eq!(find(&all, "oci:/x"), ["oci:/x"]);
        assert!(find(&all, "nginx:2").is_empty());
        assert!(image_called("host:/bin/true").is_err());
    }
}
