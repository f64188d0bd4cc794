//! The HTTP probe: `GET` answers 200 to 399, as kubelet asks it (`k8s.io/kubernetes/pkg/probe/http`).

use std::error::Error;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::uri::Uri;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ask::{self, MOST, Target, Trouble, connect};
use super::tls;

/// As Go's client, which kubelet asks with.
const REDIRECTS: usize = 10;

/// Where in a container something is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    port: u16,
    tls: bool,
    path: String,
}

impl Place {
    pub(super) fn new(port: u16, tls: bool, path: &str) -> Self {
        Self {
            port,
            tls,
            path: path.to_owned(),
        }
    }
}

/// Asks, and follows redirects that stay on the same host; one that leads elsewhere counts as passed, as for kubelet.
pub(super) async fn get(target: &impl Target, mut place: Place, headers: &[(String, String)]) -> Result<(), Trouble> {
    for _ in 0..REDIRECTS {
        let path = &place.path;
        let failed = |why: String| Trouble::Failed(format!("GET {path}: {why}"));
        let request = request(place.port, path, headers).map_err(&failed)?;
        let stream = connect(target, place.port).await?;
        let answer = if place.tls {
            let stream = tls::connect(stream).await.map_err(|error| failed(error.to_string()))?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        };
        let answer = answer.map_err(&failed)?;
        let status = answer.status().as_u16();
        match location(&answer, &place) {
            _ if !(200..400).contains(&status) => return Err(Trouble::Failed(format!("GET {path} answered {status}"))),
            Redirect::None | Redirect::Elsewhere => return Ok(()),
            Redirect::Here(to) => place = to,
        }
    }
    Err(Trouble::Failed(format!(
        "stopped after {REDIRECTS} redirects, at {}",
        place.path
    )))
}

fn request(port: u16, path: &str, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(path)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let to = request.headers_mut();
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} cannot be a header"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("the value of {name} cannot be sent"))?;
        to.append(name, value);
    }
    // kubelet: an own header without a value takes the default away.
    for (name, default) in [(USER_AGENT, ask::USER_AGENT), (ACCEPT, "*/*")] {
        match to.get(&name) {
            None => drop(to.insert(name, HeaderValue::from_static(default))),
            Some(own) if own.is_empty() => drop(to.remove(name)),
            Some(_) => {}
        }
    }
    if !to.contains_key(HOST) {
        let host = HeaderValue::try_from(format!("127.0.0.1:{port}")).map_err(|error| error.to_string())?;
        to.insert(HOST, host);
    }
    to.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// Sends the request and reads the answer, the body up to its bound: an app that is cut off sooner would log an error.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<()>, String> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| chain(&error))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let (head, mut body) = response.into_parts();
        read_some(&mut body).await?;
        Ok::<_, hyper::Error>(Response::from_parts(head, ()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // What it has read of the answer is there; if that is not all, the answer says so.
        _ = &mut connection => answer.await,
    };
    answered.map_err(|error| chain(&error))
}

async fn read_some(body: &mut Incoming) -> hyper::Result<()> {
    let mut read = 0;
    while read < MOST
        && let Some(frame) = body.frame().await
    {
        read += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

#[derive(PartialEq, Eq, Debug)]
enum Redirect {
    None,
    /// The same host.
    Here(Place),
    Elsewhere,
}

/// Where Go's client would go next.
fn location(answer: &Response<()>, from: &Place) -> Redirect {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Redirect::None;
    }
    let Some(to) = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()) else {
        return Redirect::None;
    };
    let to = to.split('#').next().unwrap_or_default();
    if to.starts_with('/') && !to.starts_with("//") {
        return Redirect::Here(Place::new(from.port, from.tls, to));
    }
    // `//host/path` stays in the scheme.
    let whole = if to.starts_with("//") {
        format!("{}:{to}", if from.tls { "https" } else { "http" })
    } else {
        to.to_owned()
    };
    let uri = match whole.parse::<Uri>() {
        Ok(uri) if uri.scheme().is_some() => uri,
        // Relative to the directory of the path.
        _ => {
            let path = from.path.split('?').next().unwrap_or_default();
            let directory = path.rfind('/').map_or("/", |end| &path[..=end]);
            return Redirect::Here(Place::new(from.port, from.tls, &format!("{directory}{to}")));
        }
    };
    if uri.host() != Some("127.0.0.1") {
        return Redirect::Elsewhere;
    }
    let rest = uri.path_and_query().map_or("/", |it| it.as_str());
    match uri.scheme_str() {
        Some("http") => Redirect::Here(Place::new(uri.port_u16().unwrap_or(80), false, rest)),
        Some("https") => Redirect::Here(Place::new(uri.port_u16().unwrap_or(443), true, rest)),
        _ => Redirect::Elsewhere,
    }
}

/// An error with its causes, once each.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_headers_replace_the_defaults_and_empty_ones_remove_them() {
        let own = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = headers
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            let request = request(80, "/h?x", &headers).unwrap();
            let mut lines: Vec<String> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort();
            lines
        };
        let agent = format!("user-agent: {}", ask::USER_AGENT);
        assert_eq!(
            own(&[]),
            ["accept: */*", "connection: close", "host: 127.0.0.1:80", agent.as_str()]
        );
        assert_eq!(
            own(&[
                ("host", "me"),
                ("X-A", "b"),
                ("X-A", "c"),
                ("Accept", ""),
                ("User-Agent", "own/1")
            ]),
            ["connection: close", "host: me", "user-agent: own/1", "x-a: b", "x-a: c"]
        );
    }

    #[test]
    fn redirects_are_followed_on_the_same_host_only() {
        let here = |port, path| Redirect::Here(Place::new(port, false, path));
        let tls = |port, path| Redirect::Here(Place::new(port, true, path));
        for (status, to, wanted) in [
            (200, Some("/b"), Redirect::None),
            (304, Some("/b"), Redirect::None),
            (302, None, Redirect::None),
            (302, Some("/b?c#d"), here(8080, "/b?c")),
            (301, Some("b"), here(8080, "/dir/b")),
            (307, Some("?q"), here(8080, "/dir/?q")),
            (308, Some("http://127.0.0.1:9/b"), here(9, "/b")),
            (303, Some("http://127.0.0.1"), here(80, "/")),
            (302, Some("//127.0.0.1:8080/b"), here(8080, "/b")),
            (302, Some("http://example.com/b"), Redirect::Elsewhere),
            (302, Some("//example.com/b"), Redirect::Elsewhere),
            (302, Some("https://127.0.0.1/b"), tls(443, "/b")),
        ] {
            let mut answer = Response::builder().status(status);
            if let Some(to) = to {
                answer = answer.header(LOCATION, to);
            }
            let answer = answer.body(()).unwrap();
            let from = Place::new(8080, false, "/dir/a?x=/y");
            assert_eq!(location(&answer, &from), wanted, "{status} {to:?}");
        }
    }
}
