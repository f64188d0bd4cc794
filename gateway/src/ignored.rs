//! Requests that a revision's `knarr.dev/idle-ignore` names, answered here: they neither reach the app nor wake it, and
//! never count as load, so that an uptime monitor keeps nothing awake.
//!
//! | the revision | answer |
//! |---|---|
//! | has a route, and nothing is known to be wrong (at zero, too) | the rule's status, 200 unless it says so; no body |
//! | cannot run: its start fails, it is not ready, ... | 503 with the reason, as other requests would get |
//!
//! Only GET and HEAD: what changes something is the app's to answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use manifests::idle_ignore::IdleIgnore;

use crate::body::Content;
use crate::respond::plain;

/// Says to whoever looks that the app has not seen the request.
const ANSWERED: HeaderName = HeaderName::from_static("x-knarr-idle-ignore");

/// The answer to a request that the rules name; `None` when it is for the app. `trouble` is why nothing serves.
pub(crate) fn answer(
    rules: &IdleIgnore,
    head: &Parts,
    trouble: impl FnOnce() -> Option<Arc<str>>,
) -> Option<Response<Content>> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return None;
    }
    let agent = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    let status = rules.answer(head.uri.path(), agent)?;
    let mut response = match trouble() {
        None => plain(StatusCode::from_u16(status).unwrap_or_default(), Bytes::new()),
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::from(format!("{why}\n"))),
    };
    response
        .headers_mut()
        .insert(ANSWERED, HeaderValue::from_static("answered"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_table() {
        let rules: IdleIgnore = "/healthz, /ping -> 204, user-agent: UptimeRobot"
            .parse()
            .expect("rules");
        for (method, uri, agent, trouble, want) in [
            ("GET", "/healthz", "curl", None, Some((200, ""))),
            ("HEAD", "/healthz?x=1", "curl", None, Some((200, ""))),
            ("GET", "http://a.example/ping", "curl", None, Some((204, ""))),
            ("GET", "/", "x uptimerobot/2.0", None, Some((200, ""))),
            ("GET", "/", "curl", None, None),
            ("POST", "/healthz", "curl", None, None),
            ("OPTIONS", "*", "UptimeRobot", None, None),
            (
                "GET",
                "/ping",
                "curl",
                Some("ExitCode1: it ended"),
                Some((503, "ExitCode1: it ended\n")),
            ),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(uri)
                .header(USER_AGENT, agent)
                .body(());
            let (head, ()) = request.expect("a request").into_parts();
            let answer = answer(&rules, &head, || trouble.map(Arc::from));
            let got = answer.map(|response| {
                assert!(response.headers().contains_key(ANSWERED));
                let status = response.status().as_u16();
                let Content::Text(text) = response.into_body() else {
                    panic!("an app's body")
                };
                (status, String::from_utf8(text.to_vec()).expect("text"))
            });
            assert_eq!(
                got,
                want.map(|(status, text)| (status, text.to_owned())),
                "{method} {uri} {agent}"
            );
        }
    }
}
