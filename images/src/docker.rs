//! The Docker daemon of this machine, or what speaks like it: asked through its socket for one image as an archive.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use manifests::reference::Reference;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::ImageError;
use crate::registry::use_ring;

/// A Docker daemon.
#[derive(Clone, Debug)]
pub struct Daemon {
    http: reqwest::Client,
    /// `http://HOST`.
    base: String,
    /// How it is reached, for messages.
    place: String,
}

/// What a daemon says of an image.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    /// The digest of the image's configuration: changes whenever the image does.
    pub id: String,
}

impl Daemon {
    /// The daemon that `DOCKER_HOST` names, or the one on `/var/run/docker.sock`.
    ///
    /// # Errors
    /// When `DOCKER_HOST` names a way that Knarr does not go.
    pub fn from_env() -> Result<Self, ImageError> {
        let host = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        Self::at(host.as_deref().unwrap_or(DEFAULT_HOST))
    }

    /// The daemon at `unix:///PATH`, `tcp://HOST:PORT` or `http://HOST:PORT`.
    ///
    /// # Errors
    /// When `host` is none of these.
    pub fn at(host: &str) -> Result<Self, ImageError> {
        use_ring();
        // No TLS is spoken here, so that no certificates are needed either.
        let builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_certs_only([]);
        let (builder, base) = match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => {
                (builder.unix_socket(PathBuf::from(path)), "http://docker".to_owned())
            }
            Some(("tcp" | "http", host)) if !host.is_empty() => {
                (builder, format!("http://{}", host.trim_end_matches('/')))
            }
            _ => {
                return Err(ImageError::Unreachable(format!(
                    "DOCKER_HOST is {host:?}: write unix:///var/run/docker.sock or tcp://HOST:PORT"
                )));
            }
        };
        let http = builder
            .build()
            .map_err(|error| ImageError::Unreachable(error.to_string()))?;
        Ok(Self {
            http,
            base,
            place: host.to_owned(),
        })
    }

    /// Whether the daemon has an image, and which; `None` when it does not.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn inspect(&self, name: &str) -> Result<Option<Inspected>, ImageError> {
        let request = self.http.get(self.address(name, "json")?).timeout(INSPECT_TIMEOUT);
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        match response.status() {
            StatusCode::OK => {
                let bytes = whole(response).await.map_err(|error| self.unreachable(error))?;
                let inspected = serde_json::from_slice(&bytes);
                inspected
                    .map(Some)
                    .map_err(|error| ImageError::Unreachable(format!("{}: its answer: {error}", self.place)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(name, response).await),
        }
    }

    /// The image as `docker save` writes it.
    ///
    /// # Errors
    /// When the daemon does not have it or cannot be asked.
    pub async fn save(&self, name: &str) -> Result<Saved, ImageError> {
        let request = self.http.get(self.address(name, "get")?);
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(name, response).await);
        }
        Ok(Saved {
            response,
            place: self.place.clone(),
        })
    }

    fn address(&self, name: &str, what: &str) -> Result<String, ImageError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/@-".contains(c);
        let odd =
            name.is_empty() || !name.chars().all(allowed) || name.split('/').any(|it| matches!(it, "" | "." | ".."));
        if odd {
            return Err(ImageError::NotFound(format!(
                "docker-daemon:{name} names no image; write docker-daemon:NAME:TAG"
            )));
        }
        Ok(format!("{}/images/{name}/{what}", self.base))
    }

    fn unreachable(&self, error: reqwest::Error) -> ImageError {
        let reason = crate::registry::chain(&error.without_url());
        ImageError::Unreachable(format!(
            "the Docker daemon on {} cannot be reached: {reason}",
            self.place
        ))
    }

    async fn refusal(&self, name: &str, response: Response) -> ImageError {
        #[derive(Deserialize)]
        struct Refusal {
            message: String,
        }
        let status = response.status();
        let bytes = whole(response).await.unwrap_or_default();
        let said = serde_json::from_slice::<Refusal>(&bytes).map_or_else(|_| status.to_string(), |it| it.message);
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        if status == StatusCode::NOT_FOUND {
            return ImageError::NotFound(format!(
                "the Docker daemon on {} has no image {name}: {said}",
                self.place
            ));
        }
        ImageError::Unreachable(format!("the Docker daemon on {} refuses: {said}", self.place))
    }
}

/// An archive on its way.
#[derive(Debug)]
pub struct Saved {
    response: Response,
    place: String,
}

impl Saved {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the daemon breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ImageError> {
        let piece = self.response.chunk().await;
        piece.map_err(|error| {
            let reason = crate::registry::chain(&error.without_url());
            ImageError::Unreachable(format!("the Docker daemon on {} breaks off: {reason}", self.place))
        })
    }
}

/// A short answer.
async fn whole(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > LONGEST_ANSWER {
            break;
        }
    }
    Ok(bytes)
}

/// What to write instead, when an image that its registry does not have is on this machine: in Docker, or where podman and
/// buildah keep theirs. Quick, and silent when nobody can be asked.
pub async fn hint(image: &Reference) -> Option<String> {
    // A name without a host is what people mistake; `localhost/` is how podman names what it builds.
    if !matches!(image.registry.as_str(), "docker.io" | "localhost") || image.digest.is_some() {
        return None;
    }
    let name = format!(
        "{}:{}",
        image.repository.trim_start_matches("library/"),
        image.tag.as_deref().unwrap_or("latest")
    );
    let names = [name.clone(), format!("localhost/{name}"), image.to_string()];
    if let Ok(daemon) = Daemon::from_env() {
        for name in &names {
            if let Ok(Some(_)) = daemon.inspect(name).await {
                return Some(format!("the local Docker has it: write docker-daemon:{name}"));
            }
        }
    }
    let full = names[1..]
        .iter()
        .find(|name| storages().iter().any(|it| has(it, name)))?;
    Some(format!(
        "the containers-storage of this machine has it: `podman save --format oci-archive -o app.tar {full}`, then write \
         oci-archive:/path/to/app.tar"
    ))
}

/// Where podman and buildah list their images, for root and for the user.
fn storages() -> Vec<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let roots = [
        Some(PathBuf::from("/var/lib/containers/storage")),
        home.map(|home| home.join("containers/storage")),
    ];
    let drivers = ["overlay-images", "vfs-images", "btrfs-images"];
    let all = roots
        .into_iter()
        .flatten()
        .flat_map(|root| drivers.map(|driver| root.join(driver).join("images.json")));
    all.collect()
}

fn has(list: &Path, name: &str) -> bool {
    #[derive(Deserialize)]
    struct Stored {
        #[serde(default)]
        names: Option<Vec<String>>,
    }
    let Ok(bytes) = std::fs::read(list) else {
        return false;
    };
    let stored: Vec<Stored> = serde_json::from_slice(&bytes).unwrap_or_default();
    stored
        .iter()
        .flat_map(|it| it.names.iter().flatten())
        .any(|it| it == name)
}

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_the_address() {
        let daemon = Daemon::at(DEFAULT_HOST).unwrap();
        let address = daemon.address("localhost/app:v1", "get").unwrap();
        assert_eq!(address, "http://docker/images/localhost/app:v1/get");
        for name in ["", "a b", "a?b", "../containers/json", "a//b", "a%2f"] {
            assert!(daemon.address(name, "get").is_err(), "{name}");
        }
    }

    #[test]
    fn hosts() {
        for host in [
            "unix:///run/docker.sock",
            "tcp://127.0.0.1:2375",
            "http://127.0.0.1:2375/",
        ] {
            assert!(Daemon::at(host).is_ok(), "{host}");
        }
        for host in ["unix://relative", "ssh://me@host", "docker.sock", "tcp://"] {
            let error = Daemon::at(host).unwrap_err().to_string();
            assert!(error.contains("unix:///var/run/docker.sock"), "{error}");
        }
    }

    #[test]
    fn a_list_of_stored_images_is_searched_by_full_name() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("images.json");
        std::fs::write(&list, r#"[{"id":"1","names":["localhost/app:latest"]},{"id":"2"}]"#).unwrap();
        assert!(has(&list, "localhost/app:latest"));
        assert!(!has(&list, "app:latest"));
        assert!(!has(&dir.path().join("none"), "localhost/app:latest"));
    }
}
