//! Makes archives, layouts and stores for tests.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use images::{Digest, Store, StoreConfig};
use manifests::workload::Image;

/// Opens a store whose worker is the crate's own little program.
pub fn store(dir: &Path) -> Store {
    store_with(dir, StoreConfig::default())
}

pub fn store_with(dir: &Path, config: StoreConfig) -> Store {
    Store::open(dir, config.with_worker(env!("CARGO_BIN_EXE_knarr-images-worker"))).unwrap()
}

/// How a layer is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One archive, made entry by entry.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// An entry exactly as said: no cleaning of paths, which the builder itself would insist on.
    pub fn raw(mut self, kind: tar::EntryType, name: &[u8], link: &[u8], mode: u32, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        let fits = name.len() <= 100 && link.len() <= 100;
        if name.len() > 100 {
            self.long(b'L', name);
        }
        if link.len() > 100 {
            self.long(b'K', link);
        }
        let _ = fits;
        let old = header.as_old_mut();
        let (name, link) = (&name[..name.len().min(100)], &link[..link.len().min(100)]);
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(8).unwrap();
            header.set_device_minor(0).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn long(&mut self, kind: u8, text: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_size(text.len() as u64 + 1);
        header.set_cksum();
        self.0.append(&header, [text, b"\0"].concat().as_slice()).unwrap();
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(tar::EntryType::Regular, name.as_bytes(), b"", 0o644, data)
    }

    pub fn directory(self, name: &str) -> Self {
        self.raw(tar::EntryType::Directory, name.as_bytes(), b"", 0o755, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(tar::EntryType::Symlink, name.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.raw(tar::EntryType::Link, name.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    /// Extended header of the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// A header made by the caller.
    pub fn entry(mut self, header: &tar::Header, data: &[u8]) -> Self {
        self.0.append(header, data).unwrap();
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
    }
}

/// An image to be written in one of the formats.
pub struct Picture {
    pub layers: Vec<(Vec<u8>, Compression)>,
    pub config: serde_json::Value,
}

impl Picture {
    pub fn new(layers: Vec<(Vec<u8>, Compression)>) -> Self {
        let config = serde_json::json!({
            "os": "linux",
            "architecture": images::Platform::host().architecture,
            "config": {
                "Entrypoint": ["/bin/app"], "Cmd": null, "Env": ["A=b"], "WorkingDir": "/srv", "User": "7:8",
                "StopSignal": "SIGINT", "ExposedPorts": {"8080/tcp": {}}, "Volumes": null,
            },
        });
        Self { layers, config }
    }

    pub fn config_bytes(&self) -> Vec<u8> {
        let mut config = self.config.clone();
        let ids: Vec<String> = self.layers.iter().map(|(tar, _)| Digest::of(tar).to_string()).collect();
        config["rootfs"] = serde_json::json!({"type": "layers", "diff_ids": ids});
        serde_json::to_vec(&config).unwrap()
    }

    /// Compressed layers and the manifest, with a chance to spoil it.
    pub fn manifest(&self) -> (Vec<Vec<u8>>, serde_json::Value) {
        let blobs: Vec<Vec<u8>> = self
            .layers
            .iter()
            .map(|(tar, compression)| compress(tar, *compression))
            .collect();
        let config = self.config_bytes();
        let layers: Vec<_> = blobs
            .iter()
            .map(|blob| serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(blob).to_string(), "size": blob.len(),
            }))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config).to_string(), "size": config.len(),
            },
            "layers": layers,
        });
        (blobs, manifest)
    }

    /// Writes an OCI layout and returns the manifest's digest.
    pub fn layout(&self, dir: &Path, tag: Option<&str>) -> Digest {
        let (blobs, manifest) = self.manifest();
        for blob in &blobs {
            put_blob(dir, blob);
        }
        put_blob(dir, &self.config_bytes());
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = put_blob(dir, &manifest);
        let mut entry = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": manifest.len(),
        });
        if let Some(tag) = tag {
            entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": tag});
        }
        add_to_index(dir, entry);
        digest
    }

    /// Writes skopeo's directory format.
    pub fn skopeo(&self, dir: &Path) {
        let (blobs, manifest) = self.manifest();
        std::fs::create_dir_all(dir).unwrap();
        for blob in blobs.iter().chain([&self.config_bytes()]) {
            std::fs::write(dir.join(Digest::of(blob).hex()), blob).unwrap();
        }
        std::fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        std::fs::write(dir.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    }

    /// Writes what `docker save` writes.
    pub fn docker_archive(&self, file: &Path, tags: &[&str]) {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, data).unwrap();
        };
        let mut names = Vec::new();
        for (index, (tar, compression)) in self.layers.iter().enumerate() {
            let name = format!("{index}/layer.tar");
            add(&name, &compress(tar, *compression));
            names.push(name);
        }
        add("config.json", &self.config_bytes());
        let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]);
        add("manifest.json", &serde_json::to_vec(&manifest).unwrap());
        std::fs::write(file, archive.into_inner().unwrap()).unwrap();
    }
}

pub fn put_blob(dir: &Path, bytes: &[u8]) -> Digest {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let digest = Digest::of(bytes);
    std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
    digest
}

pub fn add_to_index(dir: &Path, entry: serde_json::Value) {
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let file = dir.join("index.json");
    let mut index: serde_json::Value = match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => serde_json::json!({"schemaVersion": 2, "manifests": []}),
    };
    index["manifests"].as_array_mut().unwrap().push(entry);
    std::fs::write(file, serde_json::to_vec(&index).unwrap()).unwrap();
}

/// `oci:DIR:TAG`.
pub fn oci(dir: &Path, tag: Option<&str>) -> Image {
    Image::Oci {
        path: dir.to_owned(),
        tag: tag.map(ToOwned::to_owned),
    }
}

/// Packs a directory into a tar file.
pub fn pack(dir: &Path, file: &Path) {
    let mut archive = tar::Builder::new(std::fs::File::create(file).unwrap());
    archive.append_dir_all(".", dir).unwrap();
    archive.finish().unwrap();
}

pub fn read(root: &Path, name: &str) -> String {
    std::fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{}: {error}", root.join(name).display()))
}

/// All names below a directory, sorted, links not followed.
pub fn names(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, base: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            names.push(path.strip_prefix(base).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                walk(&path, base, names);
            }
        }
    }
    let mut all = Vec::new();
    walk(dir, dir, &mut all);
    all.sort();
    all
}

/// A store whose workers leave a line each in a file: how many layers were unpacked.
pub fn counting(dir: &Path, log: &Path, config: StoreConfig) -> Store {
    let worker = env!("CARGO_BIN_EXE_knarr-images-worker");
    let script = format!("echo >>'{}'; exec '{worker}' __knarr-unpack \"$@\"", log.display());
    let arguments = ["-c", &script, "sh"].map(Into::into).to_vec();
    Store::open(
        dir,
        StoreConfig {
            worker: ("/bin/sh".into(), arguments),
            ..config
        },
    )
    .unwrap()
}

pub fn count(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

/// Bytes that gzip cannot make smaller, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(step).flatten().take(length).collect()
}

/// An image of one layer with one file of so many bytes.
pub fn simple(seed: u64, length: usize) -> Picture {
    let layer = Layer::new().file("file", &noise(seed, length)).finish();
    Picture::new(vec![(layer, Compression::Gzip)])
}

/// Everything that is half done: what no crash and no error may leave for long.
pub fn unfinished(store: &Path) -> Vec<String> {
    let is = |name: &String| name.ends_with(".partial") || name.ends_with(".new") || name.starts_with("trash/");
    let top = |folder: &str| {
        let entries = std::fs::read_dir(store.join(folder)).unwrap();
        entries
            .map(move |entry| format!("{folder}/{}", entry.unwrap().file_name().display()))
            .collect::<Vec<_>>()
    };
    ["layers", "images", "blobs/sha256", "trash"]
        .into_iter()
        .flat_map(top)
        .filter(is)
        .collect()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// For tests that need what is not here: says so, and fails where everything must be there.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI has everything, but: {why}");
    eprintln!("skipped: {why}");
}
