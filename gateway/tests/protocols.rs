//! HTTP/2 with prior knowledge on either side, and connections that become something else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::app::{self, full};
use support::client::{self, Client};
use support::{World, h2c, revision, timeouts};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

type H2 = http2::SendRequest<Full<Bytes>>;

async fn h2_client(at: std::net::SocketAddr) -> H2 {
    let stream = TcpStream::connect(at).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What of a request an app saw, and trailers behind the answer.
async fn app() -> std::net::SocketAddr {
    app::http(|request| async move {
        let host = request
            .headers()
            .get("host")
            .map(|host| host.to_str().unwrap().to_owned());
        let cookies = request.headers().get_all("cookie").iter().count();
        let text = format!(
            "{:?} {} {:?} {:?} {} cookies",
            request.version(),
            request.uri().path(),
            request.uri().authority().map(|authority| authority.as_str()),
            host,
            cookies
        );
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = Full::new(Bytes::from([text.as_bytes(), b" ", &body].concat()));
        let trailers = async {
            Some(Ok(http::HeaderMap::from_iter([(
                "grpc-status".parse().unwrap(),
                "0".parse().unwrap(),
            )])))
        };
        let mut response = Response::new(body.with_trailers(trailers).boxed());
        response.headers_mut().insert("trailer", "grpc-status".parse().unwrap());
        response
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_protocols() {
    let mut world = World::new();
    world.run(revision("one", 0), app().await).await;
    world.run(h2c(revision("two", 0)), app().await).await;
    world.run(h2c(revision("few", 2)), app().await).await;
    let mut h2 = h2_client(world.address()).await;
    let h1 = "Some(\"one.test\") 0 cookies";
    for _ in 0..2 {
        let to_h1 = text(h2.send_request(get("http://one.test/a")).await.unwrap()).await;
        assert_eq!(to_h1, format!("HTTP/1.1 /a None {h1} "));
        for name in ["two", "few"] {
            let to_h2 = text(h2.send_request(get(&format!("http://{name}.test/b"))).await.unwrap()).await;
            assert_eq!(to_h2, format!("HTTP/2.0 /b Some(\"{name}.test\") None 0 cookies "));
            let from_h1 = client::get(world.address(), &format!("{name}.test"), "/c").await;
            assert!(
                from_h1
                    .body
                    .contains(&format!("HTTP/2.0 /c Some(\"{name}.test\") None")),
                "{}",
                from_h1.body
            );
        }
    }
    assert!(world.dial.dials("two-0") <= 2, "one HTTP/2 connection for each thread");
    assert_eq!(world.dial.dials("few-0"), 1, "with few slots, one for all threads");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_and_bodies_pass_as_grpc_needs() {
    let mut world = World::new();
    world.run(h2c(revision("grpc", 0)), app().await).await;
    let mut h2 = h2_client(world.address()).await;
    let request = Request::post("http://grpc.test/pkg.Service/Call")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(b"message")))
        .unwrap();
    let response = h2.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "0");
    assert!(body.to_bytes().ends_with(b"message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn split_cookies_become_one_for_http1() {
    let mut world = World::new();
    world.run(revision("one", 0), app().await).await;
    let mut h2 = h2_client(world.address()).await;
    let request = Request::get("http://one.test/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::default())
        .unwrap();
    assert!(
        text(h2.send_request(request).await.unwrap())
            .await
            .contains("1 cookies")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_at_once_and_one_that_is_reset() {
    let mut world = World::new();
    let app = app::http(|request| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        Response::new(full("ok"))
    });
    let pool = world.run(revision("many", 0), app.await).await;
    let h2 = h2_client(world.address()).await;
    let mut hanging = h2.clone();
    let hanging = tokio::spawn(async move { hanging.send_request(get("http://many.test/hang")).await });
    while pool.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let requests = (0..100).map(|_| {
        let mut h2 = h2.clone();
        async move { text(h2.send_request(get("http://many.test/")).await.unwrap()).await }
    });
    assert!(
        futures_util::future::join_all(requests)
            .await
            .into_iter()
            .all(|text| text == "ok")
    );
    assert_eq!(pool.in_flight(), 1);
    hanging.abort(); // RST_STREAM
    while pool.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_past_its_time_is_reset_and_the_connection_stays() {
    let mut world = World::new();
    let app = app::raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
        std::future::pending::<()>().await;
    });
    world
        .run(timeouts(revision("half", 0), 100, None, None), app.await)
        .await;
    let hang = app::http(|_| std::future::pending());
    world
        .run(timeouts(revision("hang", 0), 50, None, None), hang.await)
        .await;
    let mut h2 = h2_client(world.address()).await;
    let cut = h2.send_request(get("http://half.test/")).await.unwrap();
    assert_eq!(cut.status(), 200);
    assert!(cut.into_body().collect().await.is_err(), "a begun response is reset");
    let late = h2.send_request(get("http://hang.test/")).await.unwrap();
    assert_eq!(late.status(), 504);
    assert_eq!(text(late).await, "request timeout");
}

/// What a client had sent when it heard of the refusal arrives after it: after a thousand of those the library would end the
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_after_its_refusal_costs_no_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const HEADERS: u8 = 1;
    const GOAWAY: u8 = 7;
    // RFC 9113 section 4.1: length, kind, flags, stream.
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    // RFC 7541: POST, http, / and an authority of eleven bytes.
    let head = [&[0x83, 0x86, 0x84, 0x01, 11], b"nobody.test".as_slice()].concat();
    let world = World::new();
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat();
    stream.write_all(&begin).await.unwrap();
    for round in 0..20 {
        let streams = || (0..90).map(|it| 2 * (round * 90 + it) + 1);
        let heads: Vec<u8> = streams().flat_map(|stream| frame(HEADERS, 4, stream, &head)).collect();
        stream.write_all(&heads).await.unwrap();
        let mut answered = 0;
        while answered < 90 {
            let mut about = [0; 9];
            stream.read_exact(&mut about).await.unwrap();
            let length = u32::from_be_bytes([0, about[0], about[1], about[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            assert_ne!(about[3], GOAWAY, "round {round}: {}", String::from_utf8_lossy(&payload));
            answered += u32::from(about[3] == HEADERS);
        }
        let bodies: Vec<u8> = streams().flat_map(|stream| frame(0, 1, stream, b"late")).collect();
        stream.write_all(&bodies).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_sends_goaway_and_finishes_streams() {
    let mut world = World::new();
    let (go, going) = tokio::sync::watch::channel(false);
    let app = app::http(move |_| {
        let mut going = going.clone();
        async move {
            going.wait_for(|&go| go).await.unwrap();
            Response::new(full("done"))
        }
    });
    let pool = world.run(revision("work", 0), app.await).await;
    let h2 = h2_client(world.address()).await;
    let mut busy = h2.clone();
    let busy = tokio::spawn(async move { text(busy.send_request(get("http://work.test/")).await.unwrap()).await });
    while pool.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let drain = tokio::spawn(world.gateway.drain(Duration::from_secs(60)));
    let mut late = h2.clone();
    // GOAWAY takes a round trip; from then on nothing more is taken.
    while late.ready().await.is_ok() && !late.is_closed() {
        if tokio::time::timeout(Duration::from_millis(5), late.send_request(get("http://none.test/")))
            .await
            .is_ok_and(|r| r.is_err())
        {
            break;
        }
    }
    assert!(!drain.is_finished());
    go.send_replace(true);
    assert_eq!(busy.await.unwrap(), "done");
    drop((h2, late));
    drain.await.unwrap();
}

/// An app that speaks WebSocket and says back what it hears.
async fn web_socket() -> std::net::SocketAddr {
    app::raw(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_passes_and_holds_its_slot() {
    for concurrency in [0, 1, 10] {
        let mut world = World::new();
        let pool = world.run(revision("echo", concurrency), web_socket().await).await;
        let sandbox = std::sync::Arc::clone(&pool.sandboxes()[0]);
        let stream = TcpStream::connect(world.address()).await.unwrap();
        let (mut socket, response) = tokio_tungstenite::client_async("ws://echo.test/chat", stream)
            .await
            .unwrap();
        assert_eq!(response.status(), 101);
        for number in 0..50 {
            let said = Message::text("x".repeat(number * 100));
            socket.send(said.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), said);
        }
        assert_eq!((pool.in_flight(), sandbox.in_flight()), (1, 1));
        socket.close(None).await.unwrap();
        drop(socket);
        while pool.in_flight() > 0 || sandbox.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_ends_with_its_requests_time() {
    let mut world = World::new();
    for (name, limits) in [("total", (150, None)), ("idle", (60_000, Some(150)))] {
        let revision = timeouts(revision(name, 1), limits.0, None, limits.1);
        let pool = world.run(revision, web_socket().await).await;
        let stream = TcpStream::connect(world.address()).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{name}.test/"), stream)
            .await
            .unwrap();
        socket.send(Message::text("hi")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hi"));
        assert!(!matches!(socket.next().await, Some(Ok(_))), "{name}: cut");
        while pool.in_flight() > 0 || pool.sandboxes()[0].in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_the_app_declines_is_a_response() {
    let mut world = World::new();
    for concurrency in [0, 1] {
        let name = format!("no{concurrency}");
        let app = app::http(|_| async { Response::new(full("no")) });
        let pool = world.run(revision(&name, concurrency), app.await).await;
        let mut client = Client::connect(world.address()).await;
        for _ in 0..2 {
            client
                .say(&format!(
                    "GET / HTTP/1.1\r\nHost: {name}.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                ))
                .await;
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.status, reply.body.as_str()), (200, "no"));
        }
        while pool.in_flight() > 0 || pool.sandboxes()[0].in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.dial.dials(&format!("{name}-0")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h2c_upgrades_and_unasked_switches_do_not_pass() {
    let mut world = World::new();
    let app = app::http(|request| async move {
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
        Response::new(full(names.join(" ")))
    });
    world.run(revision("plain", 0), app.await).await;
    let reply = client::ask(
        world.address(),
        "GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
    )
    .await;
    assert_eq!(reply.status, 200);
    assert!(
        !reply.body.contains("upgrade") && !reply.body.contains("http2-settings"),
        "{}",
        reply.body
    );

    let rogue = app::raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .await;
    });
    world.run(revision("rogue", 0), rogue.await).await;
    assert_eq!(client::get(world.address(), "rogue.test", "/").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_connections_without_requests_are_closed() {
    let world = World::with(1, activator::Limits::default(), |config| {
        config.keep_alive = Duration::from_millis(50);
    });
    let stream = TcpStream::connect(world.address()).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://none.test/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 404);
    connection
        .await
        .unwrap()
        .expect("ends in good order, although the client still has its sender");
}
