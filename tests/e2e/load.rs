//! `knarr load URL`, `run` and `check`: load on real services, from the command line.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use loadtest::results::Ended;
use loadtest::{Results, Temperature};
use rustix::process::Signal;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{KNARR, Knarr, Output, Place, processes};

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(KNARR);
    command.arg("load").args(words).stdin(Stdio::null());
    command
}

fn load(words: &[&str]) -> Output {
    Output::of(command(words))
}

/// At zero until somebody asks, and says how warm it was.
fn timed() -> String {
    service("hello").with("knarr.dev/server-timing", "enabled").yaml()
}

#[test]
fn load_from_the_command_line_sees_cold_starts_and_replicas() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("hello.yaml", &timed())]);
    let (url, admin) = (format!("http://{}/echo", knarr.gateway), knarr.admin.to_string());
    let words = [
        url.as_str(),
        "--host",
        "hello.default.localhost",
        "--rate",
        "200",
        "--duration",
        "2s",
        "--body",
        "hello",
        "--status",
        &admin,
        "--json",
    ];
    let results = Results::from_json(load(&words).well().out.as_bytes()).unwrap();
    let ok =
        |temperature| results.count(|series| series.ended == Ended::Status(200) && series.temperature == temperature);
    assert!(ok(Temperature::Cold) > 0, "{}", results.report());
    assert_eq!(
        results.count(|_| true),
        results.schedule.late.count(),
        "{}",
        results.report()
    );
    assert_eq!(
        results.body_bytes,
        5 * results.count(|series| series.ended == Ended::Status(200)),
        "echoed"
    );
    let replicas = results
        .timeline
        .rows()
        .iter()
        .flat_map(|row| &row.servers)
        .map(|seen| seen.replicas);
    assert!(replicas.max() >= Some(1), "{}", results.report());

    let closed = load(&[
        &url,
        "--host",
        "hello.default.localhost",
        "-c",
        "3",
        "-d",
        "500ms",
        "--http2",
    ])
    .well();
    assert!(
        closed.out.contains("closed loop of 3 for 0.5s") && closed.out.contains("do not compare"),
        "{closed:?}"
    );
    // Both at once are told apart.
    let both = [
        &url,
        "--host",
        "hello.default.localhost",
        "-r",
        "100",
        "-c",
        "3",
        "-d",
        "500ms",
    ];
    let both = load(&both).well();
    for words in [
        "asked     poisson 100/s for 0.5s, beside it a closed loop of 3",
        "\nby rate, closed loop ",
        "warning: closed loop in \"by rate, closed loop\": ",
    ] {
        assert!(both.out.contains(words), "{words}: {both:?}");
    }
    let arrivals = load(&[&url, "-c", "3", "--arrivals", "constant"]);
    assert!(
        arrivals.err.contains("come at a --rate, and none is given"),
        "{arrivals:?}"
    );
}

#[test]
fn a_scenario_waits_for_zero_and_its_verdict_is_the_exit_code() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("hello.yaml", &timed())]);
    let place = Place::new();
    let (file, page) = (place.path("morning.toml"), place.path("morning.html"));
    let scenario = |threshold: &str| {
        format!(
            "name = \"morning\"\nstatus = \"{}\"\nthresholds = [\"errors == 0\", \"max_replicas <= 50\"]\n\
             [[target]]\nurl = \"http://{}/sleep?ms=5\"\nhost = \"hello.default.localhost\"\n\
             [[stage]]\nname = \"warm\"\nrate = 50\nduration = \"1s\"\n\
             [[stage]]\nname = \"to zero\"\nshape = \"idle\"\nuntil = \"replicas == 0\"\nat_most = \"60s\"\n\
             [[stage]]\nname = \"burst\"\nshape = \"burst\"\ncount = 5\nduration = \"1s\"\nthresholds = [\"{threshold}\"]\n",
            knarr.admin, knarr.gateway
        )
    };
    let run = |threshold: &str| {
        fs::write(&file, scenario(threshold)).unwrap();
        load(&["run", file.to_str().unwrap(), "-o", page.to_str().unwrap()])
    };
    // Everybody in the burst finds nobody running.
    let held = run("cold == 5").well();
    assert!(held.out.contains("held      burst: cold == 5 (was 5)"), "{held:?}");
    assert!(fs::read_to_string(&page).unwrap().contains("to zero"));
    let broken = run("p50 > 50s");
    assert_eq!(broken.code, Some(1), "{broken:?}");
    assert!(broken.out.contains("BROKEN    burst: p50 > 50s"), "{broken:?}");

    fs::write(&file, scenario("p50 < 1s").replace("at_most", "at_mots")).unwrap();
    let wrong = load(&["check", file.to_str().unwrap()]);
    let expected = format!(
        "error: {}:15: stage[1].at_mots: unknown field; did you mean `at_most`?\n",
        file.display()
    );
    assert_eq!((wrong.code, wrong.err), (Some(1), expected));
}

#[test]
fn a_target_that_is_not_there_is_one_clear_error() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = load(&[&format!("http://{gone}/")]);
    assert_eq!(
        (said.code, said.out.as_str(), said.err),
        (
            Some(1),
            "",
            format!("error: {gone}: cannot connect to {gone}: Connection refused (os error 111)\n")
        )
    );
    let said = load(&["http://127.0.0.1:1/", "--status", &gone.to_string()]);
    assert!(
        said.code == Some(1) && said.err.contains("cannot ask Knarr how it stands (--status)"),
        "{said:?}"
    );
}

#[test]
fn what_is_interrupted_is_written_all_the_same() {
    let knarr = Knarr::serve(&[("hello.yaml", &service("hello").proven().yaml())]);
    let place = Place::new();
    let file = place.path("results.json");
    let url = format!("http://{}/", knarr.gateway);
    let mut command = command(&[&url, "--host", "hello.default.localhost", "-d", "10m", "-o"]);
    let child = command
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(2));
    processes::signal(child.id(), Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let results = Results::from_json(&fs::read(&file).unwrap()).unwrap();
    assert!(
        results.interrupted && results.count(|_| true) > 0,
        "{}",
        results.report()
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("the run was ended before its end"));
}
