//! Scenarios against real sockets: threads, closed loops, several targets, HTTP/2, TLS, stages that end by what a Knarr says.

mod support;

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loadtest::results::Ended;
use loadtest::{
    Address, Arrivals, Data, ErrorKind, Gaps, Knarr, Length, PlanError, Progress, Protocol, Rate, Results, Scenario,
    Stage, Target, Tls, run_scenario,
};
use manifests::units::Rps;
use support::{Speaks, ms, serve};

fn quiet(_: &Progress) {}

async fn run(scenario: Scenario) -> Results {
    run_scenario(scenario, quiet, pending()).await.expect("runs")
}

fn one(target: Target, arrivals: Arrivals, duration: Duration) -> Scenario {
    Scenario::new("test", vec![target], vec![Stage::new("all", arrivals, duration)])
}

fn answered(results: &Results, status: u16) -> u64 {
    results.count(|series| series.ended == Ended::Status(status))
}

/// Rows of `n`, 0 to 999.
fn numbers() -> Data {
    let rows: String = (0..1_000).map(|nth| format!("{nth}\n")).collect();
    Data::from_csv(format!("n\n{rows}").as_bytes()).expect("CSV")
}

#[tokio::test]
async fn threads_share_one_schedule() {
    let poisson = || Arrivals::Shaped {
        rate: Rate::Ramp {
            from: Rps(100.0),
            to: Rps(900.0),
        },
        gaps: Gaps::Exponential,
    };
    let mut all = Vec::new();
    for threads in [1, 3] {
        let server = serve(Speaks::Http1, |_| ms(0)).await;
        let mut target = server.target().path("/{{n}}");
        target.data = Some(numbers());
        let mut scenario = one(target, poisson(), ms(400));
        scenario.threads = Some(threads);
        let results = run(scenario).await;
        let mut seen = server.paths();
        seen.sort();
        assert_eq!(answered(&results, 200), seen.len() as u64, "{}", results.report());
        all.push((seen, results.schedule.late.count()));
    }
    assert!(all[0].0.len() > 100);
    assert_eq!(all[0], all[1], "the number of threads changes nothing of what is sent");
}

#[tokio::test]
async fn a_closed_loop_keeps_its_clients_busy_and_is_called_one() {
    let server = serve(Speaks::Http1, |_| ms(10)).await;
    let stage = Stage::closed("closed", 7, ms(500));
    let mut scenario = Scenario::new("test", vec![server.target()], vec![stage]);
    (scenario.threads, scenario.connect_first) = (Some(2), false);
    let results = run(scenario).await;
    assert!(results.closed_loop && results.report().to_string().contains("closed loop"));
    assert_eq!(server.most.load(Ordering::Relaxed), 7);
    assert_eq!(
        (results.connections.opened, server.connections.load(Ordering::Relaxed)),
        (7, 7)
    );
    let count = answered(&results, 200);
    // No more than ten milliseconds' requests of seven clients; how many fewer is the machine's affair.
    assert!((7..=7 * 50).contains(&count), "{count}");
    assert_eq!(
        results.schedule.late.max(),
        Duration::ZERO,
        "there is no schedule to be late for"
    );
}

/// What comes at the rate is none of the clients' business, and the other way round; both are told apart.
#[tokio::test]
async fn a_closed_loop_beside_a_rate_has_its_own_latencies() {
    let server = serve(Speaks::Http1, |_| ms(10)).await;
    let first = Stage::new("first", Arrivals::Constant(Rps(100.0)), ms(500));
    let second = Stage::new("second", Arrivals::Constant(Rps(50.0)), ms(200));
    let stages = vec![first.clone(), first.with_clients(7), second];
    let mut scenario = Scenario::new("test", vec![server.target()], stages);
    scenario.threads = Some(2);
    let results = run(scenario).await;
    let count = |stage| results.count(|series| series.stage == stage && series.ended == Ended::Status(200));
    assert_eq!((count(0), count(2)), (50, 10), "as many as the rate says");
    assert!((7..=7 * 50).contains(&count(1)), "{}", count(1));
    assert!(server.most.load(Ordering::Relaxed) >= 7);
    let spans: Vec<_> = results
        .stages
        .iter()
        .map(|it| (it.start, it.end, it.closed_loop, it.beside))
        .collect();
    assert_eq!(
        spans,
        [
            (ms(0), ms(500), false, false),
            (ms(0), ms(500), true, true),
            (ms(500), ms(700), false, false)
        ]
    );
    let said = results.report().to_string();
    assert!(
        said.contains("warning: closed loop in \"first, closed loop\": each client waited"),
        "{said}"
    );
}

#[tokio::test]
async fn targets_get_their_weights_and_data_goes_row_by_row() {
    let servers = [
        serve(Speaks::Http1, |_| ms(0)).await,
        serve(Speaks::Http1, |_| ms(0)).await,
    ];
    let mut targets: Vec<Target> = servers.iter().map(|server| server.target().path("/{{n}}")).collect();
    for (target, weight) in targets.iter_mut().zip([3.0, 1.0]) {
        (target.weight, target.data, target.connections) = (weight, Some(numbers()), 1);
    }
    let arrivals = || Arrivals::Constant(Rps(1_000.0));
    let mut second = Stage::new("second", arrivals(), ms(100));
    second.weights = vec![0.0, 1.0];
    let stages = vec![Stage::new("first", arrivals(), ms(400)), second];
    let results = run(Scenario::new("test", targets, stages)).await;
    let count = |stage, target| results.count(|series| (series.stage, series.target) == (stage, target));
    let first = count(0, 0);
    // Binomial: sigma = sqrt(400 * 3 / 16) = 8.7; four of them.
    assert!(first.abs_diff(300) < 35, "{first}");
    assert_eq!((first + count(0, 1), count(1, 0), count(1, 1)), (400, 0, 100));
    let in_order: Vec<String> = (0..first).map(|nth| format!("/{nth}")).collect();
    assert_eq!(servers[0].paths(), in_order);
}

#[tokio::test]
async fn http2_carries_many_requests_on_few_connections() {
    let server = serve(Speaks::Http2, |_| ms(20)).await;
    let mut target = server.target();
    (target.protocol, target.connections, target.streams) = (Protocol::Http2, 2, 5);
    let results = run(one(target, Arrivals::Burst(40), Duration::ZERO)).await;
    assert_eq!(
        (answered(&results, 200), results.targets[0].protocol.as_str()),
        (40, "h2c"),
        "{}",
        results.report()
    );
    assert_eq!((results.connections.opened, results.connections.reused), (2, 38));
    assert_eq!(server.most.load(Ordering::Relaxed), 10);
    assert_eq!(results.schedule.longest_line, 30);

    let mut lonely = server.target();
    (lonely.protocol, lonely.keep_alive, lonely.streams) = (Protocol::Http2, false, 1);
    let results = run(one(lonely, Arrivals::Burst(4), Duration::ZERO)).await;
    assert_eq!((answered(&results, 200), results.connections.opened), (4, 4));
}

#[tokio::test]
async fn tls_is_checked_negotiated_and_timed_apart() {
    let server = serve(Speaks::Tls, |_| ms(0)).await;
    let authorities = Some(PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/certificates/authority.pem"
    )));
    let target = |protocol, insecure: bool| {
        let url = format!("https://localhost:{}/", server.addr.port());
        let mut target = Target::from_url(&url).expect("a URL");
        (target.protocol, target.address) = (protocol, by_name(server.addr));
        target.tls = Some(Tls {
            insecure,
            authorities: authorities.clone().filter(|_| !insecure),
            server_name: None,
        });
        target
    };
    for (protocol, insecure, spoken) in [
        (Protocol::Auto, false, "h2"),
        (Protocol::Http1, false, "h1 over TLS"),
        (Protocol::Auto, true, "h2"),
    ] {
        let results = run(one(target(protocol, insecure), Arrivals::Burst(3), Duration::ZERO)).await;
        assert_eq!(answered(&results, 200), 3, "{spoken}: {}", results.report());
        assert_eq!(results.targets[0].protocol, spoken);
        let connections = &results.connections;
        assert_eq!(
            (connections.dns.count(), connections.tls.count()),
            (1, connections.opened)
        );
        assert_eq!(connections.connect.count(), connections.opened);
    }
    let mut stranger = target(Protocol::Auto, false);
    stranger.tls = Some(Tls {
        server_name: Some("somebody.else".to_owned()),
        authorities,
        insecure: false,
    });
    let error = run_scenario(
        one(stranger.clone(), Arrivals::Burst(1), Duration::ZERO),
        quiet,
        pending(),
    )
    .await;
    let error = error.expect_err("not its name").to_string();
    assert!(
        error.contains("cannot connect to") && error.contains("not valid for name"),
        "{error}"
    );
    // Found out on the way, it is an error of the requests.
    stranger.protocol = Protocol::Http1;
    let mut scenario = one(stranger, Arrivals::Burst(2), Duration::ZERO);
    scenario.connect_first = false;
    let results = run(scenario).await;
    assert_eq!(results.errors[&ErrorKind::Tls].count, 2, "{}", results.report());
}

/// Looked up, as a name in a URL is that is not this machine's by definition.
fn by_name(addr: SocketAddr) -> Address {
    Address::Name {
        host: "localhost".to_owned(),
        port: addr.port(),
    }
}

#[tokio::test]
async fn a_name_leads_to_the_address_that_answers() {
    let server = serve(Speaks::Http1, |_| ms(0)).await;
    // Where the name has an IPv6 address too, nobody listens there.
    let mut target = server.target();
    target.address = by_name(server.addr);
    let results = run(one(target, Arrivals::Burst(3), Duration::ZERO)).await;
    assert_eq!(
        (answered(&results, 200), results.connections.dns.count()),
        (3, 1),
        "{}",
        results.report()
    );

    // No resolver need know such a name.
    let target = Target::from_url(&format!("http://hello.default.localhost:{}/", server.addr.port())).expect("a URL");
    let results = run(one(target, Arrivals::Burst(3), Duration::ZERO)).await;
    assert_eq!(
        (answered(&results, 200), results.connections.dns.count()),
        (3, 0),
        "{}",
        results.report()
    );

    let six = support::serve_at("[::1]:0", Speaks::Http1, |_| ms(0)).await;
    let target = Target::from_url(&format!("http://{}/", six.addr)).expect("a URL");
    let results = run(one(target, Arrivals::Burst(3), Duration::ZERO)).await;
    assert_eq!(
        (answered(&results, 200), results.connections.dns.count()),
        (3, 0),
        "{}",
        results.report()
    );
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_is_one_clear_error() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let target = Target::new(gone.expect("an address"), "app");
    let error = run_scenario(one(target, Arrivals::Burst(1), Duration::ZERO), quiet, pending()).await;
    let error = error.expect_err("nobody there");
    assert!(matches!(error, PlanError::Target { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with("app: cannot connect to 127.0.0.1:") && text.contains("refused"),
        "{text}"
    );
    let target = Target::from_url("http://no-such-host.invalid/").expect("a URL");
    let error = run_scenario(one(target, Arrivals::Burst(1), Duration::ZERO), quiet, pending()).await;
    assert!(
        error
            .expect_err("no such name")
            .to_string()
            .contains("cannot find the address of no-such-host.invalid")
    );
}

#[tokio::test]
async fn what_is_stopped_tells_of_all_that_ran() {
    // One in ten hangs far past the end.
    let server = serve(Speaks::Http1, |nth| if nth % 10 == 9 { ms(60_000) } else { ms(1) }).await;
    let scenario = one(
        server.target(),
        Arrivals::Constant(Rps(200.0)),
        Duration::from_secs(600),
    );
    let stop = tokio::time::sleep(ms(500));
    let results = run_scenario(scenario, quiet, stop).await.expect("ran");
    assert!(results.interrupted && results.report().to_string().contains("ended before its end"));
    let due = results.schedule.late.count();
    assert!((20..=400).contains(&due), "{due}");
    let answered = answered(&results, 200);
    assert!(answered > 0 && results.aborted > 0);
    assert_eq!(
        answered + results.aborted + results.count(|it| matches!(it.ended, Ended::Error(_))),
        due
    );
    assert!(results.stages[0].end < Duration::from_secs(60));
}

/// The generator is asked for what no thread can do, with little patience: it must say that it fell short, by how much, and
/// that the figures are its own.
#[tokio::test]
async fn an_overloaded_generator_reports_its_own_shortfall() {
    let server = serve(Speaks::Http1, |_| ms(0)).await;
    let mut scenario = one(server.target(), Arrivals::Constant(Rps(3e6)), ms(300));
    (scenario.threads, scenario.timeout, scenario.max_waiting) = (Some(1), ms(200), 1_000);
    let results = run(scenario).await;
    let due = results.schedule.late.count();
    assert_eq!(due, 900_000, "all that was asked for is counted");
    let schedule = &results.schedule;
    assert!(
        schedule.never_sent > 0 && schedule.never_sent < due,
        "{}",
        results.report()
    );
    assert!(schedule.missed > 0 && schedule.late.max() > ms(1));
    let over = results.count(|_| true);
    assert_eq!(over + schedule.never_sent, due, "and nothing is lost");
    let report = results.report();
    assert!(report.asked_rate.is_some_and(|rate| rate.0 == 3e6) && report.achieved_rate.0 < 3e6);
    let text = report.to_string();
    assert!(
        text.contains("were never sent") && text.contains("the generator is part of the figures"),
        "{text}"
    );
}

#[tokio::test]
async fn a_stage_ends_when_a_knarr_says_so_or_is_given_up() {
    let app = serve(Speaks::Http1, |_| ms(0)).await;
    let mut target = app.target();
    target.host = "hello.default.localhost".to_owned();
    let status = |replicas: u32| {
        serde_json::json!({
            "services": [{"namespace": "default", "name": "hello", "url": "http://hello.default.localhost:8080"}],
            "revisions": [{"namespace": "default", "service": "hello", "actualReplicas": replicas, "startingReplicas": 0,
                           "rung": if replicas == 0 { "zero" } else { "full" }, "inFlight": 0, "waiting": 3}],
        })
        .to_string()
    };
    // Two replicas at the first three looks, none afterwards.
    let admin = support::serve_bodies(move |nth| status(if nth < 3 { 2 } else { 0 })).await;
    let until = |condition: &str, at_most| Stage {
        length: Length::Until {
            condition: condition.parse().expect("a condition"),
            at_most,
        },
        ..Stage::new("wait", Arrivals::Silence, Duration::ZERO)
    };
    let stages = vec![
        until("replicas == 0", ms(30_000)),
        Stage::new("burst", Arrivals::Burst(5), ms(100)),
    ];
    let mut scenario = Scenario::new("test", vec![target.clone()], stages);
    scenario.knarr = Some(Knarr {
        admin: admin.to_string(),
        services: Vec::new(),
    });
    let results = run(scenario.clone()).await;
    assert_eq!(
        (answered(&results, 200), results.verdicts.len()),
        (5, 0),
        "{}",
        results.report()
    );
    let [wait, burst] = &results.stages[..] else {
        panic!("two stages");
    };
    assert!(wait.end >= ms(400), "three looks at most five a second: {:?}", wait.end);
    assert_eq!(burst.start, wait.end);
    let seen: BTreeMap<u32, u64> = results
        .timeline
        .rows()
        .iter()
        .flat_map(|row| &row.servers)
        .map(|seen| (seen.replicas, seen.queue))
        .collect();
    assert_eq!(seen.get(&2), Some(&3), "{seen:?}");

    scenario.stages[0] = until("replicas >= 5", ms(300));
    let results = run(scenario).await;
    let verdict = &results.verdicts[0];
    assert_eq!(
        (verdict.held, verdict.threshold.as_str(), verdict.seen.as_str()),
        (false, "until replicas >= 5", "not within 300ms")
    );
    assert_eq!(answered(&results, 200), 5, "and the run goes on");
}
