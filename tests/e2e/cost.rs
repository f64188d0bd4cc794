//! `knarr cost`, and what a restart does not forget: the day's costs, and what revisions have taught.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Knarr, Place};

fn cost(knarr: &Knarr) -> Value {
    serde_json::from_str(&knarr.ask(&["cost", "-o", "json"]).well().out).unwrap()
}

fn of<'a>(report: &'a Value, revision: &str) -> &'a Value {
    let revisions = report["revisions"].as_array().unwrap();
    let found = revisions.iter().find(|it| it["revision"] == revision);
    found.unwrap_or_else(|| panic!("no {revision}: {report}"))
}

#[test]
fn costs_of_the_day_and_what_was_learned_survive_a_restart() {
    let place = Place::new();
    let kept = service("kept").with("min-scale", "1").with("initial-scale", "1");
    for (name, text) in [
        SHORT_WINDOWS,
        ("kept.yaml", &kept.yaml()),
        ("web.yaml", &service("web").yaml()),
    ] {
        place.write(name, text);
    }
    let knarr = Knarr::at(&place, &[]);
    assert_eq!(knarr.get("web", "/").status, 200);
    knarr.until_zero("web-00001");
    // What drains or stops is paid for until it is gone.
    knarr.until_revision("web-00001", "costs nothing", |it| it.price_per_hour == 0.0);
    knarr.until("min-scale has cost something", |status| {
        let kept = status.revisions.iter().find(|it| it.name == "kept-00001");
        kept.and_then(|it| it.cost).is_some_and(|cost| cost.min_scale > 0.0)
    });
    let report = cost(&knarr);
    let (web, kept) = (of(&report, "web-00001"), of(&report, "kept-00001"));
    let money = |it: &Value, what: &str| it["today"][what].as_f64().unwrap();
    assert!(
        money(web, "actual") > 0.0 && money(web, "alwaysOn") > money(web, "actual"),
        "{report}"
    );
    assert_eq!(
        (&web["rung"], &web["pricePerHour"], &web["minScale"]),
        (&"zero".into(), &0.0.into(), &Value::Null)
    );
    assert_eq!(kept["minScale"]["replicas"], 1, "{report}");
    let table = knarr.ask(&["cost"]).well().out;
    for wanted in [
        "REVISION",
        "KNATIVE",
        "ALWAYS ON",
        "total",
        "min-scale keeps one replica while nobody asks",
        "knarr.dev/min-scale-as: ",
    ] {
        assert!(table.contains(wanted), "{wanted}: {table}");
    }
    let metrics = crate::support::Client::connect(knarr.admin)
        .get("localhost", "/metrics")
        .text();
    assert!(
        metrics.contains("knarr_cost_today{namespace=\"default\",revision=\"kept-00001\"}"),
        "{metrics}"
    );
    let before = report["total"]["actual"].as_f64().unwrap();
    knarr.stop();

    let learned = std::fs::read_to_string(place.data().join("learned.jsonl")).unwrap();
    assert!(learned.contains("web-00001") && learned.contains("starts"), "{learned}");
    let again = Knarr::at(&place, &[]);
    let total = cost(&again)["total"]["actual"].as_f64().unwrap();
    assert!(total >= before, "{total} after {before}");
    again.signal(Signal::KILL);
    again.ended();

    // What is broken is left behind with a word.
    std::fs::write(place.data().join("learned.jsonl"), "what?\n").unwrap();
    std::fs::write(place.data().join("costs.json"), "{").unwrap();
    let anew = Knarr::at(&place, &[]);
    assert!(cost(&anew)["total"]["actual"].as_f64().unwrap() < before.max(0.1));
    anew.until_said("what was learned cannot be read; it is learned anew");
    anew.until_said("today's begin anew");
    anew.stop();
}

#[test]
fn a_plan_says_where_it_stands_and_what_else_was_looked_at() {
    let auto = service("auto")
        .with("knarr.dev/idle", "auto")
        .with("knarr.dev/cold-start-sla", "p99<30s");
    let knarr = Knarr::serve(&[
        SHORT_WINDOWS,
        ("auto.yaml", &auto.yaml()),
        ("plain.yaml", &service("plain").yaml()),
    ]);
    for name in ["auto", "plain"] {
        assert_eq!(knarr.get(name, "/").status, 200);
    }
    let planned = || knarr.ask(&["plan", "auto"]).well().out;
    crate::support::until("a plan is made", || planned().contains("plan of "), planned);
    let text = planned();
    for wanted in [
        "default/auto-00001, knarr.dev/idle: auto, p99<30s",
        "now  ",
        "demand  ",
        "today  ",
        "IDLE FOR",
        "RUNG",
        "VERDICT",
        "zero",
        "full",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let json: Value = serde_json::from_str(&knarr.ask(&["plan", "auto-00001", "-o", "json"]).well().out).unwrap();
    let candidates = json["plan"]["candidates"].as_array().unwrap();
    assert!(
        candidates.len() >= 3 && json["today"]["actual"].as_f64().unwrap() > 0.0,
        "{json}"
    );
    let plain = knarr.ask(&["plan", "plain"]).well().out;
    assert!(
        plain.contains("knarr.dev/idle: knative") && plain.contains("Nothing is planned"),
        "{plain}"
    );
    let wrong = knarr.ask(&["plan", "nobody"]);
    assert!(
        wrong.code == Some(1) && wrong.err.contains("no revision or service default/nobody"),
        "{wrong:?}"
    );
}
