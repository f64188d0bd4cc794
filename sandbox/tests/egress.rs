//! Where sandboxes get to, found out by an app that tries: real sandboxes, real sockets, another machine.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::workload::{Destination, Egress, EgressRule};
use sandbox::driver::Driver;
use sandbox::egress::{Cluster, EgressConfig};
use sandbox::test_support::outside::{CLOSED, ECHO, FLOOD, HOLD, Outside, has_ip, run};
use sandbox::{LocalConfig, LocalDriver};
use support::{TESTAPP, get, spec, workload};
use tokio::sync::RwLock;

/// The test that looks at the CPU time of this process runs alone.
static ALONE: RwLock<()> = RwLock::const_new(());

fn can_run() -> bool {
    support::is_root() && has_ip()
}

fn driver(dir: &Path, outside: &Outside, egress: EgressConfig) -> Arc<LocalDriver> {
    LocalDriver::new(config(dir, outside, egress)).unwrap()
}

fn config(dir: &Path, outside: &Outside, egress: EgressConfig) -> LocalConfig {
    let mut config = support::config(&dir.join("data"));
    config.egress = EgressConfig {
        name_servers: outside.resolv_conf(dir),
        ..egress
    };
    config
}

async fn start(driver: &LocalDriver, id: &str, egress: Option<Egress>) {
    let mut app = workload(TESTAPP, &["serve"]);
    app.egress = egress;
    driver.start(spec(id, app)).await.unwrap();
}

async fn net(driver: &LocalDriver, id: &str, what: &str) -> String {
    get(driver, id, &format!("/net/{what}")).await.unwrap()
}

async fn connect(driver: &LocalDriver, id: &str, to: impl std::fmt::Display) -> String {
    net(driver, id, &format!("connect/5000/{to}")).await
}

fn refused(answer: &str) -> bool {
    answer.starts_with("error ConnectionRefused")
}

fn to(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn network(text: &str, port: Option<u16>) -> EgressRule {
    let (address, prefix) = text.split_once('/').unwrap();
    let to = Destination::Network {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
    };
    EgressRule { to, port }
}

fn name(text: &str, port: Option<u16>) -> EgressRule {
    EgressRule {
        to: Destination::Name(text.to_owned()),
        port,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_egress_everything_is_refused_at_once() {
    if !can_run() {
        return;
    }
    let _together = ALONE.read().await;
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::new();
    outside.say("there.example", outside.there);
    let driver = driver(dir.path(), &outside, EgressConfig::default());
    assert!(
        driver.isolation_warnings().iter().all(|it| !it.contains("egress")),
        "{:?}",
        driver.isolation_warnings()
    );
    start(&driver, "none-1", None).await;
    for target in [
        to(outside.there, ECHO),
        to(outside.there6, ECHO),
        to(outside.host, 22),
        "169.254.169.254:80".parse().unwrap(),
        "198.19.0.1:80".parse().unwrap(),
        "8.8.8.8:443".parse().unwrap(),
        "[2001:4860:4860::8888]:443".parse().unwrap(),
    ] {
        let answer = connect(&driver, "none-1", target).await;
        assert!(refused(&answer), "{target}: {answer}");
    }
    for target in ["8.8.8.8:53", "198.19.0.1:9", "169.254.169.254:123"] {
        let answer = net(&driver, "none-1", &format!("udp/{target}")).await;
        // The packet does not leave: the call that sends it says so.
        assert!(answer.starts_with("error PermissionDenied"), "{target}: {answer}");
    }
    for name in ["there.example", "missing", "default.svc.cluster.local"] {
        let answer = net(&driver, "none-1", &format!("resolve/{name}")).await;
        assert!(answer.starts_with("error"), "{name}: {answer}");
    }
    // What is inside stays.
    assert_eq!(
        connect(&driver, "none-1", "127.0.0.1:8080").await,
        "connected to 127.0.0.1:8080"
    );
    assert_eq!(net(&driver, "none-1", "resolve/localhost").await, "127.0.0.1");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_egress_reaches_other_machines_and_never_this_one() {
    if !can_run() {
        return;
    }
    let _together = ALONE.read().await;
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::new();
    outside.say("there.example", outside.there);
    outside.say("there6.example", outside.there6);
    let config = EgressConfig {
        default: Egress::Full,
        ..EgressConfig::default()
    };
    let driver = driver(dir.path(), &outside, config);
    start(&driver, "full-1", None).await;
    for target in [
        to(outside.there, ECHO).to_string(),
        to(outside.there6, ECHO).to_string(),
        format!("there.example:{ECHO}"),
        format!("there6.example:{ECHO}"),
        format!("[::ffff:{}]:{ECHO}", outside.there),
    ] {
        let answer = connect(&driver, "full-1", &target).await;
        assert!(answer.starts_with("connected"), "{target}: {answer}");
        // Both ways, more than any buffer, and the end of one direction alone.
        let answer = net(&driver, "full-1", &format!("echo/20000000/{target}")).await;
        assert_eq!(answer, "20000000 back", "{target}");
    }
    // What the other machine refuses is refused, and what does not answer does not look accepted.
    let answer = connect(&driver, "full-1", to(outside.there, CLOSED)).await;
    assert!(refused(&answer), "{answer}");
    // Less than the host itself waits for an answer to ARP.
    let answer = net(&driver, "full-1", &format!("connect/300/{}:80", outside.nobody)).await;
    assert!(answer.starts_with("error TimedOut"), "{answer}");

    // This host, by every address, whatever listens.
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host6 = IpAddr::from([0xfd77, outside.there6.segments()[1], 0, 0, 0, 0, 0, 1]);
    let here = [
        to(outside.host, port),
        to(host6, port),
        "169.254.169.254:80".parse().unwrap(),
        to([0, 0, 0, 1], port),
        to([127, 0, 0, 1], port),
        "[::1]:1".parse().unwrap(),
        "[fe80::1]:80".parse().unwrap(),
        to(std::net::Ipv6Addr::from([0x64, 0xff9b, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), 80),
    ];
    for target in here {
        let answer = connect(&driver, "full-1", target).await;
        let other = answer.starts_with("error InvalidInput") || answer.starts_with("error NetworkUnreachable");
        assert!(refused(&answer) || other, "{target}: {answer}");
    }
    // An address that the host gets later.
    let late = outside.nobody;
    run(&format!("ip address add {late}/32 dev lo"));
    let answer = connect(&driver, "full-1", to(late, port)).await;
    run(&format!("ip address del {late}/32 dev lo"));
    assert!(refused(&answer), "{answer}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");

    // A policy of its own is stronger than the server's.
    start(&driver, "none-2", Some(Egress::None)).await;
    let answer = connect(&driver, "none-2", to(outside.there, ECHO)).await;
    assert!(refused(&answer), "{answer}");
    let answer = net(&driver, "full-1", "udp/8.8.8.8:53").await;
    assert!(answer.starts_with("error PermissionDenied"), "{answer}");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allow_list_lets_through_what_it_names_and_no_more() {
    if !can_run() {
        return;
    }
    let _together = ALONE.read().await;
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::new();
    outside.say("api.example", outside.there);
    outside.say("other.example", outside.there);
    outside.say("a.cdn.example", outside.there6);
    outside.say("here.example", outside.host);
    outside.say("loop.example", [127, 0, 0, 1]);
    outside.say("meta.cdn.example", [169, 254, 169, 254]);
    let driver = driver(dir.path(), &outside, EgressConfig::default());
    let rules = vec![
        name("api.example", Some(ECHO)),
        name("*.cdn.example", None),
        name("here.example", None),
        name("loop.example", None),
    ];
    start(&driver, "list-1", Some(Egress::AllowList(rules))).await;
    let (there, there6) = (to(outside.there, ECHO), to(outside.there6, ECHO));
    // Not before Knarr has said that the name leads there.
    for target in [there, there6] {
        let answer = connect(&driver, "list-1", target).await;
        assert!(refused(&answer), "{target}: {answer}");
    }
    let answer = net(&driver, "list-1", "resolve/other.example").await;
    assert!(answer.starts_with("error"), "{answer}");
    for target in [
        format!("api.example:{ECHO}"),
        there.to_string(),
        format!("a.cdn.example:{ECHO}"),
        there6.to_string(),
    ] {
        let answer = connect(&driver, "list-1", &target).await;
        assert!(answer.starts_with("connected"), "{target}: {answer}");
    }
    let answer = connect(&driver, "list-1", format!("api.example:{HOLD}")).await;
    assert!(refused(&answer), "another port: {answer}");
    // Names that lead back here.
    for name in ["loop.example", "meta.cdn.example"] {
        let answer = net(&driver, "list-1", &format!("resolve/{name}")).await;
        assert!(answer.starts_with("error"), "{name}: {answer}");
    }
    assert_eq!(
        net(&driver, "list-1", "resolve/here.example").await,
        outside.host.to_string()
    );
    let listener = TcpListener::bind((outside.host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = connect(&driver, "list-1", format!("here.example:{port}")).await;
    assert!(refused(&answer), "{answer}");

    let rules = vec![network(&format!("{}/32", outside.there), Some(ECHO))];
    start(&driver, "list-2", Some(Egress::AllowList(rules))).await;
    assert!(connect(&driver, "list-2", there).await.starts_with("connected"));
    for target in [to(outside.there, HOLD), there6] {
        let answer = connect(&driver, "list-2", target).await;
        assert!(refused(&answer), "{target}: {answer}");
    }
    // One sandbox's answers are not another's.
    let rules = vec![name("api.example", Some(ECHO))];
    start(&driver, "list-3", Some(Egress::AllowList(rules))).await;
    let answer = connect(&driver, "list-3", there).await;
    assert!(refused(&answer), "{answer}");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_end_with_their_sandbox() {
    if !can_run() {
        return;
    }
    // It counts the descriptors of this process.
    let _alone = ALONE.write().await;
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::new();
    let config = EgressConfig {
        default: Egress::Full,
        connections: 300,
        ..EgressConfig::default()
    };
    // Without a pool, whose shells have descriptors too.
    let alone = LocalConfig {
        pool: 0,
        pool_services: 0,
        ..self::config(dir.path(), &outside, config)
    };
    let driver = LocalDriver::new(alone).unwrap();
    start(&driver, "many-1", None).await;
    // And a few sockets that are made ahead.
    let before = descriptors() + 8;
    let hold = to(outside.there, HOLD);
    assert_eq!(
        net(&driver, "many-1", &format!("many/200/{hold}")).await,
        "200 open, 0 refused"
    );
    // Those have ended; their places come back when the other machine has ended its side, too: all of them, once it has
    // taken them all.
    eventually("all are taken outside", || outside.held() == 200).await;
    assert_eq!(outside.held_to_the_end(), 200);
    eventually("all have ended", || descriptors() <= before).await;
    assert_eq!(net(&driver, "many-1", &format!("hold/{hold}")).await, "held");
    let answer = net(&driver, "many-1", &format!("many/320/{hold}")).await;
    // A place comes back a moment after its descriptors; never is one given twice.
    let open: usize = answer.split(' ').next().unwrap().parse().unwrap();
    assert!((290..=299).contains(&open), "{answer}");
    start(&driver, "other-1", None).await;
    assert_eq!(
        net(&driver, "other-1", &format!("hold/{hold}")).await,
        "held",
        "a bound for each"
    );
    // Every one that was open is held outside, too, and ends now.
    let all = 1 + open + 1;
    eventually("all are taken outside", || outside.held() == all).await;
    driver.stop(&SandboxId::new("many-1"), Duration::ZERO).await.unwrap();
    driver.stop(&SandboxId::new("other-1"), Duration::ZERO).await.unwrap();
    assert_eq!(outside.held_to_the_end(), all);
    eventually("all have ended", || descriptors() <= before).await;
    driver.shutdown(Duration::ZERO).await;
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_sandbox_keeps_no_thread_busy() {
    if !can_run() {
        return;
    }
    let _alone = ALONE.write().await;
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::new();
    let config = EgressConfig {
        default: Egress::Full,
        ..EgressConfig::default()
    };
    let driver = driver(dir.path(), &outside, config);
    start(&driver, "ice-1", None).await;
    // It never reads what comes without end.
    assert_eq!(
        net(&driver, "ice-1", &format!("hold/{}", to(outside.there, FLOOD))).await,
        "held"
    );
    driver.freeze(&SandboxId::new("ice-1")).await.unwrap();
    // Until every buffer on the way is full.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = ticks("knarr-egress");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(ticks("knarr-egress") - before <= 1, "busy while nobody reads");
    driver.thaw(&SandboxId::new("ice-1")).await.unwrap();
    assert!(
        connect(&driver, "ice-1", to(outside.there, ECHO))
            .await
            .starts_with("connected")
    );
    driver.shutdown(Duration::ZERO).await;
}

/// CPU time of all threads of this name, in clock ticks.
fn ticks(name: &str) -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains(&format!("({name})")))
        .map(|stat| {
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
}

/// Two services, which answer with their own names.
#[derive(Default)]
struct Two(Mutex<Vec<String>>);

impl Cluster for Two {
    fn exists(&self, host: &str) -> bool {
        ["a.default.svc.cluster.local", "b.other.svc.cluster.local"].contains(&host)
    }

    fn serve(&self, host: &Arc<str>, mut stream: TcpStream, from: SocketAddr) {
        self.0.lock().unwrap().push(format!("{host} from {}", from.ip()));
        stream.set_nonblocking(false).unwrap();
        support::read_head(&mut stream);
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n{host}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_reached_by_name_without_egress() {
    if !can_run() {
        return;
    }
    let _together = ALONE.read().await;
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::new();
    let two = Arc::new(Two::default());
    let config = EgressConfig {
        cluster: Some(Arc::clone(&two) as Arc<dyn Cluster>),
        ..EgressConfig::default()
    };
    let driver = driver(dir.path(), &outside, config);
    start(&driver, "caller-1", None).await;
    let a = "a.default.svc.cluster.local";
    let b = "b.other.svc.cluster.local";
    for (name, host) in [
        ("a", a),
        ("a.default", a),
        ("a.default.svc", a),
        (a, a),
        ("b.other", b),
        (b, b),
    ] {
        let answer = net(&driver, "caller-1", &format!("get/{name}:80/")).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{host}")), "{name}: {answer}");
    }
    assert_eq!(two.0.lock().unwrap()[0], format!("{a} from 198.18.0.1"));
    for name in ["b", "a.other", "c.default.svc", "a.default.svc.cluster.local.evil"] {
        let answer = net(&driver, "caller-1", &format!("resolve/{name}")).await;
        assert!(answer.starts_with("error"), "{name}: {answer}");
    }
    let other_port = connect(&driver, "caller-1", "a:8080").await;
    assert!(refused(&other_port), "{other_port}");
    driver.shutdown(Duration::ZERO).await;
}
