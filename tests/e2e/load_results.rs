//! `knarr load report`, `compare`, `coldstart` and `replay`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use loadtest::results::Ended;
use loadtest::{Arrivals, Plan, Results};
use manifests::units::Rps;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{KNARR, Knarr, Output, Place};

fn load(words: &[&str]) -> Output {
    let mut command = Command::new(KNARR);
    command.arg("load").args(words);
    Output::of(command)
}

fn run(knarr: &Knarr, path: &str) -> Results {
    let plan = Plan::new(
        knarr.target("hello", path),
        Arrivals::Constant(Rps(100.0)),
        Duration::from_secs(3),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(loadtest::run(plan, |_| {})).unwrap()
}

#[test]
fn a_real_run_becomes_a_table_pictures_and_percentiles_and_is_compared_with_a_slower_one() {
    let knarr = Knarr::serve(&[("hello.yaml", &service("hello").proven().yaml())]);
    let (fast, slow) = (run(&knarr, "/sleep?ms=5"), run(&knarr, "/sleep?ms=60"));
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (a, b, html, hgrm) = (path("a.json"), path("b.json"), path("a.html"), path("a.hgrm"));
    fs::write(&a, fast.to_json().unwrap()).unwrap();
    fs::write(&b, slow.to_json().unwrap()).unwrap();

    let report = load(&["report", &a, "-o", &html, "-o", &hgrm]).well();
    assert!(report.out.contains("300 due, 300 answered"), "{report:?}");
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("<!doctype html>") && page.contains("constant 100/s for 3s"));
    assert!(fs::read_to_string(&hgrm).unwrap().contains("1/(1-Percentile)"));
    let json = load(&["report", &a, "--json"]).well();
    assert_eq!(Results::from_json(json.out.as_bytes()).unwrap(), fast, "as it came");

    let slower = load(&["compare", &a, &b, "--fail-on-regression"]);
    assert_eq!(slower.code, Some(1), "{slower:?}");
    assert!(slower.out.contains("WORSE") && slower.err.is_empty(), "{slower:?}");
    let faster = load(&["compare", &b, &a, "--fail-on-regression"]).well();
    assert!(faster.out.contains("BETTER"), "{faster:?}");
    let same = load(&["compare", &a, &a, "--fail-on-regression"]).well();
    assert!(same.out.contains("noise") && !same.out.contains("WORSE"), "{same:?}");

    let closed = Results {
        closed_loop: true,
        ..slow
    };
    fs::write(&b, closed.to_json().unwrap()).unwrap();
    let refused = load(&["compare", &a, &b]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("one run was an open loop"), "{refused:?}");
}

#[test]
fn what_cannot_be_read_or_written_is_said_and_nothing_is_written() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (text, out) = (path("notes.json"), path("out.pdf"));
    fs::write(&text, "{}").unwrap();
    for (words, expected) in [
        (vec!["report", "/nowhere.json"], "cannot read /nowhere.json"),
        (vec!["report", &text], "missing field `format`"),
        (
            vec!["report", &text, "-o", &out],
            "must end in .html, .json, .hgrm or .csv",
        ),
        (
            vec!["report", &text, "-o", "/nowhere/a.html"],
            "/nowhere is no directory",
        ),
        (vec!["compare", &text, &text], "notes.json"),
    ] {
        let said = load(&words);
        assert_eq!(said.code, Some(1), "{words:?}");
        assert!(said.err.contains(expected), "{words:?}: {said:?}");
    }
    assert!(!fs::exists(&out).unwrap());
}

#[test]
fn every_cold_start_waits_for_zero_and_is_told_with_its_phases() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &service("web").proven().yaml())]);
    let url = format!("http://web.default.localhost:{}/", knarr.gateway.port());
    let (admin, place) = (knarr.admin.to_string(), Place::new());
    let page = place.path("starts.html").to_str().unwrap().to_owned();
    let said = load(&["coldstart", &url, "-n", "2", "--status", &admin, "--json", "-o", &page]);
    let said: serde_json::Value = serde_json::from_str(&said.well().out).unwrap();
    assert_eq!(
        (&said["cold"], &said["first_byte"]["count"]),
        (&2.into(), &2.into()),
        "{said}"
    );
    assert_eq!(said["tries"][1]["temperature"], "cold");
    let phases: Vec<_> = said["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["phase"])
        .collect();
    assert_eq!(phases, ["route", "queue", "start", "connect", "app"]);

    // Nobody to ask when it is at zero.
    let unknown = load(&["coldstart", &url, "--status", "127.0.0.1:1"]);
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.err.contains("give --status, --knative or --idle"),
        "{unknown:?}"
    );
    let never = load(&["coldstart", "http://127.0.0.1:1/", "-n", "1", "--idle", "10ms"]);
    assert_eq!(never.code, Some(1));
}

#[test]
fn a_trace_is_replayed_at_its_services_and_its_manifests_are_right() {
    let files = [
        ("a.yaml", service("shop").proven().yaml()),
        ("b.yaml", service("cart").proven().yaml()),
    ];
    let knarr = Knarr::serve(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (trace, html) = (path("calls.csv"), path("replay.html"));
    let calls: String = (0..40)
        .map(|nth| {
            format!(
                "{},{}\n",
                f64::from(nth) * 0.2,
                ["Shop", "cart"][usize::from(nth % 4 == 3)]
            )
        })
        .collect();
    fs::write(&trace, format!("timestamp,service\n{calls}")).unwrap();
    let url = format!("http://{{function}}.default.localhost:{}", knarr.gateway.port());
    let admin = knarr.admin.to_string();
    let words = [
        "replay", &trace, "--url", &url, "--speed", "30", "--status", &admin, "--json", "-o", &html,
    ];
    let said = load(&words).well();
    let results = Results::from_json(said.out.as_bytes()).unwrap();
    let due = |target: &str| {
        let index = results.targets.iter().position(|it| it.name == target).unwrap();
        results.count(|series| series.target == index && series.ended == Ended::Status(200))
    };
    assert_eq!((due("shop"), due("cart")), (30, 10), "{said:?}");
    assert!(results.asked.contains("40 calls of 2 functions"), "{}", results.asked);

    // Real ones: what would be sent, and Services that a Knarr accepts.
    let azure = concat!(env!("CARGO_MANIFEST_DIR"), "/loadtest/traces/azure2019-236");
    let some = [
        "replay", azure, "--top", "5", "--from", "480", "--to", "490", "--speed", "60",
    ];
    let told = load(&[&some[..], &["--dry-run"]].concat()).well();
    assert!(
        told.out
            .contains("5 functions in minutes 480 to 490, at 60 times their speed: 10.0 s"),
        "{told:?}"
    );
    let manifests = load(&[&some[..], &["--manifests"]].concat()).well();
    let file = path("services.yaml");
    fs::write(&file, &manifests.out).unwrap();
    assert_eq!(manifests.out.matches("kind: Service").count(), 5);
    Output::of(place.knarr(&["check", &file])).well();

    let lost = load(&["replay", azure, "--from", "100", "--to", "200", "--dry-run"]);
    assert_eq!(lost.code, Some(1));
    assert!(lost.err.contains("which has 480 to 960"), "{lost:?}");
}
