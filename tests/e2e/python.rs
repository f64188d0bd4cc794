//! A single-threaded server with keep-alive, as Python's own, behind two gateway threads: an idle connection of one thread
//! would make every request of the other wait for good.

use loadtest::{Arrivals, Plan};
use manifests::units::Rps;
use std::time::Duration;

use crate::support::manifest::{SHORT_WINDOWS, Service, service};
use crate::support::{Knarr, Place, has_python};

#[test]
fn with_a_limit_of_one_its_connections_belong_to_slots() {
    serves_without_a_hang(service("python").concurrency(1).with("max-scale", "2"));
}

#[test]
fn without_a_limit_its_connections_are_not_kept() {
    serves_without_a_hang(
        service("python")
            .concurrency(0)
            .with("max-scale", "2")
            .with("knarr.dev/upstream-keepalive", "disabled"),
    );
}

fn serves_without_a_hang(app: Service) {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let program = place.program("one_connection.py", include_str!("one_connection.py"));
    let app = app.program(&format!("host:{}", program.display()), &[]);
    place.write("python.yaml", &app.yaml());
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    let knarr = Knarr::at(&place, &["--threads", "2"]);

    // Many connections: both threads have some. A hang is a timeout of the load's, and a failure.
    let report = knarr.burst("python", "/", 100).report();
    assert_eq!(report.count(200), 100, "{report}");
    let arrivals = Arrivals::Poisson(Rps(100.0));
    let report = knarr
        .load(Plan::new(knarr.target("python", "/"), arrivals, Duration::from_secs(3)))
        .report();
    assert_eq!(report.count(200), report.due, "{report}");
    // One after the other, each on a connection of its own, so that the threads take turns at an idle app.
    for _ in 0..40 {
        let reply = knarr.get("python", "/");
        assert_eq!((reply.status, reply.text().as_str()), (200, "one at a time\n"));
    }
}
