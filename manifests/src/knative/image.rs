//! Image references as `go-containerregistry` takes them (`name.ParseReference` with weak validation), and Knarr's schemes.

use super::field_error::{FieldErrors, detailed, missing};
use super::go::quote;

/// Values of `image:` that do not name a registry: a program of this machine, or an image as skopeo's transports write it.
pub const SCHEMES: [&str; 6] = [
    "host:",
    "oci:",
    "oci-archive:",
    "docker-archive:",
    "docker-daemon:",
    "dir:",
];

/// What is wrong with the `image` of a container.
pub(super) fn validate(image: &str) -> FieldErrors {
    if image.is_empty() {
        return missing("image");
    }
    if names_no_registry(image) || is_reference(image) {
        return FieldErrors::none();
    }
    let details = format!("image: {}, error: could not parse reference: {image}", quote(image));
    detailed("Failed to parse image reference", ["image"], details)
}

/// Whether `image` begins with one of [`SCHEMES`] and goes on like one: `host:8080/app` and `dir:1` are registry references.
pub(crate) fn names_no_registry(image: &str) -> bool {
    let Some((scheme, rest)) = image.split_once(':') else {
        return false;
    };
    let known = SCHEMES.iter().any(|known| known.trim_end_matches(':') == scheme);
    let is_registry_port = rest
        .split('/')
        .next()
        .is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    known && !rest.is_empty() && !is_registry_port
}

/// Tag or digest, over a repository.
pub fn is_reference(image: &str) -> bool {
    is_tagged(image) || is_digested(image)
}

/// `REPOSITORY[:TAG]`; the colon of a registry's port is before the last slash.
fn is_tagged(image: &str) -> bool {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => is_tag(tag) && is_repository(repository),
        _ => is_repository(image),
    }
}

/// `REPOSITORY[:TAG]@sha256:HEX`.
fn is_digested(image: &str) -> bool {
    let mut parts = image.split('@');
    let (Some(base), Some(digest), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let lowercase_hex = hex
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    algorithm == "sha256" && hex.len() == 64 && lowercase_hex && is_tagged(base)
}

/// At most 128 letters, digits, `_`, `-`, `.`; weak validation takes an empty tag as `latest`.
fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// `[REGISTRY/]PATH`: 2 to 255 characters of path. The part before the first slash is a registry when it looks like a host.
fn is_repository(name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let (registry, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) => (host, path),
        _ => ("", name),
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '/');
    (2..=255).contains(&path.len()) && path.chars().all(allowed) && is_registry(registry)
}

/// A host with an optional port, as a URL's authority (RFC 3986).
fn is_registry(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:[]<>\"".contains(c);
    port.bytes().all(|byte| byte.is_ascii_digit()) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        let tagged = format!("a/b:t@sha256:{}", "0".repeat(64));
        for image in [
            "ubuntu",
            "ab",
            "a//b",
            "foo/bar:",
            "a/b:1",
            "ghcr.io/a/b:latest",
            "localhost:5000/ab",
            "http://x/y",
            "a__b",
            "host:8080/ab",
            &digest,
            &tagged,
        ] {
            assert!(validate(image).is_empty(), "{image}");
        }
        let short = format!("a/b@sha256:{}", "0".repeat(63));
        for image in [
            "a",
            "A/b",
            "a:b:c",
            " sp",
            "localhost:5000/a",
            "ab@x",
            "foo@bar",
            "x:",
            "BAD IMAGE",
            "a b.c/de",
            "x:y@z.c/de",
            "é/x",
            "a/b@sha512:00",
            "a@b@c",
            &short,
        ] {
            assert!(!validate(image).is_empty(), "{image}");
        }
    }

    #[test]
    fn knarrs_own_schemes_are_not_refused() {
        for image in [
            "host:/usr/bin/Python3",
            "host:Program",
            "oci:/Images/App:tag",
            "oci-archive:/x/Y.tar",
            "docker-archive:/x.tar",
            "docker-daemon:app:latest",
            "dir:/x",
        ] {
            assert!(validate(image).is_empty(), "{image}");
        }
        for image in ["HOST:/x", "unknown:/X", "host:8080/X"] {
            assert!(!validate(image).is_empty(), "{image}");
        }
    }
}
