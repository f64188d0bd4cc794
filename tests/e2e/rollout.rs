//! Manifests that change while requests come.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use loadtest::{Arrivals, Plan};
use manifests::units::Rps;

use crate::support::manifest::{SHORT_WINDOWS, Service, service};
use crate::support::{Knarr, host};

fn app() -> Service {
    service("app").proven()
}

#[test]
fn a_new_revision_gets_traffic_when_it_is_ready_and_no_request_fails() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("app.yaml", &app().env("TARGET", "old").yaml())]);
    let constant = Arrivals::Constant(Rps(100.0));
    let load = knarr.load(Plan::new(
        knarr.target("app", "/sleep?ms=20"),
        constant,
        Duration::from_secs(6),
    ));
    assert_eq!(knarr.get("app", "/").status, 200);

    let new = app().env("TARGET", "new").arg("--start-delay").arg("2s");
    knarr.place().write("app.yaml", &new.yaml());
    knarr.until("the new revision is there", |status| {
        status.services[0].latest_created == "app-00002"
    });
    let mut client = knarr.client();
    let (mut old, mut new) = (0, 0);
    while new < 50 {
        let reply = client.get(&host("app"), "/");
        assert_eq!(reply.status, 200, "{reply:?}");
        let ready = knarr.service("app").latest_ready;
        if reply.text().contains("Hello new! revision=app-00002") {
            assert_eq!(ready, "app-00002", "traffic came before it was ready");
            new += 1;
        } else {
            assert!(reply.text().contains("Hello old! revision=app-00001"), "{reply:?}");
            assert_eq!(new, 0, "traffic went back");
            old += 1;
        }
    }
    // It takes two seconds to start; meanwhile the old one was asked.
    assert!(old > 5, "{old}");
    let report = load.report();
    assert_eq!((report.count(200), report.failed()), (report.due, 0), "{report}");
    knarr.until_zero("app-00001");
}

#[test]
fn a_broken_revision_gets_no_traffic_and_the_service_says_why() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("app.yaml", &app().yaml())]);
    let constant = Arrivals::Constant(Rps(50.0));
    let load = knarr.load(Plan::new(knarr.target("app", "/"), constant, Duration::from_secs(4)));

    knarr
        .place()
        .write("app.yaml", &app().arg("--fail-start").arg("3").yaml());
    let status = knarr.until("the service is not ready", |status| {
        status.services[0].ready.status == "False"
    });
    let service = &status.services[0];
    assert_eq!(
        (service.latest_created.as_str(), service.latest_ready.as_str()),
        ("app-00002", "app-00001")
    );
    assert_eq!(service.ready.reason, "RevisionFailed", "{service:?}");
    assert!(service.ready.message.contains("app-00002"), "{service:?}");
    assert!(service.ready.message.contains('3'), "the exit code: {service:?}");
    let reply = knarr.get("app", "/");
    assert!(reply.text().contains("revision=app-00001"), "{reply:?}");
    knarr.until_said("default/app is not ready: RevisionFailed");
    let logs = knarr.ask(&["logs", "app-00002"]).well();
    assert!(logs.out.contains("told to fail at start"), "{logs:?}");

    knarr.place().write("app.yaml", &app().env("TARGET", "mended").yaml());
    knarr.until("it is mended", |status| status.services[0].latest_ready == "app-00003");
    knarr.until_ready();
    let report = load.report();
    assert_eq!((report.count(200), report.failed()), (report.due, 0), "{report}");
    assert!(knarr.get("app", "/").text().contains("Hello mended!"));
}

#[test]
fn files_that_break_come_and_go() {
    let knarr = Knarr::serve(&[
        ("app.yaml", &app().yaml()),
        ("other.yaml", &service("other").proven().yaml()),
    ]);
    let place = Arc::clone(knarr.place());
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (mut client, stop) = (knarr.client(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.get(&host("app"), "/").status, 200);
                asked += 1;
            }
            asked
        })
    };

    // Three ways of being wrong: not YAML, not valid, half written.
    for wrong in [
        "kind: [",
        &app().concurrency(2_000_000).yaml(),
        "apiVersion: serving.knative.dev/v1\nkind: Serv",
    ] {
        place.write("app.yaml", wrong);
        let said = |status: &control::status::Status| {
            status
                .warnings
                .iter()
                .any(|it| it.contains("app.yaml") && it.contains("last good state stays"))
        };
        let status = knarr.until("the status says what is wrong", said);
        assert!(
            status.warnings.len() >= 2,
            "the mistake itself, too: {:?}",
            status.warnings
        );
        assert!(knarr.errors().contains("last good state stays"), "{}", knarr.errors());
        assert_eq!(status.services.len(), 2);
        // A wrong file does not keep another one from changing.
        place.write(
            "other.yaml",
            &service("other").proven().env("TARGET", wrong.get(..4).unwrap()).yaml(),
        );
        let text = format!("Hello {}!", &wrong[..4]);
        knarr.until("the other one changes", |_| {
            knarr.get("other", "/").text().contains(&text)
        });
        place.write("app.yaml", &app().yaml());
        knarr.until("nothing is wrong any more", |status| status.warnings.is_empty());
    }
    assert_eq!(
        knarr.service("app").latest_created,
        "app-00001",
        "nothing has changed in the end"
    );

    place.write("new.yaml", &service("new").proven().yaml());
    knarr.until("a new file is served", |status| status.services.len() == 3);
    knarr.until_ready();
    assert_eq!(knarr.get("new", "/").status, 200);
    fs::remove_file(place.manifests().join("new.yaml")).unwrap();
    knarr.until("a removed file is served no more", |status| status.services.len() == 2);
    knarr.until("its host is unknown", |_| knarr.get("new", "/").status == 404);

    stop.store(true, Ordering::Relaxed);
    assert!(asking.join().unwrap() > 100);
}
