//! Registries: manifests and blobs by the OCI distribution specification, with what the real ones want beside it.
//!
//! ```text
//! Client ─▶ Repository (one pull: its login) ─▶ digest, manifest (verified), Blob (goes on where it broke off)
//! ```
//!
//! Why not `oci-client` (looked at in version 0.18): it keeps the first credentials that it sees for a registry, follows
//! redirects and token services to addresses without TLS, reads manifests of any length into memory, and knows neither
//! `Retry-After` nor identity tokens.

mod blob;
mod credentials;
mod login;
mod problem;
mod repository;
mod retry;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manifests::reference::Reference;
use manifests::workload::RegistryAuth;

pub use self::blob::Blob;
pub(crate) use self::problem::chain;
pub use self::repository::{Manifest, Repository};
use crate::ImageError;

/// How registries are reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Registries (host with an optional port) that are spoken to without TLS; all others only with it.
    pub insecure: Vec<String>,
    /// Directories with further certificate authorities: `HOST[:PORT]/*.crt` holds for that registry, as for Docker.
    pub certs: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            certs: vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
        }
    }
}

/// Speaks to registries. Connections are kept and shared; logins are not.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    /// By registry: each has its own authorities.
    http: Mutex<HashMap<String, reqwest::Client>>,
}

impl Client {
    /// A client; nothing is connected yet.
    pub fn new(settings: Settings) -> Self {
        use_ring();
        Self {
            settings,
            http: Mutex::default(),
        }
    }

    /// What one pull of `image` speaks to. `auth` is the manifest's; the user's own credentials are tried after it, and
    /// none before the registry asks.
    ///
    /// # Errors
    /// When a certificate authority for the registry cannot be read, or the image's name cannot be in an address.
    pub fn repository(&self, image: &Reference, auth: &[RegistryAuth]) -> Result<Arc<Repository>, ImageError> {
        let plain = self.settings.insecure.contains(&image.registry);
        let http = self.http_for(&image.registry, plain)?;
        Ok(Arc::new(Repository::new(image.clone(), http, plain, auth.to_vec())))
    }

    fn http_for(&self, registry: &str, plain: bool) -> Result<reqwest::Client, ImageError> {
        let mut known = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(http) = known.get(registry) {
            return Ok(http.clone());
        }
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("knarr/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .https_only(!plain);
            // A proxy is for what is elsewhere.
            if is_loopback(registry) {
                builder.no_proxy()
            } else {
                builder
            }
        };
        let authorities = authorities(&self.settings.certs, registry)?;
        let http = builder().tls_certs_merge(authorities).build().or_else(|error| {
            // A machine without any authority can still use what needs none.
            if plain {
                builder().tls_certs_only([]).build()
            } else {
                Err(error)
            }
        });
        let http =
            http.map_err(|error| ImageError::Unreachable(format!("cannot speak TLS: {}", problem::chain(&error))))?;
        known.insert(registry.to_owned(), http.clone());
        Ok(http)
    }
}

/// The one provider of cryptography, before anything asks for one; another one that is installed stays.
pub(crate) fn use_ring() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

fn is_loopback(registry: &str) -> bool {
    let url = reqwest::Url::parse(&format!("https://{registry}/")).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|it| it.is_loopback())
}

/// Docker's layout: every `*.crt` below a directory of the registry's name.
fn authorities(directories: &[PathBuf], registry: &str) -> Result<Vec<reqwest::Certificate>, ImageError> {
    let mut found = Vec::new();
    for directory in directories.iter().map(|it| it.join(registry)) {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        for file in files.filter(|file| file.extension().is_some_and(|it| it == "crt")) {
            let pem = std::fs::read(&file).map_err(|source| ImageError::Io {
                context: format!("cannot read the certificate authority {}", file.display()),
                source,
            })?;
            let wrong = |reason: &str| ImageError::Io {
                context: format!("cannot read the certificate authority {}", file.display()),
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, reason),
            };
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| wrong("not PEM"))?;
            if certificates.is_empty() {
                return Err(wrong("no certificate in it"));
            }
            found.extend(certificates);
        }
    }
    Ok(found)
}

/// Where a registry's interface is; Docker's own has another name than its images say.
fn endpoint(registry: &str) -> &str {
    match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Knative's bound on finding out a digest (`digest-resolution-timeout`).
pub const DIGEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a single byte.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Directories that hold `registry`'s authorities, for messages and tests.
#[cfg(test)]
fn write_authority(directory: &std::path::Path, registry: &str, pem: &str) {
    std::fs::create_dir_all(directory.join(registry)).unwrap();
    std::fs::write(directory.join(registry).join("ca.crt"), pem).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_registries_need_no_proxy() {
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in ["docker.io", "10.0.0.1:5000", "localhost.example.com"] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn a_broken_authority_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write_authority(dir.path(), "a:1", "nothing");
        let client = Client::new(Settings {
            insecure: Vec::new(),
            certs: vec![dir.path().to_owned()],
        });
        let error = client
            .repository(&"a:1/bb".parse().unwrap(), &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("a:1/ca.crt"), "{error}");
        assert!(client.repository(&"b:1/bb".parse().unwrap(), &[]).is_ok());
    }
}
