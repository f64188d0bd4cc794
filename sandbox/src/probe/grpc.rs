//! The gRPC probe: `grpc.health.v1.Health/Check` answers `SERVING`, over HTTP/2 without TLS, as kubelet asks it.
//!
//! The two messages have one field each, so they are written and read by hand: a request is a string (`service`), an
//! answer is an enum (`status`; 1 is `SERVING`).

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::ask::{self, MOST, Trouble};
use super::http::chain;

/// Asks whether `service` serves; the whole server when that is empty.
pub(super) async fn check(stream: TcpStream, port: u16, service: &str) -> Result<(), Trouble> {
    let failed = |error: hyper::Error| format!("gRPC health on port {port}: {}", chain(&error));
    let window = u32::try_from(MOST).unwrap_or(u32::MAX);
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .max_header_list_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = request(port, service)?;
    let asked = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let (message, trailers) = read(body).await?;
        let mut headers = head.headers;
        // A failure may come without any body, its status among the headers.
        headers.extend(trailers.unwrap_or_default());
        Ok((head.status, headers, message))
    };
    let answer = tokio::select! {
        biased;
        answer = asked => answer,
        ended = connection => return Err(match ended {
            Ok(()) => format!("gRPC health on port {port}: the connection was closed"),
            Err(error) => failed(error),
        }.into()),
    };
    let (status, headers, message) = answer.map_err(failed)?;
    judge(status.as_u16(), &headers, &message, service).map_err(Trouble::Failed)
}

fn request(port: u16, service: &str) -> Result<Request<Full<Bytes>>, String> {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, a string.
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    // Not compressed.
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).map_err(|error| error.to_string())?);
    frame.put_slice(&message);
    let uri = Uri::builder()
        .scheme("http")
        .authority(format!("127.0.0.1:{port}"))
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()
        .map_err(|error| error.to_string())?;
    Request::post(uri)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, ask::USER_AGENT)
        .body(Full::new(frame.freeze()))
        .map_err(|error| error.to_string())
}

fn put_varint(to: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        to.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    to.put_u8(u8::try_from(value).unwrap_or(0));
}

/// The body up to its bound, and the trailers if they come within.
async fn read(mut body: Incoming) -> hyper::Result<(Vec<u8>, Option<HeaderMap>)> {
    let mut message = Vec::new();
    while message.len() < MOST
        && let Some(frame) = body.frame().await
    {
        match frame?.into_data() {
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => return Ok((message, frame.into_trailers().ok())),
        }
    }
    Ok((message, None))
}

/// What an answer means; why it is not `SERVING`, in words.
fn judge(http: u16, headers: &HeaderMap, body: &[u8], service: &str) -> Result<(), String> {
    let of = if service.is_empty() {
        String::new()
    } else {
        format!(" of {service:?}")
    };
    if http != 200 {
        return Err(format!("gRPC health{of}: answered {http}, which is no gRPC"));
    }
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok());
    let message = headers
        .get("grpc-message")
        .and_then(|text| text.to_str().ok())
        .unwrap_or_default();
    match code {
        Some("0") => {}
        Some("12") => {
            return Err(format!(
                "gRPC health{of}: the server does not implement grpc.health.v1.Health"
            ));
        }
        Some("5") => return Err(format!("gRPC health{of}: the server does not know this service")),
        Some(code) => {
            return Err(format!("gRPC health{of}: status {code} {message}")
                .trim_end()
                .to_owned());
        }
        None => return Err(format!("gRPC health{of}: the answer has no grpc-status")),
    }
    match serving_status(body) {
        Some(1) => Ok(()),
        Some(0) => Err(format!("gRPC health{of}: UNKNOWN")),
        Some(2) => Err(format!("gRPC health{of}: NOT_SERVING")),
        Some(3) => Err(format!("gRPC health{of}: SERVICE_UNKNOWN")),
        Some(other) => Err(format!("gRPC health{of}: unknown status {other}")),
        None => Err(format!("gRPC health{of}: the answer cannot be read")),
    }
}

/// Field 1 of the message in a frame; 0 when it is left out. Other fields are skipped, as the protocol wants.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (prefix, rest) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    let mut message = rest.get(..usize::try_from(length).ok()?)?;
    if prefix[0] != 0 {
        // Compressed, which was not offered.
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn the_request_is_the_message_in_its_frame() {
        let body = |service: &str| request(1, service).unwrap().into_body().collect();
        assert_eq!(body("").await.unwrap().to_bytes().as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(
            body("ab").await.unwrap().to_bytes().as_ref(),
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
        let long = body(&"x".repeat(300)).await.unwrap().to_bytes();
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_passes() {
        let trailers = |code: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(code.map(|code| {
                (
                    http::HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static(code),
                )
            }));
            headers
        };
        let frame = |message: &[u8]| [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat();
        let ok = Some("0");
        for (http, code, body, wanted) in [
            (200, ok, frame(&[8, 1]), Ok(())),
            // A field of the future before it, and one of each wire type.
            (
                200,
                ok,
                frame(&[0x12, 1, 9, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 8, 1]),
                Ok(()),
            ),
            (200, ok, frame(&[]), Err("UNKNOWN")),
            (200, ok, frame(&[8, 2]), Err("NOT_SERVING")),
            (200, ok, frame(&[8, 3]), Err("SERVICE_UNKNOWN")),
            (200, ok, frame(&[8, 9]), Err("unknown status 9")),
            (200, ok, frame(&[8]), Err("cannot be read")),
            (
                200,
                ok,
                frame(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
                Err("cannot be read"),
            ),
            (200, ok, frame(&[0x12, 200]), Err("cannot be read")),
            (200, ok, vec![1, 0, 0, 0, 2, 8, 1], Err("cannot be read")),
            (200, ok, vec![0, 0, 0, 0, 9, 8, 1], Err("cannot be read")),
            (200, ok, vec![], Err("cannot be read")),
            (200, Some("12"), vec![], Err("does not implement")),
            (200, Some("5"), vec![], Err("does not know this service")),
            (200, Some("14"), vec![], Err("status 14")),
            (200, None, frame(&[8, 1]), Err("no grpc-status")),
            (404, None, vec![], Err("answered 404")),
        ] {
            let got = judge(http, &trailers(code), &body, "s");
            match (&got, wanted) {
                (Ok(()), Ok(())) => {}
                (Err(text), Err(part)) if text.contains(part) && text.contains("\"s\"") => {}
                _ => panic!("{http} {code:?} {body:?}: {got:?}, but wanted {wanted:?}"),
            }
        }
    }
}
