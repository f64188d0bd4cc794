//! ConfigMap and Secret as `k8s.io/api/core/v1` prints them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ObjectMeta;
use super::mirror::{Mirror, Shape, mirror};

mirror! {
    /// Configuration as text (Kubernetes: ConfigMap).
    pub struct ConfigMap {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        immutable: Option<bool> = "immutable",
        data: BTreeMap<String, String> = "data",
        binary_data: BTreeMap<String, Base64> = "binaryData",
    }

    /// Configuration that is not for every eye (Kubernetes: Secret).
    pub struct Secret {
        kind: String = "kind",
        api_version: String = "apiVersion",
        metadata: ObjectMeta = "metadata",
        immutable: Option<bool> = "immutable",
        data: BTreeMap<String, Base64> = "data",
        /// Plain text; put over `data` when the Secret is stored.
        string_data: BTreeMap<String, String> = "stringData",
        secret_type: String = "type",
    }
}

/// Bytes, in base64 as JSON holds them. [`Base64::decode`] gives the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Base64(pub String);

impl Base64 {
    /// The bytes, or `None` when the text is not padded standard base64 (RFC 4648 section 4; line breaks are skipped).
    pub fn decode(&self) -> Option<Vec<u8>> {
        let digits: Vec<u8> = self.0.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        if !digits.len().is_multiple_of(4) {
            return None;
        }
        let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 {
            return None;
        }
        let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
        let values: Vec<u8> = digits[..digits.len() - padding]
            .iter()
            .map(|byte| sextet(*byte))
            .collect::<Option<_>>()?;
        for group in values.chunks(4) {
            let bits = group
                .iter()
                .enumerate()
                .fold(0u32, |bits, (i, six)| bits | u32::from(*six) << (18 - 6 * i));
            bytes.extend(&bits.to_be_bytes()[1..group.len()]);
        }
        Some(bytes)
    }
}

impl Mirror for Base64 {
    const SHAPE: Shape = Shape::Base64;
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_vectors_of_rfc_4648_and_refuses_the_rest() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v\nYg==\n", "foob"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(
                Base64(text.into()).decode().as_deref(),
                Some(bytes.as_bytes()),
                "{text:?}"
            );
        }
        for text in ["Z", "Zg", "Zg=", "Z===", "====", "Zm9v!A==", "Zm=v", "_w=="] {
            assert_eq!(Base64(text.into()).decode(), None, "{text:?}");
        }
    }
}
