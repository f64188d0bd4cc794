//! The generator against real sockets: servers that answer, stall, lie and go away.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use http::{HeaderValue, Method};
use loadtest::{
    Abort, Arrival, Arrivals, ErrorKind, Given, Phase, Plan, Progress, StatusClass, Target, Temperature, run,
};
use manifests::units::Rps;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What a server does with one request.
enum Reply {
    Text(String),
    After(Duration, &'static str),
    /// Writes this, then closes.
    Close(&'static str),
    /// Holds the connection until the client closes it.
    Hang,
}

struct Server {
    addr: SocketAddr,
    connections: AtomicU64,
    /// Connections that have ended.
    closed: AtomicU64,
    /// Requests' heads as they came.
    seen: Mutex<Vec<String>>,
}

/// A thread per connection; `reply` gets the request's number, counted over all connections.
fn server(reply: impl Fn(u64) -> Reply + Send + Sync + 'static) -> Arc<Server> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    let server = Arc::new(Server {
        addr,
        connections: 0.into(),
        closed: 0.into(),
        seen: Mutex::default(),
    });
    let (shared, reply) = (server.clone(), Arc::new(reply));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            let (server, reply) = (shared.clone(), reply.clone());
            thread::spawn(move || {
                server.converse(stream, &*reply);
                server.closed.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    server
}

impl Server {
    fn converse(&self, stream: TcpStream, reply: &impl Fn(u64) -> Reply) {
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_request(&mut reader) {
            let number = {
                let mut seen = self.seen.lock().expect("whole");
                seen.push(head);
                seen.len() as u64 - 1
            };
            if answer(reader.get_mut(), reply(number)).is_none() {
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        reader.read_line(&mut request).ok().filter(|read| *read > 0)?;
    }
    Some(request)
}

/// `None` when the connection is to end.
fn answer(stream: &mut TcpStream, reply: Reply) -> Option<()> {
    match reply {
        Reply::Text(text) => stream.write_all(text.as_bytes()).ok(),
        Reply::After(pause, text) => {
            thread::sleep(pause);
            stream.write_all(text.as_bytes()).ok()
        }
        Reply::Close(text) => stream.write_all(text.as_bytes()).ok().and(None),
        Reply::Hang => {
            let _ = std::io::Read::read(stream, &mut [0]);
            None
        }
    }
}

fn text(text: &str) -> Reply {
    Reply::Text(text.to_owned())
}

fn quiet(_: &Progress) {}

/// A request each millisecond, each after a pause of the generator's own thread.
fn held_up(pause: fn(u64) -> Duration) -> Arrivals {
    Arrivals::Given(Given::new(move || {
        (0..).map(move |nth| {
            thread::sleep(pause(nth));
            Arrival {
                due: ms(nth),
                ..Arrival::default()
            }
        })
    }))
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn sends_what_the_plan_says_and_counts_what_comes_back() {
    let server = server(|number| {
        let timing = if number == 0 {
            "start;desc=cold;dur=2.5, app;dur=3"
        } else {
            "start;desc=warm;dur=0, app;dur=1"
        };
        let status = if number % 10 == 9 {
            "503 Service Unavailable"
        } else {
            "200 OK"
        };
        Reply::Text(format!(
            "HTTP/1.1 {status}\r\nserver-timing: {timing}\r\ncontent-length: 4\r\n\r\nbody"
        ))
    });
    let mut target = Target::new(server.addr, "hello.default.example.com").path("/a?b=c");
    target.method = Method::PUT;
    target.headers.insert("x-color", HeaderValue::from_static("green"));
    let mut plan = Plan::new(target, Arrivals::Constant(Rps(1000.0)), ms(100));
    plan.max_connections = 1;
    let (send, progress) = mpsc::channel();
    let report = run(plan, move |now: &Progress| send.send(now.clone()).expect("heard"))
        .await
        .expect("runs")
        .report();

    assert_eq!(
        (report.due, report.count(200), report.count(503), report.failed()),
        (100, 90, 10, 0)
    );
    assert_eq!(
        (report.body_bytes, report.latency.count(), report.first_byte.count()),
        (400, 100, 100)
    );
    assert_eq!(
        server.connections.load(Ordering::Relaxed),
        1,
        "one connection serves all"
    );
    let seen = server.seen.lock().expect("whole");
    assert_eq!(seen.len(), 100);
    assert!(seen[0].starts_with("PUT /a?b=c HTTP/1.1\r\n"), "{}", seen[0]);
    assert!(seen[0].contains("host: hello.default.example.com\r\n") && seen[0].contains("x-color: green\r\n"));

    let class = |status, temperature| {
        let class = report
            .classes
            .iter()
            .find(|class| class.status == status && class.temperature == temperature);
        class.expect("answers of this class")
    };
    let cold = class(StatusClass::SUCCESS, Temperature::Cold);
    assert_eq!((cold.latency.count(), cold.phases[&Phase::Start].count()), (1, 1));
    assert!(cold.phases[&Phase::Start].max().abs_diff(Duration::from_micros(2500)) < Duration::from_micros(5));
    assert_eq!(class(StatusClass::SUCCESS, Temperature::Warm).latency.count(), 89);
    assert_eq!(class(StatusClass::of(503), Temperature::Warm).latency.count(), 10);

    let progress: Vec<_> = progress.iter().collect();
    let last = progress.last().expect("called at the end");
    assert_eq!(
        (last.due, last.statuses[&200], last.in_flight, last.waiting),
        (100, 90, 0, 0)
    );
    assert_eq!(
        progress.iter().map(|progress| progress.recent.count()).sum::<u64>(),
        100
    );
}

/// The server is deaf for 300 ms at the start, and quick afterwards. A closed loop would see one slow request. Everyone
/// who came in that time waited, and the report must show it: 20 of 50 requests were due in the first 200 ms.
#[tokio::test]
async fn a_stall_is_seen_by_everyone_who_came_during_it() {
    let server = server(|number| {
        if number == 0 {
            Reply::After(ms(300), OK)
        } else {
            text(OK)
        }
    });
    let mut plan = Plan::new(Target::new(server.addr, "app"), Arrivals::Constant(Rps(100.0)), ms(500));
    plan.max_connections = 1;
    let report = run(plan, quiet).await.expect("runs").report();
    assert_eq!((report.due, report.count(200)), (50, 50));
    // Upper ranks only: the share of values below the quantile is at most 30 of 50.
    assert!(report.latency.quantile(0.61) >= ms(100), "{report}");
    assert!(report.first_byte.quantile(0.61) >= ms(100), "{report}");
    assert!(report.latency.max() >= ms(300), "{report}");
    assert!(report.schedule.line.quantile(0.61) >= ms(99), "{report}");
    assert!(report.schedule.longest_line >= 20, "{report}");
}

#[tokio::test]
async fn what_the_generator_cannot_send_it_reports() {
    let server = server(|_| Reply::Hang);
    let mut plan = Plan::new(
        Target::new(server.addr, "app"),
        Arrivals::Constant(Rps(1000.0)),
        ms(100),
    );
    (plan.max_connections, plan.max_waiting, plan.timeout) = (1, 10, ms(500));
    let report = run(plan, quiet).await.expect("runs").report();
    // One under way, ten in line; nothing moves until the first times out, long after the last was due.
    assert_eq!(
        (report.due, report.schedule.never_sent, report.schedule.longest_line),
        (100, 89, 10)
    );
    assert_eq!((report.errors[&ErrorKind::Timeout].count, report.failed()), (11, 11));
    assert!(
        report.latency.min() >= ms(400),
        "a timeout counts with the time it took: {report}"
    );
    assert_eq!(report.achieved_rate, Rps(0.0));
    assert!(
        report
            .to_string()
            .contains("warning: 89 of 100 requests were never sent"),
        "{report}"
    );
}

#[tokio::test]
async fn a_generator_that_is_held_up_says_how_late_it_was() {
    let server = server(|_| text(OK));
    // A schedule that is slow to tell what is next, on the generator's thread: as anything that takes its CPU time does.
    let slow = held_up(|nth| if nth % 50 == 49 { ms(50) } else { ms(0) });
    let plan = Plan::new(Target::new(server.addr, "app"), slow, ms(300));
    let report = run(plan, quiet).await.expect("runs").report();
    assert_eq!(report.count(200), 300, "late, but sent all the same");
    assert!(report.schedule.late.max() >= ms(40), "{report}");
    assert!(
        report.latency.max() >= report.schedule.late.max(),
        "its lateness is in the latency: {report}"
    );
    assert!(report.schedule.missed >= 40, "{report}");
    assert!(
        report.to_string().contains("the generator is part of the figures"),
        "{report}"
    );
}

#[tokio::test]
async fn what_the_generator_gets_to_after_its_timeout_is_not_sent() {
    let server = server(|_| text(OK));
    let slow = held_up(|nth| if nth == 1 { ms(300) } else { ms(0) });
    let mut plan = Plan::new(Target::new(server.addr, "app"), slow, ms(400));
    plan.timeout = ms(100);
    let report = run(plan, quiet).await.expect("runs").report();
    // Held up until 300 ms at least: what was due in the first 200 was hopeless then.
    assert!(report.schedule.never_sent >= 90, "{report}");
    assert_eq!(report.due, 400);
    assert_eq!(
        report.count(200) + report.failed() + report.schedule.never_sent,
        400,
        "{report}"
    );
}

#[tokio::test]
async fn every_way_to_fail_has_its_name() {
    let failing = async |reply: fn() -> Reply| {
        let server = server(move |_| reply());
        let mut plan = Plan::burst(Target::new(server.addr, "app"), 3);
        plan.timeout = ms(300);
        let report = run(plan, quiet).await.expect("runs").report();
        assert_eq!(
            (report.failed(), report.latency.count(), report.first_byte.count()),
            (3, 3, 0),
            "{report}"
        );
        *report.errors.keys().next().expect("one kind")
    };
    assert_eq!(failing(|| Reply::Close("")).await, ErrorKind::Closed);
    assert_eq!(failing(|| Reply::Close("HTTP/1.1 200 OK\r\n")).await, ErrorKind::Closed);
    assert_eq!(
        failing(|| Reply::Close("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")).await,
        ErrorKind::Cut
    );
    assert_eq!(
        failing(|| Reply::Close("SSH-2.0-OpenSSH_9.2\r\n\r\n")).await,
        ErrorKind::Protocol
    );
    assert_eq!(failing(|| Reply::Hang).await, ErrorKind::Timeout);
    assert_eq!(
        failing(|| text("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")).await,
        ErrorKind::Timeout
    );

    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .expect("a port")
        .local_addr()
        .expect("an address");
    let report = run(Plan::burst(Target::new(gone, "app"), 3), quiet)
        .await
        .expect("runs")
        .report();
    assert_eq!(report.errors[&ErrorKind::Connect].count, 3, "{report}");
    assert!(report.errors[&ErrorKind::Connect].first.contains("refused"), "{report}");
}

#[tokio::test]
async fn a_connection_that_ended_while_idle_is_no_failure() {
    // Each answer is the last on its connection, without a word about it.
    let server = server(|_| Reply::Close(OK));
    let mut plan = Plan::new(Target::new(server.addr, "app"), Arrivals::Constant(Rps(10.0)), ms(500));
    plan.max_connections = 1;
    let report = run(plan, quiet).await.expect("runs").report();
    assert_eq!((report.count(200), report.failed()), (5, 0), "{report}");
    assert_eq!(server.connections.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn without_keep_alive_each_request_has_its_own_connection() {
    let server = server(|_| text(OK));
    let mut plan = Plan::new(Target::new(server.addr, "app"), Arrivals::Poisson(Rps(500.0)), ms(100));
    plan.keep_alive = false;
    let report = run(plan, quiet).await.expect("runs").report();
    assert_eq!(report.count(200), report.due);
    assert_eq!(server.connections.load(Ordering::Relaxed), report.due);
    assert!(
        server
            .seen
            .lock()
            .expect("whole")
            .iter()
            .all(|head| head.contains("connection: close\r\n"))
    );
}

#[tokio::test]
async fn aborted_clients_close_their_connection_and_are_counted_apart() {
    let server = server(|_| Reply::Hang);
    let mut plan = Plan::burst(Target::new(server.addr, "app"), 30);
    (plan.abort, plan.timeout) = (
        Some(Abort {
            share: 1.0 / 3.0,
            after: ms(20),
        }),
        ms(1000),
    );
    let (send, seen) = mpsc::channel();
    let watch = move |now: &Progress| {
        send.send((now.in_flight, server.closed.load(Ordering::Relaxed)))
            .expect("heard")
    };
    let report = run(plan.clone(), watch).await.expect("runs").report();
    let aborts = report.aborted;
    assert!(aborts > 0 && aborts < 30, "{report}");
    assert_eq!(
        (report.errors[&ErrorKind::Timeout].count, report.latency.count()),
        (30 - aborts, 30 - aborts)
    );
    // While the others still wait, the server knows of those who left.
    let waiting = usize::try_from(30 - aborts).expect("few");
    assert!(
        seen.iter()
            .any(|(in_flight, closed)| in_flight == waiting && closed > 0)
    );

    plan.timeout = ms(100);
    assert_eq!(
        run(plan, quiet).await.expect("runs").report().aborted,
        aborts,
        "the seed decides which"
    );
}

#[tokio::test]
async fn dropping_the_run_closes_its_connections() {
    let (ended, end) = mpsc::channel();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(stream);
        assert!(read_request(&mut reader).is_some());
        ended.send("sent").expect("heard");
        assert!(read_request(&mut reader).is_none());
        ended.send("closed").expect("heard");
    });
    let running = tokio::spawn(run(Plan::burst(Target::new(addr, "app"), 1), quiet));
    let wait = move || (end.recv_timeout(Duration::from_secs(20)), end);
    let (sent, end) = tokio::task::spawn_blocking(wait).await.expect("waits");
    assert_eq!(sent, Ok("sent"));
    running.abort();
    let wait = move || end.recv_timeout(Duration::from_secs(20));
    assert_eq!(tokio::task::spawn_blocking(wait).await.expect("waits"), Ok("closed"));
}
