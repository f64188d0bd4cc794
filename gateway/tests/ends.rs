//! How requests end before their time: aborts, timeouts, drains; and that their slots stay taken until the app has ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use activator::{Limits, Pool};
use futures_util::future::join_all;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use manifests::exchange::Rung;
use support::app::{self, Overlap, full};
use support::client::{self, Client};
use support::{World, h2c, revision, timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

/// An app that notes overlap and works until `gate` has a permit for it.
async fn working(overlap: &Overlap, gate: &Arc<Semaphore>) -> std::net::SocketAddr {
    let (overlap, gate) = (overlap.clone(), Arc::clone(gate));
    app::http(move |_| {
        let (overlap, gate) = (overlap.clone(), Arc::clone(&gate));
        async move {
            let _working = overlap.enter();
            gate.acquire().await.unwrap().forget();
            Response::new(full("done"))
        }
    })
    .await
}

async fn settled(pool: &Pool) {
    until(|| pool.in_flight() == 0 && pool.sandboxes().iter().all(|sandbox| sandbox.in_flight() == 0)).await;
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// 200 requests at `containerConcurrency: 1`; of each three one is whole, one is left by its client, one times out.
async fn never_two_at_once(change: impl Fn(manifests::revision::Revision) -> manifests::revision::Revision) {
    let mut world = World::new();
    let served = Arc::new(AtomicUsize::new(0));
    let pool = world.deploy(change(revision("patient", 1))).await;
    let hasty = change(timeouts(revision("hasty", 1), 20, None, None));
    let hasty = world.deploy(hasty).await;
    // Both revisions have sandboxes of their own, with one detector each.
    let mut detectors = Vec::new();
    for name in ["patient-0", "patient-1", "hasty-0", "hasty-1"] {
        let overlap = Overlap::default();
        detectors.push(overlap.clone());
        let served = Arc::clone(&served);
        let app = app::http(move |_| {
            let (overlap, served) = (overlap.clone(), Arc::clone(&served));
            async move {
                let _working = overlap.enter();
                // Some take longer than a hasty client waits.
                let turn = served.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(if turn % 7 == 0 { 40 } else { 2 })).await;
                Response::new(full("done"))
            }
        });
        world.dial.at(name, app.await);
    }
    world.serve("patient", Rung::Full, &["patient-0", "patient-1"]);
    world.serve("hasty", Rung::Full, &["hasty-0", "hasty-1"]);
    let at = world.address();
    let requests = (0..200_u64).map(|number| async move {
        match number % 3 {
            0 => assert_eq!(client::get(at, "patient.test", "/").await.status, 200),
            1 => {
                let mut client = Client::connect(at).await;
                client.say("GET / HTTP/1.1\r\nHost: patient.test\r\n\r\n").await;
                tokio::time::sleep(Duration::from_millis(number % 30)).await;
            }
            _ => {
                let status = client::get(at, "hasty.test", "/").await.status;
                assert!(matches!(status, 200 | 504), "{status}");
            }
        }
    });
    join_all(requests).await;
    settled(&pool).await;
    settled(&hasty).await;
    assert!(served.load(Ordering::SeqCst) >= 67, "those that stayed were served");
    for (index, detector) in detectors.iter().enumerate() {
        assert!(detector.most() <= 1, "sandbox {index} had {} at once", detector.most());
    }
    assert_eq!(
        (pool.sandboxes().len(), hasty.sandboxes().len()),
        (2, 2),
        "none was given up on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn never_two_at_once_over_http1() {
    never_two_at_once(|revision| revision).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_two_at_once_over_h2c() {
    never_two_at_once(h2c).await;
}

/// What a server with one thread does: keeps a connection for itself as long as the client keeps it open.
async fn echo_with_keep_alive(mut stream: tokio::net::TcpStream) {
    while stream.read(&mut [0; 4096]).await.unwrap_or_default() > 0 {
        if stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .is_err()
        {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_one_connection_at_a_time_does_not_hang_two_threads() {
    for concurrency in 1..=3 {
        let mut world = World::new();
        let pool = world
            .run(
                revision("python", concurrency),
                app::one_at_a_time(echo_with_keep_alive).await,
            )
            .await;
        if concurrency > 1 {
            // Two slots on a server of one connection: what the second holds is served when the first one closes.
            world.dial.at("python-0", app::raw(echo_with_keep_alive).await);
        }
        let at = world.address();
        // Enough connections for both threads to get some, each used again and again.
        let clients = (0..16).map(|_| async move {
            let mut client = Client::connect(at).await;
            for _ in 0..20 {
                client.say("GET / HTTP/1.1\r\nHost: python.test\r\n\r\n").await;
                assert_eq!(client.reply().await.unwrap().status, 200);
            }
        });
        join_all(clients).await;
        settled(&pool).await;
        let sandbox = &pool.sandboxes()[0];
        assert!(sandbox.open_connections() <= concurrency, "{concurrency}");
        if concurrency == 1 {
            assert_eq!(world.dial.dials("python-0"), 1, "both threads use the one connection");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_limit_such_a_server_needs_the_opt_out() {
    let mut world = World::new();
    let mut plain = revision("plain", 0);
    plain.upstream_keepalive = false;
    let app = app::one_at_a_time(|mut stream| async move {
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).await.unwrap_or_default();
            if count == 0 {
                return;
            }
            let close = String::from_utf8_lossy(&buffer[..count])
                .to_lowercase()
                .contains("connection: close");
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            if close {
                return;
            }
        }
    });
    world.run(plain, app.await).await;
    let at = world.address();
    let requests = (0..32).map(|_| async move { client::get(at, "plain.test", "/").await.status });
    assert!(join_all(requests).await.into_iter().all(|status| status == 200));
    assert_eq!(world.dial.dials("plain-0"), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_at_once_without_a_limit_and_at_the_apps_end_with_one() {
    for (concurrency, stays) in [(0, false), (1, true), (10, true)] {
        let mut world = World::with(1, Limits::default(), |_| {});
        let (overlap, gate) = (Overlap::default(), Arc::new(Semaphore::new(0)));
        let app = working(&overlap, &gate).await;
        let pool = world.run(revision("work", concurrency), app).await;
        let sandbox = Arc::clone(&pool.sandboxes()[0]);
        let mut client = Client::connect(world.address()).await;
        client.say("GET / HTTP/1.1\r\nHost: work.test\r\n\r\n").await;
        until(|| overlap.now() == 1).await;
        drop(client);
        // The request is over for everybody but the app.
        until(|| pool.in_flight() == 0).await;
        if stays {
            assert_eq!(sandbox.in_flight(), 1, "the slot is the app's until it ends");
            gate.add_permits(1);
        }
        until(|| sandbox.in_flight() == 0).await;
        // And the sandbox serves on. The request that was left may still stand at the gate, and go through it first.
        gate.add_permits(2);
        assert_eq!(client::get(world.address(), "work.test", "/").await.status, 200);
        if stays {
            assert_eq!(world.dial.dials("work-0"), 1, "the connection was drained and kept");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_keeps_the_slot_until_the_app_closes() {
    let mut world = World::with(1, Limits::default(), |_| {});
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let overlap = Overlap::default();
    let noted = overlap.clone();
    let app = app::raw(move |mut stream| {
        let (gate, overlap) = (Arc::clone(&opened), noted.clone());
        async move {
            let _working = overlap.enter();
            // Does not care that its client is gone, and works on.
            while stream.read(&mut [0; 4096]).await.unwrap_or_default() > 0 {}
            gate.acquire().await.unwrap().forget();
        }
    });
    let pool = world.run(revision("upload", 1), app.await).await;
    let sandbox = Arc::clone(&pool.sandboxes()[0]);
    let mut client = Client::connect(world.address()).await;
    client
        .say("POST / HTTP/1.1\r\nHost: upload.test\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    until(|| overlap.now() == 1).await;
    drop(client);
    until(|| pool.in_flight() == 0).await;
    assert_eq!(sandbox.in_flight(), 1);
    assert_eq!(overlap.now(), 1);
    gate.add_permits(1);
    until(|| sandbox.in_flight() == 0).await;
    assert_eq!(overlap.most(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_ends_is_given_up_on() {
    let limits = Limits {
        drain_bound: Duration::from_millis(100),
        ..Limits::default()
    };
    for http2 in [false, true] {
        let mut world = World::with(1, limits, |_| {});
        let (overlap, gate) = (Overlap::default(), Arc::new(Semaphore::new(0)));
        let mut stuck = timeouts(revision("stuck", 1), 50, None, None);
        let app = if http2 {
            stuck = h2c(stuck);
            working(&overlap, &gate).await
        } else {
            // Takes no notice of a client that hangs up, as a thread that computes.
            app::raw(|mut stream| async move {
                let _ = stream.read(&mut [0; 4096]).await;
                std::future::pending::<()>().await;
            })
            .await
        };
        let pool = world.run(stuck, app).await;
        let sandbox = Arc::clone(&pool.sandboxes()[0]);
        let reply = client::get(world.address(), "stuck.test", "/").await;
        assert_eq!((reply.status, reply.body.as_str()), (504, "request timeout"));
        until(|| sandbox.is_ejected() && sandbox.in_flight() == 0).await;
        assert!(pool.sandboxes().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_answer_504_before_the_response_and_cut_it_after() {
    let mut world = World::new();
    // Sends "begun" at once if asked to, and then nothing more.
    let app = || {
        app::http(|request| async move {
            if request.uri().path() == "/begin" {
                let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<bytes::Bytes>, _>>();
                sender.send(Ok(Frame::data("begun".into()))).unwrap();
                tokio::spawn(async move { sender.closed().await });
                let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
                    receiver.recv().await.map(|frame| (frame, receiver))
                });
                return Response::new(BodyExt::boxed(StreamBody::new(stream)));
            }
            std::future::pending().await
        })
    };
    for (name, limits) in [("total", (100, None, None)), ("idle", (60_000, None, Some(100)))] {
        for concurrency in [0, 1] {
            let name = format!("{name}{concurrency}");
            let revision = timeouts(revision(&name, concurrency), limits.0, limits.1, limits.2);
            let pool = world.run(revision, app().await).await;
            let host = format!("{name}.test");
            let begun = client::get(world.address(), &host, "/begin").await;
            assert_eq!(
                (begun.status, begun.body.as_str(), begun.whole),
                (200, "begun", false),
                "{name}: cut"
            );
            until(|| pool.in_flight() == 0).await;
        }
    }
    for (name, limits) in [
        ("t", (50, None, None)),
        ("s", (60_000, Some(50), None)),
        ("i", (60_000, None, Some(50))),
    ] {
        let revision = timeouts(revision(name, 0), limits.0, limits.1, limits.2);
        let pool = world.run(revision, app().await).await;
        let mut client = Client::connect(world.address()).await;
        for _ in 0..2 {
            client
                .say(&format!("GET / HTTP/1.1\r\nHost: {name}.test\r\n\r\n"))
                .await;
            let reply = client.reply().await.expect("the connection stays");
            assert_eq!((reply.status, reply.body.as_str()), (504, "request timeout"), "{name}");
        }
        settled(&pool).await;
    }
    // A response that has begun in time is not late.
    let mut in_time = timeouts(revision("in-time", 0), 60_000, Some(200), None);
    in_time.server_timing = true;
    let app = app::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _ = stream.write_all(b"late").await;
    });
    world.run(in_time, app.await).await;
    assert_eq!(client::get(world.address(), "in-time.test", "/").await.body, "late");
}

/// A client that does not read must not hold a slot for longer than its request's time.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut() {
    let limits = Limits {
        drain_bound: Duration::from_millis(100),
        ..Limits::default()
    };
    let mut world = World::with(2, limits, |_| {});
    let app = app::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            .await;
        let piece = [0; 64 << 10];
        while stream.write_all(&piece).await.is_ok() {}
    });
    let pool = world
        .run(timeouts(revision("big", 1), 300, None, None), app.await)
        .await;
    let mut client = Client::connect(world.address()).await;
    client.say("GET / HTTP/1.1\r\nHost: big.test\r\n\r\n").await;
    until(|| pool.in_flight() == 1).await;
    settled(&pool).await; // although `client` is still there, and never read
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_requests_finish_and_takes_no_new_ones() {
    let mut world = World::new();
    let (overlap, gate) = (Overlap::default(), Arc::new(Semaphore::new(0)));
    let app = working(&overlap, &gate).await;
    world.run(revision("work", 0), app).await;
    let at = world.address();
    let mut idle = Client::connect(at).await;
    idle.say("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").await;
    assert_eq!(idle.reply().await.unwrap().status, 404);
    let mut busy = Client::connect(at).await;
    busy.say("GET / HTTP/1.1\r\nHost: work.test\r\n\r\n").await;
    until(|| overlap.now() == 1).await;
    let drain = tokio::spawn(world.gateway.drain(Duration::from_secs(60)));
    assert!(idle.closed().await, "an idle connection is closed");
    until_refused(at).await;
    assert!(!drain.is_finished());
    gate.add_permits(1);
    let reply = busy.reply().await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "done"));
    assert_eq!(reply.header("connection"), Some("close"));
    drain.await.unwrap();
}

async fn until_refused(at: std::net::SocketAddr) {
    while tokio::net::TcpStream::connect(at).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_cuts() {
    let mut world = World::new();
    let (overlap, gate) = (Overlap::default(), Arc::new(Semaphore::new(0)));
    let app = working(&overlap, &gate).await;
    let pool = world.run(revision("work", 1), app).await;
    let mut busy = Client::connect(world.address()).await;
    busy.say("GET / HTTP/1.1\r\nHost: work.test\r\n\r\n").await;
    until(|| overlap.now() == 1).await;
    world.gateway.drain(Duration::from_millis(50)).await;
    assert!(busy.closed().await);
    assert_eq!(pool.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed() {
    let world = World::with(1, Limits::default(), |config| {
        config.first_head = Duration::from_millis(50);
        config.keep_alive = Duration::from_millis(50);
    });
    let mut nothing = Client::connect(world.address()).await;
    assert!(nothing.closed().await);
    let mut half = Client::connect(world.address()).await;
    half.say("GET / HTTP/1.1\r\nHost: ").await;
    assert!(half.closed().await, "a head that does not end");
    let mut kept = Client::connect(world.address()).await;
    kept.say("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").await;
    assert_eq!(kept.reply().await.unwrap().status, 404);
    assert!(kept.closed().await, "nothing more was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_their_turn() {
    let world = World::with(1, Limits::default(), |config| config.connections = 2);
    let mut first = Client::connect(world.address()).await;
    let mut second = Client::connect(world.address()).await;
    for client in [&mut first, &mut second] {
        client.say("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().status, 404);
    }
    let mut third = Client::connect(world.address()).await;
    third.say("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").await;
    assert!(
        tokio::time::timeout(Duration::from_millis(50), third.reply())
            .await
            .is_err()
    );
    drop(first);
    assert_eq!(third.reply().await.unwrap().status, 404);
}
