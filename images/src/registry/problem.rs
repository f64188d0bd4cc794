//! What went wrong at a registry, in words that say what to do about it.

use std::error::Error;

use manifests::reference::Reference;
use reqwest::StatusCode;
use serde::Deserialize;

use super::retry::{Failure, is_passing};
use crate::ImageError;

/// An error with its causes, without the URL: redirects to storage carry signatures in it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// The words of a registry's error body (OCI distribution specification: error codes), or of its status.
pub(crate) fn said(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let entries = serde_json::from_slice::<Envelope>(body)
        .map(|it| it.errors)
        .unwrap_or_default();
    let words: Vec<String> = entries
        .into_iter()
        .take(3)
        .map(|it| match (it.code.as_str(), it.message.as_str()) {
            (code, "") => code.to_owned(),
            ("", message) => message.to_owned(),
            (code, message) => format!("{code}: {message}"),
        })
        .map(|words| words.chars().filter(|c| !c.is_control()).take(300).collect())
        .filter(|words: &String| !words.is_empty())
        .collect();
    if words.is_empty() {
        status.to_string()
    } else {
        words.join("; ")
    }
}

/// What a failed request means for an image.
pub(crate) fn of(failure: Failure, image: &Reference, plain: bool) -> ImageError {
    let registry = &image.registry;
    match failure {
        Failure::Transport(error) => ImageError::Unreachable(transport(error, registry, plain)),
        Failure::Status { status, said, .. } if status == StatusCode::NOT_FOUND => {
            ImageError::NotFound(format!("{registry} has no {}: {said}", name(image)))
        }
        Failure::Status { status, said, .. } if is_passing(status) => {
            ImageError::Unreachable(format!("{registry} answers {}: {said}", status.as_u16()))
        }
        // Go's server says this in plain words to a client that speaks HTTP where TLS is wanted.
        Failure::Status { status, .. } if plain && status == StatusCode::BAD_REQUEST => ImageError::Unreachable(
            format!("{registry} refuses plain HTTP; if it speaks TLS, take it off insecure-registries"),
        ),
        Failure::Status { status, said, .. } => ImageError::NotFound(format!(
            "{registry} refuses {}: {}: {said}",
            name(image),
            status.as_u16()
        )),
    }
}

/// Repository with tag or digest: what one asks a registry for.
pub(crate) fn name(image: &Reference) -> String {
    match (&image.digest, &image.tag) {
        (Some(digest), _) => format!("{}@{digest}", image.repository),
        (None, Some(tag)) => format!("{}:{tag}", image.repository),
        (None, None) => image.repository.clone(),
    }
}

fn transport(error: reqwest::Error, registry: &str, plain: bool) -> String {
    let timed_out = error.is_timeout();
    let text = chain(&error.without_url());
    let reason = text.strip_prefix("error sending request: ").unwrap_or(&text);
    let reason = reason.strip_prefix("client error (Connect): ").unwrap_or(reason);
    let allow = format!(
        "if it may be used without TLS, write `insecure-registries = [\"{registry}\"]` in the settings file or give \
         --insecure-registry {registry}"
    );
    if text.contains("URL scheme is not allowed") {
        return format!("{registry} sends requests on to an address without TLS; {allow}");
    }
    // What a server that knows only HTTP does with a TLS greeting: it answers in text, or hangs up.
    let no_tls = ["InvalidContentType", "handshake eof", "InvalidMessage"];
    if !plain && no_tls.iter().any(|it| text.contains(it)) {
        return format!("{registry} does not speak TLS; {allow}");
    }
    if text.contains("certificate") {
        return format!(
            "the certificate of {registry} is not trusted: {reason}; put its authority's certificate at \
             /etc/docker/certs.d/{registry}/ca.crt"
        );
    }
    let slow = if timed_out { " in time" } else { "" };
    format!("{registry} cannot be reached{slow}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_are_taken_from_its_envelope() {
        let status = StatusCode::NOT_FOUND;
        let cases = [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
                "MANIFEST_UNKNOWN: manifest unknown",
            ),
            (r#"{"errors":[{"code":"A"},{"message":"b\u0007"}]}"#, "A; b"),
            (r#"{"errors":[]}"#, "404 Not Found"),
            ("<html>", "404 Not Found"),
            ("", "404 Not Found"),
        ];
        for (body, wanted) in cases {
            assert_eq!(said(status, body.as_bytes()), wanted, "{body}");
        }
    }
}
