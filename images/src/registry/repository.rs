//! One repository at a registry, for one pull.

use std::sync::Arc;

use manifests::reference::Reference;
use manifests::workload::RegistryAuth;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::login::{Challenge, Login};
use super::retry::{self, Failure};
use super::{Blob, problem};
use crate::ImageError;
use crate::manifest::ACCEPTED;

/// One repository at a registry, with the login that works there.
#[derive(Debug)]
pub struct Repository {
    image: Reference,
    http: reqwest::Client,
    /// Without TLS.
    plain: bool,
    /// `https://HOST/v2/NAME`.
    base: String,
    login: Login,
}

/// A manifest or index as the registry gives it; its digest is that of its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What the registry says it is; empty when it says nothing.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Repository {
    pub(super) fn new(image: Reference, http: reqwest::Client, plain: bool, auth: Vec<RegistryAuth>) -> Self {
        let scheme = if plain { "http" } else { "https" };
        let base = format!(
            "{scheme}://{}/v2/{}",
            super::endpoint(&image.registry),
            image.repository
        );
        let login = Login::new(image.clone(), http.clone(), plain, auth);
        Self {
            image,
            http,
            plain,
            base,
            login,
        }
    }

    /// The image this was made for.
    pub fn image(&self) -> &Reference {
        &self.image
    }

    /// What the image's tag stands for now; its own digest when it has one, without asking.
    ///
    /// # Errors
    /// When there is no such image, or the registry cannot be asked.
    pub async fn digest(&self) -> Result<String, ImageError> {
        if let Some(digest) = &self.image.digest {
            return Ok(digest.clone());
        }
        let path = format!("manifests/{}", self.wanted());
        let answer = self.send(Method::HEAD, &path, &accepted()).await?;
        // Some registries and proxies know no HEAD, or answer it without the digest.
        let digest = answer
            .ok()
            .and_then(|it| Some(it.headers().get(DIGEST)?.to_str().ok()?.to_owned()));
        match digest.filter(|it| is_sha256(it)) {
            Some(digest) => Ok(digest),
            None => Ok(self.manifest(self.wanted()).await?.digest),
        }
    }

    /// The manifest of the image itself.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn image_manifest(&self) -> Result<Manifest, ImageError> {
        self.manifest(self.wanted()).await
    }

    /// The manifest or index under a tag or digest of this repository.
    ///
    /// # Errors
    /// When it is not there, is longer than manifests may be, or is not what its digest says.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<Manifest, ImageError> {
        let path = format!("manifests/{tag_or_digest}");
        let answer = self.send(Method::GET, &path, &accepted()).await?;
        let mut response = answer.map_err(|failure| self.failed(failure))?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let (media_type, promised) = (header(CONTENT_TYPE.as_str()), header(DIGEST));
        let mut bytes = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| self.failed(Failure::Transport(error)))?
        {
            bytes.extend_from_slice(&piece);
            if bytes.len() > LONGEST_MANIFEST {
                return Err(self.invalid(format!(
                    "the manifest {tag_or_digest} is longer than {LONGEST_MANIFEST} bytes"
                )));
            }
        }
        let digest = sha256(&bytes);
        let asked = Some(tag_or_digest).filter(|it| it.contains(':'));
        let promised = promised.filter(|it| is_sha256(it));
        for wanted in asked.into_iter().chain(promised.as_deref()) {
            if wanted != digest {
                return Err(self.invalid(format!("the manifest {wanted} has the digest {digest}")));
            }
        }
        let media_type = media_type.unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok(Manifest {
            digest,
            media_type,
            bytes,
        })
    }

    /// A blob of this repository: `size` bytes by its descriptor. Whoever takes the bytes verifies them.
    ///
    /// # Errors
    /// When it is not there, or the registry cannot be asked.
    pub async fn blob(self: &Arc<Self>, digest: &str, size: u64) -> Result<Blob, ImageError> {
        Blob::open(Arc::clone(self), digest, size).await
    }

    /// Sends with the login that works, finding one if need be. The inner error is the registry's last word.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Result<Response, Failure>, ImageError> {
        loop {
            let login = self.login.header().await;
            let build = || {
                let request = self.http.request(method.clone(), format!("{}/{path}", self.base));
                let request = request.headers(headers.clone());
                match &login {
                    Some(header) => request.header(AUTHORIZATION, header),
                    None => request,
                }
            };
            match retry::send(build).await {
                Ok(response) => {
                    self.login.accepted(login.as_ref()).await;
                    return Ok(Ok(response));
                }
                Err(Failure::Status {
                    status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
                    said,
                    challenges,
                    host,
                }) if self.is_ours(host.as_deref()) => {
                    let challenge = Challenge::parse(challenges.iter().map(String::as_str));
                    self.login.refused(login.as_ref(), challenge, said).await?;
                }
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    /// What a failure means for this image.
    pub(super) fn failed(&self, failure: Failure) -> ImageError {
        problem::of(failure, &self.image, self.plain)
    }

    /// Whether the registry itself answered, and not a storage that it sent us to.
    fn is_ours(&self, host: Option<&str>) -> bool {
        let base = reqwest::Url::parse(&self.base).ok();
        base.as_ref().and_then(reqwest::Url::host_str) == host
    }

    fn wanted(&self) -> &str {
        let digest = self.image.digest.as_deref();
        digest.or(self.image.tag.as_deref()).unwrap_or("latest")
    }

    fn invalid(&self, reason: String) -> ImageError {
        ImageError::Invalid {
            image: self.image.to_string(),
            reason,
        }
    }
}

fn accepted() -> HeaderMap {
    let types = ACCEPTED.map(|it| (ACCEPT, HeaderValue::from_static(it)));
    types.into_iter().collect()
}

fn sha256(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    digits
        .iter()
        .fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn is_sha256(digest: &str) -> bool {
    let digits = digest.strip_prefix("sha256:");
    digits.is_some_and(|it| it.len() == 64 && it.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

const DIGEST: &str = "docker-content-digest";
/// The specification wants registries to take manifests of up to 4 MiB.
const LONGEST_MANIFEST: usize = 4 << 20;
