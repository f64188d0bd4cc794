//! Which credentials may be tried for an image: those of the manifest, then the user's own. Never logged.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use manifests::reference::Reference;
use manifests::workload::RegistryAuth;

/// Something to log in with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// Nothing: what is public needs a token all the same at many registries.
    Nobody,
    /// As `docker login` asks for.
    Password {
        /// Who.
        username: String,
        /// The secret.
        password: String,
    },
    /// An identity token, as some credential helpers give.
    Token(String),
}

impl Credential {
    /// Who logs in, for messages.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Nobody => None,
            Self::Password { username, .. } => Some(username),
            Self::Token(_) => Some("the holder of an identity token"),
        }
    }
}

/// Without the secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.name().unwrap_or("nobody"))
    }
}

/// What may be tried, in order: the manifest's pull secrets, the most specific first (as Kubernetes), then Docker's
/// configuration of the user who runs Knarr, then that of podman, buildah and skopeo.
pub(crate) async fn candidates(image: &Reference, auth: &[RegistryAuth]) -> Vec<Credential> {
    let mut all = of_manifest(image, auth);
    for credential in of_user(image.clone()).await {
        if !all.contains(&credential) {
            all.push(credential);
        }
    }
    all
}

/// The manifest's credentials that fit an image.
fn of_manifest(image: &Reference, auth: &[RegistryAuth]) -> Vec<Credential> {
    let mut fitting: Vec<(usize, &RegistryAuth)> = auth
        .iter()
        .filter_map(|it| Some((specificity(&it.registry, image)?, it)))
        .collect();
    fitting.sort_by_key(|(specificity, _)| std::cmp::Reverse(*specificity));
    let password = |it: &RegistryAuth| Credential::Password {
        username: it.username.clone(),
        password: it.password.clone(),
    };
    fitting.into_iter().map(|(_, it)| password(it)).collect()
}

/// How much of an image's name an entry of `auths` says, in path segments; `None` when it is for another one. An entry is
/// a host, perhaps with a port and a path; `*` stands for any text within one label of the host.
fn specificity(entry: &str, image: &Reference) -> Option<usize> {
    let entry = entry
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let (host, path) = entry.split_once('/').unwrap_or((entry, ""));
    // Docker's own key for its registry ends in the version of an interface that is long gone.
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    if !host_fits(docker_hub(host), docker_hub(&image.registry)) {
        return None;
    }
    let mut repository = image.repository.split('/');
    let segments: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    segments
        .iter()
        .all(|it| repository.next() == Some(it))
        .then_some(segments.len())
}

fn docker_hub(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

fn host_fits(pattern: &str, host: &str) -> bool {
    let labels = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, host) = (labels(pattern), labels(host));
    pattern.len() == host.len()
        && pattern
            .iter()
            .zip(&host)
            .all(|(pattern, label)| label_fits(pattern, label))
}

fn label_fits(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(label),
        Some((before, after)) => {
            let rest = label.get(..before.len()).filter(|it| it.eq_ignore_ascii_case(before));
            rest.is_some()
                && (0..=label.len())
                    .any(|at| at >= before.len() && label.is_char_boundary(at) && label_fits(after, &label[at..]))
        }
    }
}

/// The user's own credentials for an image. A credential helper is another program, and may hang.
async fn of_user(image: Reference) -> Vec<Credential> {
    let registry = image.registry.clone();
    let asked = tokio::task::spawn_blocking(move || {
        files()
            .into_iter()
            .filter_map(|file| from_file(&file, &image))
            .collect()
    });
    match tokio::time::timeout(HELPER_TIMEOUT, asked).await {
        Ok(found) => found.unwrap_or_default(),
        Err(_) => {
            tracing::warn!(%registry, "the credential helper does not answer; going on without");
            Vec::new()
        }
    }
}

/// Docker's configuration; then podman's, where it looks for it.
fn files() -> Vec<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = |path: &str| set("HOME").map(|home| home.join(path));
    let docker = set("DOCKER_CONFIG").or_else(|| home(".docker"));
    [
        docker.map(|dir| dir.join("config.json")),
        set("REGISTRY_AUTH_FILE"),
        set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        Some(PathBuf::from(format!(
            "/run/containers/{}/auth.json",
            rustix::process::geteuid().as_raw()
        ))),
        home(".config/containers/auth.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The first entry that fits, the most specific key first.
fn from_file(file: &std::path::Path, image: &Reference) -> Option<Credential> {
    for key in keys(image) {
        let found = docker_credential::get_credential_from_reader(File::open(file).ok()?, &key);
        match found {
            Ok(DockerCredential::UsernamePassword(username, password)) => {
                return Some(Credential::Password { username, password });
            }
            Ok(DockerCredential::IdentityToken(token)) => return Some(Credential::Token(token)),
            Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("not found") => {}
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                // Not what it wrote: that may be a secret.
                tracing::warn!(file = %file.display(), %helper, "the credential helper fails; going on without");
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot use these credentials; going on without");
                return None;
            }
        }
    }
    None
}

/// What an entry for this image may be called, the most specific first: `ghcr.io/org/app`, `ghcr.io/org`, `ghcr.io`.
fn keys(image: &Reference) -> Vec<String> {
    let hub = image.registry == "docker.io";
    let full = format!("{}/{}", image.registry, image.repository);
    let mut keys: Vec<String> = full.match_indices('/').map(|(at, _)| full[..at].to_owned()).collect();
    keys.push(full);
    keys.reverse();
    if hub {
        // What `docker login` writes, and what helpers are asked for.
        keys.push("https://index.docker.io/v1/".to_owned());
    }
    keys
}

/// A helper may have to ask its user; a registry that is wanted every minute cannot wait for that.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(registry: &str, username: &str) -> RegistryAuth {
        RegistryAuth {
            registry: registry.into(),
            username: username.into(),
            password: "secret".into(),
        }
    }

    #[test]
    fn entries_fit_by_host_port_and_path() {
        let cases = [
            ("ghcr.io", "ghcr.io/org/app", Some(0)),
            ("ghcr.io/org", "ghcr.io/org/app", Some(1)),
            ("https://ghcr.io/org/", "ghcr.io/org/app", Some(1)),
            ("ghcr.io/or", "ghcr.io/org/app", None),
            ("ghcr.io:443", "ghcr.io/org/app", None),
            ("localhost:5000", "localhost:5000/app", Some(0)),
            ("localhost", "localhost:5000/app", None),
            ("https://index.docker.io/v1/", "nginx", Some(0)),
            ("docker.io", "ann/app", Some(0)),
            ("docker.io/ann", "ann/app", Some(1)),
            ("*.example.com", "eu.example.com/app", Some(0)),
            ("*.example.com", "a.eu.example.com/app", None),
            ("registry-*.example.com", "registry-eu.example.com/app", Some(0)),
            ("*", "ghcr.io/app", None),
            ("", "ghcr.io/app", None),
        ];
        for (entry, image, wanted) in cases {
            assert_eq!(
                specificity(entry, &image.parse().unwrap()),
                wanted,
                "{entry} for {image}"
            );
        }
    }

    #[test]
    fn the_most_specific_secret_is_tried_first_and_none_is_printed() {
        let image = "ghcr.io/org/app".parse().unwrap();
        let all = of_manifest(
            &image,
            &[auth("ghcr.io", "a"), auth("quay.io", "b"), auth("ghcr.io/org", "c")],
        );
        assert_eq!(all.iter().filter_map(Credential::name).collect::<Vec<_>>(), ["c", "a"]);
        assert!(!format!("{all:?}").contains("secret"));
        assert!(!format!("{:?}", Credential::Token("secret".into())).contains("secret"));
    }

    #[test]
    fn files_of_docker_and_podman_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        // bm9ib2R5OnNlY3JldA== is nobody:secret.
        std::fs::write(
            &file,
            r#"{"auths":{"ghcr.io/org":{"auth":"bm9ib2R5OnNlY3JldA=="},"https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldA=="},
                "quay.io":{"identitytoken":"t"}}}"#,
        )
        .unwrap();
        let named = |image: &str| from_file(&file, &image.parse().unwrap()).and_then(|it| it.name().map(str::to_owned));
        assert_eq!(named("ghcr.io/org/app").as_deref(), Some("nobody"));
        assert_eq!(named("ghcr.io/other/app"), None);
        assert_eq!(named("nginx").as_deref(), Some("hub"));
        assert_eq!(named("quay.io/ab").as_deref(), Some("the holder of an identity token"));
        std::fs::write(&file, "{").unwrap();
        assert_eq!(named("nginx"), None);
        assert_eq!(from_file(&dir.path().join("none"), &"nginx".parse().unwrap()), None);
    }
}
