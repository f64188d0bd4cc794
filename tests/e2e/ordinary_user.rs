//! Knarr without root: namespaces of a user's own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{ANY_PORTS, KNARR, Knarr, Output, Place, is_root, needs, processes, until};

const NOBODY: u32 = 65_534;

/// An ordinary user with a range of subordinate ids, in a mount namespace with an /etc/subuid of its own.
#[test]
fn serves_as_an_ordinary_user_with_subordinate_ids() {
    const FIRST: u32 = 710_000_000;
    let there = [
        "/bin/busybox",
        "/usr/bin/newuidmap",
        "/usr/bin/setpriv",
        "/etc/subuid",
        "/etc/subgid",
    ];
    let missing: Vec<_> = there.iter().filter(|path| !Path::new(path).exists()).collect();
    if !is_root() || !needs("busybox-static and uidmap", missing.is_empty()) {
        return;
    }
    let place = Place::new();
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    place.write("web.yaml", &service("web").proven().yaml());
    let program = place.path("bin");
    fs::create_dir(&program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.join("knarr");
    fs::copy(KNARR, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(place.data()).unwrap();
    chown(place.data(), Some(NOBODY), Some(NOBODY)).unwrap();
    let image = place.path("image");
    fs::create_dir_all(image.join("bin")).unwrap();
    fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    let script =
        "mkdir -p /d/a/b && echo x > /d/a/b/c && id -u > /d/a/index.html; exec busybox httpd -f -p 8080 -h /d/a";
    let script = script
        .replace("mkdir", "busybox mkdir")
        .replace("id -u", "busybox id -u");
    let owned = format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: owned}}\nspec: {{template: {{spec: {{volumes: \
         [{{name: d, emptyDir: {{}}}}], containers: [{{image: 'dir:{}', command: [/bin/busybox, sh, -c, '{script}'], \
         securityContext: {{runAsUser: 1000}}, volumeMounts: [{{name: d, mountPath: /d}}]}}]}}}}}}\n",
        image.display()
    );
    place.write("owned.yaml", &owned);
    let given = place.path("subordinate");
    fs::write(&given, format!("nobody:{FIRST}:65536\n")).unwrap();
    let script = "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec setpriv --reuid 65534 --regid \
                  65534 --clear-groups env -i \"$@\"";
    let with_ids = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command
            .arg(&given)
            .arg(&program)
            .args(words)
            .arg("--data-dir")
            .arg(place.data());
        command.args(ANY_PORTS).current_dir("/");
        command
    };
    let said = Output::of(with_ids(&["doctor", "--json"])).well();
    let found: Vec<serde_json::Value> = serde_json::from_str(&said.out).unwrap();
    let users = found.iter().find(|it| it["name"] == "users").unwrap();
    let text = users["found"].as_str().unwrap();
    assert!(text.contains("subordinate ids"), "{users}");

    let manifests = place.manifests();
    let knarr = Knarr::spawn(&place, with_ids(&["serve", manifests.to_str().unwrap()]));
    knarr.until_ready();
    assert_eq!(knarr.get("web", "/").status, 200);
    assert!(knarr.status().warnings.iter().any(|warning| warning.contains(text)));
    let apps = processes::apps(knarr.pid(), "web-00001");
    assert!(!apps.is_empty());
    for pid in apps {
        let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}")).unwrap());
        assert!((FIRST..FIRST + 65_536).contains(&uid), "{uid}");
    }
    // A user of an image, and what it leaves in a volume: files that are not this user's, and that go all the same.
    let answer = knarr.get("owned", "/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "1000\n"));
    let volumes = place.data().join("sandboxes/sandboxes");
    assert_eq!(fs::read_dir(&volumes).unwrap().count(), 1);
    knarr.until_zero("owned-00001");
    let left = || fs::read_dir(&volumes).unwrap().count();
    until("its volumes are gone", || left() == 0, || left().to_string());
    knarr.stop();
}

/// As root it takes the place of an ordinary user; as one it is itself.
#[test]
fn serves_as_an_ordinary_user() {
    let place = Place::new();
    let text = service("web").concurrency(1).with("max-scale", "4").yaml();
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    place.write("web.yaml", &text);
    let manifests = place.manifests();
    let words = [&["serve", manifests.to_str().unwrap()][..], &ANY_PORTS].concat();
    let mut command = if rustix::process::geteuid().is_root() {
        // Not below the build directory, which may be root's alone.
        let program = place.path("bin");
        fs::create_dir(&program).unwrap();
        let program = program.join("knarr");
        fs::copy(KNARR, &program).unwrap();
        for path in [Path::new(&program), program.parent().unwrap()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(place.data()).unwrap();
        chown(place.data(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = Command::new(program);
        command.args(&words).arg("--data-dir").arg(place.data());
        command.env_clear().current_dir("/").gid(NOBODY).uid(NOBODY);
        command
    } else {
        place.knarr(&words)
    };
    command.env_remove("RUST_LOG");
    let knarr = Knarr::spawn(&place, command);
    knarr.until_ready();

    let report = knarr.burst("web", "/overlap?ms=50", 40).report();
    assert_eq!(report.count(200), 40, "{report}");
    assert!(knarr.revision("web-00001").actual_replicas > 1);
    for pid in processes::apps(knarr.pid(), "web-00001") {
        processes::kill(pid);
    }
    knarr.until("another one serves", |_| knarr.get("web", "/").status == 200);
    let status = fs::metadata(place.data().join("knarr.sock")).unwrap();
    assert_eq!(status.permissions().mode() & 0o777, 0o600);
    assert_eq!(
        knarr.ask(&["get", "services"]).code,
        Some(0),
        "root may ask, and the user itself"
    );
    knarr.until_zero("web-00001");
    assert_eq!(knarr.get("web", "/").status, 200);

    let family = processes::descendants(knarr.pid());
    assert!(!family.is_empty());
    knarr.stop();
    let living = || family.iter().filter(|pid| processes::is_alive(**pid)).count();
    until(
        "none of its processes is left",
        || living() == 0,
        || format!("{family:?}"),
    );
}
