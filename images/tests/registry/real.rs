//! Debian's `docker-registry` on loopback: plain, with TLS, with a password. `skopeo` fills it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use images::registry::{Client, Settings};
use images::{ImageError, Silent, StoreConfig};
use manifests::reference::Reference;
use manifests::workload::{Image, PullPolicy, RegistryAuth};

use crate::pictures::{self, Compression, Layer, Picture};
use crate::support::{Program, digest_of, free_port, have, listening, run};

/// A registry of one test, with what it stores.
struct Registry {
    address: SocketAddr,
    _program: Program,
    dir: tempfile::TempDir,
}

impl Registry {
    /// `more` are further variables of its configuration; `{dir}` stands for its directory.
    async fn start(prepare: impl FnOnce(&Path), more: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(config)
            .env("REGISTRY_HTTP_ADDR", address.to_string())
            .env("OTEL_TRACES_EXPORTER", "none");
        for (name, value) in more {
            command.env(name, value.replace("{dir}", &dir.path().display().to_string()));
        }
        let program = Program::start(&mut command);
        listening(address).await;
        Self {
            address,
            _program: program,
            dir,
        }
    }

    /// Pushes a small image of one layer; returns the layer.
    fn push(&self, name: &str, content: &str, skopeo: &[&str]) -> Vec<u8> {
        let layout = self.dir.path().join(format!("layout-{content}"));
        let picture = picture(content);
        picture.layout(&layout, Some("it"));
        let (from, to) = (
            format!("oci:{}:it", layout.display()),
            format!("docker://{}/{name}", self.address),
        );
        run(
            "skopeo",
            &[
                &["copy", "-q", "--all", "--preserve-digests"],
                skopeo,
                &[from.as_str(), to.as_str()],
            ]
            .concat(),
        );
        picture.manifest().0.remove(0)
    }

    fn image(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

/// An image of one layer with one file.
fn picture(content: &str) -> Picture {
    let layer = Layer::new().file("hello", content.as_bytes()).finish();
    Picture::new(vec![(layer, Compression::Gzip)])
}

async fn download(client: &Client, image: &Reference, auth: &[RegistryAuth], layer: &[u8]) -> Vec<u8> {
    let (digest, size) = (digest_of(layer), layer.len() as u64);
    let repository = client.repository(image, auth).unwrap();
    let mut blob = repository.blob(&digest, size).await.unwrap();
    let mut got = Vec::new();
    while let Some(bytes) = blob.chunk().await.unwrap() {
        got.extend_from_slice(&bytes);
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_when_listed() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start(|_| {}, &[]).await;
    let layer = registry.push("org/app:v1", "one", &["--dest-tls-verify=false"]);
    let client = Client::new(Settings {
        insecure: vec![registry.address.to_string()],
        certs: Vec::new(),
    });
    let image = registry.image("org/app:v1");
    let repository = client.repository(&image, &[]).unwrap();
    let digest = repository.digest().await.unwrap();
    let inspected = run(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &format!("docker://{image}"),
        ],
    );
    assert_eq!(digest, inspected.trim());
    let manifest = repository.image_manifest().await.unwrap();
    assert_eq!(manifest.digest, digest);
    assert_eq!(manifest.media_type, "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(download(&client, &image, &[], &layer).await, layer);

    // The tag moves; what is pinned stays.
    registry.push("org/app:v1", "two", &["--dest-tls-verify=false"]);
    assert_ne!(client.repository(&image, &[]).unwrap().digest().await.unwrap(), digest);
    let pinned = client.repository(&image.pinned(digest.clone()), &[]).unwrap();
    assert_eq!(pinned.image_manifest().await.unwrap().digest, digest);

    let error = client
        .repository(&registry.image("org/app:v2"), &[])
        .unwrap()
        .digest()
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::NotFound(_)), "{error:?}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");

    // Not listed.
    let error = Client::new(Settings::default())
        .repository(&image, &[])
        .unwrap()
        .digest()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not speak TLS") && error.contains("insecure-registries"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_an_authority_of_ones_own_and_a_password() {
    if !have(&["docker-registry", "skopeo", "openssl", "htpasswd"]) {
        return;
    }
    let registry = Registry::start(
        |dir| {
            let file = |name: &str| dir.join(name).display().to_string();
            let subject = [
                "-subj",
                "/CN=test",
                "-nodes",
                "-days",
                "2",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ];
            let (ca, ca_key) = (file("ca.crt"), file("ca.key"));
            run(
                "openssl",
                &[
                    &["req", "-x509", "-keyout", ca_key.as_str(), "-out", ca.as_str()],
                    &subject[..],
                ]
                .concat(),
            );
            let (key, cert, wish) = (file("tls.key"), file("tls.crt"), file("tls.csr"));
            run(
                "openssl",
                &[
                    &["req", "-keyout", key.as_str(), "-out", wish.as_str()],
                    &subject[..4 - 2],
                    &subject[2..3],
                    &subject[5..],
                ]
                .concat(),
            );
            std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
            let san = file("san");
            run(
                "openssl",
                &[
                    "x509",
                    "-req",
                    "-in",
                    &wish,
                    "-CA",
                    &ca,
                    "-CAkey",
                    &ca_key,
                    "-CAcreateserial",
                    "-days",
                    "2",
                    "-extfile",
                    &san,
                    "-out",
                    &cert,
                ],
            );
            let users = run("htpasswd", &["-Bbn", "ann", "geheim"]);
            std::fs::write(dir.join("users"), users).unwrap();
        },
        &[
            ("REGISTRY_HTTP_TLS_CERTIFICATE", "{dir}/tls.crt"),
            ("REGISTRY_HTTP_TLS_KEY", "{dir}/tls.key"),
            ("REGISTRY_AUTH", "htpasswd"),
            ("REGISTRY_AUTH_HTPASSWD_REALM", "it"),
            ("REGISTRY_AUTH_HTPASSWD_PATH", "{dir}/users"),
        ],
    )
    .await;
    let layer = registry.push(
        "org/app:v1",
        "one",
        &["--dest-tls-verify=false", "--dest-creds", "ann:geheim"],
    );
    let image = registry.image("org/app:v1");
    let auth = [RegistryAuth {
        registry: registry.address.to_string(),
        username: "ann".into(),
        password: "geheim".into(),
    }];

    let stranger = Client::new(Settings::default());
    let error = stranger
        .repository(&image, &auth)
        .unwrap()
        .digest()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not trusted") && error.contains("certs.d"), "{error}");

    let certs = registry.dir.path().join("certs.d");
    std::fs::create_dir_all(certs.join(registry.address.to_string())).unwrap();
    std::fs::copy(
        registry.dir.path().join("ca.crt"),
        certs.join(registry.address.to_string()).join("ca.crt"),
    )
    .unwrap();
    let client = Client::new(Settings {
        insecure: Vec::new(),
        certs: vec![certs],
    });
    assert_eq!(download(&client, &image, &auth, &layer).await, layer);
    let error = client.repository(&image, &[]).unwrap().digest().await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error:?}");

    // Listed as insecure, but it speaks TLS.
    let wrong = Client::new(Settings {
        insecure: vec![registry.address.to_string()],
        certs: Vec::new(),
    });
    let error = wrong
        .repository(&image, &auth)
        .unwrap()
        .digest()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("take it off insecure-registries"), "{error}");
}

/// A store that knows one registry without TLS.
fn store(dir: &Path, registry: &Registry) -> images::Store {
    let settings = Settings {
        insecure: vec![registry.address.to_string()],
        certs: Vec::new(),
    };
    pictures::store_with(
        dir,
        StoreConfig {
            registry: settings,
            ..StoreConfig::default()
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_filled_from_a_registry_and_a_pin_holds() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start(|_| {}, &[]).await;
    let plain = ["--dest-tls-verify=false"];
    registry.push("app:v1", "one", &plain);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &registry);
    let tag = registry.image("app:v1");
    let digest = store.tag(&tag, &[]).await.unwrap();
    let pinned = Image::Registry(tag.pinned(digest.clone()));
    let image = Image::Registry(tag.clone());
    let hello = |root: &images::Root| pictures::read(&root.layers[0], "hello");

    let root = store
        .ensure(&pinned, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    assert_eq!(
        (hello(&root), root.digest.to_string()),
        ("one".to_owned(), digest.clone())
    );
    let root = store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    assert_eq!(hello(&root), "one");

    registry.push("app:v1", "two", &plain);
    let again = store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    assert_eq!(hello(&again), "one", "what is there is used");
    let root = store.ensure(&image, PullPolicy::Always, &[], &Silent).await.unwrap();
    assert_eq!(hello(&root), "two", "asked again");
    assert_ne!(store.tag(&tag, &[]).await.unwrap(), digest);
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Always, PullPolicy::Never] {
        let root = store.ensure(&pinned, policy, &[], &Silent).await.unwrap();
        assert_eq!(hello(&root), "one", "{policy:?}");
    }
    drop((root, again));

    let other = Image::Registry(registry.image("app:v9"));
    let error = store
        .ensure(&other, PullPolicy::Never, &[], &Silent)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("imagePullPolicy is Never"), "{error}");
    let error = store
        .ensure(&other, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::NotFound(_)), "{error:?}");

    // The registry is away: what is there serves on, and nothing else.
    drop(registry);
    store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    let error = store
        .ensure(&image, PullPolicy::Always, &[], &Silent)
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Unreachable(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machines_image_of_an_index_is_taken_and_others_are_named() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start(|_| {}, &[]).await;
    let host = images::Platform::host().architecture;
    for (name, architectures) in [
        ("both", &["s390x", host.as_str()][..]),
        ("foreign", &["s390x", "riscv64"]),
    ] {
        // An index of images, inside the layout's own.
        let layout = registry.dir.path().join(format!("index-{name}"));
        let mut entries = Vec::new();
        for architecture in architectures {
            let mut picture = picture(architecture);
            picture.config["architecture"] = (*architecture).into();
            let (blobs, manifest) = picture.manifest();
            for blob in blobs.iter().chain([&picture.config_bytes()]) {
                pictures::put_blob(&layout, blob);
            }
            let manifest = manifest.to_string();
            let digest = pictures::put_blob(&layout, manifest.as_bytes()).to_string();
            entries.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            }));
        }
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).to_string();
        let digest = pictures::put_blob(&layout, index.as_bytes()).to_string();
        let entry = serde_json::json!({
            "mediaType": kind, "digest": digest, "size": index.len(),
            "annotations": {"org.opencontainers.image.ref.name": "it"},
        });
        pictures::add_to_index(&layout, entry);
        let (from, to) = (
            format!("oci:{}:it", layout.display()),
            format!("docker://{}/{name}:v1", registry.address),
        );
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                "--all",
                "--preserve-digests",
                "--dest-tls-verify=false",
                &from,
                &to,
            ],
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &registry);
    let image = Image::Registry(registry.image("both:v1"));
    let root = store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap();
    assert_eq!(pictures::read(&root.layers[0], "hello"), host);
    let image = Image::Registry(registry.image("foreign:v1"));
    let error = store
        .ensure(&image, PullPolicy::IfNotPresent, &[], &Silent)
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::NotFound(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("linux/s390x") && text.contains("linux/riscv64"), "{text}");
}
