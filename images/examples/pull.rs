//! Pulls one image into a store, for `loadtest/compare/images`: `pull STORE IMAGE [--insecure]`.

use std::path::Path;

use images::{Silent, Store, StoreConfig};
use manifests::reference::Reference;
use manifests::workload::{Image, PullPolicy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The worker is this binary once more.
    images::worker::main_if_asked();
    let mut arguments = std::env::args().skip(1);
    let (Some(store), Some(image)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull STORE IMAGE [--insecure]".into());
    };
    let reference: Reference = image.parse()?;
    let mut config = StoreConfig::default();
    if arguments.next().is_some_and(|flag| flag == "--insecure") {
        config.registry.insecure.push(reference.registry.clone());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let store = Store::open(Path::new(&store), config)?;
    let image = Image::Registry(reference);
    let pull = store.ensure(&image, PullPolicy::Always, &[], &Silent);
    let root = runtime.block_on(pull)?;
    println!("{} {} layers {} bytes", root.digest, root.layers.len(), root.disk().0);
    Ok(())
}
