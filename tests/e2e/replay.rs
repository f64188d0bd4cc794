//! The flight recorder and `knarr replay`: a whole Knarr under load, killed in the middle, decides again bit for bit.

use std::time::Duration;

use loadtest::{Arrivals, Plan};
use manifests::units::Rps;
use serde_json::Value;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Knarr, Place, processes, until};

fn replayed(knarr: &Knarr) -> Value {
    let said = knarr.ask(&["replay", "-o", "json"]).well();
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn a_knarr_that_was_killed_under_load_decides_again_bit_for_bit() {
    let place = Place::new();
    let one = service("one").concurrency(1).with("max-scale", "3");
    let frozen = service("cold")
        .with("knarr.dev/idle", "frozen")
        .with("knarr.dev/freeze-delay", "1s");
    for (name, text) in [
        SHORT_WINDOWS,
        ("one.yaml", &one.yaml()),
        ("cold.yaml", &frozen.yaml()),
        ("auto.yaml", &service("auto").with("knarr.dev/idle", "auto").yaml()),
    ] {
        place.write(name, text);
    }
    let mut steps = 0;
    for killed in [true, false] {
        let knarr = Knarr::at(&place, &[]);
        let target = knarr.target("one", "/sleep?ms=30");
        let load = knarr.load(Plan::new(target, Arrivals::Constant(Rps(60.0)), Duration::from_secs(4)));
        for _ in 0..2 {
            for name in ["cold", "auto"] {
                assert_eq!(knarr.get(name, "/").status, 200);
            }
            knarr.until_revision("cold-00001", "is frozen", |it| it.rung == "frozen");
        }
        if let Some(pid) = processes::apps(knarr.pid(), "one-00001").first() {
            processes::kill(*pid);
        }
        if !killed {
            assert!(load.report().count(200) > 200);
            // While it runs, and again when it has ended.
            let now = replayed(&knarr);
            assert!(now["events"].as_u64().unwrap() > steps, "{now}");
            knarr.stop();
            break;
        }
        until(
            "the recording is on its way to the disk",
            || replayed(&knarr)["decisions"].as_u64().unwrap() > 20,
            || knarr.errors(),
        );
        processes::kill(knarr.pid());
        knarr.ended();
        drop(load.report());
        let said = crate::support::Output::of(place.knarr(&["replay"])).well();
        assert!(
            said.out.contains("1 start of Knarr") && said.out.contains("all equal"),
            "{said:?}"
        );
        let first = crate::support::Output::of(place.knarr(&["replay", "-o", "json"])).well();
        let first: Value = serde_json::from_str(&first.out).unwrap();
        steps = first["events"].as_u64().unwrap();
    }
    let both = crate::support::Output::of(place.knarr(&["replay", "-o", "json"])).well();
    let both: Value = serde_json::from_str(&both.out).unwrap();
    assert_eq!(
        (&both["equal"], &both["starts"], &both["missing"]),
        (&true.into(), &2.into(), &0.into()),
        "{both}"
    );
    let words = [
        "replay",
        "-o",
        "json",
        "--policy",
        "always-on",
        "--policy",
        "knative",
        "--catalogue",
        "eci",
    ];
    let compared = crate::support::Output::of(place.knarr(&words)).well();
    let compared: Value = serde_json::from_str(&compared.out).unwrap();
    let of = |policy: &str| {
        let mut rows = compared["policies"].as_array().unwrap().iter();
        rows.find(|row| row["policy"] == policy)
            .unwrap_or_else(|| panic!("no {policy}: {compared}"))
    };
    for policy in ["really", "as recorded", "always-on", "knative"] {
        assert_eq!(of(policy)["requests"], of("really")["requests"], "{compared}");
        assert!(
            of(policy)["starts"].as_u64().unwrap() >= 3 && of(policy)["cost"].as_f64().is_none_or(|cost| cost > 0.0),
            "{compared}"
        );
    }
    assert!(of("really")["requests"].as_u64().unwrap() > 300, "{compared}");
    for (words, wanted) in [
        (
            ["replay", "--policy", "best"],
            "\"best\" is no policy; there are knative, auto",
        ),
        (["replay", "--catalogue", "/none"], "/none: No such file"),
    ] {
        let said = crate::support::Output::of(place.knarr(&words));
        assert!(said.code != Some(0) && said.err.contains(wanted), "{said:?}");
    }
    assert!(
        both["events"].as_u64().unwrap() > steps && both["decisions"].as_u64().unwrap() > 30,
        "{both}"
    );
}

#[test]
fn what_is_no_recording_is_said_to_be_none() {
    let place = Place::new();
    let foreign = place.path("foreign.flight");
    std::fs::write(&foreign, "PK\u{3}\u{4} something else altogether").unwrap();
    let nothing = place.path("manifests");
    for (path, wanted) in [
        (foreign.to_str().unwrap(), "foreign.flight: not a recording of Knarr's"),
        (nothing.to_str().unwrap(), "no recording; give a *.flight file"),
        ("/does/not/exist", "/does/not/exist: No such file"),
    ] {
        let said = crate::support::Output::of(place.knarr(&["replay", path]));
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(wanted) && said.out.is_empty(), "{said:?}");
    }
}

#[test]
fn the_recorder_can_be_turned_off() {
    let place = Place::new();
    for (name, text) in [SHORT_WINDOWS, ("app.yaml", &service("app").yaml())] {
        place.write(name, text);
    }
    let knarr = Knarr::at(&place, &["--flight-recorder", "off"]);
    assert_eq!(knarr.get("app", "/").status, 200);
    knarr.stop();
    assert!(!place.data().join("flight").exists());
    let wrong = crate::support::Output::of(place.knarr(&["serve", "--flight-recorder", "much", "x.yaml"]));
    assert!(
        wrong.code != Some(0) && wrong.err.contains("flight-recorder: \"much\""),
        "{wrong:?}"
    );
}
