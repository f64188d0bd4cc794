//! A target's request, ready to be written again and again: bytes where nothing changes, columns where something does.
//! Pure.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;

use crate::data::Data;
use crate::target::Target;

/// A request of one target.
#[derive(Debug)]
pub(crate) struct Template {
    method: Method,
    /// `http` or `https`, and the host: what comes before the path in HTTP/2.
    origin: String,
    path: Text,
    headers: Vec<(HeaderName, Text)>,
    body: Text,
    has_length: bool,
    /// The whole of it in HTTP/1.1, when every request is the same.
    fixed: Option<Bytes>,
    data: Option<Data>,
}

/// Text with columns in it.
#[derive(Clone, Debug)]
struct Text(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Fixed(Box<[u8]>),
    Column(usize),
}

impl Template {
    /// The request of `target`; in words, what is wrong with it.
    pub(crate) fn new(target: &Target) -> Result<Self, String> {
        let columns = target.data.as_ref().map(Data::columns);
        let host = HeaderValue::try_from(&target.host).ok().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("the host {:?} cannot stand in a Host header", target.host))?;
        let scheme = if target.tls.is_some() { "https" } else { "http" };
        let mut headers = vec![(header::HOST, Text::new(host.as_bytes(), None)?)];
        for (name, value) in &target.headers {
            if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
                return Err(format!("the header {name} is made from the body and cannot be given"));
            }
            if name == header::HOST {
                return Err("the header host is given as the target's host".to_owned());
            }
            headers.push((name.clone(), Text::new(value.as_bytes(), columns)?));
        }
        if !target.keep_alive && !target.headers.contains_key(header::CONNECTION) {
            headers.push((header::CONNECTION, Text::new(b"close", None)?));
        }
        let mut template = Self {
            method: target.method.clone(),
            origin: format!("{scheme}://{}", target.host),
            path: Text::new(target.path.as_bytes(), columns)?,
            headers,
            body: Text::new(&target.body, columns)?,
            has_length: !target.body.is_empty() || matches!(target.method, Method::POST | Method::PUT | Method::PATCH),
            fixed: None,
            data: target.data.clone(),
        };
        template.check(&target.path)?;
        if template.is_fixed() {
            let mut bytes = Vec::new();
            template.write(&[], &mut bytes);
            template.fixed = Some(bytes.into());
        }
        Ok(template)
    }

    /// Every row must make a request.
    fn check(&self, path: &str) -> Result<(), String> {
        let no_path = || format!("the path {path:?} is not one: it must start with / and hold no spaces");
        if !path.starts_with('/') {
            return Err(no_path());
        }
        let columns = self.data.as_ref().map_or(&[][..], Data::columns);
        let placeholder: Box<[String]> = columns.iter().map(|_| "x".to_owned()).collect();
        let given = self.data.as_ref().map_or(&[][..], Data::rows);
        for (nth, row) in std::iter::once(&placeholder).chain(given).enumerate() {
            self.http2(row).map_err(|error| match (nth, error) {
                (_, Unsendable::Path) => no_path(),
                (0, Unsendable::Header(name)) => format!("the value of the header {name} cannot be sent"),
                (nth, Unsendable::Header(name)) => {
                    format!("row {nth} of the data makes a value of the header {name} that cannot be sent")
                }
            })?;
        }
        Ok(())
    }

    /// The row of the n-th request to this target.
    pub(crate) fn row(&self, nth: u64) -> &[String] {
        self.data.as_ref().map_or(&[], |data| data.row(nth))
    }

    /// The bytes of every request, when all are the same.
    pub(crate) fn fixed(&self) -> Option<&Bytes> {
        self.fixed.as_ref()
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    fn is_fixed(&self) -> bool {
        let all = self
            .headers
            .iter()
            .map(|(_, text)| text)
            .chain([&self.path, &self.body]);
        all.flat_map(|text| &text.0)
            .all(|piece| matches!(piece, Piece::Fixed(_)))
    }

    /// Appends the request in HTTP/1.1.
    pub(crate) fn write(&self, row: &[String], out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        self.path.write(row, out, encoded);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            value.write(row, out, plain);
            out.extend_from_slice(b"\r\n");
        }
        if self.has_length {
            out.extend_from_slice(format!("content-length: {}\r\n", self.body.len(row)).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        self.body.write(row, out, plain);
    }

    /// The request for HTTP/2, which has neither `Host` nor `Connection`.
    pub(crate) fn http2(&self, row: &[String]) -> Result<Request<Full<Bytes>>, Unsendable> {
        let mut uri = self.origin.clone().into_bytes();
        self.path.write(row, &mut uri, encoded);
        let mut body = Vec::with_capacity(self.body.len(row));
        self.body.write(row, &mut body, plain);
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::try_from(uri).map_err(|_| Unsendable::Path)?;
        let mut value = Vec::new();
        for (name, text) in &self.headers {
            if name == header::HOST || name == header::CONNECTION {
                continue;
            }
            value.clear();
            text.write(row, &mut value, plain);
            let value = HeaderValue::from_bytes(&value).map_err(|_| Unsendable::Header(name.clone()))?;
            request.headers_mut().append(name.clone(), value);
        }
        Ok(request)
    }
}

/// What of a request cannot be sent.
#[derive(Debug)]
pub(crate) enum Unsendable {
    Path,
    Header(HeaderName),
}

impl Text {
    /// Finds `{{column}}` in `text`, when there are columns.
    fn new(text: &[u8], columns: Option<&[String]>) -> Result<Self, String> {
        let Some(columns) = columns else {
            return Ok(Self(vec![Piece::Fixed(text.into())]));
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = find(rest, b"{{") {
            let length = find(&rest[start..], b"}}").ok_or("{{ without its }}")?;
            let name = String::from_utf8_lossy(&rest[start + 2..start + length]);
            let name = name.trim();
            let index = columns.iter().position(|column| column == name).ok_or_else(|| {
                let columns = columns.join(", ");
                format!("{{{{{name}}}}} is no column of the data; it has {columns}")
            })?;
            pieces.push(Piece::Fixed(rest[..start].into()));
            pieces.push(Piece::Column(index));
            rest = &rest[start + length + 2..];
        }
        pieces.push(Piece::Fixed(rest.into()));
        pieces.retain(|piece| !matches!(piece, Piece::Fixed(text) if text.is_empty()));
        Ok(Self(pieces))
    }

    fn write(&self, row: &[String], out: &mut Vec<u8>, escape: fn(&str, &mut Vec<u8>)) {
        for piece in &self.0 {
            match piece {
                Piece::Fixed(text) => out.extend_from_slice(text),
                Piece::Column(index) => escape(row.get(*index).map_or("", String::as_str), out),
            }
        }
    }

    fn len(&self, row: &[String]) -> usize {
        let of = |piece: &Piece| match piece {
            Piece::Fixed(text) => text.len(),
            Piece::Column(index) => row.get(*index).map_or(0, String::len),
        };
        self.0.iter().map(of).sum()
    }
}

fn plain(value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(value.as_bytes());
}

/// In a path or query: what cannot stand in one is percent-encoded; `/`, `?`, `&`, `=` and `%` stay, so that a column may
/// hold a whole path.
fn encoded(value: &str, out: &mut Vec<u8>) {
    for &byte in value.as_bytes() {
        if byte.is_ascii_graphic() && !b"\"<>#\\^`{|}".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::new(([127, 0, 0, 1], 80).into(), "app")
    }

    fn written(target: &Target, nth: u64) -> String {
        let template = Template::new(target).expect("can be sent");
        let mut out = Vec::new();
        template.write(template.row(nth), &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_fixed_request_is_made_once() {
        let template = Template::new(&target().path("/a?b=c")).expect("can be sent");
        assert_eq!(
            template.fixed().map(AsRef::as_ref),
            Some(&b"GET /a?b=c HTTP/1.1\r\nhost: app\r\n\r\n"[..])
        );
        let mut post = target();
        (post.method, post.keep_alive, post.body) = (Method::POST, false, Bytes::from_static(b"{{x}}"));
        assert_eq!(
            written(&post, 0),
            "POST / HTTP/1.1\r\nhost: app\r\nconnection: close\r\ncontent-length: 5\r\n\r\n{{x}}"
        );
        post.body = Bytes::new();
        assert!(written(&post, 0).contains("content-length: 0\r\n"));
    }

    #[test]
    fn columns_stand_in_path_headers_and_body() {
        let mut target = target().path("/u/{{name}}?n={{ n }}");
        target.method = Method::PUT;
        target.headers.insert("x-n", HeaderValue::from_static("<{{n}}>"));
        target.body = Bytes::from_static(b"{\"name\": \"{{name}}\"}");
        target.data = Some(Data::from_csv(b"name,n\nann lee,1\nbo,22\n").expect("CSV"));
        assert_eq!(
            written(&target, 0),
            "PUT /u/ann%20lee?n=1 HTTP/1.1\r\nhost: app\r\nx-n: <1>\r\ncontent-length: 19\r\n\r\n{\"name\": \"ann lee\"}"
        );
        assert!(written(&target, 3).starts_with("PUT /u/bo?n=22 "));
        let template = Template::new(&target).expect("can be sent");
        assert!(template.fixed().is_none());
        let request = template.http2(template.row(0)).expect("can be sent");
        assert_eq!(request.uri(), "http://app/u/ann%20lee?n=1");
        assert_eq!(request.headers()["x-n"], "<1>");
        assert!(!request.headers().contains_key("host"));
    }

    #[test]
    fn what_cannot_be_sent_is_said() {
        let with = |change: fn(&mut Target)| {
            let mut target = target();
            target.data = Some(Data::from_csv(b"a\n\"x\ny\"\n").expect("CSV"));
            change(&mut target);
            Template::new(&target).map(drop).expect_err("cannot be sent")
        };
        for (change, words) in [
            (
                (|target| target.path = "/{{b}}".to_owned()) as fn(&mut Target),
                "{{b}} is no column of the data; it has a",
            ),
            (|target| target.path = "/{{a".to_owned(), "{{ without its }}"),
            (|target| target.path = "index".to_owned(), "must start with /"),
            (|target| target.path = "/a b".to_owned(), "hold no spaces"),
            (|target| target.host = String::new(), "Host header"),
            (
                |target| drop(target.headers.insert("x", HeaderValue::from_static("{{a}}"))),
                "row 1 of the data makes a value of the header x",
            ),
            (
                |target| drop(target.headers.insert("content-length", HeaderValue::from_static("1"))),
                "made from the body",
            ),
        ] {
            let error = with(change);
            assert!(error.contains(words), "{error}");
        }
    }
}
