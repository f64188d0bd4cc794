//! Debian's `docker-registry` on loopback: plain, with TLS, with a password. `skopeo` fills it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use images::ImageError;
use images::registry::{Client, Settings};
use manifests::workload::RegistryAuth;

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

    /// Pushes a small image of one layer; returns the layer's digest and length.
    fn push(&self, name: &str, content: &str, skopeo: &[&str]) -> (String, u64) {
        let layout = self.dir.path().join("layout");
        let (digest, size) = layout_of(&layout, content);
        let (from, to) = (
            format!("oci:{}:it", layout.display()),
            format!("docker://{}/{name}", self.address),
        );
        run(
            "skopeo",
            &[
                &["copy", "-q", "--preserve-digests"],
                skopeo,
                &[from.as_str(), to.as_str()],
            ]
            .concat(),
        );
        (digest, size)
    }

    fn image(&self, rest: &str) -> manifests::reference::Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

/// An OCI layout with one image of one uncompressed layer, which is `content` in place of a tar file.
fn layout_of(dir: &Path, content: &str) -> (String, u64) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = digest_of(bytes);
        std::fs::write(blobs.join(&digest["sha256:".len()..]), bytes).unwrap();
        (digest, bytes.len() as u64)
    };
    let (layer, size) = put(content.as_bytes());
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#);
    let (config, config_size) = put(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{config_size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{size}}}]}}"#
    );
    let (manifest, manifest_size) = put(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{manifest}","size":{manifest_size},"annotations":{{"org.opencontainers.image.ref.name":"it"}}}}]}}"#
    );
    std::fs::write(dir.join("index.json"), index).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    (layer, size)
}

async fn download(
    client: &Client,
    image: &manifests::reference::Reference,
    auth: &[RegistryAuth],
    digest: &str,
    size: u64,
) -> Vec<u8> {
    let repository = client.repository(image, auth).unwrap();
    let mut blob = repository.blob(digest, size).await.unwrap();
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
    let (layer, size) = registry.push("org/app:v1", "one", &["--dest-tls-verify=false"]);
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
    assert_eq!(download(&client, &image, &[], &layer, size).await, b"one");

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
    let (layer, size) = registry.push(
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
    assert_eq!(download(&client, &image, &auth, &layer, size).await, b"one");
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
