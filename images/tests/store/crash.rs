//! Killed at any instant, the store opens again and is right.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use images::Silent;
use manifests::workload::PullPolicy;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::{self, Compression, Layer, Picture, noise, oci, store, unfinished};

const IMAGES: u64 = 4;
const ROUNDS: u64 = 25;

/// Layers with many files, so that most kills hit in the middle of something.
fn picture(number: u64) -> Picture {
    let shared = (0..100).fold(Layer::new(), |layer, file| {
        layer.file(&format!("s/{file}"), &noise(file, 3000))
    });
    let own = (0..50).fold(Layer::new(), |layer, file| {
        layer.file(&format!("o/{file}"), &noise(number * 1000 + file, 5000))
    });
    Picture::new(vec![
        (shared.finish(), Compression::Gzip),
        (own.finish(), Compression::Gzip),
    ])
}

#[test]
fn killed_at_any_instant() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    for number in 0..IMAGES {
        picture(number).layout(&temp.path().join("layout"), Some(&number.to_string()));
    }
    let seed = 7;
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_is_killed", "--ignored", "--quiet"])
            .env("STORE", &dir)
            .env("LAYOUT", temp.path().join("layout"))
            .env("SEED", round.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(random.random_range(5_000..300_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // Workers die with it: none writes into what is looked at now.
        let store = loop {
            let store = store(&dir);
            match unfinished(&dir).is_empty() {
                true => break store,
                false => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let context = format!("seed {seed}, round {round}");
        for info in store.list().unwrap() {
            assert!(info.complete, "{context}: {info:?}");
        }
        check_layers(&dir, &context);
    }
    let store = store(&dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for number in 0..IMAGES {
        let image = oci(&temp.path().join("layout"), Some(&number.to_string()));
        let root = runtime
            .block_on(store.ensure(&image, PullPolicy::Always, &[], &Silent))
            .unwrap();
        for file in 0..50 {
            let bytes = fs::read(root.layers[0].join(format!("o/{file}"))).unwrap();
            assert_eq!(bytes, noise(number * 1000 + file, 5000));
        }
    }
}

/// Every layer that has its final name is whole.
fn check_layers(dir: &Path, context: &str) {
    for entry in fs::read_dir(dir.join("layers")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let facts: serde_json::Value = serde_json::from_slice(&fs::read(path.join("layer.json")).unwrap()).unwrap();
        let there = support::names(&path.join("fs")).len() as u64;
        assert_eq!(facts["entries"].as_u64(), Some(there), "{context}: {}", path.display());
        for name in support::names(&path.join("fs")) {
            let metadata = fs::metadata(path.join("fs").join(&name)).unwrap();
            assert!(metadata.is_dir() || metadata.len() >= 3000, "{context}: {name}");
        }
    }
}

/// Not a test: what [`killed_at_any_instant`] starts and kills.
#[test]
#[ignore = "started by killed_at_any_instant"]
fn child_that_is_killed() {
    let (Some(dir), Some(layout)) = (std::env::var_os("STORE"), std::env::var_os("LAYOUT")) else {
        return;
    };
    let seed = std::env::var("SEED").unwrap().parse().unwrap();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let store = store(Path::new(&dir));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        loop {
            let image = oci(Path::new(&layout), Some(&random.random_range(0..IMAGES).to_string()));
            match random.random_range(0..4) {
                0 => drop(store.remove(&image.to_string())),
                1 => drop(store.prune(random.random())),
                _ => drop(store.ensure(&image, PullPolicy::Always, &[], &Silent).await.unwrap()),
            }
        }
    });
}
