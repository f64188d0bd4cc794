//! `knarr doctor`: what it says of this host, of one where less works, and that Knarr then does as it said.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::support::manifest::service;
use crate::support::{ANY_PORTS, KNARR, Knarr, Output, Place, is_root, needs};

const NOBODY: &str = "65534";

fn doctor(mut command: Command) -> (Vec<Value>, Option<i32>) {
    command
        .args(["doctor", "--json", "--data-dir", "/tmp/knarr-doctor-nowhere"])
        .args(ANY_PORTS);
    let said = Output::of(command);
    let found = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    (found, said.code)
}

fn find<'a>(found: &'a [Value], name: &str) -> &'a Value {
    found
        .iter()
        .find(|it| it["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {found:?}"))
}

/// A program and a directory that any user can use.
fn public(place: &Arc<Place>) -> PathBuf {
    let program = place.path("bin");
    fs::create_dir(&program).unwrap();
    let copy = program.join("knarr");
    fs::copy(KNARR, &copy).unwrap();
    for path in [&copy, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir(place.data()).unwrap();
    chown(place.data(), Some(65_534), Some(65_534)).unwrap();
    copy
}

fn complete(found: &[Value]) {
    for it in found {
        let said = |field: &str| it[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(
            said("found") && (it["state"] == "ok" || (said("costs") && said("fix"))),
            "{it}"
        );
    }
}

/// Every warning of the server's is one of the doctor's, and nothing else is wrong with its sandboxes.
fn agrees(found: &[Value], warnings: &[String]) {
    for warning in warnings {
        let told = |it: &&Value| it["state"] != "ok" && warning.contains(it["found"].as_str().unwrap());
        assert!(found.iter().any(|it| told(&it)), "{warning:?} is not in {found:?}");
    }
    for limit in ["CPU limits", "memory limits", "process limits", "egress"] {
        let works = find(found, limit)["state"] == "ok";
        let warned = warnings.iter().any(|warning| warning.starts_with(limit));
        assert_eq!(works, !warned, "{limit}: {warnings:?}");
    }
}

#[test]
fn root_is_told_what_the_driver_then_does() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mut command = Command::new(KNARR);
    command.env_remove("RUST_LOG");
    let (found, code) = doctor(command);
    assert_eq!(code, Some(0), "{found:?}");
    complete(&found);
    for name in [
        "isolation",
        "a sandbox",
        "lockdown",
        "commands",
        "freezing",
        "kernel",
        "pidfd",
    ] {
        assert_eq!(find(&found, name)["state"], "ok", "{name}");
    }
    place.write("web.yaml", &service("web").proven().yaml());
    let knarr = Knarr::at(&place, &[]);
    agrees(&found, &knarr.status().warnings);
    // For people; a port that is taken; and a running Knarr is not disturbed.
    let port = knarr.gateway.to_string();
    let text = knarr
        .ask(&["doctor", "--listen", &port, "--admin", "127.0.0.1:0"])
        .well()
        .out;
    assert!(
        text.starts_with("WHAT ") && text.contains("\nport (degraded)\n  costs: "),
        "{text}"
    );
    assert_eq!(knarr.get("web", "/").status, 200);
}

#[test]
fn an_ordinary_user_is_told_what_is_lost() {
    let has = Command::new("setpriv").arg("--version").output().is_ok();
    if !is_root() || !needs("setpriv", has) {
        return;
    }
    let place = Place::new();
    let program = public(&place);
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "env", "-i"]);
        command.arg(&program).current_dir("/");
        command
    };
    let mut command = as_nobody();
    command
        .arg("doctor")
        .args(["--json", "--data-dir"])
        .arg(place.data())
        .args(ANY_PORTS);
    let said = Output::of(command).well();
    let found: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    complete(&found);
    let isolation = find(&found, "isolation");
    assert_eq!(isolation["state"], "degraded");
    assert!(
        isolation["found"].as_str().unwrap().contains("user namespace"),
        "{isolation}"
    );
    assert_eq!(find(&found, "users")["state"], "degraded");
    assert_eq!(find(&found, "a sandbox")["state"], "ok");
    assert_eq!(find(&found, "lockdown")["state"], "ok");

    place.write("web.yaml", &service("web").proven().yaml());
    let manifests = place.manifests();
    let mut command = as_nobody();
    command
        .args(["serve", manifests.to_str().unwrap(), "--data-dir"])
        .arg(place.data())
        .args(ANY_PORTS);
    let knarr = Knarr::spawn(&place, command);
    knarr.until_ready();
    agrees(&found, &knarr.status().warnings);
}

/// In a cgroup that was handed over to the user, as a delegated unit's is: without controllers on a hybrid host, but the
/// freezer needs none.
#[test]
fn a_delegated_cgroup_is_used() {
    let point = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|point| fs::exists(format!("{point}/cgroup.controllers")).unwrap());
    if !is_root() || !needs("a unified cgroup tree", point.is_some()) {
        return;
    }
    let place = Place::new();
    let program = public(&place);
    let group = format!("{}/knarr-test-delegated-{}", point.unwrap(), std::process::id());
    fs::create_dir(&group).unwrap();
    for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
        chown(format!("{group}{file}"), Some(65_534), Some(65_534)).unwrap();
    }
    let script = format!(
        "echo $$ > {group}/cgroup.procs && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups env -i \"$@\""
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).arg(&program).current_dir("/");
    let (found, code) = doctor(command);
    for child in fs::read_dir(&group).unwrap().flatten().filter(|it| it.path().is_dir()) {
        fs::remove_dir(child.path()).unwrap();
    }
    fs::remove_dir(&group).unwrap();
    assert_eq!(code, Some(0), "{found:?}");
    let freezing = find(&found, "freezing");
    assert_eq!(
        (&freezing["state"], &freezing["found"]),
        (&"ok".into(), &"cgroup v2".into())
    );
}

/// Where the kernel gives no mount namespaces, nobody can be shut in, root or not.
#[test]
fn a_hopeless_host_is_called_so() {
    let script = "echo 0 > /proc/sys/user/max_mnt_namespaces && exec \"$@\"";
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
        command
    };
    let mut check = unshare();
    let works = check.arg("true").output().is_ok_and(|said| said.status.success());
    if !needs("unshare and user namespaces", works) {
        return;
    }
    let mut command = unshare();
    command.arg(KNARR);
    let (found, code) = doctor(command);
    assert_eq!(code, Some(1), "{found:?}");
    complete(&found);
    let isolation = find(&found, "isolation");
    assert_eq!(isolation["state"], "missing");
    assert!(
        isolation["found"]
            .as_str()
            .unwrap()
            .contains("cannot clone into new namespaces"),
        "{isolation}"
    );
    assert_eq!(find(&found, "namespaces")["state"], "missing");
}

#[test]
fn the_units_are_right() {
    let has = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !needs("systemd-analyze", has) {
        return;
    }
    let root = env!("CARGO_MANIFEST_DIR");
    for (unit, mode) in [
        ("packaging/knarr.service", "--system"),
        ("packaging/user/knarr.service", "--user"),
    ] {
        // The program is not installed here; one that is, in its place.
        let text = fs::read_to_string(format!("{root}/{unit}"))
            .unwrap()
            .replace("/usr/local/bin/knarr", "/bin/true");
        let place = Place::new();
        let copy = place.path("knarr.service");
        fs::write(&copy, &text).unwrap();
        let said = Output::of({
            let mut command = Command::new("systemd-analyze");
            command
                .args([mode, "--man=no", "verify"])
                .arg(&copy)
                .env("XDG_RUNTIME_DIR", place.path(""));
            command
        });
        // An older systemd does not know the newest key.
        let wrong: Vec<&str> = said
            .err
            .lines()
            .filter(|line| line.contains("knarr.service") && !line.contains("DelegateSubgroup"))
            .collect();
        assert!(wrong.is_empty(), "{unit}: {wrong:?}");
        assert!(text.contains("Delegate=cpu memory pids\n"), "{unit}");
    }
}
