//! Registries as they should not be, and as some are.

use images::ImageError;
use manifests::workload::RegistryAuth;

use crate::support::{Answer, Server, digest_of};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest() -> Answer {
    Answer::new(200, MANIFEST).with("content-type", TYPE)
}

fn auth(server: &Server, username: &str, password: &str) -> RegistryAuth {
    RegistryAuth {
        registry: server.address.to_string(),
        username: username.into(),
        password: password.into(),
    }
}

#[tokio::test]
async fn a_digest_is_asked_for_by_head_and_worked_out_where_that_is_not_answered() {
    let digest = digest_of(MANIFEST.as_bytes());
    let said = digest.clone();
    let server = Server::start(move |_, _| manifest().with("docker-content-digest", said.clone())).await;
    let image = server.image("org/app:v1");
    let repository = server.client().repository(&image, &[]).unwrap();
    assert_eq!(repository.digest().await.unwrap(), digest);
    assert_eq!(server.lines(), ["HEAD /v2/org/app/manifests/v1"]);

    let server = Server::start(|_, asked| match asked.method.as_str() {
        "HEAD" => Answer::new(405, ""),
        _ => manifest(),
    })
    .await;
    let image = server.image("org/app:v1");
    let repository = server.client().repository(&image, &[]).unwrap();
    assert_eq!(repository.digest().await.unwrap(), digest);

    // What is pinned is not asked for.
    let pinned = image.pinned(digest.clone());
    let server = Server::start(|_, _| Answer::new(500, "")).await;
    assert_eq!(
        server
            .client()
            .repository(&pinned, &[])
            .unwrap()
            .digest()
            .await
            .unwrap(),
        digest
    );
    assert!(server.lines().is_empty());
}

#[tokio::test]
async fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let wrong = format!("sha256:{}", "0".repeat(64));
    let server = Server::start(|_, _| manifest()).await;
    let image = server.image("app").pinned(wrong.clone());
    let repository = server.client().repository(&image, &[]).unwrap();
    let error = repository.image_manifest().await.unwrap_err();
    assert!(matches!(error, ImageError::Invalid { .. }), "{error}");

    // Nor what the registry itself says it is.
    let server = Server::start(move |_, _| manifest().with("docker-content-digest", wrong.clone())).await;
    let repository = server.client().repository(&server.image("app"), &[]).unwrap();
    let error = repository.image_manifest().await.unwrap_err().to_string();
    assert!(error.contains("has the digest sha256:"), "{error}");

    let server = Server::start(|_, _| Answer::new(200, vec![b' '; 5 << 20])).await;
    let repository = server.client().repository(&server.image("app"), &[]).unwrap();
    let error = repository.image_manifest().await.unwrap_err().to_string();
    assert!(error.contains("longer than 4194304 bytes"), "{error}");
}

#[tokio::test]
async fn faults_that_pass_are_tried_again_and_others_are_not() {
    let server = Server::start(|nth, _| match nth {
        0 => Answer::new(429, "").with("retry-after", "0"),
        1 => Answer::new(503, ""),
        _ => manifest(),
    })
    .await;
    let repository = server.client().repository(&server.image("app"), &[]).unwrap();
    let manifest = repository.image_manifest().await.unwrap();
    assert_eq!(
        (manifest.media_type.as_str(), manifest.bytes),
        (TYPE, MANIFEST.as_bytes().to_vec())
    );
    assert_eq!(server.lines().len(), 3);

    let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    let server = Server::start(move |_, _| Answer::new(404, unknown)).await;
    let repository = server.client().repository(&server.image("app:v9"), &[]).unwrap();
    let error = repository.image_manifest().await.unwrap_err();
    assert!(matches!(error, ImageError::NotFound(_)), "{error:?}");
    let wanted = format!("{} has no app:v9: MANIFEST_UNKNOWN: manifest unknown", server.address);
    assert_eq!((error.to_string(), server.lines().len()), (wanted, 1));

    let server = Server::start(|_, _| Answer::new(500, "")).await;
    let repository = server.client().repository(&server.image("app"), &[]).unwrap();
    let error = repository.image_manifest().await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable(_)), "{error:?}");
    assert_eq!(server.lines().len(), 5);
}

#[tokio::test]
async fn nothing_listens() {
    let server = Server::start(|_, _| manifest()).await;
    let client = server.client();
    let image = format!("127.0.0.1:{}/app", crate::support::free_port())
        .parse()
        .unwrap();
    let error = client
        .repository(&image, &[])
        .unwrap()
        .digest()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot be reached") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|it| u8::try_from(it % 251).unwrap()).collect();
    let digest = digest_of(&body);
    for knows_ranges in [true, false] {
        let whole = body.clone();
        let server = Server::start(move |nth, asked| {
            let from: usize = asked
                .header("range")
                .and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
                .unwrap_or(0);
            let mut answer = if from > 0 && knows_ranges {
                let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
                Answer::new(206, whole[from..].to_vec()).with("content-range", range)
            } else {
                Answer::new(200, whole.clone())
            };
            answer.cut = match nth {
                0 => Some(1_000_000),
                1 => Some(1_400_000),
                _ => None,
            };
            answer
        })
        .await;
        let repository = server.client().repository(&server.image("app"), &[]).unwrap();
        let mut blob = repository.blob(&digest, body.len() as u64).await.unwrap();
        let mut got = Vec::new();
        while let Some(bytes) = blob.chunk().await.unwrap() {
            got.extend_from_slice(&bytes);
        }
        assert!(got == body, "ranges: {knows_ranges}, {} bytes", got.len());
        assert_eq!(server.lines().len(), 3, "ranges: {knows_ranges}");
    }
}

#[tokio::test]
async fn a_download_that_always_breaks_ends_and_one_that_is_too_long_too() {
    let server = Server::start(|_, _| Answer {
        cut: Some(0),
        ..Answer::new(200, "12345")
    })
    .await;
    let repository = server.client().repository(&server.image("app"), &[]).unwrap();
    let mut blob = repository.blob(&digest_of(b"12345"), 5).await.unwrap();
    let error = blob.chunk().await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("breaks off again and again"), "{error}");
    assert_eq!(server.lines().len(), 5);

    let server = Server::start(|_, _| Answer::new(200, "123456")).await;
    let repository = server.client().repository(&server.image("app"), &[]).unwrap();
    let mut blob = repository.blob(&digest_of(b"12345"), 5).await.unwrap();
    let error = blob.chunk().await.unwrap_err();
    assert!(matches!(error, ImageError::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says_and_again_when_it_has_expired() {
    let server = Server::start(|nth, asked| {
        if asked.path.starts_with("/token") {
            return Answer::new(200, format!(r#"{{"token":"t{nth}"}}"#));
        }
        let host = asked.header("host").unwrap_or_default();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="reg",scope="repository:x:pull""#);
        // The first token holds for one request.
        match (asked.header("authorization"), nth) {
            (Some("Bearer t1"), 2) | (Some("Bearer t4"), _) => manifest(),
            _ => Answer::new(401, "").with("www-authenticate", challenge),
        }
    })
    .await;
    let secret = [auth(&server, "ann", "geheim")];
    let repository = server.client().repository(&server.image("org/app"), &secret).unwrap();
    repository.image_manifest().await.unwrap();
    repository.image_manifest().await.unwrap();
    let token = "GET /token?service=reg&scope=repository%3Aorg%2Fapp%3Apull";
    let get = "GET /v2/org/app/manifests/latest";
    assert_eq!(server.lines(), [get, token, get, get, token, get]);
    let basic = server.asked()[1].header("authorization").map(str::to_owned);
    assert_eq!(basic.as_deref(), Some("Basic YW5uOmdlaGVpbQ=="));
}

#[tokio::test]
async fn every_fitting_credential_is_tried_and_the_error_says_who() {
    let server = Server::start(|_, asked| match asked.header("authorization") {
        Some("Basic Yjpi") => manifest(),
        _ => Answer::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
    })
    .await;
    let secrets = [auth(&server, "a", "a"), auth(&server, "b", "b")];
    let repository = server.client().repository(&server.image("app"), &secrets).unwrap();
    repository.image_manifest().await.unwrap();

    let repository = server.client().repository(&server.image("app"), &secrets[..1]).unwrap();
    let error = repository.image_manifest().await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error:?}");
    assert!(error.to_string().ends_with("tried as a"), "{error}");

    let repository = server.client().repository(&server.image("app"), &[]).unwrap();
    let error = repository.image_manifest().await.unwrap_err().to_string();
    assert!(
        error.contains("imagePullSecrets") && error.contains("docker login"),
        "{error}"
    );
}

#[tokio::test]
async fn blobs_may_be_elsewhere_and_the_login_stays_here() {
    let storage = Server::start(|_, _| Answer::new(200, "blob")).await;
    let elsewhere = format!("http://localhost:{}/signed", storage.address.port());
    let server = Server::start(move |_, asked| match asked.header("authorization") {
        Some(_) => Answer::new(307, "").with("location", elsewhere.clone()),
        None => Answer::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
    })
    .await;
    let secret = [auth(&server, "ann", "geheim")];
    let repository = server.client().repository(&server.image("app"), &secret).unwrap();
    let mut blob = repository.blob(&digest_of(b"blob"), 4).await.unwrap();
    assert_eq!(blob.chunk().await.unwrap().as_deref(), Some(&b"blob"[..]));
    assert_eq!(blob.chunk().await.unwrap(), None);
    assert_eq!(storage.lines(), ["GET /signed"]);
    assert_eq!(storage.asked()[0].header("authorization"), None);
}

#[tokio::test]
async fn only_a_listed_registry_is_spoken_to_without_tls_and_the_error_names_the_fix() {
    let server = Server::start(|_, _| manifest()).await;
    let client = images::registry::Client::new(images::registry::Settings::default());
    let image = server.image("app");
    let error = client
        .repository(&image, &[])
        .unwrap()
        .digest()
        .await
        .unwrap_err()
        .to_string();
    let fix = format!("insecure-registries = [\"{}\"]", server.address);
    assert!(error.contains("does not speak TLS") && error.contains(&fix), "{error}");
    assert!(
        server.lines().iter().all(|line| !line.starts_with("HEAD")),
        "nothing was sent in the clear"
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let server = Server::start(|_, asked| match (asked.path.as_str(), asked.header("authorization")) {
        ("/token", _) => Answer::new(200, r#"{"access_token":"good"}"#),
        (_, Some("Bearer good")) => manifest(),
        _ => {
            let host = asked.header("host").unwrap_or_default();
            Answer::new(401, "").with(
                "www-authenticate",
                format!(r#"Bearer realm="http://{host}/token",service="reg""#),
            )
        }
    })
    .await;
    // The user's own configuration, in a process of its own: its environment says where.
    let home = tempfile::tempdir().unwrap();
    let config = format!(r#"{{"auths":{{"{}":{{"identitytoken":"idt&x"}}}}}}"#, server.address);
    std::fs::write(home.path().join("config.json"), config).unwrap();
    let this = std::env::current_exe().unwrap();
    let output = tokio::process::Command::new(this)
        .args([
            "--exact",
            "misbehaving::as_a_user_with_a_docker_config",
            "--nocapture",
            "--ignored",
        ])
        .env("DOCKER_CONFIG", home.path())
        .env("KNARR_TEST_IMAGE", server.image("app").to_string())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let exchange = server.asked().into_iter().find(|it| it.path == "/token").unwrap();
    assert_eq!(
        (exchange.method.as_str(), exchange.body.as_str()),
        (
            "POST",
            "grant_type=refresh_token&client_id=knarr&refresh_token=idt%26x&service=reg&scope=repository%3Aapp%3Apull"
        )
    );
}

#[tokio::test]
#[ignore = "run by the tests that set the user's environment"]
async fn as_a_user_with_a_docker_config() {
    let image: manifests::reference::Reference = std::env::var("KNARR_TEST_IMAGE").unwrap().parse().unwrap();
    let client = images::registry::Client::new(images::registry::Settings {
        insecure: vec![image.registry.clone()],
        certs: Vec::new(),
    });
    client.repository(&image, &[]).unwrap().image_manifest().await.unwrap();
}

#[tokio::test]
async fn a_credential_helper_is_asked() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start(|_, asked| match asked.header("authorization") {
        Some("Basic aGVscGVkOnB3") => manifest(),
        _ => Answer::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.json"), r#"{"credsStore":"knarrtest"}"#).unwrap();
    let helper = home.path().join("docker-credential-knarrtest");
    let script = "#!/bin/sh\nread server\n[ \"$server\" = \"$WANTED\" ] || { echo 'credentials not found in native keychain'; exit 1; }\n\
                  echo '{\"Username\":\"helped\",\"Secret\":\"pw\"}'\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        home.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "misbehaving::as_a_user_with_a_docker_config",
            "--nocapture",
            "--ignored",
        ])
        .env("DOCKER_CONFIG", home.path())
        .env("WANTED", server.address.to_string())
        .env("PATH", path)
        .env("KNARR_TEST_IMAGE", server.image("app").to_string())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
