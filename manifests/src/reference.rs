//! References to images at a registry, with what Docker leaves out filled in.

use std::fmt;
use std::str::FromStr;

/// `REGISTRY/REPOSITORY[:TAG][@DIGEST]`, normalised: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reference {
    /// Host with an optional port; `docker.io` when the user named none.
    pub registry: String,
    /// Path at the registry.
    pub repository: String,
    /// Empty when only a digest was given.
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// The text is not a reference.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("could not parse reference: {0}")]
pub struct NotAReference(String);

impl Reference {
    /// The same image, pinned to a digest.
    #[must_use]
    pub fn pinned(&self, digest: impl Into<String>) -> Self {
        Self {
            digest: Some(digest.into()),
            ..self.clone()
        }
    }
}

impl FromStr for Reference {
    type Err = NotAReference;

    fn from_str(text: &str) -> Result<Self, NotAReference> {
        if !crate::knative::is_image_reference(text) {
            return Err(NotAReference(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let tag = tag.filter(|tag| !tag.is_empty());
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match rest.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            Some(_) => (DOCKER_HUB, rest.to_owned()),
            None => (DOCKER_HUB, format!("library/{rest}")),
        };
        let registry = if registry == "index.docker.io" {
            DOCKER_HUB
        } else {
            registry
        };
        let repository = match registry {
            DOCKER_HUB if !repository.contains('/') => format!("library/{repository}"),
            _ => repository,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: match (&tag, &digest) {
                (None, None) => Some("latest".to_owned()),
                _ => tag,
            },
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

const DOCKER_HUB: &str = "docker.io";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let cases = [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("ann/app", "docker.io/ann/app:latest".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1".to_owned()),
            ("localhost:5000/ab", "localhost:5000/ab:latest".to_owned()),
            ("localhost/ab", "localhost/ab:latest".to_owned()),
            (&format!("a/b@{digest}"), format!("docker.io/a/b@{digest}")),
            (&format!("a/b:t@{digest}"), format!("docker.io/a/b:t@{digest}")),
        ];
        for (text, wanted) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), wanted, "{text}");
            assert_eq!(wanted.parse::<Reference>().unwrap(), reference, "{text}");
        }
        assert!("UPPER".parse::<Reference>().is_err());
        assert!("a b".parse::<Reference>().is_err());
    }
}
