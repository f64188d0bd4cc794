//! Commands to a running Knarr, and how it starts and ends.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{ANY_PORTS, BOUND, Knarr, Output, Place, host, processes, until};

#[test]
fn get_logs_and_explain() {
    let text = service("web").proven().arg("--chatty").yaml() + &service("idle").yaml();
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &text)]);
    assert_eq!(knarr.get("web", "/hello-logs").status, 404);
    get(&knarr);
    logs(&knarr);
    explain(&knarr);
}

fn get(knarr: &Knarr) {
    let tables = knarr.ask(&["get"]).well().out;
    for head in ["NAMESPACE   SERVICE", "NAMESPACE   REVISION", "NAMESPACE   ROUTE"] {
        assert!(tables.contains(head), "{tables}");
    }
    let services = knarr.ask(&["get", "services"]).well().out;
    let rows: Vec<Vec<&str>> = services.lines().map(|line| line.split_whitespace().collect()).collect();
    let url = format!("http://web.default.localhost:{}", knarr.gateway.port());
    assert_eq!(
        rows[0],
        ["NAMESPACE", "SERVICE", "URL", "LATEST", "READY", "READY", "REASON"]
    );
    assert_eq!(rows[2], ["default", "web", url.as_str(), "web-00001", "True"]);
    assert!(!services.lines().any(|line| line.ends_with(' ')), "{services}");

    let json = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&knarr.ask(&[&["get", "-o", "json"], words].concat()).well().out).unwrap()
    };
    let all = json(&[]);
    assert_eq!(all["services"][1]["name"], "web");
    assert_eq!(all["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json(&["revisions"])[1]["requests"]["clientError"], 1);
    assert_eq!(json(&["routes"])[0]["traffic"][0]["percent"], 100);
    assert_eq!(json(&["services", "--namespace", "none"]), serde_json::json!([]));
}

fn logs(knarr: &Knarr) {
    let said = |words: &[&str]| knarr.ask(words);
    for target in ["web", "web-00001", "default/web"] {
        let logs = said(&["logs", target]).well().out;
        assert!(
            logs.contains("listening on port 8080\n") && logs.contains("GET /hello-logs"),
            "{target}: {logs}"
        );
    }
    assert_eq!(said(&["logs", "web", "--tail", "1"]).well().out, "GET /hello-logs\n");
    let nothing = said(&["logs", "nothing"]);
    assert!(
        nothing.code == Some(1) && nothing.err.contains("nothing named default/nothing"),
        "{nothing:?}"
    );

    let mut follow = Following::begin(knarr, &["logs", "--follow", "--tail", "0", "web"]);
    for index in 0..3 {
        let path = format!("/follow-{index}");
        knarr.get("web", &path);
        follow.until(&format!("GET {path}"));
    }
    // A sandbox that starts while somebody follows is followed, too.
    for pid in processes::apps(knarr.pid(), "web-00001") {
        processes::kill(pid);
    }
    knarr.until("it is replaced", |_| knarr.get("web", "/after").status == 404);
    follow.until("listening on port 8080");
}

fn explain(knarr: &Knarr) {
    for target in ["web", "web-00001", "default/web-00001"] {
        let text = knarr.ask(&["explain", target]).well().out;
        for word in ["inputs", "concurrency", "decider", "because"] {
            assert!(text.contains(word), "{target}: {text}");
        }
    }
    let json = knarr
        .ask(&["explain", "web", "-o", "json", "--since", "10m"])
        .well()
        .out;
    let records: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        records[0]["inputs"]["target"].is_number() && records[0]["reason"].is_string(),
        "{json}"
    );
    let none = knarr.ask(&["explain", "none"]);
    assert!(
        none.code == Some(1) && none.err.contains("no revision or service default/none"),
        "{none:?}"
    );
}

/// A command that goes on printing.
struct Following {
    _child: KillOnDrop,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn begin(knarr: &Knarr, words: &[&str]) -> Self {
        let mut child = knarr.place().knarr(words).stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        // It follows from when it has asked; nothing tells when that is.
        thread::sleep(Duration::from_millis(500));
        Self {
            _child: KillOnDrop(child),
            lines,
        }
    }

    fn until(&mut self, what: &str) {
        let mut seen = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(BOUND)
                .unwrap_or_else(|_| panic!("no {what:?} in {seen:?}"));
            if line.ends_with(what) {
                return;
            }
            seen.push(line);
        }
    }
}

#[test]
fn run_needs_no_manifest() {
    let place = Place::new();
    let words = [
        &[
            "run",
            "host:knarr",
            "--name",
            "shop",
            "--port",
            "9000",
            "--env",
            "TARGET=it's: \"me\"",
            "--concurrency",
            "2",
        ][..],
        &ANY_PORTS,
        &["--min-scale", "1"],
    ];
    let mut command = place.knarr(&words.concat());
    command.args(["--", "workload", "--chatty"]);
    let knarr = Knarr::spawn(&place, command);
    knarr.until_ready();
    assert!(knarr.greeting.contains("containerConcurrency: 2"), "{}", knarr.greeting);
    let written = std::fs::read_to_string(place.data().join("run/default.shop.yaml")).unwrap();
    assert!(knarr.greeting.contains(&written), "{}", knarr.greeting);
    assert!(
        knarr
            .get("shop", "/")
            .text()
            .starts_with("Hello it's: \"me\"! revision=shop-00001")
    );
    assert_eq!(knarr.get("shop", "/env").json()["PORT"], "9000");
    let logs = knarr.ask(&["logs", "shop"]).well().out;
    assert!(logs.contains("listening on port 9000"), "{logs}");
    knarr.stop();

    let missing = Output::of(place.knarr(&[&["run", "host:/none/app"][..], &ANY_PORTS].concat()));
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.err.contains("default/app is not ready"), "{missing:?}");
    assert!(missing.err.contains("host:/none/app: no such file"), "{missing:?}");

    let nobody = Output::of(place.knarr(&[&["run", "127.0.0.1:1/nginx"][..], &ANY_PORTS].concat()));
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    let why = "Unable to fetch image \"127.0.0.1:1/nginx:latest\": 127.0.0.1:1 cannot be reached";
    assert!(nobody.err.contains(why), "{nobody:?}");

    let dry = Output::of(place.knarr(&["run", "host:knarr", "--dry-run"])).well();
    assert!(dry.out.starts_with("apiVersion: serving.knative.dev/v1\n"), "{dry:?}");
    for (words, wanted) in [
        (&["run", "host:knarr", "--env", "A"][..], "write NAME=VALUE"),
        (&["run", "host:/usr/bin/7z"], "--name"),
        (&["run", "host:knarr", "--name", "Not_A_Name"], "Not_A_Name"),
    ] {
        let said = Output::of(place.knarr(words));
        assert!(said.code == Some(1) && said.err.contains(wanted), "{words:?} {said:?}");
    }
}

#[test]
fn manifests_from_standard_input() {
    let place = Place::new();
    let mut command = place.knarr(&[&["serve", "-"][..], &ANY_PORTS].concat());
    let (read, mut write) = std::io::pipe().unwrap();
    command.stdin(read);
    let text = service("web").proven().yaml();
    let writer = thread::spawn(move || write.write_all(text.as_bytes()).unwrap());
    let knarr = Knarr::spawn(&place, command);
    writer.join().unwrap();
    knarr.until_ready();
    assert_eq!(knarr.get("web", "/").status, 200);
}

#[test]
fn ports_and_data_directory_are_one_knarrs_own() {
    let knarr = Knarr::serve(&[("web.yaml", &service("web").proven().yaml())]);
    let manifests = knarr.place().manifests();
    let manifests = manifests.to_str().unwrap();
    let second = knarr.ask(&[&["serve", manifests][..], &ANY_PORTS].concat());
    assert!(
        second.code == Some(1) && second.err.contains("another Knarr runs on this data directory"),
        "{second:?}"
    );

    let other = Place::new();
    let (gateway, admin) = (knarr.gateway.to_string(), knarr.admin.to_string());
    for ports in [
        ["--listen", &gateway, "--admin", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin", &admin],
    ] {
        let said = Output::of(other.knarr(&[&["serve", manifests][..], &ports].concat()));
        let wanted = format!(
            "cannot listen on {}",
            if ports[1] == gateway { &gateway } else { &admin }
        );
        assert!(
            said.code == Some(1) && said.err.contains(&wanted) && said.err.contains("in use"),
            "{said:?}"
        );
    }
    assert_eq!(knarr.get("web", "/").status, 200, "the first one has not noticed");
}

#[test]
fn a_signal_lets_requests_finish_and_a_second_one_does_not() {
    let text = service("web").proven().yaml();
    let knarr = Knarr::serve(&[("web.yaml", &text)]);
    let (gateway, place) = (knarr.gateway, Arc::clone(knarr.place()));
    let mut client = knarr.client();
    client.send(&host("web"), "/sleep?ms=1500", &[]);
    knarr.until_revision("web-00001", "has a request", |it| it.in_flight == 1);
    let family = processes::descendants(knarr.pid());
    knarr.signal(Signal::TERM);
    until(
        "no new connections are taken",
        || TcpStream::connect(gateway).is_err(),
        String::new,
    );
    assert_eq!(client.reply().text(), "slept\n");
    let (status, errors) = knarr.ended();
    assert!(
        status.success() && errors.contains("finishing requests in flight"),
        "{status} {errors}"
    );
    all_gone(&family);

    let knarr = Knarr::at(&place, &[]);
    let mut client = knarr.client();
    client.send(&host("web"), "/sleep?ms=600000", &[]);
    knarr.until_revision("web-00001", "has a request", |it| it.in_flight == 1);
    let family = processes::descendants(knarr.pid());
    knarr.signal(Signal::INT);
    knarr.until_said("once more to end at once");
    knarr.signal(Signal::INT);
    let (status, errors) = knarr.ended();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(client.try_reply().is_err());
    all_gone(&family);
}

fn all_gone(family: &[u32]) {
    let living = || family.iter().filter(|pid| processes::is_alive(**pid)).count();
    until(
        "none of its processes is left",
        || living() == 0,
        || format!("{family:?}"),
    );
}

/// Nobody reads what it says any more, as after `knarr serve ... | head`.
#[test]
fn serves_on_when_nobody_listens_to_it() {
    let place = Place::new();
    place.write("web.yaml", &service("web").proven().yaml());
    let manifests = place.manifests();
    let mut command = place.knarr(&[&["serve", manifests.to_str().unwrap()][..], &ANY_PORTS].concat());
    let (read, write) = std::io::pipe().unwrap();
    command.stderr(write).stdout(Stdio::piped());
    let mut knarr = KillOnDrop(command.spawn().unwrap());
    drop((read, command));
    let mut line = String::new();
    let stdout = knarr.0.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let gateway = line.split(' ').nth(4).unwrap().trim_end_matches(';').parse().unwrap();
    let mut client = crate::support::Client::connect(gateway);
    until("it serves", || client.get(&host("web"), "/").status == 200, String::new);
    place.write("more.yaml", &service("more").proven().yaml());
    until(
        "it takes changes",
        || client.get(&host("more"), "/").status == 200,
        String::new,
    );
    place.write("more.yaml", "kind: [");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(client.get(&host("more"), "/").status, 200);
    processes::signal(knarr.0.id(), Signal::TERM);
    assert!(knarr.0.wait().unwrap().success());
}

/// So that a test that fails leaves no process.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
