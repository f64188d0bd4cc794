//! What a `host:` program can reach when Knarr serves it. The sandbox crate tests the rest: system calls, devices, limits.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{ANY_PORTS, Knarr, Place, has_python, is_root};

#[test]
fn neither_the_host_nor_knarr_nor_its_neighbours() {
    if !(is_root() && has_python()) {
        return;
    }
    let place = Place::new();
    let program = place.program("probe.py", include_str!("probe.py"));
    let probe = service("probe").program(&format!("host:{}", program.display()), &[]);
    let neighbour = service("neighbour").proven().port(9001);
    for (name, text) in [
        SHORT_WINDOWS,
        ("probe.yaml", &probe.yaml()),
        ("neighbour.yaml", &neighbour.yaml()),
    ] {
        place.write(name, text);
    }
    let manifests = place.manifests();
    let mut command = place.knarr(&[&["serve", manifests.to_str().unwrap()][..], &ANY_PORTS].concat());
    command.env("KNARRS_OWN_SECRET", "password");
    let knarr = Knarr::spawn(&place, command);
    knarr.until_ready();
    let tried = |what: &str| knarr.get("probe", what).json();
    let refused = |what: &str, why: &[&str]| {
        let answer = tried(what);
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{what}: {answer}"));
        assert!(why.contains(&error), "{what}: {error}");
    };
    let gone = ["No such file or directory", "Permission denied"];

    // The probe itself works: it sees what it may.
    assert_eq!(tried("/connect?8080")["ok"], "connected");
    assert!(tried("/read?/usr/bin/python3")["ok"].is_string());
    assert_eq!(tried("/write?/tmp/mine")["ok"], 1);

    // Files of the host, with something in each place.
    std::fs::write(place.path("secret"), "x").unwrap();
    let docker = UnixListener::bind("/var/run/docker.sock");
    for path in [
        "/etc/shadow",
        "/etc/passwd-",
        "/root/.bashrc",
        "/home",
        "/var/run/docker.sock",
        "/run",
        "/var",
        "/proc/1/root/etc/shadow",
    ] {
        refused(&format!("/read?{path}"), &[&gone[..], &["Is a directory"]].concat());
    }
    refused("/unix?/var/run/docker.sock", &gone);
    if docker.is_ok() {
        std::fs::remove_file("/var/run/docker.sock").unwrap();
    }
    for path in [
        "secret",
        "data",
        "data/knarr.sock",
        "data/sandboxes",
        "manifests/probe.yaml",
    ] {
        let path = place.path(path);
        refused(&format!("/read?{}", path.display()), &gone);
    }
    refused(&format!("/unix?{}", place.data().join("knarr.sock").display()), &gone);
    refused(
        &format!("/write?{}", program.display()),
        &["Read-only file system", "Permission denied"],
    );
    refused("/write?/usr/bin/mine", &["Read-only file system", "Permission denied"]);

    // Sockets: Knarr's, another program's, a neighbour's that listens on its own loopback.
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(knarr.get("neighbour", "/").status, 200);
    for port in [knarr.gateway.port(), knarr.admin.port(), other, 9001] {
        refused(&format!("/connect?{port}"), &["Connection refused"]);
    }

    // Processes and environment: its own.
    let processes = tried("/processes");
    assert!(
        processes["ok"].as_array().is_some_and(|pids| pids.len() <= 2),
        "{processes}"
    );
    let environment = tried("/env");
    let names: Vec<&String> = environment["ok"].as_object().unwrap().keys().collect();
    assert!(
        !names
            .iter()
            .any(|name| name.contains("SECRET") || name.contains("CARGO")),
        "{names:?}"
    );
    assert_eq!(environment["ok"]["K_SERVICE"], Value::from("probe"));
}
