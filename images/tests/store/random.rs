//! Random archives: what is packed is unpacked, and what is hostile stays inside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use images::{ImageError, Silent};
use manifests::workload::PullPolicy;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::{Compression, Layer, Picture, names, oci, store, unfinished};

const SEEDS: u64 = 60;

/// What a layer must show, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Node {
    File(Vec<u8>),
    Directory,
    Link(String),
}

/// Entries in any order, names again and again; a model says what is there at the end.
#[tokio::test]
async fn the_last_entry_of_a_name_counts() {
    let temp = tempfile::tempdir().unwrap();
    let store = store(&temp.path().join("store"));
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut layer = Layer::new();
        let mut model = BTreeMap::<String, Node>::new();
        for _ in 0..random.random_range(1..60) {
            let depth = random.random_range(1..4);
            let parts: Vec<String> = (0..depth).map(|_| random.random_range(0..4).to_string()).collect();
            let name = parts.join("/");
            // Parents that are no directories make an archive that is refused: not this test's.
            let parents: Vec<String> = (1..depth).map(|length| parts[..length].join("/")).collect();
            if parents
                .iter()
                .any(|parent| model.get(parent).is_some_and(|node| *node != Node::Directory))
            {
                continue;
            }
            for parent in parents {
                model.insert(parent, Node::Directory);
            }
            let node = match random.random_range(0..4) {
                0 => Node::Directory,
                1 => Node::Link(format!("target{}", random.random::<u32>())),
                _ => Node::File((0..random.random_range(0..2000)).map(|_| random.random()).collect()),
            };
            layer = match &node {
                Node::Directory => layer.directory(&name),
                Node::Link(target) => layer.symlink(&name, target),
                Node::File(bytes) => layer.file(&name, bytes),
            };
            if !(node == Node::Directory && model.get(&name) == Some(&Node::Directory)) {
                let below = format!("{name}/");
                model.retain(|other, _| !other.starts_with(&below));
                model.insert(name, node);
            }
        }
        let compression = [Compression::None, Compression::Gzip, Compression::Zstd][random.random_range(0..3)];
        let layout = temp.path().join(format!("layout{seed}"));
        Picture::new(vec![(layer.finish(), compression)]).layout(&layout, None);
        let root = store
            .ensure(&oci(&layout, None), PullPolicy::Always, &[], &Silent)
            .await
            .unwrap();
        assert_eq!(tree(&root.layers[0]), model, "seed {seed}");
    }
}

fn tree(root: &Path) -> BTreeMap<String, Node> {
    let node = |name: &String| {
        let path = root.join(name);
        let metadata = path.symlink_metadata().unwrap();
        match () {
            () if metadata.is_dir() => Node::Directory,
            () if metadata.is_symlink() => Node::Link(fs::read_link(&path).unwrap().display().to_string()),
            () => Node::File(fs::read(&path).unwrap()),
        }
    };
    names(root)
        .into_iter()
        .map(|name| (name.clone(), node(&name)))
        .collect()
}

/// Hostile entries of every kind, then bytes flipped: it is unpacked or refused, and nothing else happens.
#[tokio::test]
async fn hostile_and_damaged_archives() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let store = store(&dir);
    let canary = temp.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "untouched").unwrap();
    let kinds = [
        tar::EntryType::Regular,
        tar::EntryType::Directory,
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Fifo,
        tar::EntryType::Char,
        tar::EntryType::GNUSparse,
        tar::EntryType::Continuous,
        tar::EntryType::XGlobalHeader,
    ];
    let up = format!("../../../../..{}", canary.display());
    let words = [
        "a",
        "b",
        "c",
        "..",
        ".",
        "",
        "/",
        "proc",
        "self",
        "root",
        ".wh.a",
        ".wh..wh..opq",
        ".wh...",
        &up,
        "file",
    ];
    let (mut unpacked, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let layer = (0..random.random_range(1..15)).fold(Layer::new(), |layer, _| {
            // Mostly sane words, so that some archives get far.
            let limit = if random.random_bool(0.8) { 3 } else { words.len() };
            let mut path = || {
                (0..random.random_range(1..4))
                    .map(|_| words[random.random_range(0..limit)])
                    .collect::<Vec<_>>()
                    .join("/")
            };
            let (name, target) = (path(), path());
            let target = if random.random_bool(0.3) {
                canary.join("file").display().to_string()
            } else {
                target
            };
            let data = vec![b'x'; random.random_range(0..600)];
            let kind = kinds[random.random_range(0..kinds.len())];
            let data = if kind == tar::EntryType::Regular {
                data
            } else {
                Vec::new()
            };
            layer.raw(
                kind,
                name.as_bytes(),
                target.as_bytes(),
                random.random_range(0..0o10000),
                &data,
            )
        });
        let mut bytes = layer.finish();
        if random.random_bool(0.3) {
            let place = random.random_range(0..bytes.len());
            bytes[place] = random.random();
        }
        let layout = temp.path().join(format!("layout{seed}"));
        Picture::new(vec![(bytes, Compression::Gzip)]).layout(&layout, None);
        match store
            .ensure(&oci(&layout, None), PullPolicy::Always, &[], &Silent)
            .await
        {
            Ok(_) => unpacked += 1,
            Err(ImageError::Invalid { .. }) => refused += 1,
            Err(error) => panic!("seed {seed}: {error:?}"),
        }
        assert_eq!(
            fs::read_to_string(canary.join("file")).unwrap(),
            "untouched",
            "seed {seed}"
        );
        assert_eq!(names(&canary), ["file"], "seed {seed}");
        assert!(unfinished(&dir).is_empty(), "seed {seed}");
    }
    assert!(unpacked > 5 && refused > 5, "{unpacked} unpacked, {refused} refused");
}
