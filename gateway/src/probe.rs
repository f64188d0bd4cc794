//! Probes of Kubernetes and Knative, answered here: they neither reach the app nor wake it, and never count as load.
//!
//! Knative answers them in its ingress, activator and queue-proxy (B6, C4), by `User-Agent: kube-probe/..`,
//! `K-Kubelet-Probe` or `K-Network-Probe`. Behind a gateway that is all three:
//!
//! | probe | answer |
//! |---|---|
//! | `K-Network-Probe: probe` | 200, echoes `K-Network-Hash`; 400 without one |
//! | `K-Network-Probe: activator` | 200 `activator` |
//! | `K-Network-Probe: queue` | 200 `queue` when a sandbox is ready, else 503 |
//! | any other `K-Network-Probe` | 400 `unexpected probe header value: "x"` |
//! | kubelet's | 200 |

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use crate::body::Content;
use crate::headers::{K_NETWORK_HASH, K_NETWORK_PROBE};
use crate::respond::plain;

/// The answer to a request that [`crate::headers::Seen::probe`] has found to be a probe.
pub(crate) fn answer(headers: &HeaderMap, ready: impl FnOnce() -> bool) -> Response<Content> {
    let ok = |text: &'static str| plain(StatusCode::OK, Bytes::from_static(text.as_bytes()));
    let asked = headers.get(K_NETWORK_PROBE).filter(|value| !value.is_empty());
    match asked.map(|value| value.as_bytes()) {
        None => ok(""),
        Some(b"probe") => match headers.get(K_NETWORK_HASH) {
            Some(hash) => {
                let mut response = ok("");
                response.headers_mut().insert(K_NETWORK_HASH, hash.clone());
                response
            }
            None => plain(
                StatusCode::BAD_REQUEST,
                Bytes::from_static(b"a probe request must contain K-Network-Hash\n"),
            ),
        },
        Some(b"activator") => ok("activator"),
        Some(b"queue") if ready() => ok("queue"),
        Some(b"queue") => plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"not ready\n")),
        Some(other) => {
            let text = format!("unexpected probe header value: {:?}\n", String::from_utf8_lossy(other));
            plain(StatusCode::BAD_REQUEST, Bytes::from(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        for (name, value, hash, ready, want_status, want_text) in [
            ("user-agent", "kube-probe/1.36", None, false, 200, ""),
            ("k-kubelet-probe", "queue", None, false, 200, ""),
            ("k-network-probe", "", None, false, 200, ""),
            ("k-network-probe", "probe", Some("abc"), false, 200, ""),
            (
                "k-network-probe",
                "probe",
                None,
                false,
                400,
                "a probe request must contain K-Network-Hash\n",
            ),
            ("k-network-probe", "activator", None, false, 200, "activator"),
            ("k-network-probe", "queue", None, true, 200, "queue"),
            ("k-network-probe", "queue", None, false, 503, "not ready\n"),
            (
                "k-network-probe",
                "x",
                None,
                true,
                400,
                "unexpected probe header value: \"x\"\n",
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            if let Some(hash) = hash {
                headers.insert(K_NETWORK_HASH, hash.parse().expect("a value"));
            }
            let response = answer(&headers, || ready);
            assert_eq!(response.status().as_u16(), want_status, "{name}: {value}");
            assert_eq!(
                response.headers().get(K_NETWORK_HASH).map(|value| value.as_bytes()),
                hash.map(str::as_bytes)
            );
            let Content::Text(text) = response.into_body() else {
                panic!("an app's body")
            };
            assert_eq!(text, want_text, "{name}: {value}");
        }
    }
}
