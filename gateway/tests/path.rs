//! The request path over real sockets: what passes, what is answered here, what is retried.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use activator::Limits;
use http::Response;
use http_body_util::BodyExt;
use manifests::exchange::Rung;
use support::app::{self, full};
use support::client::{self, Client};
use support::{TestDial, World, revision, timeouts};

/// Answers with what the app saw: method, target, version and headers, each on its line.
async fn mirror() -> std::net::SocketAddr {
    app::http(|request| async move {
        let (head, body) = request.into_parts();
        let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
        for (name, value) in &head.headers {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        text.push_str(&format!(
            "body: {}\n",
            String::from_utf8(body.to_bytes().to_vec()).unwrap()
        ));
        for (name, value) in trailers.iter().flat_map(http::HeaderMap::iter) {
            text.push_str(&format!("trailer {}: {}\n", name, value.to_str().unwrap()));
        }
        Response::new(full(text))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_through_and_the_connection_stays() {
    let mut world = World::new();
    world.run(revision("hello", 0), mirror().await).await;
    let mut client = Client::connect(world.address()).await;
    for path in ["/", "/a?b=c"] {
        client
            .say(&format!(
                "GET {path} HTTP/1.1\r\nHost: HELLO.test:80\r\nX-Mine: 1\r\n\r\n"
            ))
            .await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.status, 200);
        assert!(
            reply.body.starts_with(&format!("GET {path} HTTP/1.1\n")),
            "{}",
            reply.body
        );
        assert!(
            reply.body.contains("\nhost: HELLO.test:80\n"),
            "the host stays as it was: {}",
            reply.body
        );
        assert!(reply.body.contains("\nx-mine: 1\n"));
        assert!(reply.body.contains("\nx-forwarded-for: 127.0.0.1\n"));
        assert!(reply.body.contains("\nx-forwarded-proto: http\n"));
        assert!(reply.body.contains("\nforwarded: for=127.0.0.1;proto=http\n"));
        assert!(reply.body.contains("\nx-request-id: "));
    }
    assert_eq!(
        world.dial.dials("hello-0"),
        1,
        "the second request used the first one's connection"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_answers_itself() {
    let mut world = World::new();
    world.run(revision("hello", 0), mirror().await).await;
    let at = world.address();
    for (request, status, body) in [
        (
            "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
            404,
            "no service has this host\n",
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400, "no Host header\n"),
        (
            "GET / HTTP/1.1\r\nHost: hello.test\r\nHost: hello.test\r\n\r\n",
            400,
            "more than one Host header\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a@hello.test\r\n\r\n",
            400,
            "the Host header has user information\n",
        ),
        (
            "CONNECT hello.test:80 HTTP/1.1\r\nHost: hello.test\r\n\r\n",
            405,
            "CONNECT is not served here\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: hello.test\r\nUser-Agent: kube-probe/1.36\r\n\r\n",
            200,
            "",
        ),
        (
            "GET / HTTP/1.1\r\nHost: hello.test\r\nK-Network-Probe: queue\r\n\r\n",
            200,
            "queue",
        ),
        (
            "GET / HTTP/1.1\r\nHost: hello.test\r\nK-Network-Probe: activator\r\n\r\n",
            200,
            "activator",
        ),
        (
            "GET / HTTP/1.1\r\nHost: marker-1.test\r\n\r\n",
            503,
            "no revision is ready yet\n",
        ),
    ] {
        let reply = client::ask(at, request).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "{request}");
        assert_eq!(reply.header("retry-after").is_some(), status == 503, "{request}");
    }
    assert_eq!(world.dial.dials("hello-0"), 0, "none of these reaches the app");
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_is_rewritten() {
    let mut world = World::new();
    world.run(revision("hello", 0), mirror().await).await;
    let reply = client::ask(
        world.address(),
        "GET http://hello.test/x?y HTTP/1.1\r\nHost: ignored.test\r\n\r\n",
    )
    .await;
    assert!(reply.body.starts_with("GET /x?y HTTP/1.1\n"), "{}", reply.body);
    assert!(reply.body.contains("\nhost: hello.test\n"), "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_trailers_pass_both_ways() {
    let mut world = World::new();
    world.run(revision("hello", 0), mirror().await).await;
    let app = app::raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.read(&mut [0; 4096]).await;
        let answer = "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                      5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    world.run(revision("trailers", 0), app).await;

    let reply = client::ask(
        world.address(),
        "POST / HTTP/1.1\r\nHost: hello.test\r\nTrailer: x-end\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\nx-end: 1\r\n\r\n",
    )
    .await;
    assert!(reply.body.contains("\nbody: abcde\n"), "{}", reply.body);
    assert!(reply.body.contains("\ntrailer x-end: 1\n"), "{}", reply.body);

    let reply = client::ask(
        world.address(),
        "GET / HTTP/1.1\r\nHost: trailers.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
    )
    .await;
    assert_eq!(reply.body, "hellox-sum: 42\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_piece_by_piece() {
    let mut world = World::new();
    let (go, going) = tokio::sync::mpsc::unbounded_channel::<()>();
    let going = Arc::new(tokio::sync::Mutex::new(going));
    let app = app::raw(move |mut stream| {
        let going = Arc::clone(&going);
        async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
                .await;
            let _ = going.lock().await.recv().await;
            let _ = stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await;
        }
    })
    .await;
    world.run(revision("stream", 0), app).await;
    let mut client = Client::connect(world.address()).await;
    client.say("GET / HTTP/1.1\r\nHost: stream.test\r\n\r\n").await;
    client.until("one").await; // the app has not even made the rest
    go.send(()).unwrap();
    client.until("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_continue_is_met_here() {
    let mut world = World::new();
    world.run(revision("hello", 0), mirror().await).await;
    let mut client = Client::connect(world.address()).await;
    client
        .say("POST / HTTP/1.1\r\nHost: hello.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.unwrap().status, 100);
    client.say("hi").await;
    let reply = client.reply().await.unwrap();
    assert!(reply.body.contains("\nbody: hi\n"), "{}", reply.body);
    assert!(!reply.body.contains("expect:"), "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_no_body_and_old_apps_are_no_problem() {
    let mut world = World::new();
    let app = app::raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap_or_default();
        let answer = if buffer[..count].starts_with(b"HEAD") {
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"
        } else {
            "HTTP/1.0 200 OK\r\n\r\nhello"
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    world.run(revision("old", 1), app).await;
    let mut client = Client::connect(world.address()).await;
    for _ in 0..2 {
        client.say("HEAD / HTTP/1.1\r\nHost: old.test\r\n\r\n").await;
        let reply = client.reply_to("HEAD").await.unwrap();
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("5")));
        client.say("GET / HTTP/1.1\r\nHost: old.test\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().body, "hello");
    }
    assert_eq!(world.dial.dials("old-0"), 4, "the app closes each of its connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_request_waits_and_says_what_for() {
    let mut world = World::new();
    world.deploy(revision("cold", 0)).await;
    let mut client = Client::connect(world.address()).await;
    client
        .say("GET / HTTP/1.1\r\nHost: cold.test\r\nServer-Timing: *\r\n\r\n")
        .await;
    let woken = world.reports.recv().await.unwrap();
    assert_eq!(woken.revisions[0].waiting, 1, "scaling hears of it at once");
    world.dial.at("cold-0", mirror().await);
    world.serve("cold", Rung::Full, &["cold-0"]);
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(!reply.body.contains("server-timing"), "not for the app: {}", reply.body);
    let timing = reply.header("server-timing").unwrap();
    assert!(timing.contains("start;desc=cold;dur="), "{timing}");

    client
        .say("GET / HTTP/1.1\r\nHost: cold.test\r\nX-Knarr-Timing: 1\r\n\r\n")
        .await;
    let reply = client.reply().await.unwrap();
    assert!(
        reply
            .header("server-timing")
            .unwrap()
            .contains("start;desc=warm;dur=0.000"),
        "{}",
        reply.head
    );
    client.say("GET / HTTP/1.1\r\nHost: cold.test\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().header("server-timing"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_that_runs_out() {
    let mut world = World::with(
        1,
        Limits {
            queue_requests: 1,
            ..Limits::default()
        },
        |config| {
            config.queue = Some(Duration::from_millis(300));
        },
    );
    world.deploy(revision("later", 0)).await;
    world.deploy(timeouts(revision("never", 0), 50, None, None)).await;
    world
        .deploy(timeouts(revision("start", 0), 60_000, Some(50), None))
        .await;
    let at = world.address();
    // The revision's own limits, while it waits.
    for host in ["never.test", "start.test"] {
        let reply = client::get(at, host, "/").await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (504, "activator request timeout"),
            "{host}"
        );
    }
    // The gateway's limit on waiting, and the bound of the line.
    let mut first = Client::connect(at).await;
    first.say("GET / HTTP/1.1\r\nHost: later.test\r\n\r\n").await;
    world.reports.recv().await.unwrap();
    while world.pools.get(&revision("later", 0).id).unwrap().waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = client::get(at, "later.test", "/").await;
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (503, "pending request queue full\n")
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    let expired = first.reply().await.unwrap();
    assert_eq!(
        (expired.status, expired.body.as_str()),
        (503, "context deadline exceeded\n")
    );
    assert_eq!(expired.header("retry-after"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_kept_and_tags_address() {
    let mut world = World::new();
    for (name, text) in [("old", "old"), ("new", "new")] {
        let app = app::http(move |_| async move { Response::new(full(text)) }).await;
        world.dial.at(&format!("{name}-0"), app);
    }
    world
        .deploy_at(
            "split.test",
            vec![(revision("old", 0), 90), (revision("new", 0), 10)],
            &[("canary", "new")],
        )
        .await;
    world.serve("old", Rung::Full, &["old-0"]);
    world.serve("new", Rung::Full, &["new-0"]);
    let mut client = Client::connect(world.address()).await;
    let mut new = 0;
    for _ in 0..500 {
        client.say("GET / HTTP/1.1\r\nHost: split.test\r\n\r\n").await;
        new += usize::from(client.reply().await.unwrap().body == "new");
    }
    // Mean 50, standard deviation 6.7; the draws are seeded.
    assert!((25..=75).contains(&new), "{new}");
    for _ in 0..20 {
        client
            .say("GET / HTTP/1.1\r\nHost: split.test\r\nKnative-Serving-Tag: canary\r\n\r\n")
            .await;
        assert_eq!(client.reply().await.unwrap().body, "new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sandbox_serves_when_one_refuses() {
    let mut world = World::with(1, Limits::default(), |_| {});
    let pool = world.deploy(revision("half", 0)).await;
    world.dial.at("half-0", mirror().await);
    world.dial.at("half-1", app::nobody().await);
    world.serve("half", Rung::Full, &["half-0", "half-1", "half-2"]);
    for _ in 0..50 {
        // Not even a POST is lost: nothing was sent to the others.
        let reply = client::ask(
            world.address(),
            "POST / HTTP/1.1\r\nHost: half.test\r\nContent-Length: 2\r\n\r\nhi",
        )
        .await;
        assert_eq!(reply.status, 200);
        assert!(reply.body.contains("\nbody: hi\n"));
    }
    let left: Vec<_> = pool
        .sandboxes()
        .iter()
        .map(|sandbox| sandbox.id().to_string())
        .collect();
    assert_eq!(left, ["half-0"], "those that refuse again and again are given up on");
    assert_eq!((world.dial.dials("half-1"), world.dial.dials("half-2")), (3, 3));
}

/// Answers `good` requests on a connection, then closes when the next one comes.
async fn breaks_off_after(good: usize, connections: Arc<AtomicUsize>) -> std::net::SocketAddr {
    app::raw(move |mut stream| {
        let connections = Arc::clone(&connections);
        async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            connections.fetch_add(1, Ordering::SeqCst);
            for _ in 0..good {
                if stream.read(&mut [0; 4096]).await.unwrap_or_default() == 0 {
                    return;
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
            let _ = stream.read(&mut [0; 4096]).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again() {
    let body = "Content-Length: 2\r\n\r\nhi";
    for (request, reused, fresh) in [
        ("GET / HTTP/1.1\r\nHost: break.test\r\n\r\n", 200, 502),
        ("HEAD / HTTP/1.1\r\nHost: break.test\r\n\r\n", 200, 502),
        ("DELETE / HTTP/1.1\r\nHost: break.test\r\n\r\n", 200, 502),
        (
            "GET / HTTP/1.1\r\nHost: break.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            200,
            502,
        ),
        (
            "POST / HTTP/1.1\r\nHost: break.test\r\nContent-Length: 0\r\n\r\n",
            502,
            502,
        ),
        (
            "POST / HTTP/1.1\r\nHost: break.test\r\nIdempotency-Key: 1\r\nContent-Length: 0\r\n\r\n",
            200,
            502,
        ),
        (&format!("PUT / HTTP/1.1\r\nHost: break.test\r\n{body}"), 502, 502),
        (
            &format!("POST / HTTP/1.1\r\nHost: break.test\r\nIdempotency-Key: 1\r\n{body}"),
            502,
            502,
        ),
    ] {
        for concurrency in [0, 1, 10] {
            // Sent on a connection that had served before.
            let connections = Arc::new(AtomicUsize::new(0));
            let mut world = World::with(1, Limits::default(), |_| {});
            world
                .run(
                    revision("break", concurrency),
                    breaks_off_after(1, Arc::clone(&connections)).await,
                )
                .await;
            assert_eq!(client::get(world.address(), "break.test", "/").await.status, 200);
            let reply = client::ask(world.address(), request).await;
            assert_eq!(reply.status, reused, "reused, {concurrency}: {request}");
            assert_eq!(
                connections.load(Ordering::SeqCst),
                if reused == 200 { 2 } else { 1 },
                "{request}"
            );

            // Sent on a new one: the app had it, and may have done it.
            let mut world = World::with(1, Limits::default(), |_| {});
            world
                .run(
                    revision("break", concurrency),
                    breaks_off_after(0, Arc::default()).await,
                )
                .await;
            let reply = client::ask(world.address(), request).await;
            assert_eq!(reply.status, fresh, "fresh, {concurrency}: {request}");
        }
    }
}

/// Reads requests and answers them with 200, until it dies with one: then its sandbox refuses connections.
async fn dies_with(
    request: usize,
    read: Arc<AtomicUsize>,
    dial: Arc<TestDial>,
    sandbox: String,
) -> std::net::SocketAddr {
    let seen = Arc::new(AtomicUsize::new(0));
    app::raw(move |mut stream| {
        let (read, seen) = (Arc::clone(&read), Arc::clone(&seen));
        let (dial, sandbox) = (Arc::clone(&dial), sandbox.clone());
        async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            while stream.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {
                read.fetch_add(1, Ordering::SeqCst);
                if seen.fetch_add(1, Ordering::SeqCst) + 1 >= request {
                    return dial.gone(&sandbox);
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await
}

/// It may be what its sandbox died of: no other is to die of it, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_at_a_sandbox_that_died_is_not_sent_to_another() {
    for concurrency in [0, 1, 10] {
        let mut world = World::with(1, Limits::default(), |_| {});
        world.deploy(revision("mortal", concurrency)).await;
        let read = Arc::new(AtomicUsize::new(0));
        for (sandbox, last) in [("mortal-0", 2), ("mortal-1", usize::MAX)] {
            let dial = Arc::clone(&world.dial);
            let app = dies_with(last, Arc::clone(&read), dial, sandbox.to_owned()).await;
            world.dial.at(sandbox, app);
        }
        world.serve("mortal", Rung::Full, &["mortal-0"]);
        assert_eq!(client::get(world.address(), "mortal.test", "/").await.status, 200);
        world.serve("mortal", Rung::Full, &["mortal-0", "mortal-1"]);
        let mut sent = 1;
        let mut ask = async || {
            sent += 1;
            client::get(world.address(), "mortal.test", "/").await.status
        };
        // The second request to the first sandbox, on a connection that was used before, ends it.
        let mut tries = 0;
        let status = loop {
            assert!(tries < 100, "{concurrency}: nothing came to the first one");
            tries += 1;
            match ask().await {
                200 => {}
                status => break status,
            }
        };
        assert_eq!(status, 502, "{concurrency}");
        for _ in 0..5 {
            assert_eq!(ask().await, 200, "{concurrency}: those after it go elsewhere");
        }
        assert_eq!(read.load(Ordering::SeqCst), sent, "{concurrency}: each was read once");
    }
}

/// A sandbox has connected to the address of a service: that is what it means, whatever name it has used.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_from_elsewhere_is_for_its_service_whatever_its_host_says() {
    let mut world = World::new();
    world.run(revision("hello", 0), mirror().await).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..4 {
        let mut client = Client::connect(listener.local_addr().unwrap()).await;
        let (stream, from) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        world.gateway.inlet().serve(stream, from, "hello.test".into());
        for host in ["h", "other.test", "hello.test"] {
            client.say(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.status, 200, "{host}: {}", reply.body);
            assert!(reply.body.contains(&format!("\nhost: {host}\n")), "{}", reply.body);
        }
    }
    let inlet = world.gateway.inlet();
    let mut idle = Client::connect(listener.local_addr().unwrap()).await;
    let (stream, from) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    inlet.serve(stream, from, "hello.test".into());
    world.gateway.drain(Duration::from_secs(5)).await;
    assert!(idle.closed().await, "drained like any other");
    let mut late = Client::connect(listener.local_addr().unwrap()).await;
    let (stream, from) = listener.accept().unwrap();
    inlet.serve(stream, from, "hello.test".into());
    assert!(late.closed().await, "nobody is there any more");
}
