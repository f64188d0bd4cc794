//! The app as its users meet it: the real program on a real socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

struct App {
    process: Child,
    port: u16,
}

impl App {
    fn start(flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_knarr-workload"))
            .args(flags)
            .env_clear()
            .envs([("PORT", "0"), ("K_REVISION", "hello-00001"), ("HOSTNAME", "box-1")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("piped");
        // Byte by byte: what follows belongs to the test.
        while !line.ends_with('\n') {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).expect("readable"), 1, "ended after {line:?}");
            line.push(byte[0].into());
        }
        let port = line
            .trim()
            .strip_prefix("listening on port ")
            .expect("announces its port");
        Self {
            process,
            port: port.parse().expect("a port"),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        stream
    }

    /// Sends a request that closes the connection; the whole answer as text.
    fn exchange(&self, request: &str, headers: &str, body: &str) -> String {
        let stream = self.connect();
        send(&stream, request, &format!("connection: close\r\n{headers}"), body);
        read_all(stream)
    }

    fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path}"), "", "")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.process.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success());
    }

    fn wait(&mut self) -> ExitStatus {
        self.process.wait().expect("it is our child")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn send(mut stream: &TcpStream, request: &str, headers: &str, body: &str) {
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .expect("sent");
}

fn read_all(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a whole answer");
    answer
}

/// Status, and the rest of the answer.
fn status(answer: &str) -> &str {
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .unwrap_or(answer)
}

#[test]
fn greets_with_its_revision_and_host_on_both_families() {
    let app = App::start(&[]);
    let answer = app.get("/");
    assert!(
        answer.ends_with("\r\n\r\nHello World! revision=hello-00001 host=box-1\n"),
        "{answer}"
    );
    if let Ok(stream) = TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, app.port))) {
        send(&stream, "GET /", "connection: close\r\n", "");
        assert_eq!(status(&read_all(stream)), "200");
    }
    assert!(app.get("/env").contains(r#""K_REVISION":"hello-00001""#));
}

#[test]
fn answers_what_it_is_asked_for() {
    let app = App::start(&["--body", "1024"]);
    for (path, expected) in [
        ("/", "200"),
        ("/sleep?ms=1", "200"),
        ("/cpu?ms=3", "200"),
        ("/mem?mb=1&ms=1", "200"),
        ("/status/418", "418"),
        ("/status/204", "204"),
        ("/status/100", "400"),
        ("/status/600", "400"),
        ("/sleep?ms=long", "400"),
        ("/stream?n=0", "400"),
        ("/ws", "400"),
        ("/nowhere", "404"),
    ] {
        assert_eq!(status(&app.get(path)), expected, "{path}");
    }
    assert!(app.get("/").contains("content-length: 1024\r\n"));
}

#[test]
fn echoes_body_and_headers_and_streams_chunks_and_trailers() {
    let app = App::start(&[]);
    let answer = app.exchange("POST /echo?a=b", "x-color: green\r\n", "to and fro");
    assert!(answer.contains("\r\nx-echo-x-color: green\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nx-method: POST\r\nx-uri: /echo?a=b\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nto and fro"), "{answer}");

    let answer = app.get("/stream?n=3&ms=1");
    assert!(
        answer.ends_with("8\r\nchunk 0\n\r\n8\r\nchunk 1\n\r\n8\r\nchunk 2\n\r\n0\r\n\r\n"),
        "{answer}"
    );

    let answer = app.exchange("GET /trailers", "te: trailers\r\n", "");
    assert!(answer.ends_with("0\r\nx-checksum: abc123\r\n\r\n"), "{answer}");
}

#[test]
fn echo_streams_before_the_request_has_ended() {
    let app = App::start(&[]);
    let mut stream = app.connect();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"4\r\nping\r\n") {
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .expect("the first chunk comes back while the request is open");
        answer.push(byte[0]);
    }
}

#[test]
fn overlap_is_seen_by_both_sides_and_work_outlives_its_client() {
    let app = App::start(&[]);
    assert_eq!(status(&app.get("/overlap?ms=1")), "200");
    let left = app.connect();
    send(&left, "GET /overlap?ms=5000", "", "");
    while !app.get("/overlap/report").contains(r#""running":1"#) {}
    drop(left);
    let answer = app.get("/overlap?ms=1");
    assert_eq!(status(&answer), "409", "{answer}");
    assert!(answer.contains(r#""requests":3,"overlaps":1,"most":2"#), "{answer}");
}

#[test]
fn one_connection_at_a_time_holds_others_until_the_first_closes() {
    let app = App::start(&["--one-connection"]);
    let first = app.connect();
    send(&first, "GET /", "", "");
    let mut head = String::new();
    BufReader::new(&first).read_line(&mut head).expect("an answer");
    assert_eq!(status(&head), "200");

    let second = app.connect();
    send(&second, "GET /", "connection: close\r\n", "");
    second
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    assert!((&second).read(&mut [0]).is_err(), "served beside the first");
    drop(first);
    second
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    assert_eq!(status(&read_all(second)), "200");
}

#[tokio::test]
async fn websocket_echoes() {
    let app = App::start(&[]);
    let url = format!("ws://127.0.0.1:{}/ws", app.port);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("an upgrade");
    for message in [Message::text("ahoy"), Message::binary(vec![0, 159])] {
        socket.send(message.clone()).await.expect("sent");
        assert_eq!(socket.next().await.expect("open").expect("a message"), message);
    }
    socket.close(None).await.expect("closed");
}

#[test]
fn speaks_http2_with_prior_knowledge_when_told() {
    // The client's preface (RFC 9113 section 3.4) and an empty SETTINGS frame; a server answers with SETTINGS.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let app = App::start(&["--h2c"]);
    let mut stream = app.connect();
    stream.write_all(hello).expect("sent");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).expect("a frame");
    assert_eq!(frame[3], 4, "SETTINGS");
    assert_eq!(status(&app.get("/")), "200", "HTTP/1.1 beside it");
}

#[test]
fn term_lets_a_running_request_end() {
    let mut app = App::start(&["--chatty"]);
    let stream = app.connect();
    send(&stream, "GET /sleep?ms=300", "", "");
    let mut line = String::new();
    BufReader::new(app.process.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("readable");
    assert_eq!(line, "GET /sleep?ms=300\n");
    app.signal("-TERM");
    let answer = read_all(stream);
    assert_eq!(status(&answer), "200", "{answer}");
    assert_eq!(app.wait().code(), Some(0));
}

#[test]
fn ignore_term_needs_a_kill() {
    let mut app = App::start(&["--ignore-term"]);
    app.signal("-TERM");
    for _ in 0..5 {
        assert_eq!(status(&app.get("/")), "200");
    }
    app.signal("-KILL");
    assert_eq!(app.wait().code(), None);
}

#[test]
fn exits_as_told() {
    let mut app = App::start(&[]);
    assert_eq!(app.get("/exit?code=3"), "");
    assert_eq!(app.wait().code(), Some(3));

    let run = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_knarr-workload"))
            .args(flags)
            .output()
            .expect("the program runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(run(&["--fail-start", "7"]).0, Some(7));
    let (code, error) = run(&["--bdy", "7"]);
    assert_eq!(code, Some(2));
    assert!(error.starts_with("error: unknown argument: --bdy\n"), "{error}");
    let app = App::start(&[]);
    let taken = Command::new(env!("CARGO_BIN_EXE_knarr-workload"))
        .env("PORT", app.port.to_string())
        .output();
    assert_eq!(taken.expect("the program runs").status.code(), Some(1));
}

#[test]
fn not_ready_means_503_and_ends() {
    let app = App::start(&["--ready-delay", "1s"]);
    assert_eq!(status(&app.get("/")), "503");
    while status(&app.get("/")) == "503" {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status(&app.get("/")), "200");
}

#[test]
fn it_can_be_unready_and_hang_for_a_while() {
    let app = App::start(&[]);
    assert_eq!(status(&app.get("/ready")), "200");
    assert!(app.get("/unready?ms=60000").ends_with("\r\n\r\nbox-1\n"));
    assert_eq!(status(&app.get("/ready")), "503");
    assert_eq!(status(&app.get("/")), "200", "it serves all the same");
    let health = app.get("/grpc.health.v1.Health/Check");
    assert!(
        health.contains("application/grpc") && health.contains("\x08\x02"),
        "{health:?}"
    );

    let app = App::start(&[]);
    assert!(app.get("/grpc.health.v1.Health/Check").contains("\x08\x01"));
    assert_eq!(status(&app.get("/hang?ms=500")), "200");
    let stream = app.connect();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    send(&stream, "GET /", "", "");
    let silent = (&stream).read(&mut [0; 1]);
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(status(&app.get("/")), "200", "later it goes on");
}
